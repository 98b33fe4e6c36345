"""Runs TFX's own Evaluator in process on raw examples, for tests."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Sequence

import tensorflow as tf
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.components.evaluator import executor
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import proto_utils


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


def evaluate(root: pathlib.Path, inputs: dict, eval_config, splits: Sequence[str] = ("val",)) -> tuple[str, bool]:
    """Returns the evaluation's directory and whether the model is blessed."""
    evaluation, blessing = standard_artifacts.ModelEvaluation(), standard_artifacts.ModelBlessing()
    evaluation.uri, blessing.uri = str(root / "evaluation"), str(root / "blessing")
    context = executor.Executor.Context(
        beam_pipeline_args=["--runner=DirectRunner", "--direct_running_mode=in_memory"], tmp_dir=str(root)
    )
    executor.Executor(context).Do(
        inputs,
        {"evaluation": [evaluation], "blessing": [blessing]},
        {"eval_config": proto_utils.proto_to_json(eval_config), "example_splits": json.dumps(splits)},
    )
    return evaluation.uri, blessing.get_int_custom_property("blessed") == 1
