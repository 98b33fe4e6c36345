"""Sums up the images of a split for every score: one size, however many images there are."""

from __future__ import annotations

import dataclasses

import numpy as np

from components.class_map import ClassMap
from components.metrics.bootstrap import RESAMPLES, Resampled, poisson_weights, resampled_scores
from components.metrics.diagnostics import Diagnostics
from components.metrics.scores import counts, scores

# More sequences than a person reads: names without a sequence in them make one of each image.
MAX_SEQUENCES = 100


@dataclasses.dataclass
class Tally:
    """Sums over images.

    Attributes:
        class_map: the classes of the masks.
        matrix: confusion matrix, int64 [N, N], rows the truth, columns the prediction.
        resamples: pixels hit, true and predicted of each scored class in every bootstrap resample,
            int64 [RESAMPLES, 3, scored classes].
        sequences: pixels hit, true and predicted by sequence, int64 [3, scored classes] each; None once there are more
            than `MAX_SEQUENCES`.
        selection: pixels hit, true and predicted of each scored class in the split that chose the epoch, int64
            [3, scored classes]; all zero if the gate judges that split. Nothing else counts that split's images.
        diagnostics: the counts of the scores that do not gate.
    """

    class_map: ClassMap
    matrix: np.ndarray
    resamples: np.ndarray
    sequences: dict[str, np.ndarray] | None
    selection: np.ndarray
    diagnostics: Diagnostics

    @classmethod
    def empty(cls, class_map: ClassMap) -> Tally:
        """Returns the tally of no image."""
        size, scored = class_map.num_classes, len(class_map.scored_names)
        return cls(
            class_map,
            matrix=np.zeros((size, size), np.int64),
            resamples=np.zeros((RESAMPLES, 3, scored), np.int64),
            sequences={},
            selection=np.zeros((3, scored), np.int64),
            diagnostics=Diagnostics.empty(class_map),
        )

    def add(self, matrix: np.ndarray, image: bytes, sequence: str = "", diagnostics: Diagnostics | None = None) -> None:
        """Adds one image.

        Args:
            matrix: its confusion matrix, int64 [N, N].
            image: its encoded bytes, or any others that identify it; they decide its bootstrap weights.
            sequence: name of the sequence it belongs to.
            diagnostics: its counts of the scores that do not gate; None leaves them as they are.
        """
        own = counts(matrix, self.class_map)
        self.matrix += matrix
        self.resamples += poisson_weights(image)[:, np.newaxis, np.newaxis] * own
        self._add_sequences({sequence: own})
        if diagnostics is not None:
            self.diagnostics.add(diagnostics)

    def add_selection(self, matrix: np.ndarray) -> None:
        """Adds one image of the split that chose the epoch: its confusion matrix, int64 [N, N]."""
        self.selection += counts(matrix, self.class_map)

    def merge(self, other: Tally) -> None:
        """Adds the images of another tally."""
        self.selection += other.selection
        self.matrix += other.matrix
        self.resamples += other.resamples
        self.diagnostics.add(other.diagnostics)
        self._add_sequences(other.sequences)

    def flat(self) -> dict[str, float | None]:
        """Returns the scores by metric name, None if undefined."""
        return scores(self.matrix, self.class_map).flat()

    def resampled(self) -> Resampled:
        """Returns the scores of every bootstrap resample."""
        return resampled_scores(self.resamples, self.class_map)

    def _add_sequences(self, added: dict[str, np.ndarray] | None) -> None:
        if self.sequences is None or added is None:
            self.sequences = None
            return
        for name, own in added.items():
            self.sequences[name] = self.sequences.get(name, 0) + own
        if len(self.sequences) > MAX_SEQUENCES:
            self.sequences = None
