"""The pipeline's Pusher: serves a blessed model from a numbered directory that appears in one step."""

from __future__ import annotations

from typing import Any

from tfx import v1 as tfx
from tfx.dsl.components.base import executor_spec

from components.pusher.executor import AtomicPusherExecutor


class AtomicPusher(tfx.components.Pusher):
    """Copies the model to `<base_directory>/<version>`, which a reader never sees half written.

    Its output `pushed_model` carries the custom properties of TFX's pusher: `pushed`,
    `pushed_destination` and `pushed_version`.

    Args:
        model: channel of the model.
        model_blessing: channel of the blessing that decides whether it is pushed.
        base_directory: directory of the versions, local or on an object store.
    """

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(AtomicPusherExecutor)

    def __init__(self, model: Any, model_blessing: Any, base_directory: str) -> None:
        filesystem = tfx.proto.PushDestination.Filesystem(base_directory=base_directory)
        super().__init__(
            model=model,
            model_blessing=model_blessing,
            push_destination=tfx.proto.PushDestination(filesystem=filesystem),
        )
        self.with_id("Pusher")
