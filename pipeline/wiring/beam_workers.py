"""Tells where Beam's workers run: whether they see the folders of a run, and whether TFX must send them itself.

Beam's Python code reads and writes files in its workers, so where they run decides whether a local path works.
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
    """Raises UsageError if a Beam worker could not see a local folder that it reads or writes.

    Workers on Google Cloud see no local folder, nor do Docker containers, because Beam mounts none into them. Workers
    of `--environment_type=PROCESS` or `EXTERNAL` may run on any machine; whether they mount the folders is not checked.

    Args:
        beam: the Beam options.
        data: the data folder, which ExampleGen alone reads; empty if it is not known yet.
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
                    f"{where}: the workers run {workers} and cannot see {name} at {path}; expected a path that they "
                    "reach, such as gs://BUCKET/FOLDER. Move it there, or choose a runner with workers on this machine"
                )


def without_tfx_package(args: Sequence[str]) -> list[str]:
    """Returns the option that keeps TFX from building a package of itself for workers that have it.

    For every component, TFX copies its installation and builds a source package of 45 MB, which takes seconds, and
    leaves both in the folder for temporary files. It does not if an image for the workers is named
    (`make_beam_dependency_flags` in tfx/utils/dependency_utils.py, TFX 1.16 and 1.21). Workers in this process, in
    others on this machine or in a pool do not use an image, and need segpipe, which that package lacks, anyway.

    Args:
        args: the Beam options of a component.
    """
    return [] if _workers_without_local_files(args) else ["--sdk_container_image=unused"]


def _workers_without_local_files(args: Sequence[str]) -> str:
    """Returns where the workers of a runner are, if no local folder is there, else an empty string.

    Raises:
        UsageError: Beam has no such runner.
    """
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
    from apache_beam.runners.portability.portable_runner import PortableRunner
    from apache_beam.runners.runner import create_runner
    from apache_beam.transforms.environments import DockerEnvironment

    options = PipelineOptions(list(args))
    name = options.view_as(StandardOptions).runner or StandardOptions.DEFAULT_RUNNER
    # Beam's own test for it, in create_runner; its class needs another package.
    if "dataflow" in name.lower():
        return "on Google Cloud"
    try:
        runner = create_runner(name)
    except ValueError as error:
        raise UsageError(f"beam.args: found the runner {name!r}, expected one that Beam has: {error}") from None
    # The environment that it would start workers in: Docker, unless master or --environment_type say otherwise.
    if isinstance(runner, PortableRunner) and isinstance(runner.default_environment(options), DockerEnvironment):
        return "in Docker containers"
    return ""
