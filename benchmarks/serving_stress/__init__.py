"""What the local server does under swaps, overload and malformed requests."""

import os

# Before anything imports TensorFlow, which the stubs of tensorflow-serving-api do: tables without its log.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
