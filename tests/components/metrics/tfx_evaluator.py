"""Runs TFX's own Evaluator in process on raw examples, for tests."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.components.evaluator import executor
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import proto_utils

from components.class_map import ClassMap
from components.dataset.checks import Sample
from components.dataset.near_duplicates import HashedImage
from components.dataset.pairs import Pair
from components.drawing import png_bytes
from components.examples import to_example
from pipeline.wiring.beam_workers import without_tfx_package


def image_of(index: int, size: tuple[int, int]) -> bytes:
    """An image whose pixels are the index of a scene."""
    return png_bytes(np.full((*size, 3), index, np.uint8))


def raw_example(index: int, size: tuple[int, int], sequence: str, class_map: ClassMap, **truth: Any):
    """The raw example of a scene: of the first five in the split test, of others in val."""
    pair = Pair(str(index), "test" if index < 5 else "val", sequence, "", "")
    mask, pixels = png_bytes(np.zeros(size, np.uint8)), np.zeros(class_map.num_classes)
    sample = Sample(pair, image_of(index, size), mask, *size, "", HashedImage("", "", "", ""), pixels, **truth)
    return to_example(sample, class_map)


def write_examples(
    folder: pathlib.Path, examples: dict[str, Sequence[tf.train.Example]]
) -> standard_artifacts.Examples:
    """Writes examples by split, as ExampleGen does."""
    artifact = standard_artifacts.Examples()
    folder.mkdir(exist_ok=True)
    artifact.uri = str(folder)
    artifact.split_names = artifact_utils.encode_split_names(list(examples))
    artifact.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    options = tf.io.TFRecordOptions(compression_type="GZIP")
    for split, rows in examples.items():
        (folder / f"Split-{split}").mkdir()
        with tf.io.TFRecordWriter(str(folder / f"Split-{split}" / "data-00000-of-00001.gz"), options) as writer:
            for row in rows:
                writer.write(row.SerializeToString())
    return artifact


def schema_artifact(folder: pathlib.Path, schema: schema_pb2.Schema) -> standard_artifacts.Schema:
    artifact = standard_artifacts.Schema()
    artifact.uri = str(folder)
    with open(os.path.join(artifact.uri, "schema.pbtxt"), "w") as file:
        file.write(text_format.MessageToString(schema))
    return artifact


def model_artifact(uri: str) -> standard_artifacts.Model:
    artifact = standard_artifacts.Model()
    artifact.uri = uri
    return artifact


def evaluator_inputs(
    root: pathlib.Path, rows: Sequence[tf.train.Example], schema: schema_pb2.Schema, models: dict[str, tf.Module]
) -> dict[str, list]:
    """Writes examples of the splits test, the first five, and val, their schema, and models with `evaluate`."""
    (root / "schema").mkdir()
    for name, module in models.items():
        tf.saved_model.save(module, str(root / name / "Format-Serving"), signatures={"evaluation": module.evaluate})
    return {
        "examples": [write_examples(root / "examples", {"test": rows[:5], "val": rows[5:]})],
        "schema": [schema_artifact(root / "schema", schema)],
        **{name: [model_artifact(str(root / name))] for name in models},
    }


def evaluate_model(root: pathlib.Path, inputs: dict[str, list], model: str, baseline: str, eval_config):
    """Evaluates one model of `evaluator_inputs`, against another if `baseline` is not empty."""
    chosen = {name: inputs[name] for name in ("examples", "schema")} | {"model": inputs[model]}
    if baseline:
        chosen["baseline_model"] = inputs[baseline]
    return evaluate(root, chosen, eval_config, ("test", "val"))


def evaluate(root: pathlib.Path, inputs: dict, eval_config, splits: Sequence[str] = ("val",)) -> tuple[str, bool]:
    """Returns the evaluation's directory and whether the model is blessed."""
    evaluation, blessing = standard_artifacts.ModelEvaluation(), standard_artifacts.ModelBlessing()
    evaluation.uri, blessing.uri = str(root / "evaluation"), str(root / "blessing")
    context = executor.Executor.Context(
        beam_pipeline_args=["--runner=DirectRunner", *without_tfx_package(())], tmp_dir=str(root)
    )
    executor.Executor(context).Do(
        inputs,
        {"evaluation": [evaluation], "blessing": [blessing]},
        {"eval_config": proto_utils.proto_to_json(eval_config), "example_splits": json.dumps(splits)},
    )
    return evaluation.uri, blessing.get_int_custom_property("blessed") == 1
