"""What the pipeline is made of: data sets, TFX components, metrics and the report."""
