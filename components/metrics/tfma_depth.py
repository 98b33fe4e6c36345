"""Compute the scores of depth as a TensorFlow Model Analysis metric, beside those of masks.

The label is the depth map of the raw features, the prediction the depth map of the signature `evaluation`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from components import features
from components.metrics import tfma_base
from components.metrics.depth import DepthTally, decode_depth, error_sums
from components.metrics.tfma_base import one_bytes


class DepthMetric(tfma_base.TallyMetric):
    """The scores of `components.metrics.depth`."""

    metric = "depth"

    def empty_tally(self) -> DepthTally:
        """Returns the tally of no image."""
        return DepthTally()

    def count(self, raw: Mapping[str, Any], label: Any, outputs: Any) -> Iterator[tuple[Any, ...]]:
        """Yields the sums of errors and the image of one example."""
        del label
        assert self.settings.depth_scale is not None  # `gate.eval_config` sets it for this metric
        # A baseline may have no depth, and TFMA unpacks the only output of a model.
        if not isinstance(outputs, Mapping) or features.DEPTH_PNG not in outputs or self.selects(raw):
            return
        estimate = decode_depth(one_bytes(outputs[features.DEPTH_PNG], "depth"))
        truth = decode_depth(one_bytes(raw[features.DEPTH], features.DEPTH))
        yield error_sums(truth, estimate, self.settings.depth_scale), one_bytes(raw[features.IMAGE], features.IMAGE)
