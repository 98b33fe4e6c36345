"""The metadata of a pushed model has the scores of its evaluation."""

import io
import math

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from PIL import Image

from components import features
from components.artifact_files import read_model_metadata, write_model_metadata
from components.class_map import ClassMap
from components.metrics.gate import eval_config
from components.metrics.settings import GateSettings
from components.pusher.executor import add_metrics

_CLASS_MAP = ClassMap(("road", "sky", "bird"), ((128, 64, 128), (0, 0, 255), (9, 9, 9)))


class _Echo(tf.Module):
    """Predicts the image itself, which the example makes a mask."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name=features.IMAGE)])
    def evaluation(self, image):
        return {"mask_png_bytes": tf.identity(image)}


def _mask(road_columns):
    indices = np.ones((4, 10), np.uint8)
    indices[:, :road_columns] = 0
    buffer = io.BytesIO()
    Image.fromarray(indices).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """(SavedModel, evaluation): 16 of 24 true pixels of road are found, the rest is called sky; no bird."""
    folder = tmp_path_factory.mktemp("evaluated")
    model, records, output = (str(folder / name) for name in ("model", "records.gz", "evaluation"))
    module = _Echo()
    tf.saved_model.save(module, model, signatures={"evaluation": module.evaluation})
    write_model_metadata(model, {"model": "echo", "class_map": _CLASS_MAP.to_dict()})
    values = {features.IMAGE: _mask(4), features.MASK: _mask(6), features.SEQUENCE: b"day"}
    feature = {key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for key, value in values.items()}
    with tf.io.TFRecordWriter(records, "GZIP") as writer:
        writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    config = eval_config(_CLASS_MAP, GateSettings(), code_hash="abc")
    config = tfma.utils.update_eval_config_with_defaults(config, has_baseline=False, rubber_stamp=True)
    tfma.run_model_analysis(
        eval_shared_model=tfma.default_eval_shared_model(model, eval_config=config),
        eval_config=config,
        data_location=records,
        output_path=output,
    )
    return model, output


def test_the_scores_of_the_evaluation_are_in_the_metadata_of_the_model(evaluated):
    model, evaluation = evaluated

    add_metrics(model, evaluation, "test", "d1ce")

    metadata = read_model_metadata(model)
    assert metadata["model"] == "echo"
    assert metadata["evaluated_on"] == {"split": "test", "fingerprint": "d1ce"}
    assert metadata["metrics"]["class_iou/road"] == pytest.approx(16 / 24)
    assert metadata["metrics"]["class_iou/sky"] == pytest.approx(16 / 24)
    assert metadata["metrics"]["mean_iou"] == pytest.approx(2 / 3)
    assert "class_iou/bird" not in metadata["metrics"]
    assert not any(math.isnan(value) for value in metadata["metrics"].values())
