"""Checks whether Beam's workers can access the local files of a component, and whether they need TFX's package.

Executors read and write local files, even if the results are on an object store (pipeline/running/staging.py). On
Vertex AI, TFX's own launcher passes them the addresses on the store, so nothing is checked for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from components import files
from components.errors import UsageError

if TYPE_CHECKING:
    from pipeline.configuration.config import BeamSettings

_ISOLATED = _CLOUD, _DOCKER = "on Google Cloud", "in Docker containers"
_SEPARATE = "in processes that you start"


def refuse_remote_workers(beam: BeamSettings, results: str) -> None:
    """Raises UsageError if a Beam worker cannot access the files that its component reads and writes.

    Workers on Google Cloud and in Docker containers have no local folders, because Beam mounts none. Workers of
    `--environment_type=PROCESS` or `EXTERNAL` may mount the volume of the results, which is not checked. They do not
    have a task's local copies of an object store.

    Args:
        beam: the Beam options.
        results: the folder of results.
    """
    for component in ("", *beam.component_args):
        workers = _workers([*beam.args, *beam.component_args.get(component, ())])
        if workers in _ISOLATED or (workers == _SEPARATE and files.is_remote(results)):
            where = f"beam.component_args.{component}" if component else "beam.args"
            place = f"the local copies of {results}" if files.is_remote(results) else f"the results at {results}"
            raise UsageError(
                f"{where}: the workers run {workers} and cannot access {place}; expected workers with the same local "
                "files as the pipeline. Use --runner=DirectRunner, or --environment_type=EXTERNAL with the results on "
                "a volume that the workers mount at the same path"
            )


def without_tfx_package(args: Sequence[str]) -> list[str]:
    """Returns the option that stops TFX from building its own package for workers that do not need it.

    For every component, TFX copies its installation and builds a source package of 45 MB, which takes seconds, and
    leaves both in the folder for temporary files. It does not if an image for the workers is given
    (`make_beam_dependency_flags` in tfx/utils/dependency_utils.py, TFX 1.16 and 1.21). Workers in this process, in
    other processes of this machine or in a pool ignore the image. They also need segpipe, which the package lacks.
    """
    return [] if _workers(args) in _ISOLATED else ["--sdk_container_image=unused"]


def _workers(args: Sequence[str]) -> str:
    """Returns where the workers of a runner are; an empty string for this process and its children.

    Raises:
        UsageError: Beam does not know the runner.
    """
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
    from apache_beam.runners.portability.portable_runner import PortableRunner
    from apache_beam.runners.runner import create_runner
    from apache_beam.transforms.environments import DockerEnvironment, ExternalEnvironment, ProcessEnvironment

    options = PipelineOptions(list(args))
    name = options.view_as(StandardOptions).runner or StandardOptions.DEFAULT_RUNNER
    # As in Beam's create_runner; the class of this runner needs another package.
    if "dataflow" in name.lower():
        return _CLOUD
    try:
        runner = create_runner(name)
    except ValueError as error:
        raise UsageError(f"beam.args: found the runner {name!r}, expected a runner of Beam: {error}") from None
    # Its workers run in Docker, unless the master is local or --environment_type says otherwise.
    environment = runner.default_environment(options) if isinstance(runner, PortableRunner) else None
    if isinstance(environment, DockerEnvironment):
        return _DOCKER
    return _SEPARATE if isinstance(environment, ExternalEnvironment | ProcessEnvironment) else ""
