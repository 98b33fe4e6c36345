"""Compute the scores of masks as a TensorFlow Model Analysis metric. Label and prediction are mask PNGs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from components import features
from components.metrics import tfma_base
from components.metrics.confusion import confusion_matrix, decode_confidence, decode_mask
from components.metrics.diagnostics import Diagnostics
from components.metrics.tally import Tally
from components.metrics.tfma_base import one_bytes

CONFUSION_MATRIX = "confusion_matrix"
SEQUENCE_COUNTS = "sequence_counts"
SELECTION_COUNTS = "selection_counts"
DIAGNOSTICS = "diagnostics"


class MaskMetric(tfma_base.TallyMetric):
    """The scores of `components.metrics.scores`, and the counts that they follow from."""

    metric = "masks"

    def empty_tally(self) -> Tally:
        """Returns the tally of no image."""
        return Tally.empty(self.class_map)

    def count(self, raw: Mapping[str, Any], label: Any, outputs: Any) -> Iterator[tuple[Any, ...]]:
        """Yields the confusion matrix, image, sequence, diagnostics and role of one example."""
        # TFMA unpacks the only output of a model, one without confidence.
        if not isinstance(outputs, Mapping):
            outputs = {features.MASK_PNG: outputs}
        truth = decode_mask(one_bytes(label, "label"))
        prediction = decode_mask(one_bytes(features.mask_png(outputs), "prediction"))
        confidence = outputs.get(features.CONFIDENCE_PNG)
        levels = None if confidence is None else decode_confidence(one_bytes(confidence, "confidence"))
        image, sequence = (one_bytes(raw[name], name) for name in (features.IMAGE, features.SEQUENCE))
        selects = self.selects(raw)
        yield (
            confusion_matrix(truth, prediction, self.class_map.num_classes),
            image,
            sequence.decode(),
            None if selects else Diagnostics.of_image(truth, prediction, self.class_map, levels),
            selects,
        )

    def derive(self, tally: Tally) -> dict[str, Any]:
        """Returns the confusion matrix, the counts by sequence, those of the selection split, and the diagnostics.

        The counts of the diagnostics are named as in `diagnostics/boundary`. Too many sequences leave out theirs.
        """
        values = {
            CONFUSION_MATRIX: tally.matrix,
            SELECTION_COUNTS: tally.selection,
            **{f"{DIAGNOSTICS}/{name}": counts for name, counts in vars(tally.diagnostics).items()},
            **tally.diagnostics.flat(tally.class_map),
        }
        if tally.sequences:
            names = sorted(tally.sequences)
            values[tfma_base.SEQUENCE_NAMES] = np.array(names)
            values[SEQUENCE_COUNTS] = np.stack([tally.sequences[name] for name in names])
        return values
