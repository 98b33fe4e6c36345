"""What runs a loaded model: the interface that the session fulfils and that batching wraps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np


class Runner(Protocol):
    """Runs signatures of one loaded version; safe to call from many threads."""

    def run(
        self,
        signature_name: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        deadline: float | None,
        interrupt: bool = False,
    ) -> dict[str, np.ndarray]:
        """Runs one signature.

        Args:
            signature_name: a signature of the model.
            inputs: every input of the signature, checked already; strings as object arrays of bytes.
            outputs: names of the outputs to compute.
            deadline: `time.monotonic()` after which a run that has not begun is not begun, or None.
            interrupt: whether a run that has begun, for this request alone, is also ended at the deadline.

        Returns:
            The outputs by name; strings as object arrays of bytes.

        Raises:
            ServingError: the model refused the input, or the deadline passed.
        """
        ...

    def close(self) -> None:
        """Frees the model; no run is in progress or follows."""
        ...
