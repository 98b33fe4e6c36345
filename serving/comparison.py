"""Measures a model in this process: mean IoU as in the pipeline's evaluation, latency and size."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from components import features
from components.class_map import ClassMap
from components.metrics.confusion import confusion_matrix, decode_mask
from components.metrics.scores import mean_iou
from serving.predictor import batches

_BATCH = 8
_WARM_UP_CALLS = 3
_TIMED_CALLS = 15

# A signature: takes `image`, string [B].
Signature = Callable[..., dict[str, tf.Tensor]]


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Measurement of one variant of a model.

    Attributes:
        name: `plain` for the exported model itself, or the variant.
        mean_iou: over the evaluation split, 0 to 1.
        latency_ms: median of calls with one image, after warm-up.
        bytes: size of its files.
        verdict: whether the variant was chosen, or why not.
    """

    name: str
    mean_iou: float
    latency_ms: float
    bytes: int
    verdict: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return dataclasses.asdict(self)


def measure(
    name: str,
    serve: Signature,
    evaluate: Signature,
    pairs: Iterable[tuple[bytes, bytes]],
    class_map: ClassMap,
    size: int,
) -> Measurement:
    """Measures a model's signatures `serving_default` and `evaluation`.

    Args:
        name: the variant's name.
        serve: the signature to time.
        evaluate: the signature whose masks are scored.
        pairs: encoded images with their masks, grey PNG; at least one.
        class_map: the classes of both.
        size: bytes of its files.
    """
    remaining = iter(pairs)
    first = next(remaining)
    latency = _median_latency_ms(lambda: serve(image=tf.constant([first[0]])))
    matrix = np.zeros((class_map.num_classes, class_map.num_classes), np.int64)
    for batch in batches(itertools.chain([first], remaining), _BATCH):
        masks = features.mask_png(evaluate(image=tf.constant([image for image, _ in batch]))).numpy()
        for (_, truth), mask in zip(batch, masks, strict=True):
            matrix += confusion_matrix(decode_mask(truth), decode_mask(mask), class_map.num_classes)
    return Measurement(name, mean_iou(matrix, class_map), latency, size)


def _median_latency_ms(call: Callable[[], Any]) -> float:
    for _ in range(_WARM_UP_CALLS):
        call()
    seconds = []
    for _ in range(_TIMED_CALLS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)


def table(measurements: Sequence[Measurement]) -> str:
    """Formats the measurements as a table for a terminal."""
    lines = [f"{'variant':10}{'mean IoU':>10}{'latency, ms':>13}{'size, MB':>10}  verdict"]
    for row in measurements:
        size = row.bytes / 1e6
        lines.append(f"{row.name:10}{row.mean_iou:10.4f}{row.latency_ms:13.1f}{size:10.1f}  {row.verdict}")
    return "\n".join(lines)
