"""The schema, and the gate that stops a run on anomalies."""

import pandas as pd
import pytest
import tensorflow_data_validation as tfdv
from tfx import v1 as tfx
from tfx.types import artifact_utils

from components import features, schema
from components.class_map import ClassMap
from components.dataset.near_duplicates import NearDuplicate
from components.dataset.pairs import DataIssue
from components.errors import DataRejectedError
from components.gates import (
    check_anomalies,
    check_quarantine,
    check_shared_images,
    check_similar_images,
    read_anomalies,
)

_CLASS_MAP = ClassMap(("road", "void"), ((128, 64, 128), (0, 0, 0)), ignore_index=1)
_MAX_SIDE = 100


def _anomalies(has_instances=False, **changes):
    """Returns the anomalies that TFDV finds in two examples that fit the schema except for the changes."""
    row = {
        features.IMAGE: b"png",
        features.MASK: b"png",
        features.NAME: "a_1",
        features.SEQUENCE: "a",
        features.SPLIT: "train",
        features.CONTENT_HASH: "0f",
        features.HEIGHT: 48,
        features.WIDTH: 64,
        features.class_share("road"): 0.75,
        features.class_share("void"): 0.25,
        **changes,
    }
    frame = pd.DataFrame([{name: value for name, value in row.items() if value is not None}] * 2)
    expected = schema.raw_schema(_CLASS_MAP, _MAX_SIDE, has_instances)
    return tfdv.validate_statistics(tfdv.generate_statistics_from_dataframe(frame), expected)


def test_examples_as_example_gen_writes_them_pass():
    check_anomalies({"train": _anomalies(), "val": _anomalies()}, "somewhere")


def test_statistics_without_images_and_masks_pass():
    check_anomalies({"train": _anomalies(image=None, mask=None)}, "somewhere")


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


def test_instances_pass_and_one_of_an_unknown_class_stops_the_run():
    instances = {features.INSTANCE_CLASS: 1, features.INSTANCE_CROWD: 0, features.INSTANCE_NUM_RUNS: 3}
    check_anomalies({"train": _anomalies(has_instances=True, **instances)}, "somewhere")

    unknown = _anomalies(has_instances=True, **{**instances, features.INSTANCE_CLASS: 2})
    with pytest.raises(DataRejectedError, match="split 'val', feature 'instance/class'"):
        check_anomalies({"val": unknown}, "somewhere")


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


def test_the_file_of_the_schema_is_named_after_its_content(tmp_path):
    first = schema.write_raw_schema(_CLASS_MAP, 100, str(tmp_path))
    again = schema.write_raw_schema(_CLASS_MAP, 100, str(tmp_path))
    other = schema.write_raw_schema(_CLASS_MAP, 200, str(tmp_path))

    assert first == again
    assert first != other
    assert tfdv.load_schema_text(first) == schema.raw_schema(_CLASS_MAP, 100)


def _issues(split, number):
    return [
        DataIssue(split, f"a_{i}", f"{split}/a_{i}.png", "empty", "zero bytes", "a PNG file", "copy")
        for i in range(number)
    ]


def test_a_large_good_split_does_not_hide_a_small_bad_one():
    counts = {"examples": {"train": 990, "val": 1}, "quarantined": {}}

    with pytest.raises(DataRejectedError) as error:
        check_quarantine(counts, [*_issues("train", 1), *_issues("val", 9)], 0.01, ("train", "val"), "somewhere")

    message = str(error.value)
    assert message.startswith("bad pairs: found 9 of 10 pairs of split 'val' (90.0%), expected at most 1.0% of each")
    assert "val/a_0.png" in message
    assert "train/a_0.png" not in message


def test_every_split_with_too_many_bad_pairs_is_named():
    counts = {"examples": {"train": 8, "val": 3, "test": 1}, "quarantined": {}}
    issues = [*_issues("train", 2), *_issues("val", 1), *_issues("test", 1)]

    with pytest.raises(DataRejectedError, match="1 of 2 pairs of split 'test' .50.0%., 1 of 4 pairs of split 'val'"):
        check_quarantine(counts, issues, 0.2, ("train", "val"), "somewhere")


def test_only_images_in_the_two_splits_of_the_run_count_as_shared():
    shared = [{"test": ["a"], "train": ["b"]}, {"test": ["c"], "val": ["d"]}, {"train": ["e"], "val": ["f", "g"]}]

    check_shared_images(shared[:2], 0, "train", "val", "somewhere")
    check_shared_images(shared, 1, "train", "val", "somewhere")
    with pytest.raises(DataRejectedError, match="1 images of split 'val'") as error:
        check_shared_images(shared, 0, "train", "val", "somewhere")

    assert "train/e = val/f" in str(error.value)
    assert "raise data.max_shared_images" in str(error.value)


def test_only_near_duplicates_between_evaluation_and_training_split_count(caplog):
    similar = [
        NearDuplicate("train", "e", "val", "f", 2),
        NearDuplicate("val", "f", "train", "e", 2),
        NearDuplicate("val", "g", "train", "e", 1),
        NearDuplicate("val", "h", "test", "e", 1),
        NearDuplicate("test", "e", "train", "z", 1),
    ]

    check_similar_images(similar, 2, "train", "val", "somewhere")
    with pytest.raises(DataRejectedError, match="2 images of split 'val' are nearly the same as") as error:
        check_similar_images(similar, 1, "train", "val", "somewhere")
    assert "raise data.max_similar_images" in str(error.value)
    assert "somewhere/similar_images.jsonl" in str(error.value)
    assert str(error.value).splitlines()[1:] == [
        "  train/e ~ val/g, 1 of 128 bits differ",
        "  train/e ~ val/f, 2 of 128 bits differ",
    ]

    caplog.clear()
    with caplog.at_level("WARNING", "segpipe.progress"):
        check_similar_images(similar, None, "train", "val", "somewhere")
        check_similar_images(similar[:1], None, "train", "val", "somewhere")
    assert [record.getMessage() for record in caplog.records] == [
        "2 images of split 'val' are nearly the same as one of split 'train': see `segpipe data check`"
    ]
