"""The scores of depth as TensorFlow Model Analysis metrics, beside those of masks.

The label is the depth map of the raw features, the prediction the depth map of the signature `evaluation`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow_model_analysis as tfma

from components import features
from components.class_map import ClassMap
from components.metrics import tfma_base
from components.metrics.depth import DepthTally, decode_depth, error_sums
from components.metrics.tfma_base import one_bytes, one_feature


class _CompareDepth(tfma.metrics.Preprocessor):
    """Compares one example's depth map with the model's."""

    def __init__(self, depth_scale: float, selection_split: str, model_name: str, output_name: str) -> None:
        super().__init__(name=f"compare_depth_{model_name}_{output_name}")
        self._depth_scale = depth_scale
        self._selection_split = selection_split
        self._model_name = model_name
        self._output_name = output_name

    def process(self, extracts: dict[str, Any]) -> Iterator[tuple[Any, bytes]]:
        outputs = tfma.metrics.StandardMetricInputs(extracts).get_predictions(self._model_name, self._output_name)
        # A baseline may have no depth, and TFMA takes the only output of a model out of its dictionary.
        has_depth = isinstance(outputs, Mapping) and features.DEPTH_PNG in outputs
        if not has_depth or tfma_base.is_selection(extracts, self._selection_split):
            return
        estimate = decode_depth(one_bytes(outputs[features.DEPTH_PNG], "depth"))
        truth = decode_depth(one_feature(extracts, features.DEPTH))
        yield error_sums(truth, estimate, self._depth_scale), one_feature(extracts, features.IMAGE)


class DepthMetric(tfma_base.TallyMetric):
    """Base of the metrics of depth."""

    tally = "_depth_tally"

    def computation(
        self, class_map: ClassMap, things: tuple[str, ...], selection_split: str, model_name: str, output_name: str
    ) -> tfma_base.Computation:
        """Returns how depth maps are compared."""
        del class_map, things
        assert self._depth_scale is not None  # `gate.eval_config` sets it for these metrics
        preprocessor = _CompareDepth(self._depth_scale, selection_split, model_name, output_name)
        return tfma_base.Computation(preprocessor, DepthTally, DepthTally.add)


class DepthScores(DepthMetric):
    """The scores of `components.metrics.depth`."""

    metric = "depth"

    def derive(self, tally: DepthTally) -> Mapping[str, Any]:
        """Returns the scores."""
        return tally.flat()


class DepthScoreInterval(tfma_base.ScoreInterval, DepthMetric):
    """The intervals of the scores of depth."""

    metric = "depth_interval"


class DepthPairedChange(tfma_base.PairedChange, DepthMetric):
    """The changes of the scores of depth."""

    metric = "counted_depth_change"


METRIC_CLASSES: tuple[type[DepthMetric], ...] = (DepthScores, DepthScoreInterval, DepthPairedChange)
