"""Checks whether Beam's workers can read local folders, and whether they need TFX's package.

Beam reads and writes files in its workers, so local paths only work if the workers run on this machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from components import files
from components.errors import UsageError

if TYPE_CHECKING:
    from pipeline.configuration.config import BeamSettings

_EXAMPLE_GEN = "ImageMaskExampleGen"


def refuse_local_paths(beam: BeamSettings, data: str, results: str) -> None:
    """Raises UsageError if a Beam worker cannot access a local folder that it reads or writes.

    Workers on Google Cloud and in Docker containers have no local folders, because Beam mounts none. Workers of
    `--environment_type=PROCESS` or `EXTERNAL` may run on any machine; whether they mount the folders is not checked.

    Args:
        beam: the Beam options.
        data: the data folder, which only ExampleGen reads; empty if it is not known yet.
        results: the folder of results, which all components read and write.
    """
    for component in ("", *beam.component_args):
        args = [*beam.args, *beam.component_args.get(component, ())]
        workers = _workers_without_local_files(args)
        if not workers:
            continue
        where = f"beam.component_args.{component}" if component else "beam.args"
        paths = {"the results": results}
        if component == _EXAMPLE_GEN or (not component and _EXAMPLE_GEN not in beam.component_args):
            paths = {"the data": data, **paths}
        for name, path in paths.items():
            if path and not files.is_remote(path):
                raise UsageError(
                    f"{where}: the workers run {workers} and cannot access {name} at {path}; expected a path that they "
                    "reach, such as gs://BUCKET/FOLDER. Move it there, or choose a runner with workers on this machine"
                )


def without_tfx_package(args: Sequence[str]) -> list[str]:
    """Returns the option that stops TFX from building its own package for workers that do not need it.

    For every component, TFX copies its installation and builds a source package of 45 MB, which takes seconds, and
    leaves both in the folder for temporary files. It does not if an image for the workers is given
    (`make_beam_dependency_flags` in tfx/utils/dependency_utils.py, TFX 1.16 and 1.21). Workers in this process, in
    other processes of this machine or in a pool ignore the image. They also need segpipe, which the package lacks.
    """
    return [] if _workers_without_local_files(args) else ["--sdk_container_image=unused"]


def _workers_without_local_files(args: Sequence[str]) -> str:
    """Returns where the workers of a runner are, if they have no local folders, else an empty string.

    Raises:
        UsageError: Beam does not know the runner.
    """
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
    from apache_beam.runners.portability.portable_runner import PortableRunner
    from apache_beam.runners.runner import create_runner
    from apache_beam.transforms.environments import DockerEnvironment

    options = PipelineOptions(list(args))
    name = options.view_as(StandardOptions).runner or StandardOptions.DEFAULT_RUNNER
    # As in Beam's create_runner; the class of this runner needs another package.
    if "dataflow" in name.lower():
        return "on Google Cloud"
    try:
        runner = create_runner(name)
    except ValueError as error:
        raise UsageError(f"beam.args: found the runner {name!r}, expected a runner of Beam: {error}") from None
    # Its workers run in Docker, unless the master is local or --environment_type says otherwise.
    if isinstance(runner, PortableRunner) and isinstance(runner.default_environment(options), DockerEnvironment):
        return "in Docker containers"
    return ""
