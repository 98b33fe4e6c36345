"""Compiles a step to a graph, with XLA if possible."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import tensorflow as tf

_PROGRESS = logging.getLogger("segpipe.progress")


class CompiledStep:
    """Runs a step on every device of a strategy.

    XLA makes steps faster but cannot compile every operation. If compilation fails, the step runs without XLA.
    """

    def __init__(self, step: Callable[..., None], strategy: tf.distribute.Strategy, xla: bool, name: str) -> None:
        """Compiles nothing yet.

        Args:
            step: takes the parts of one device's batch, changes variables and returns nothing.
            strategy: the strategy of these variables.
            xla: whether to compile with XLA.
            name: the step's name in messages.
        """
        self._step = step
        self._strategy = strategy
        self._name = name
        self._xla = xla
        self._ran = False
        self._graph = self._traced()

    def __call__(self, batch: Any) -> None:
        """Runs one step on a batch of the strategy."""
        try:
            self._graph(batch)
        except tf.errors.OpError as error:
            # XLA compiles before it runs anything, so the variables are unchanged.
            if not self._xla or self._ran:
                raise
            _PROGRESS.warning(
                "XLA cannot compile the %s step, so it runs without XLA (%s); set training.xla=off to skip the attempt",
                self._name,
                error.message.strip().partition("\n")[0][:200],
            )
            self._xla = False
            self._graph = self._traced()
            self._graph(batch)
        self._ran = True

    def _traced(self) -> Any:
        step = tf.function(self._step, autograph=False, jit_compile=True) if self._xla else self._step
        return tf.function(lambda batch: self._strategy.run(step, args=batch), autograph=False)
