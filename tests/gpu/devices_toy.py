"""Trains on the tiny data set with logical devices of one GPU or of the CPU, and prints the loss of each epoch.

    python devices_toy.py DIRECTORY DEVICES

A step takes the whole split, so its images are the same for any number of devices.
"""

import json
import math
import pathlib
import sys

import tensorflow as tf
import training_toy as toy

from components import tensorflow_start
from trainer.checkpoints import Checkpoints
from trainer.config import ModelSettings
from trainer.training import train

EXAMPLES = 8

# Batch normalisation uses the global batch; dropout would differ between one and two devices.
MODEL = ModelSettings(name="unet", base_filters=4, normalization=True, dropout=0.0)

# GPU memory of each logical device, in MB.
_MEMORY = 4096


def make_strategy(devices: int) -> tf.distribute.Strategy:
    """Returns a strategy over logical devices; call it before TensorFlow computes anything."""
    gpus = tf.config.list_physical_devices("GPU")
    kind, physical = ("GPU", gpus[0]) if gpus else ("CPU", tf.config.list_physical_devices("CPU")[0])
    logical = tf.config.LogicalDeviceConfiguration(memory_limit=_MEMORY if gpus else None)
    tf.config.set_logical_device_configuration(physical, [logical] * devices)
    if devices == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([f"{kind}:{index}" for index in range(devices)])


def main(directory: str, devices: int) -> None:
    """Writes the splits, trains and prints."""
    tensorflow_start.prepare()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    strategy, root = make_strategy(devices), pathlib.Path(directory)
    toy.write_splits(root, train_examples=EXAMPLES, eval_examples=EXAMPLES)
    # Training multiplies the learning rate by the square root of the number of devices.
    recipe = {"batch_size": EXAMPLES // devices, "learning_rate": 5e-3 / math.sqrt(devices), "augment": False}
    trained = train(
        toy.job(root, root / "logs", seed=3, model=MODEL, dice_weight=0.5, keep="last", **recipe),
        Checkpoints(str(root / "checkpoint")),
        strategy,
    )
    print(json.dumps([entry["loss"] for entry in trained.history]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
