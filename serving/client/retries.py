"""The rules for retrying calls."""

from __future__ import annotations

import dataclasses
import random

import grpc

from serving.client.errors import is_size_limit

# Predict has no side effects, so broken connections and full queues can be retried. Other errors would repeat (an
# invalid request) or have used up the time (a deadline).
_TRANSIENT = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}


@dataclasses.dataclass(frozen=True)
class Retries:
    """Exponential backoff with jitter.

    Attributes:
        attempts: total number of calls, including the first.
        first_pause: seconds before the second attempt; doubles with each further attempt.
        longest_pause: largest pause, in seconds.
    """

    attempts: int = 6
    first_pause: float = 0.1
    longest_pause: float = 5.0

    def pause(self, attempt: int, error: grpc.RpcError) -> float | None:
        """Returns the seconds to wait after a failed attempt (counted from 1), or None to give up.

        Half of the pause is fixed, to let the server recover; half is random, so that clients do not retry in step.
        """
        code = error.code()
        if code not in _TRANSIENT or attempt >= self.attempts:
            return None
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED and is_size_limit(error.details() or ""):
            return None
        return self._longest(attempt) * (0.5 + random.random() / 2)

    def stagger(self, attempt: int) -> float:
        """Returns random seconds to wait after an attempt (counted from 1), so that merged requests separate."""
        return self._longest(attempt) * random.random()

    def _longest(self, attempt: int) -> float:
        return min(self.longest_pause, self.first_pause * 2 ** (attempt - 1))
