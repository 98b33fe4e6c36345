"""Finds the blessed, pushed versions of a project that were not withdrawn: candidates for baseline and warm start."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator
from typing import Any

from ml_metadata.proto import metadata_store_pb2

# Not in tfx.v1: the properties of a blessing, and the path of a Trainer's model.
from tfx.components.evaluator import constants
from tfx.utils import path_utils

from components.pusher.versions import version_number
from components.pusher.withdrawn import read_withdrawn

_Event = metadata_store_pb2.Event


@dataclasses.dataclass(frozen=True)
class PushedVersion:
    """A pushed model.

    Attributes:
        model: its Model artifact.
        blessing: its ModelBlessing artifact.
        archive: the folder of the PushedModel artifact, a copy of the version.
    """

    model: Any
    blessing: Any
    archive: str


def good_versions(store: Any, models: Iterable[Any], blessings: Iterable[Any]) -> Iterator[PushedVersion]:
    """Yields the versions that are blessed and not withdrawn, the last pushed first.

    Pusher's execution links a version to its model: it read the model and wrote the version (`_MarkPushed` in
    tfx/components/pusher/executor.py, 1.16 and 1.21, sets the properties).

    Args:
        store: the metadata store.
        models: eligible Model artifacts.
        blessings: ModelBlessing artifacts.

    Raises:
        SegpipeError: a record of withdrawn versions cannot be read.
    """
    by_id = {model.id: model for model in models}
    blessed = {
        blessing.get_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY): blessing
        for blessing in blessings
        if blessing.get_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY) == constants.BLESSED_VALUE
    }
    withdrawn = functools.cache(read_withdrawn)
    artifacts = store.get_artifacts_by_type("PushedModel")
    versions = [artifact for artifact in artifacts if artifact.custom_properties["pushed"].int_value == 1]
    read = _inputs(store, {pushed.id for pushed in versions})
    for pushed in sorted(versions, key=lambda artifact: artifact.id, reverse=True):
        base, name = os.path.split(pushed.custom_properties["pushed_destination"].string_value.rstrip("/"))
        for model_id in read[pushed.id] & blessed.keys() & by_id.keys():
            # The last push of a model counts.
            model = by_id.pop(model_id)
            if version_number(name) not in withdrawn(base):
                yield PushedVersion(model, blessed[model_id], pushed.uri)


def read_for(store: Any, artifact_ids: set[int]) -> set[int]:
    """Returns the ids of the input artifacts of the executions that wrote some artifacts."""
    return set().union(*_inputs(store, artifact_ids).values())


def _inputs(store: Any, artifact_ids: set[int]) -> dict[int, set[int]]:
    """Returns the ids of the inputs of the executions that wrote each artifact, by the artifact's id.

    Queries the store twice, however many artifacts there are.
    """
    events = store.get_events_by_artifact_ids(list(artifact_ids)) if artifact_ids else []
    written = [event for event in events if event.type == _Event.OUTPUT]
    executions = {event.execution_id for event in written}
    read: dict[int, set[int]] = {execution: set() for execution in executions}
    for event in store.get_events_by_execution_ids(list(executions)) if executions else []:
        if event.type == _Event.INPUT:
            read[event.execution_id].add(event.artifact_id)
    inputs: dict[int, set[int]] = {artifact: set() for artifact in artifact_ids}
    for event in written:
        inputs[event.artifact_id] |= read[event.execution_id]
    return inputs


def saved_model(model: Any) -> str:
    """Returns the path of a Model artifact's SavedModel."""
    return path_utils.serving_model_path(model.uri, path_utils.is_old_model_artifact(model))
