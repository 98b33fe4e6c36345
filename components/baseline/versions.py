"""The versions of a project that may be compared with or learned from: blessed, pushed, and not withdrawn since."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator
from typing import Any

from ml_metadata.proto import metadata_store_pb2

# Not part of tfx.v1: the names under which the Evaluator marks a blessing, and where a Trainer's model lies.
from tfx.components.evaluator import constants
from tfx.utils import path_utils

from components.pusher.versions import version_number
from components.pusher.withdrawn import read_withdrawn

_Event = metadata_store_pb2.Event


@dataclasses.dataclass(frozen=True)
class Version:
    """A pushed model.

    Attributes:
        model: its Model artifact.
        blessing: its ModelBlessing artifact.
        archive: the folder of the PushedModel artifact, a copy of the version.
    """

    model: Any
    blessing: Any
    archive: str


def good_versions(store: Any, models: Iterable[Any], blessings: Iterable[Any]) -> Iterator[Version]:
    """Yields the versions that are blessed and not withdrawn, the last pushed first.

    A version belongs to its model by Pusher's execution, which read the one and wrote the other
    (`_MarkPushed` in tfx/components/pusher/executor.py, 1.16 and 1.21, sets the properties).

    Args:
        store: the metadata store.
        models: Model artifacts that qualify.
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
    for pushed in sorted(store.get_artifacts_by_type("PushedModel"), key=lambda artifact: artifact.id, reverse=True):
        if pushed.custom_properties["pushed"].int_value != 1:
            continue
        base, name = os.path.split(pushed.custom_properties["pushed_destination"].string_value.rstrip("/"))
        for model_id in read_for(store, {pushed.id}) & blessed.keys() & by_id.keys():
            # What was pushed of a model last decides about it.
            model = by_id.pop(model_id)
            if version_number(name) not in withdrawn(base):
                yield Version(model, blessed[model_id], pushed.uri)


def read_for(store: Any, artifact_ids: set[int]) -> set[int]:
    """Returns the ids of the artifacts that the executions behind some artifacts read."""
    written = store.get_events_by_artifact_ids(list(artifact_ids)) if artifact_ids else []
    executions = [event.execution_id for event in written if event.type == _Event.OUTPUT]
    read = store.get_events_by_execution_ids(executions) if executions else []
    return {event.artifact_id for event in read if event.type == _Event.INPUT}


def saved_model(model: Any) -> str:
    """Returns where a Model artifact keeps its SavedModel."""
    return path_utils.serving_model_path(model.uri, path_utils.is_old_model_artifact(model))
