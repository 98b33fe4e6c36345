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
from tfx.orchestration.portable import launcher, outputs_utils
from tfx.orchestration.portable.mlmd import execution_lib

from components import files, stored_folder
from components.errors import SegpipeError
from pipeline.storage.store import ATTEMPT, attempt_name


class _AttemptFolders(outputs_utils.OutputsResolver):
    """Names an attempt's folders after it. TFX 1.16 and 1.21 use the id only as a name in these methods."""

    attempt = 1

    def generate_output_artifacts(self, execution_id: int) -> Any:
        return super().generate_output_artifacts(attempt_name(execution_id, self.attempt))

    def get_executor_output_uri(self, execution_id: int) -> Any:
        return super().get_executor_output_uri(attempt_name(execution_id, self.attempt))

    def make_tmp_dir(self, execution_id: int) -> Any:
        return super().make_tmp_dir(attempt_name(execution_id, self.attempt))


class StagingLauncher(launcher.Launcher):
    """TFX's launcher, with local folders for the executors, and folders of its own for each attempt.

    A retry continues the execution of the attempt before it, whose pod may be lost to Kubernetes and still write. Such
    an attempt does not touch the retry's files, and its end is not recorded.
    """

    def __init__(self, **arguments: Any) -> None:
        """Takes the arguments of TFX's launcher."""
        super().__init__(**arguments)
        names = ("pipeline_node", "pipeline_info", "pipeline_runtime_spec")
        self._output_resolver = _AttemptFolders(**{name: arguments[name] for name in names})

    def _register_or_reuse_execution(self, metadata_handle: Any, *arguments: Any, **named: Any) -> Any:
        execution = super()._register_or_reuse_execution(metadata_handle, *arguments, **named)
        if not execution_lib.is_execution_successful(execution):
            self._output_resolver.attempt = execution.custom_properties[ATTEMPT].int_value + 1
            execution.custom_properties[ATTEMPT].int_value = self._output_resolver.attempt
            metadata_handle.store.put_executions([execution])
        return execution

    def _is_newest(self, execution_id: int) -> bool:
        with self._mlmd_connection as metadata:
            (execution,) = metadata.store.get_executions_by_id([execution_id])
        return bool(execution.custom_properties[ATTEMPT].int_value == self._output_resolver.attempt)

    def _publish_successful_execution(self, execution_id: int, *arguments: Any, **named: Any) -> None:
        if not self._is_newest(execution_id):
            raise SegpipeError(
                f"{self._pipeline_node.node_info.id}: a later attempt has started, so the outputs of this one are not "
                "used"
            )
        super()._publish_successful_execution(execution_id, *arguments, **named)

    def _publish_failed_execution(self, execution_id: int, *arguments: Any, **named: Any) -> None:
        if self._is_newest(execution_id):
            super()._publish_failed_execution(execution_id, *arguments, **named)

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
