"""Beam's workers are refused if they cannot access local files, and the docs' options are options of Beam."""

import argparse
import re
from pathlib import Path

import pytest
from apache_beam.options import pipeline_options
from tfx.utils import dependency_utils

from components.errors import UsageError
from pipeline.configuration.config import BeamSettings
from pipeline.wiring.beam_workers import refuse_remote_workers, without_tfx_package

_DOCS = Path(__file__).parents[2] / "docs"
_DATAFLOW = ("--runner=DataflowRunner", "--project=p", "--region=r", "--temp_location=gs://b/t")
_PORTABLE = ("--runner=PortableRunner", "--job_endpoint=jobs:8099")
_FLINK = ("--runner=FlinkRunner", "--flink_master=flink:8081")


@pytest.mark.parametrize(
    "args",
    [
        BeamSettings().args,
        (),
        ("--runner=PrismRunner",),
        ("--runner=FlinkRunner",),
        ("--runner=SparkRunner",),
        (*_FLINK, "--environment_type=LOOPBACK"),
    ],
    ids=" ".join,
)
def test_workers_in_this_process_are_accepted(args):
    for results in ("/work", "s3://bucket/work"):
        refuse_remote_workers(BeamSettings(args=args), results)


@pytest.mark.parametrize(
    "args",
    [
        (*_PORTABLE, "--environment_type=EXTERNAL", "--environment_config=pool:50000"),
        (*_PORTABLE, "--environment_type=PROCESS", '--environment_config={"command": "/opt/apache/beam/boot"}'),
    ],
    ids=" ".join,
)
def test_workers_that_the_user_starts_may_mount_a_volume_but_have_no_local_copies_of_a_store(args):
    refuse_remote_workers(BeamSettings(args=args), "/work")

    message = "in processes that you start and cannot access the local copies of s3://bucket/work; .*DirectRunner"
    with pytest.raises(UsageError, match=message):
        refuse_remote_workers(BeamSettings(args=args), "s3://bucket/work")


@pytest.mark.parametrize(
    "args", [BeamSettings().args, (*_PORTABLE, "--environment_type=EXTERNAL", "--environment_config=pool:50000")]
)
def test_tfx_builds_no_package_of_itself_for_workers_that_have_it(args, monkeypatch):
    monkeypatch.setattr(dependency_utils, "build_ephemeral_package", lambda: pytest.fail("a package was built"))

    given = [*args, *without_tfx_package(args)]

    assert dependency_utils.make_beam_dependency_flags(given) == given


def test_an_image_that_the_user_names_for_containers_is_left_alone():
    assert without_tfx_package([*_DATAFLOW, "--sdk_container_image=segpipe:1"]) == []


@pytest.mark.parametrize(
    ("args", "workers"),
    [
        (_DATAFLOW, "on Google Cloud"),
        (("--runner=dataflow",), "on Google Cloud"),
        (_FLINK, "in Docker containers"),
        (("--runner=SparkRunner", "--spark_master_url=spark://spark:7077"), "in Docker containers"),
        (_PORTABLE, "in Docker containers"),
        ((*_PORTABLE, "--environment_type=DOCKER", "--environment_config=segpipe:1"), "in Docker containers"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
@pytest.mark.parametrize(
    ("results", "place"),
    [("/work", "the results at /work"), ("gs://bucket/work", "the local copies of gs://bucket/work")],
)
def test_workers_without_local_folders_are_refused(args, workers, results, place):
    with pytest.raises(UsageError, match=f"beam.args: the workers run {workers} and cannot access {place}; expected"):
        refuse_remote_workers(BeamSettings(args=args), results)


def test_the_options_of_a_component_are_checked():
    with pytest.raises(UsageError, match=r"beam.component_args.Transform: .* the results at /work"):
        refuse_remote_workers(BeamSettings(component_args={"Transform": _DATAFLOW}), "/work")


def _documented_options():
    """Returns the options of Beam that the docs name, with the values they show."""
    text = (_DOCS / "how-to.md").read_text()
    (section,) = re.findall(r"^## Run the data components on another Beam runner\n(.*?)^## ", text, re.M | re.S)
    return re.findall(r"--[a-z]\w*(?:=[^`\"\s,]+)?", section)


def test_the_docs_name_options_that_the_installed_beam_knows():
    # Beam itself drops an option that it does not know, with a warning in the log.
    parser = argparse.ArgumentParser()
    for group in pipeline_options.PipelineOptions.__subclasses__():
        group._add_argparse_args(parser)
    known = {option for action in parser._actions for option in action.option_strings}

    names = {option.partition("=")[0] for option in (*_documented_options(), *BeamSettings().args)}

    assert {"--runner", "--flink_master", "--spark_master_url", "--sdk_container_image"} <= names
    assert names <= known
