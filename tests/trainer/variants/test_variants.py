"""The Optimizer on a real export: comparison, chosen variant and rejected variants."""

from __future__ import annotations

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from tfx.types.standard_artifacts import Examples, Model, ModelRun, TransformGraph

from components import features, preprocessing
from components.artifact_files import read_model_metadata, weights_beside
from components.class_map import ClassMap
from components.drawing import png_bytes
from serving.export import export
from serving.litert import LITERT_FILE, LiteRTNetwork
from serving.settings import ExportSettings
from serving.test_time import TestTimeAugmentation
from trainer import saved_network, warm_start
from trainer.variants.component import Optimizer

_SIZE = (32, 32)
_CLASS_MAP = ClassMap(("dark", "light"), ((0, 0, 0), (255, 255, 255)))
_METADATA = {"model": "toy", "export_precision": "float32"}
# Adjacent grey levels, which low precision cannot distinguish.
_DARK, _LIGHT = 199, 200


def _write_transform(directory: str) -> None:
    """Writes a graph like Transform's."""

    @tf.function(input_signature=[{name: tf.TensorSpec([None], tf.string) for name in (features.IMAGE, features.MASK)}])
    def transform(inputs):
        return preprocessing.preprocessing_fn(inputs, {"input_size": list(_SIZE), "normalize_exposure": False})

    module = tf.Module()
    module.transform_fn = transform.get_concrete_function()
    tf.saved_model.save(module, f"{directory}/transform_fn")


def _write_split(folder: pathlib.Path, dark: int, light: int) -> None:
    """Writes four examples, each with some light columns."""
    folder.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(folder / "data-00000-of-00001.gz"), "GZIP") as writer:
        for columns in (8, 12, 16, 20):
            mask = np.zeros(_SIZE, np.uint8)
            mask[:, :columns] = 1
            grey = np.where(mask, light, dark).astype(np.uint8)
            values = {features.IMAGE: png_bytes(np.stack([grey] * 3, axis=-1)), features.MASK: png_bytes(mask)}
            values |= dict.fromkeys((features.NAME, features.SEQUENCE), b"x")
            feature = {k: tf.train.Feature(bytes_list=tf.train.BytesList(value=[v])) for k, v in values.items()}
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


def _network() -> keras.Model:
    """Classifies pixels above a grey level of 199.5 as light; the batch normalisation contains the threshold."""
    image = keras.Input((None, None, 3), name="image")
    grey = keras.layers.Conv2D(1, 1, use_bias=False, kernel_initializer="ones", name="sum")(image)
    norm = keras.layers.BatchNormalization(epsilon=0, name="threshold")
    logits = keras.layers.Conv2D(2, 1, use_bias=False, name="classes")
    model = keras.Model(image, keras.layers.Activation("linear", dtype="float32", name="logits")(logits(norm(grey))))
    norm.set_weights([np.array([1.0]), np.array([0.0]), np.array([598.5]), np.array([1.0])])
    logits.set_weights([np.array([[[[-1.0, 1.0]]]])])
    return model


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Artifacts like those of Trainer, Transform and ExampleGen."""
    folder = tmp_path_factory.mktemp("pipeline")
    made = {"model": Model(), "model_run": ModelRun(), "transform_graph": TransformGraph(), "examples": Examples()}
    for name, artifact in made.items():
        artifact.uri = str(folder / name)
        (folder / name).mkdir()
    _write_transform(made["transform_graph"].uri)
    saved_network.save(_network(), made["model_run"].uri)
    directory = str(folder / "model" / "Format-Serving")
    export(_network(), made["transform_graph"].uri, directory, _CLASS_MAP, _SIZE, _METADATA)
    warm_start.save(_network(), directory)
    _write_split(folder / "examples" / "Split-train", 0, 255)
    _write_split(folder / "examples" / "Split-clear", 0, 255)
    _write_split(folder / "examples" / "Split-subtle", _DARK, _LIGHT)
    return made


def _optimize(trained, folder: pathlib.Path, variants: list[str], eval_split: str, precision: str = "float32") -> str:
    """Runs the component and returns the SavedModel that it writes."""
    result = Model()
    result.uri = str(folder / "optimized")
    Optimizer.test_call(
        optimized_model=result,
        **trained,
        settings=ExportSettings(variants=variants, precision=precision).model_dump_json(),
        train_split="train",
        eval_split=eval_split,
        code="abc",
    )
    return str(folder / "optimized" / "Format-Serving")


def _verdicts(directory: str) -> dict[str, str]:
    return {row["name"]: row["verdict"] for row in read_model_metadata(directory)["variants"]}


def test_the_first_variant_that_loses_nothing_is_written_with_int8(trained, tmp_path):
    directory = _optimize(trained, tmp_path, ["bfloat16", "folded", "int8"], "clear")

    metadata = read_model_metadata(directory)
    assert (metadata["variant"], metadata["export_precision"]) == ("bfloat16", "bfloat16")
    assert metadata["class_map"] == _CLASS_MAP.to_dict()
    assert [row["mean_iou"] for row in metadata["variants"]] == [1, 1, 1, 1]
    assert all(row["latency_ms"] > 0 and row["bytes"] > 0 for row in metadata["variants"])
    assert _verdicts(directory) == {
        "plain": "not chosen",
        "bfloat16": "chosen",
        "folded": "not chosen",
        "int8": "chosen, as model.tflite beside",
    }
    logits = LiteRTNetwork(pathlib.Path(directory, LITERT_FILE).read_bytes())(tf.fill([1, *_SIZE, 3], 255.0))
    assert np.all(logits[..., 1] > logits[..., 0])
    answer = tf.saved_model.load(directory).signatures["serving_default"](image=tf.constant([png_bytes(_grey(255))]))
    assert np.all(answer["class_map"] == 1)
    # A later training may start from these weights.
    assert pathlib.Path(weights_beside(directory)).exists()


def test_the_exported_model_is_written_if_all_variants_lose_too_much(trained, tmp_path):
    directory = _optimize(trained, tmp_path, ["bfloat16", "int8"], "subtle")

    metadata = read_model_metadata(directory)
    assert (metadata["variant"], metadata["export_precision"]) == ("plain", "float32")
    verdicts = _verdicts(directory)
    assert verdicts["plain"] == "chosen"
    assert verdicts["bfloat16"].startswith("refused: it loses 0.")
    assert verdicts["int8"].startswith("refused: it loses 0.")
    assert not pathlib.Path(directory, LITERT_FILE).exists()
    answer = tf.saved_model.load(directory).signatures["serving_default"](image=tf.constant([png_bytes(_grey(_LIGHT))]))
    assert np.all(answer["class_map"] == 1)


@pytest.mark.parametrize(("precision", "verdict"), [("float32", "chosen"), ("bfloat16", "refused: it loses 0.")])
def test_folded_has_the_precision_of_the_export(trained, tmp_path, precision, verdict):
    directory = _optimize(trained, tmp_path, ["folded"], "subtle", precision)

    assert _verdicts(directory)["folded"].startswith(verdict)


def test_variants_keep_test_time_augmentation_but_int8_has_one_scale(trained, tmp_path):
    test_time = TestTimeAugmentation(flip=True, scales=(1.0, 2.0))
    model = Model()
    model.uri = str(tmp_path / "model")
    directory = str(tmp_path / "model" / "Format-Serving")
    export(_network(), trained["transform_graph"].uri, directory, _CLASS_MAP, _SIZE, _METADATA, test_time)

    optimized = _optimize({**trained, "model": model}, tmp_path, ["folded", "int8"], "clear")

    metadata = read_model_metadata(optimized)
    assert metadata["variant"] == "folded"
    assert TestTimeAugmentation.of(metadata) == test_time
    assert [row["mean_iou"] for row in metadata["variants"]] == [1, 1, 1]
    image = tf.constant([png_bytes(_striped())])
    expected, answer = (
        tf.saved_model.load(path).signatures["probabilities"](image=image)["probabilities"]
        for path in (directory, optimized)
    )
    # Enlarging a stripe softens its edges.
    assert len(np.unique(np.round(expected[0, 0, :, 1], 2))) > 2
    np.testing.assert_allclose(answer, expected, atol=1e-3)


def _striped() -> np.ndarray:
    pixels = _grey(_DARK)
    pixels[:, 10:20] = _LIGHT
    return pixels


def _grey(level: int) -> np.ndarray:
    return np.full((*_SIZE, 3), level, np.uint8)
