"""Reads the arrays of a PyTorch weights file without PyTorch.

The format is that of `torch.save` before PyTorch 1.6: pickles of a magic number, the protocol, the machine, the tensors
and the order of their storages, followed by the content of each storage. Source: `_legacy_save` and `_legacy_load` in
torch/serialization.py and `_rebuild_tensor_v2` in torch/_utils.py, PyTorch 1.12.1.
"""

from __future__ import annotations

import collections
import pickle
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

from components.errors import UsageError

_HEADER = (0x1950A86A20F9469CFC6C, 1001)


def read(path: str) -> dict[str, np.ndarray]:
    """Returns the arrays of a file by name, float32 or int64, in PyTorch's layout.

    Only unpickles tensors, so a file cannot run code.

    Raises:
        UsageError: if the file is in another format, contains anything but tensors, or is truncated.
    """
    with open(path, "rb") as file:
        try:
            *header, machine = (_Unpickler(file).load() for _ in range(3))
            if tuple(header) != _HEADER or not machine["little_endian"]:
                raise ValueError(f"found the header {header}, {machine}")
            unpickler = _Unpickler(file)
            arrays = unpickler.load()
            for key in _Unpickler(file).load():
                _fill(unpickler.storages[key], file)
        # Unpickling a damaged file may raise any exception.
        except Exception as error:
            raise UsageError(
                f"weights {path}: cannot be read ({error}); expected tensors in the format of PyTorch before 1.6; "
                "download the file or install its package again"
            ) from error
    return dict(arrays)


class _Unpickler(pickle.Unpickler):
    """Unpickles dictionaries of tensors. Tensors are views of `storages`, which are filled later."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _GLOBALS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"found {module}.{name}, which is not part of a tensor") from None

    def persistent_load(self, pid: Any) -> np.ndarray:
        _, dtype, key, _, size, _ = pid
        return self.storages.setdefault(key, np.empty(size, dtype))


def _tensor(storage: np.ndarray, offset: int, shape: Sequence[int], strides: Sequence[int], *_: Any) -> np.ndarray:
    # NumPy raises ValueError if a view exceeds its buffer.
    size = storage.itemsize
    return np.ndarray(shape, storage.dtype, storage, offset * size, [stride * size for stride in strides])


_GLOBALS = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch", "FloatStorage"): np.dtype("<f4"),
    ("torch", "LongStorage"): np.dtype("<i8"),
}


def _fill(storage: np.ndarray, file: BinaryIO) -> None:
    """Reads the number of elements, int64, and then the elements."""
    size = int(np.frombuffer(file.read(8), "<i8")[0])
    numbers = file.read(storage.nbytes)
    if size != storage.size or len(numbers) != storage.nbytes:
        raise ValueError(f"expected {storage.size} numbers, found {size} in {len(numbers)} bytes")
    storage[:] = np.frombuffer(numbers, storage.dtype)
