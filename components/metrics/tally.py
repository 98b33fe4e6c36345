"""Sum up the images of a split for every score of masks; the size does not depend on the number of images."""

from __future__ import annotations

import dataclasses

import numpy as np

from components.class_map import ClassMap
from components.metrics.bootstrap import RESAMPLES, Resampled, poisson_weights
from components.metrics.diagnostics import Diagnostics
from components.metrics.scores import Scores, counts, overlap_scores, scores

# More sequences than anybody reads: if names hold no sequence, each image is one of its own.
MAX_SEQUENCES = 100


@dataclasses.dataclass
class Tally:
    """Sums over images.

    Attributes:
        class_map: the classes of the masks.
        matrix: confusion matrix, int64 [N, N], rows the truth, columns the prediction.
        resamples: pixels hit, true and predicted of each scored class in every bootstrap resample,
            int64 [RESAMPLES, 3, scored classes].
        sequences: pixels hit, true and predicted by sequence, int64 [3, scored classes] each; None if there are more
            than `MAX_SEQUENCES`.
        selection: pixels hit, true and predicted of each scored class in the split that selected the epoch, int64
            [3, scored classes]; all zero if the gate judges that split. The images of that split count nowhere else.
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

    def add(
        self,
        matrix: np.ndarray,
        image: bytes,
        sequence: str = "",
        diagnostics: Diagnostics | None = None,
        selects: bool = False,
    ) -> None:
        """Adds one image.

        Args:
            matrix: its confusion matrix, int64 [N, N].
            image: its encoded bytes, which determine its bootstrap weights.
            sequence: name of its sequence.
            diagnostics: its counts of the scores that do not gate.
            selects: whether it is in the split that selected the epoch.
        """
        own = counts(matrix, self.class_map)
        if selects:
            self.selection += own
            return
        self.matrix += matrix
        self.resamples += poisson_weights(image)[:, np.newaxis, np.newaxis] * own
        self._add_sequences({sequence: own})
        if diagnostics is not None:
            self.diagnostics.add(diagnostics)

    def merge(self, other: Tally) -> None:
        """Adds the images of another tally."""
        self.selection += other.selection
        self.matrix += other.matrix
        self.resamples += other.resamples
        self.diagnostics.add(other.diagnostics)
        self._add_sequences(other.sequences)

    def flat(self) -> Scores:
        """Returns the scores by metric name; NaN if undefined."""
        return scores(self.matrix, self.class_map)

    def resampled(self) -> Resampled:
        """Returns the scores of every bootstrap resample."""
        return overlap_scores(np.moveaxis(self.resamples, 1, 0), self.class_map.scored_names)

    def _add_sequences(self, added: dict[str, np.ndarray] | None) -> None:
        if self.sequences is None or added is None:
            self.sequences = None
            return
        for name, own in added.items():
            self.sequences[name] = self.sequences.get(name, 0) + own
        if len(self.sequences) > MAX_SEQUENCES:
            self.sequences = None
