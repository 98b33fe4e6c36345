"""How requests are merged into batches: TensorFlow Serving's batching parameters and their defaults."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from components.errors import UsageError
from serving.server.text_protos import BatchingParameters, read_text_proto

_FLAG = "--batching_parameters_file"
_UNSUPPORTED = {
    "pad_variable_length_inputs": "inputs of different shapes run in batches of their own; leave the field out",
    "enable_large_batch_splitting": "send requests of at most max_batch_size images; leave the field out",
    "max_execution_batch_size": "it matters only where large batches are split; leave the field out",
}
_NOT_NEGATIVE = ("batch_timeout_micros", "max_batch_size", "max_enqueued_batches", "num_batch_threads")


@dataclasses.dataclass(frozen=True)
class BatchingOptions:
    """What a batch may be; names and defaults are those of TensorFlow Serving's `BatchingParameters`.

    Attributes:
        max_batch_size: most rows of a batch; a single request may not have more either.
        batch_timeout_micros: how long a batch that is not full waits for more rows, in microseconds.
        max_enqueued_batches: most batches that wait at one signature of one version.
        num_batch_threads: batches that run at once.
        allowed_batch_sizes: sizes that a batch is padded to, rising, the last one `max_batch_size`;
            empty for no padding.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = dataclasses.field(default_factory=lambda: os.cpu_count() or 1)
    allowed_batch_sizes: tuple[int, ...] = ()

    def padded_size(self, rows: int) -> int:
        """Returns the smallest allowed batch size that holds so many rows."""
        return next((size for size in self.allowed_batch_sizes if size >= rows), rows)


def read_batching_options(path: str | None) -> BatchingOptions:
    """Reads a batching parameters file; without one, returns the defaults.

    Raises:
        UsageError: the file cannot be read, or a field has a value that the server does not support.
    """
    if path is None:
        return BatchingOptions()
    parameters = read_text_proto(_FLAG, path, BatchingParameters())
    given = {field.name: _plain(value) for field, value in parameters.ListFields()}
    for name, value in given.items():
        if name in _UNSUPPORTED and value:
            raise UsageError(f"{_FLAG} {path}: found {name}, which this server does not support: {_UNSUPPORTED[name]}")
    known = {field.name for field in dataclasses.fields(BatchingOptions)}
    options = BatchingOptions(**{name: value for name, value in given.items() if name in known})
    _check(options, path)
    return options


def _plain(value: Any) -> Any:
    """Returns the value inside a wrapper, such as `max_batch_size { value: 8 }`, or of a plain field."""
    if hasattr(value, "DESCRIPTOR"):
        return value.value
    return value if isinstance(value, bool) else tuple(value)


def _check(options: BatchingOptions, path: str) -> None:
    for name in _NOT_NEGATIVE:
        least = 0 if name == "batch_timeout_micros" else 1
        if getattr(options, name) < least:
            raise UsageError(f"{_FLAG} {path}: {name} is {getattr(options, name)}, expected at least {least}")
    sizes = options.allowed_batch_sizes
    if any(smaller >= larger for smaller, larger in zip((0, *sizes), sizes, strict=False)):
        raise UsageError(f"{_FLAG} {path}: allowed_batch_sizes are {list(sizes)}, expected positive, rising numbers")
    if sizes and sizes[-1] != options.max_batch_size:
        raise UsageError(
            f"{_FLAG} {path}: the last of allowed_batch_sizes is {sizes[-1]}, "
            f"expected max_batch_size, {options.max_batch_size}"
        )
