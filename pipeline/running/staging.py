"""Runs executors on local folders if the pipeline's root is on an object store.

TFX's executors read and write artifacts with TensorFlow and Beam, which support few object stores. So inputs are
downloaded, the executor writes to the local disk, and if it succeeds, its outputs are uploaded: each artifact's files,
then its manifest (components/stored_folder.py). ML Metadata only has the addresses on the store. An artifact without a
manifest is from a killed task, and is never used.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# The launcher has no public alias; see pipeline/running/nodes.py.
from tfx.orchestration.portable import launcher

from components import files, stored_folder
from components.errors import SegpipeError


class StagingLauncher(launcher.Launcher):
    """TFX's launcher, with local folders for the executors."""

    def _run_executor(self, execution_info: Any) -> Any:
        """Downloads the inputs, runs the executor, and uploads the outputs.

        `Launcher._run_executor` of TFX 1.16 and 1.21 creates the folders of the outputs, runs the executor, and removes
        the folders if it fails; `launch` then records the returned outputs.
        """
        staged = copy.copy(execution_info)
        staged.input_dict = _with_uris(execution_info.input_dict, stored_folder.fetch)
        staged.output_dict = _with_uris(execution_info.output_dict, _new_local_folder)
        for name in ("execution_output_uri", "stateful_working_dir", "tmp_dir"):
            setattr(staged, name, _local(getattr(execution_info, name)))
        os.makedirs(staged.tmp_dir, exist_ok=True)
        os.makedirs(os.path.dirname(staged.execution_output_uri), exist_ok=True)
        result = super()._run_executor(staged)
        both = [*_artifacts(execution_info.input_dict), *_artifacts(execution_info.output_dict)]
        remote = {_local(artifact.uri): artifact.uri for artifact in both}
        for artifacts in result.output_artifacts.values():
            for artifact in artifacts.artifacts:
                _restore_uris(artifact, remote)
        for artifact in _artifacts(execution_info.output_dict):
            _publish(artifact.uri)
        return result


def _with_uris(artifacts: Mapping[str, Sequence[Any]], new_uri: Callable[[str], str]) -> dict[str, list[Any]]:
    copies = copy.deepcopy({key: list(group) for key, group in artifacts.items()})
    for artifact in _artifacts(copies):
        artifact.uri = new_uri(artifact.uri)
    return copies


def _artifacts(groups: Mapping[str, Sequence[Any]]) -> list[Any]:
    return [artifact for group in groups.values() for artifact in group]


def _local(path: str) -> str:
    return stored_folder.scratch_path(path) if files.is_remote(path) else path


def _new_local_folder(uri: str) -> str:
    """Returns the local folder of an output, and removes what a killed task left there."""
    if files.is_remote(uri):
        stored_folder.make_scratch(os.path.dirname(_local(uri)))
        stored_folder.drop_copy(uri)
    return _local(uri)


def _restore_uris(artifact: Any, remote: Mapping[str, str]) -> None:
    """Replaces local folders in an artifact's proto by their addresses on the store."""
    for local, uri in remote.items():
        artifact.uri = uri if artifact.uri == local else artifact.uri
        # The Evaluator records the compared models as properties.
        for properties in (artifact.properties, artifact.custom_properties):
            for value in properties.values():
                if f"{value.string_value}/".startswith(f"{local}/"):
                    value.string_value = uri + value.string_value.removeprefix(local)


def _publish(uri: str) -> None:
    if not files.is_remote(uri):
        return
    local = _local(uri)
    if not os.path.isdir(local):
        raise SegpipeError(f"{uri}: the folder {local} was not found, expected the executor to write it")
    manifest = stored_folder.Manifest(files=stored_folder.copy_files(local, uri))
    # With a local manifest, the next node in this pod reuses the local files.
    stored_folder.write_manifest(local, manifest)
    stored_folder.write_manifest(uri, manifest)
