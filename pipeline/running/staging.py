"""Runs an executor on local folders if the pipeline's root is on an object store.

TFX's executors read and write artifacts by TensorFlow and Beam, which know few object stores. So inputs are fetched to
the local disk, the executor writes to the local disk, and when it has succeeded, its outputs are published: each
artifact's files, and then its manifest (components/stored_folder.py). ML Metadata knows the addresses on the store
alone. An artifact without a manifest was left by a task that was killed; it is never used.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any

# The launcher has no public alias; see pipeline/running/nodes.py.
from tfx.orchestration.portable import launcher

from components import files, stored_folder
from components.errors import SegpipeError


class StagingLauncher(launcher.Launcher):
    """TFX's launcher, whose executors see local folders."""

    def _run_executor(self, execution_info: Any) -> Any:
        """Runs the executor between fetching its inputs and publishing its outputs.

        `Launcher._run_executor` of TFX 1.16 and 1.21 makes the folders of the outputs, runs the executor, and removes
        the folders if it fails; `launch` then records the outputs that are returned.
        """
        staged = copy.copy(execution_info)
        staged.input_dict = _moved(execution_info.input_dict, stored_folder.fetch)
        staged.output_dict = _moved(execution_info.output_dict, _emptied)
        for name in ("execution_output_uri", "stateful_working_dir", "tmp_dir"):
            setattr(staged, name, _local(getattr(execution_info, name)))
        os.makedirs(staged.tmp_dir, exist_ok=True)
        os.makedirs(os.path.dirname(staged.execution_output_uri), exist_ok=True)
        result = super()._run_executor(staged)
        remote = _addresses(execution_info)
        for artifacts in result.output_artifacts.values():
            for artifact in artifacts.artifacts:
                _restore(artifact, remote)
        for artifact in _artifacts(execution_info.output_dict):
            _publish(artifact.uri)
        return result


def _moved(artifacts: Mapping[str, Sequence[Any]], move: Any) -> dict[str, list[Any]]:
    """Returns copies of artifacts with other addresses."""
    moved = copy.deepcopy({key: list(group) for key, group in artifacts.items()})
    for artifact in _artifacts(moved):
        artifact.uri = move(artifact.uri)
    return moved


def _artifacts(groups: Mapping[str, Sequence[Any]]) -> list[Any]:
    return [artifact for group in groups.values() for artifact in group]


def _local(path: str) -> str:
    return stored_folder.scratch_path(path) if files.is_remote(path) else path


def _emptied(uri: str) -> str:
    """Returns the local folder of an output, without what a killed task left there."""
    if files.is_remote(uri):
        stored_folder.make_scratch(os.path.dirname(_local(uri)))
        stored_folder.drop_copy(uri)
    return _local(uri)


def _addresses(execution_info: Any) -> dict[str, str]:
    """Returns the address on the store of each local folder of an execution."""
    both = [*_artifacts(execution_info.input_dict), *_artifacts(execution_info.output_dict)]
    return {_local(artifact.uri): artifact.uri for artifact in both}


def _restore(artifact: Any, remote: Mapping[str, str]) -> None:
    """Puts addresses on the store in the place of local folders, in an artifact's proto."""
    for local, uri in remote.items():
        artifact.uri = uri if artifact.uri == local else artifact.uri
        # The Evaluator names the models that it compared so.
        for properties in (artifact.properties, artifact.custom_properties):
            for value in properties.values():
                if f"{value.string_value}/".startswith(f"{local}/"):
                    value.string_value = uri + value.string_value.removeprefix(local)


def _publish(uri: str) -> None:
    if not files.is_remote(uri):
        return
    local = _local(uri)
    if not os.path.isdir(local):
        raise SegpipeError(f"{uri}: found no folder {local} to publish, expected the executor to write one")
    manifest = stored_folder.Manifest(files=stored_folder.copy_files(local, uri))
    # The local manifest makes it a copy that the next node in this pod need not fetch.
    stored_folder.publish(local, manifest)
    stored_folder.publish(uri, manifest)
