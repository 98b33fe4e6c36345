"""Stress tests of the local server: version swaps, overload and malformed requests."""

import os

# Keeps TensorFlow's log out of the tables. Must be set before tensorflow-serving-api imports TensorFlow.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
