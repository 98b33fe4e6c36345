"""The schema that the code writes, and the gate that stops a run on what does not fit it."""

import pandas as pd
import pytest
import tensorflow_data_validation as tfdv
from tfx import v1 as tfx
from tfx.types import artifact_utils

from components import features, schema
from components.class_map import ClassMap
from components.errors import DataRejectedError
from components.gates import check_anomalies, read_anomalies

_CLASS_MAP = ClassMap(("road", "void"), ((128, 64, 128), (0, 0, 0)), ignore_index=1)
_MAX_SIDE = 100


def _anomalies(**changes):
    """Returns TFDV's verdict on two examples that fit the schema but for the changes."""
    row = {
        features.IMAGE: b"png",
        features.MASK: b"png",
        features.NAME: "a_1",
        features.SEQUENCE: "a",
        features.CONTENT_HASH: "0f",
        features.HEIGHT: 48,
        features.WIDTH: 64,
        features.class_share("road"): 0.75,
        features.class_share("void"): 0.25,
        **changes,
    }
    frame = pd.DataFrame([{name: value for name, value in row.items() if value is not None}] * 2)
    expected = schema.raw_schema(_CLASS_MAP, _MAX_SIDE)
    return tfdv.validate_statistics(tfdv.generate_statistics_from_dataframe(frame), expected)


def test_examples_as_example_gen_writes_them_pass():
    check_anomalies({"train": _anomalies(), "val": _anomalies()}, "somewhere")


@pytest.mark.parametrize(
    ("changes", "feature"),
    [
        ({features.HEIGHT: _MAX_SIDE + 1}, "height"),
        ({features.WIDTH: 0}, "width"),
        ({features.class_share("road"): 1.5}, "class_share/road"),
        ({features.SEQUENCE: None}, "sequence"),
        ({"colour": 3}, "colour"),
    ],
)
def test_an_anomaly_stops_the_run_and_names_split_and_feature(changes, feature):
    with pytest.raises(DataRejectedError, match=f"split 'val', feature '{feature}'"):
        check_anomalies({"train": _anomalies(), "val": _anomalies(**changes)}, "somewhere")


def test_anomalies_are_read_as_example_validator_writes_them(tmp_path):
    artifact = tfx.types.standard_artifacts.ExampleAnomalies()
    artifact.uri = str(tmp_path)
    artifact.split_names = artifact_utils.encode_split_names(["train", "val"])
    for split in ("train", "val"):
        (tmp_path / f"Split-{split}").mkdir()
        content = _anomalies(width=0) if split == "val" else _anomalies()
        (tmp_path / f"Split-{split}" / "SchemaDiff.pb").write_bytes(content.SerializeToString())

    with pytest.raises(DataRejectedError, match="split 'val', feature 'width'"):
        check_anomalies(read_anomalies(artifact), artifact.uri)


def test_the_schema_s_file_is_named_by_its_content(tmp_path):
    first = schema.write_raw_schema(_CLASS_MAP, 100, str(tmp_path))
    again = schema.write_raw_schema(_CLASS_MAP, 100, str(tmp_path))
    other = schema.write_raw_schema(_CLASS_MAP, 200, str(tmp_path))

    assert first == again
    assert first != other
    assert tfdv.load_schema_text(first) == schema.raw_schema(_CLASS_MAP, 100)
