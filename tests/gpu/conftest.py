"""What the tests on a GPU share. Without a GPU they are skipped, unless SEGPIPE_GPU_TESTS_ON_CPU=1 is set."""

import os
import sys
from pathlib import Path

import pytest

from components import tensorflow_start

# Some tests train in processes of their own, which need some of the GPU's memory as well.
tensorflow_start.prepare()
# `training_toy` and `run_fn_toy`.
sys.path.append(str(Path(__file__).parents[1] / "trainer"))


@pytest.fixture(scope="session", autouse=True)
def device() -> str:
    """The kind of device that computes: GPU, or CPU if that is asked for."""
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return "GPU"
    if os.environ.get("SEGPIPE_GPU_TESTS_ON_CPU"):
        return "CPU"
    pytest.skip("TensorFlow finds no GPU that it can use; SEGPIPE_GPU_TESTS_ON_CPU=1 runs these tests on the processor")
