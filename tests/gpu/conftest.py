"""Fixtures for the tests on a GPU, which are skipped without one unless SEGPIPE_GPU_TESTS_ON_CPU=1 is set."""

import os
import sys
from pathlib import Path

import pytest

from components import tensorflow_start

# Lets GPU memory grow, because some tests train in other processes on the same GPU.
tensorflow_start.prepare()
# For `training_toy` and `run_fn_toy`.
sys.path.append(str(Path(__file__).parents[1] / "trainer"))


@pytest.fixture(scope="session", autouse=True)
def device() -> str:
    """The type of the device under test: GPU, or CPU if SEGPIPE_GPU_TESTS_ON_CPU is set."""
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return "GPU"
    if os.environ.get("SEGPIPE_GPU_TESTS_ON_CPU"):
        return "CPU"
    pytest.skip("TensorFlow finds no GPU that it can use; SEGPIPE_GPU_TESTS_ON_CPU=1 runs these tests on the processor")
