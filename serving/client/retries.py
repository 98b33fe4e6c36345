"""When a call is tried again, and after how long."""

from __future__ import annotations

import dataclasses
import random

import grpc

from serving.client.errors import is_size_limit

# Predict only reads, so it may run twice: a broken connection and a full queue are worth another try. Everything
# else either comes back the same (a wrong request) or has used up its time (a deadline).
_TRANSIENT = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}


@dataclasses.dataclass(frozen=True)
class Retries:
    """Exponential backoff with jitter.

    Attributes:
        attempts: calls in all, the first included.
        first_pause: seconds before the second attempt, doubled for each further one.
        longest_pause: seconds that no pause exceeds.
    """

    attempts: int = 6
    first_pause: float = 0.1
    longest_pause: float = 5.0

    def pause(self, attempt: int, error: grpc.RpcError) -> float | None:
        """Returns the seconds to wait after a failed attempt (counted from 1), or None to give up.

        Half of a pause is fixed, so a server gets time to recover; half is random, so clients that failed
        together do not return together.
        """
        code = error.code()
        if code not in _TRANSIENT or attempt >= self.attempts:
            return None
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED and is_size_limit(error.details() or ""):
            return None
        return self._longest(attempt) * (0.5 + random.random() / 2)

    def stagger(self, attempt: int) -> float:
        """Returns the seconds to wait after an attempt (counted from 1) so that requests that met part."""
        return self._longest(attempt) * random.random()

    def _longest(self, attempt: int) -> float:
        return min(self.longest_pause, self.first_pause * 2 ** (attempt - 1))
