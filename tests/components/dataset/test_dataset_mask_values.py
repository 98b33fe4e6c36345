"""Each class lists its values in the mask files; class indices 0, 1, 2, ... are stored."""

from __future__ import annotations

import io

import numpy as np
import pytest
from dataset_folder import HEIGHT, WIDTH, encode, random_image
from PIL import Image

from components.dataset.checks import Sample, read_pair
from components.dataset.description import DatasetDescription, parse
from components.dataset.pairs import LABEL_OUTSIDE_MAP, UNKNOWN_COLOUR, DataIssue, Pair

PAIR = Pair("a_1", "train", "a", "i/a_1.png", "m/a_1.png")
LAYOUT = 'layout: {images: "i/{name}", masks: "m/{name}.png"}\nsplit_by_sequence: {val: 0.2}\n'
ROAD_AND_CAR = """\
classes:
  - {name: road, color: [128, 64, 128], indices: [7]}
  - {name: car, color: [0, 0, 142], indices: [26, 27]}
"""
VOID = "  - {name: void, color: [0, 0, 0]}\nignore: void\n"


@pytest.fixture
def read(folder):
    """Reads a mask of the given values, one a row, as a description says."""

    def read_mask(description: DatasetDescription, values: list, dtype: type = np.uint8) -> Sample | DataIssue:
        mask = np.zeros((HEIGHT, WIDTH, *np.shape(values[0])), dtype)
        mask[:] = values[0]
        for row, value in enumerate(values):
            mask[row] = value
        folder.write(PAIR.image, encode(random_image()))
        folder.write(PAIR.mask, encode(Image.fromarray(mask)))
        return read_pair(str(folder.root), PAIR, description)

    return read_mask


def rows(sample: Sample | DataIssue, count: int) -> list[int]:
    """Returns the class index of each of the first rows of a canonical mask."""
    assert isinstance(sample, Sample), sample
    stored = Image.open(io.BytesIO(sample.mask))
    assert stored.mode == "L"
    return np.asarray(stored)[:count, 0].tolist()


def test_a_class_means_the_values_it_lists_and_not_its_position(read):
    described = parse(ROAD_AND_CAR + LAYOUT, "segpipe.yaml")

    sample = read(described, [7, 26, 27, 7])

    assert rows(sample, 4) == [0, 1, 1, 0]
    assert sample.class_pixels.tolist() == [(HEIGHT - 2) * WIDTH, 2 * WIDTH]
    assert described.class_map.names == ("road", "car")


def test_the_position_of_a_class_that_lists_values_means_nothing(read):
    issue = read(parse(ROAD_AND_CAR + LAYOUT, "segpipe.yaml"), [7, 0, 1])

    assert isinstance(issue, DataIssue)
    assert (issue.file, issue.reason) == (PAIR.mask, LABEL_OUTSIDE_MAP)
    assert issue.found == f"value 0, 1 in {2 * WIDTH} of {HEIGHT * WIDTH} pixels"
    assert issue.expected == "values that classes name: 7 road, 26 car, 27 car"


def test_both_remedies_of_the_issue_for_an_unknown_value_work(read):
    values = [7, 26, 33]
    issue = read(parse(ROAD_AND_CAR + VOID + LAYOUT, "segpipe.yaml"), values)
    assert isinstance(issue, DataIssue)
    assert "give its class `indices`" in issue.action
    assert "`unnamed: ignore`" in issue.action

    named = ROAD_AND_CAR.replace("[26, 27]", "[26, 27, 33]")
    assert rows(read(parse(named + LAYOUT, "segpipe.yaml"), values), 3) == [0, 1, 1]
    assert rows(read(parse(ROAD_AND_CAR + VOID + LAYOUT + "unnamed: ignore\n", "segpipe.yaml"), values), 3) == [0, 1, 2]


def test_a_value_that_another_class_names_is_never_ignored(read):
    # The ignored class stands at position 2, and 2 means car.
    cars = ROAD_AND_CAR.replace("[26, 27]", "[2]")

    sample = read(parse(cars + VOID + LAYOUT + "unnamed: ignore\n", "segpipe.yaml"), [2, 7, 0, 65535], np.uint16)

    assert rows(sample, 4) == [1, 0, 2, 2]


@pytest.mark.parametrize("high", [255, 4095, 65535])
def test_binary_masks_of_scientific_tools(read, high):
    text = "classes:\n  - {name: background, color: [0, 0, 0]}\n  - {name: cell, color: [255, 0, 0]}\n" + LAYOUT
    dtype = np.uint8 if high == 255 else np.uint16
    issue = read(parse(text, "segpipe.yaml"), [0, high], dtype)
    assert isinstance(issue, DataIssue)
    assert issue.found == f"value {high} in {WIDTH} of {HEIGHT * WIDTH} pixels"
    assert issue.expected == "values that classes name: 0 background, 1 cell"

    advised = parse(text.replace("[255, 0, 0]}", f"[255, 0, 0], indices: [{high}]}}"), "segpipe.yaml")

    assert rows(read(advised, [0, high], dtype), 2) == [0, 1]


def test_a_long_list_of_named_values_is_cut(read):
    names = "".join(f"  - {{name: c{i}, color: [0, 0, {i}]}}\n" for i in range(30))

    issue = read(parse("classes:\n" + names + LAYOUT, "segpipe.yaml"), [99])

    assert isinstance(issue, DataIssue)
    assert issue.expected.endswith("19 c19 and 10 more")


def test_colours_that_no_class_names_can_be_ignored_as_the_issue_advises(read):
    text = "mask_encoding: color\n" + ROAD_AND_CAR + VOID + LAYOUT
    colors = [(128, 64, 128), (0, 0, 142), (1, 2, 3), (255, 255, 255), (0, 0, 0)]
    issue = read(parse(text, "segpipe.yaml"), colors)
    assert isinstance(issue, DataIssue)
    assert issue.reason == UNKNOWN_COLOUR
    assert "`unnamed: ignore`" in issue.action

    assert rows(read(parse(text + "unnamed: ignore\n", "segpipe.yaml"), colors), 5) == [0, 1, 2, 2, 2]


def test_a_subset_of_a_built_in_descriptions_classes(read):
    text = "like: cityscapes\nsplits: {}\n" + ROAD_AND_CAR + VOID + LAYOUT + "unnamed: ignore\n"

    assert rows(read(parse(text, "segpipe.yaml"), [7, 26, 11, 0, 33]), 5) == [0, 1, 2, 2, 2]
