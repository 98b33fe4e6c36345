"""Models that were served under their architecture's name, by an earlier version of segpipe."""

import pathlib

import pytest

from components.errors import UsageError
from pipeline.configuration.loading import load_config
from pipeline.history.served import check_served_name
from pipeline.running import run
from pipeline.storage.workdir import Workdir


def _config(data="", **settings):
    return load_config([("test", {"data": {"dir": data}, "model": {"name": "unet"}, **settings})])


@pytest.fixture
def workdir(tmp_path):
    """A version of fcn8 is served."""
    (tmp_path / "serving" / "fcn8" / "1732190400").mkdir(parents=True)
    return Workdir(str(tmp_path))


def test_a_run_with_a_new_served_name_is_refused_with_the_setting(workdir, street_scenes):
    expected = r"serving_name: found versions of fcn8 in .*/serving and none of streets, .*serving_name=fcn8 to keep"

    with pytest.raises(UsageError, match=expected):
        run.run_pipeline(_config(street_scenes, project={"name": "streets"}), workdir.root)

    assert not (pathlib.Path(workdir.root) / "runs").exists()


@pytest.mark.parametrize("name", ["fcn8", "segpipe"])
def test_a_configured_name_is_accepted(workdir, name):
    check_served_name(_config(serving_name=name), workdir)


def test_a_project_with_versions_is_accepted(workdir, tmp_path):
    with pytest.raises(UsageError, match="none of segpipe"):
        check_served_name(_config(), workdir)

    (tmp_path / "serving" / "segpipe" / "1").mkdir(parents=True)
    check_served_name(_config(), workdir)


def test_a_new_work_directory_is_accepted(tmp_path):
    check_served_name(_config(), Workdir(str(tmp_path)))
