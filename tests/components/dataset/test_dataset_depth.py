"""Depth maps are read with images and masks; an issue names the file and the reason."""

from __future__ import annotations

import numpy as np
import pytest
from dataset_folder import HEIGHT, WIDTH, Folder, content_fingerprint, encode
from PIL import Image

from components import features
from components.class_map import ClassMap
from components.dataset.checks import read_pair
from components.dataset.description import parse
from components.dataset.pairs import DataIssue, find_pairs
from components.errors import UsageError
from components.examples import to_example

DESCRIPTION = """\
name: streets
classes:
  - {name: road, color: [128, 64, 128]}
  - {name: car, color: [0, 0, 142]}
splits: {train: train, val: val}
layout: {images: "{split}/{name}", masks: "{split}annot/{name}.png", depth: "{split}depth/{name}.png"}
depth_scale: 100
"""
DEPTH = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 100


@pytest.fixture
def folder(tmp_path) -> Folder:
    """One pair without its depth map."""
    made = Folder(tmp_path)
    made.pair("train/a_1.png", "trainannot/a_1.png")
    return made


def one(folder, description):
    """Reads the only pair of the folder, or returns its only issue."""
    pairs, issues = find_pairs(str(folder.root), description)
    (found,) = [*pairs, *issues]
    return found if isinstance(found, DataIssue) else read_pair(str(folder.root), found, description)


def test_a_depth_map_is_stored_as_it_is(folder):
    written = folder.save("traindepth/a_1.png", Image.fromarray(DEPTH))
    description = parse(DESCRIPTION, "streets.yaml")

    sample = one(folder, description)

    assert sample.depth == written
    assert description.depth_scale == 100
    example = to_example(sample, ClassMap(("road", "car"), ((0, 0, 0), (0, 0, 142))))
    assert example.features.feature[features.DEPTH].bytes_list.value[0] == written
    plain = one(folder, description.without_depth())
    assert plain.depth == b""
    assert plain.content_hash != sample.content_hash
    assert features.DEPTH not in to_example(plain, description.class_map).features.feature


@pytest.mark.parametrize(
    ("data", "reason", "found"),
    [
        (None, "depth_missing", "an image without a depth map"),
        (encode(Image.fromarray(DEPTH[:-1])), "size_mismatch", "a depth map of 24x15 pixels"),
        (encode(Image.fromarray(DEPTH.astype(np.uint8))), "undecodable", "a grey PNG with 8 bits a sample"),
        (encode(Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8))), "undecodable", "a colour PNG with 8 bits"),
        (encode(Image.fromarray(DEPTH))[:-40], "truncated", "bytes that end before the PNG does"),
        (b"", "empty", "zero bytes"),
    ],
    ids=["missing", "other-size", "8-bits", "colour", "truncated", "empty"],
)
def test_an_unusable_depth_map_is_an_issue(folder, data, reason, found):
    if data is not None:
        folder.write("traindepth/a_1.png", data)

    issue = one(folder, parse(DESCRIPTION, "streets.yaml"))

    assert (issue.reason, issue.file) == (reason, "train/a_1.png" if data is None else "traindepth/a_1.png")
    assert found in issue.found
    assert issue.expected
    assert issue.action


def test_the_fingerprint_follows_depth_maps(folder):
    description = parse(DESCRIPTION, "streets.yaml")
    prints = []
    for values in (DEPTH, DEPTH // 2):
        folder.save("traindepth/a_1.png", Image.fromarray(values))
        prints.append(
            [content_fingerprint(str(folder.root), each) for each in (description, description.without_depth())]
        )

    assert prints[0][0] != prints[1][0]
    assert prints[0][1] == prints[1][1]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{split}depth/{name}.jpg", "expected depth maps to be .png files"),
        ("depth.png", "expected {name} exactly once"),
        ("{split}annot/../{name}.png", "expected a path relative to the data root"),
    ],
)
def test_a_wrong_pattern_is_refused(pattern, message):
    with pytest.raises(UsageError, match=message):
        parse(DESCRIPTION.replace("{split}depth/{name}.png", pattern), "streets.yaml")
