"""Writes the work directory of a run that pushed a model, without running a pipeline."""

import io
import json
import os

import numpy as np
import pandas
import tensorflow as tf
import tensorflow_data_validation as tfdv
import yaml
from PIL import Image
from recorded_runs import Recorder

from components import features
from components.artifact_files import MODEL_METADATA
from components.class_map import ClassMap
from pipeline.storage.workdir import CONFIG_FILE, Workdir

CLASS_MAP = ClassMap(("dark", "bright"), ((0, 0, 0), (255, 255, 255)), None)
RUN_ID = "20260101-000000-fcn8"
SIDE = 16


def pictures(count, brightness, seed):
    """Returns encoded images of noise, whose mean brightness varies around a value."""
    random = np.random.default_rng(seed)
    images = []
    for level in random.normal(brightness, 0.05, count):
        pixels = np.clip(random.normal(level, 0.2, (SIDE, SIDE, 3)), 0, 1)
        images.append(_png((pixels * 255).astype(np.uint8)))
    return images


def mask_of(image):
    """Returns the true mask of a picture: class 1 where a pixel is bright."""
    return _png((np.asarray(Image.open(io.BytesIO(image)).convert("L")) > 127).astype(np.uint8))


def write_data_set(folder, images):
    """Writes pictures with their masks as a data set of one split."""
    for kind in ("images", "masks"):
        os.makedirs(os.path.join(folder, "train", kind))
    for number, image in enumerate(images):
        for kind, data in (("images", image), ("masks", mask_of(image))):
            with open(os.path.join(folder, "train", kind, f"{number:03}.png"), "wb") as file:
                file.write(data)
    description = {
        "classes": [{"name": "dark", "color": [0, 0, 0]}, {"name": "bright", "color": [255, 255, 255]}],
        "layout": {"images": "{split}/images/{name}", "masks": "{split}/masks/{name}.png"},
        "splits": {"train": "train"},
    }
    with open(os.path.join(folder, "segpipe.yaml"), "w") as file:
        yaml.safe_dump(description, file)
    return folder


def write_run(folder, images, publish=str):
    """Writes the work directory of a run that was trained on pictures, and returns its path.

    `publish` takes each artifact's folder and returns the address that the metadata has of it.
    """
    workdir = Workdir(os.path.join(folder, "work"))
    workdir.create()
    os.makedirs(workdir.run(RUN_ID))
    with open(os.path.join(workdir.run(RUN_ID), CONFIG_FILE), "w") as file:
        yaml.safe_dump({"data": {"dir": os.path.join(folder, "trained_on")}}, file)
    uris = {key: os.path.join(workdir.artifacts, key) for key in ("examples", "statistics")}
    _write_examples(os.path.join(uris["examples"], "Split-train"), images)
    _write_statistics(os.path.join(uris["statistics"], "Split-train"), images)
    version = os.path.join(workdir.root, "serving", "fcn8", "1")
    _write_model(version)
    recorder = Recorder(workdir.metadata)
    for node, kind, key, uri, properties in (
        ("ImageMaskExampleGen", "Examples", "examples", publish(uris["examples"]), {}),
        ("StatisticsGen", "ExampleStatistics", "statistics", publish(uris["statistics"]), {}),
        ("Pusher", "PushedModel", "pushed_model", "", {"pushed": 1, "pushed_destination": publish(version)}),
    ):
        recorder.node(RUN_ID, node, outputs={key: recorder.artifact(kind, uri, **properties)})
    return workdir.root


def _write_examples(folder, images):
    os.makedirs(folder)
    path = os.path.join(folder, "data_tfrecord-00000-of-00001.gz")
    with tf.io.TFRecordWriter(path, tf.io.TFRecordOptions(compression_type="GZIP")) as writer:
        for image in images:
            example = tf.train.Example()
            for name, value in ((features.IMAGE, image), (features.MASK, mask_of(image))):
                example.features.feature[name].bytes_list.value.append(value)
            for name in (features.NAME, features.SEQUENCE):
                example.features.feature[name].bytes_list.value.append(b"x")
            writer.write(example.SerializeToString())


def _write_statistics(folder, images):
    """Writes what StatisticsGen computes of the same features."""
    os.makedirs(folder)
    bright = [float(np.asarray(Image.open(io.BytesIO(mask_of(image)))).mean()) for image in images]
    columns = {
        features.HEIGHT: [SIDE] * len(images),
        features.WIDTH: [SIDE] * len(images),
        features.class_share("dark"): [1 - fraction for fraction in bright],
        features.class_share("bright"): bright,
    }
    statistics = tfdv.generate_statistics_from_dataframe(pandas.DataFrame(columns), n_jobs=1)
    with open(os.path.join(folder, "FeatureStats.pb"), "wb") as file:
        file.write(statistics.SerializeToString())


def _write_model(folder):
    tf.saved_model.save(_BrightPixels(), folder, signatures={"serving_default": _BrightPixels().serve})
    path = os.path.join(folder, MODEL_METADATA)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        json.dump({"model": "fcn8", "class_map": CLASS_MAP.to_dict(), "input_size": [SIDE, SIDE]}, file)


class _BrightPixels(tf.Module):
    """A model that predicts every pixel correctly, with the outputs of an exported one."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name=features.IMAGE)])
    def serve(self, image):
        def fraction_of_bright_pixels(data):
            pixels = tf.cast(tf.io.decode_png(data, channels=3), tf.float32)
            luma = tf.reduce_sum(pixels * [0.299, 0.587, 0.114], axis=-1)
            return tf.reduce_mean(tf.cast(luma > 127, tf.float32))

        bright = tf.map_fn(fraction_of_bright_pixels, image, fn_output_signature=tf.float32)
        mask = tf.io.encode_png(tf.zeros([1, 1, 1], tf.uint8))
        return {
            "class_share": tf.stack([1 - bright, bright], axis=-1),
            "mask_png_bytes": tf.fill(tf.shape(image), mask),
            "confidence": tf.ones_like(bright),
        }


def _png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
