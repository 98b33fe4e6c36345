"""Several requests' inputs as one batch, and the batch's outputs as several answers: rows of NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from serving.server.errors import failed_precondition, invalid_argument


def common_rows(inputs: Mapping[str, np.ndarray]) -> int:
    """Returns the length of axis 0, which every input must share.

    Raises:
        ServingError: INVALID_ARGUMENT, in TensorFlow Serving's words, where they do not.
    """
    if any(array.ndim == 0 for array in inputs.values()):
        raise invalid_argument("Batching Run() input tensors must have at least one dimension")
    rows = {len(array) for array in inputs.values()}
    if not rows:
        raise invalid_argument("Batching Run() must have at least one input tensor")
    if len(rows) > 1:
        raise invalid_argument("Batching Run() input tensors must have equal 0th-dimension size")
    return rows.pop()


def merge(inputs: Sequence[Mapping[str, np.ndarray]], padding: int) -> Mapping[str, np.ndarray]:
    """Joins inputs along axis 0 and repeats the first row `padding` times at the end."""
    if len(inputs) == 1 and not padding:
        return inputs[0]
    return {
        name: np.concatenate([*(arrays[name] for arrays in inputs), np.repeat(first[:1], padding, axis=0)])
        for name, first in inputs[0].items()
    }


def split(outputs: Mapping[str, np.ndarray], rows: Sequence[int], size: int) -> list[dict[str, np.ndarray]]:
    """Cuts a batch's outputs along axis 0.

    Args:
        outputs: arrays of `size` rows.
        rows: rows of each request, in the order of the merge; what follows them is padding.
        size: rows that the model was given.

    Raises:
        ServingError: FAILED_PRECONDITION; an output has other rows than the inputs had.
    """
    for array in outputs.values():
        if array.ndim == 0:
            raise failed_precondition("Batched output tensor has 0 dimensions")
        if len(array) != size:
            raise failed_precondition(
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes "
                "of the input tensors"
            )
    ends = np.cumsum(rows).tolist()
    return [
        {name: array[end - count : end] for name, array in outputs.items()}
        for count, end in zip(rows, ends, strict=True)
    ]
