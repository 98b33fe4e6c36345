"""The pipeline on Kubeflow Pipelines and on Vertex AI: compiled, run task by task, submitted and scheduled."""
