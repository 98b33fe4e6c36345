"""A run prints the names of its files as they are, and refuses a folder that TensorFlow could not read."""

import urllib.parse
import urllib.request

import pytest

from components.errors import UsageError
from pipeline import run
from pipeline.config import load_config


def test_the_work_directory_is_printed_as_it_is(street_scenes, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(run, "_run", lambda *_: True)
    out = str(tmp_path / "work :smile: 100% #1 für")

    assert run.run_pipeline(load_config([("test", {"data": {"dir": street_scenes}})]), out)

    assert f"log {out}/runs/" in capfd.readouterr().out


@pytest.mark.parametrize("name", ["Models [v2]", "a*", "what?", "back\\slash"])
def test_a_folder_that_tensorflow_reads_as_a_pattern_is_refused_before_anything_is_written(
    street_scenes, tmp_path, monkeypatch, name
):
    monkeypatch.setattr(run, "_run", lambda *_: True)
    folder = tmp_path / name / "work"
    data = {"data": {"dir": street_scenes}}

    with pytest.raises(UsageError, match="--out: found .*read as a pattern.*make a link"):
        run.run_pipeline(load_config([("test", data)]), str(folder))
    with pytest.raises(UsageError, match="serving_dir: found .*read as a pattern"):
        run.run_pipeline(load_config([("test", {**data, "serving_dir": str(folder)})]), str(tmp_path / "work"))
    assert not list(tmp_path.glob("**/runs"))
    assert not (tmp_path / "work").exists()

    # The way out that the message names.
    folder.mkdir(parents=True)
    (tmp_path / "link").symlink_to(folder)
    assert run.run_pipeline(load_config([("test", data)]), str(tmp_path / "link"))


def test_the_address_of_the_report_leads_to_the_file(tmp_path):
    path = tmp_path / "Mein Projekt 100% #1 für?" / "report.html"

    address = urllib.parse.urlsplit(run._address(str(path)))

    assert (address.scheme, address.query, address.fragment) == ("file", "", "")
    assert urllib.request.url2pathname(address.path) == str(path)
