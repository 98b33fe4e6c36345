"""Boxes around the connected components of a mask."""

from __future__ import annotations

import numpy as np

from components.mask_boxes import MaskBox, mask_boxes


def test_each_connected_component_of_a_chosen_class_has_a_box():
    mask = np.zeros((6, 8), np.uint8)
    mask[1:3, 1:4] = 2
    mask[3, 4] = 2  # touches only at a corner
    mask[5, 7] = 2
    mask[0, 6:] = 1

    found = mask_boxes(mask, (2,))

    assert found == [MaskBox(2, (1, 1, 4, 5), 7), MaskBox(2, (5, 7, 6, 8), 1)]
    assert found[0].fill == 7 / 12
    assert [(each.index, each.box) for each in mask_boxes(mask, (1, 2), least_pixels=2)] == [
        (1, (0, 6, 1, 8)),
        (2, (1, 1, 4, 5)),
    ]


def test_an_absent_class_has_no_box():
    assert mask_boxes(np.zeros((4, 4), np.uint8), (1, 2)) == []
