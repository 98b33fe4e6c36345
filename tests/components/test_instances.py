"""Masks have COCO's run-length encoding, which is reversible, and boxes bound the masks."""

import numpy as np
import pytest

from components.instances import Instances, boxes, decode_runs, encode_runs

_RANDOM = np.random.default_rng(0).random((5, 4, 6)) > 0.6


@pytest.mark.parametrize(
    "masks",
    [_RANDOM, np.ones((2, 3, 2), bool), np.zeros((1, 3, 2), bool), np.zeros((0, 3, 2), bool)],
    ids=["random", "full", "empty", "no mask"],
)
def test_decoding_inverts_encoding(masks):
    num_runs, runs = encode_runs(masks)

    assert num_runs.dtype == runs.dtype == np.int64
    assert num_runs.sum() == len(runs)
    np.testing.assert_array_equal(decode_runs(num_runs, runs, *masks.shape[1:]), masks)


def test_runs_go_down_the_columns_and_begin_with_zeros():
    """Counted as by `rleEncode` in common/maskApi.c of the COCO API, commit 8c9bcc3."""
    masks = np.array([[[0, 1], [1, 1]], [[1, 0], [0, 0]]], bool)

    num_runs, runs = encode_runs(masks)

    assert (num_runs.tolist(), runs.tolist()) == ([2, 3], [1, 3, 0, 1, 3])


@pytest.mark.parametrize(
    ("num_runs", "runs", "message"),
    [
        ([2], [1, 4], "found runs of 5 pixels; expected 4, of a mask of 2x2"),
        ([3], [5, -2, 1], "found runs of 4 pixels; expected 4"),
        ([3], [1, 3], "found 2 runs; expected 3"),
    ],
)
def test_runs_that_do_not_sum_up_to_the_mask_are_refused(num_runs, runs, message):
    with pytest.raises(ValueError, match=message):
        decode_runs(np.array(num_runs), np.array(runs), 2, 2)


def test_boxes_bound_the_masks_with_an_exclusive_maximum():
    masks = np.zeros((3, 5, 7), bool)
    masks[0, 1:3, 2:6] = True
    masks[1, 4, 0] = masks[1, 0, 6] = True

    found = boxes(masks)

    assert found.dtype == np.float32
    assert found.tolist() == [[1, 2, 3, 6], [0, 0, 5, 7], [0, 0, 0, 0]]
    assert boxes(masks[:0]).shape == (0, 4)


def test_a_list_of_instances_may_be_empty():
    found = Instances.stack([], (2, 3))

    assert (found.masks.shape, found.classes.shape, found.crowd.shape) == ((0, 2, 3), (0,), (0,))
    assert (found.masks.dtype, found.classes.dtype, found.crowd.dtype) == (bool, np.int64, bool)
