"""The pipeline's Pusher: publishes a blessed model atomically as a new version."""

from __future__ import annotations

from typing import Any

from tfx import v1 as tfx
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import component_spec, standard_component_specs
from tfx.types.standard_artifacts import Examples, ModelEvaluation, PushedModel

from components.pusher.executor import EVALUATION, EXAMPLES, GATE_SPLIT, AtomicPusherExecutor


class AtomicPusherSpec(standard_component_specs.PusherSpec):
    """TFX's Pusher with the evaluation and its examples as further inputs."""

    INPUTS = {  # noqa: RUF012 - the base class declares it so
        **standard_component_specs.PusherSpec.INPUTS,
        EVALUATION: component_spec.ChannelParameter(type=ModelEvaluation, optional=True),
        EXAMPLES: component_spec.ChannelParameter(type=Examples, optional=True),
    }
    PARAMETERS = {  # noqa: RUF012
        **standard_component_specs.PusherSpec.PARAMETERS,
        GATE_SPLIT: component_spec.ExecutionParameter(type=str),
    }


# Not a subclass of TFX's Pusher, whose constructor accepts no further inputs.
class AtomicPusher(base_component.BaseComponent):
    """Copies the model atomically into a new version below `base_directory`.

    Its output `pushed_model` has the custom properties of TFX's Pusher: `pushed`, `pushed_destination` and
    `pushed_version`.

    Args:
        model: channel of the model.
        model_blessing: channel of the blessing, without which the model is not pushed.
        base_directory: directory of the versions.
        evaluation: channel of the evaluation; its scores become metadata of the pushed model.
        examples: channel of the raw examples that were evaluated.
        gate_split: the split of the scores.
    """

    SPEC_CLASS = AtomicPusherSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(AtomicPusherExecutor)

    def __init__(
        self,
        model: Any,
        model_blessing: Any,
        base_directory: str,
        evaluation: Any = None,
        examples: Any = None,
        gate_split: str = "",
    ) -> None:
        filesystem = tfx.proto.PushDestination.Filesystem(base_directory=base_directory)
        spec = AtomicPusherSpec(
            model=model,
            model_blessing=model_blessing,
            evaluation=evaluation,
            examples=examples,
            gate_split=gate_split,
            push_destination=tfx.proto.PushDestination(filesystem=filesystem),
            custom_config="null",
            pushed_model=tfx.dsl.Channel(type=PushedModel),
        )
        super().__init__(spec=spec)
        self.with_id("Pusher")
