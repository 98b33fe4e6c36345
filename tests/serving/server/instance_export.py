"""An exported instance model with known results: two boxes and a stripe in light images, nothing in dark ones."""

import functools

import keras
import numpy as np
import tensorflow_transform.beam as tft_beam
from tensorflow_transform.tf_metadata import dataset_metadata
from toy_servicer import picture

from components import features, preprocessing, schema
from components.class_map import ClassMap
from serving.export import export

SIZE = (24, 32)
CLASS_MAP = ClassMap(("ground", "box", "stripe"), ((90, 90, 90), (200, 40, 40), (40, 200, 40)))
THINGS = (1, 2)
# (y_min, x_min, y_max, x_max) in the network's input; the last row is that of no instance.
BOXES = np.array([[0, 0, 12, 16], [6, 16, 18, 32], [0, 8, 24, 12], [0, 0, 0, 0]], np.float32)
POSITIONS = np.array([0, 0, 1, -1], np.int32)
SCORES = np.array([0.9, 0.6, 0.3, 0], np.float32)


@keras.saving.register_keras_serializable("tests")
class _Known(keras.layers.Layer):
    """Outputs like `trainer.models.mask_rcnn.model.build`, with whole boxes as masks; no instances in dark images."""

    def call(self, images):
        light = keras.ops.cast(keras.ops.mean(images, axis=(1, 2, 3)) > 127, "float32")
        rows = {"boxes": BOXES, "scores": SCORES, "masks": np.ones((len(BOXES), 28, 28), np.float32)}
        found = {
            k: keras.ops.reshape(light, (-1, *[1] * v.ndim)) * keras.ops.convert_to_tensor(v) for k, v in rows.items()
        }
        positions = keras.ops.where(found["scores"] > 0, keras.ops.convert_to_tensor(POSITIONS), -1)
        return {**found, "classes": positions}


def export_instances(folder, temporary):
    """Writes the model as version 7 below a folder, with Transform's real graph; returns the folder."""
    raw = {
        **dict.fromkeys((features.IMAGE, features.MASK), picture(200)),
        **dict.fromkeys((features.NAME, features.SEQUENCE, features.SPLIT, features.CONTENT_HASH), b"x"),
        **dict.fromkeys((features.HEIGHT, features.WIDTH), 8),
        **{features.class_share(name): 0.0 for name in CLASS_MAP.names},
    }
    metadata = dataset_metadata.DatasetMetadata(schema.raw_schema(CLASS_MAP, 8192))
    function = functools.partial(
        preprocessing.preprocessing_fn, custom_config={"input_size": list(SIZE), "normalize_exposure": False}
    )
    transform = str(temporary / "transform")
    with tft_beam.Context(temp_dir=str(temporary / "beam")):
        _, transform_fn = ([raw], metadata) | tft_beam.AnalyzeAndTransformDataset(function)
        _ = transform_fn | tft_beam.WriteTransformFn(transform)
    inputs = keras.Input((*SIZE, 3))
    network = keras.Model(inputs, _Known()(inputs))
    export(network, transform, str(folder / "7"), CLASS_MAP, SIZE, {"model": "mask_rcnn"}, things=THINGS)
    return folder
