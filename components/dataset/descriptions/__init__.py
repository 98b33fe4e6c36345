"""Built-in data set descriptions, one YAML file each; a package, so that they are installed with segpipe."""
