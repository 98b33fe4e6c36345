"""The local model server: TensorFlow Serving's calls, flags and files, in this process."""
