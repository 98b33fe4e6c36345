"""A run fails if its version is not served, because it was removed or a newer one exists."""

import os
import pathlib
import shlex
import subprocess

import pytest

from components.errors import SegpipeError
from components.pusher.moves import record_moves
from components.pusher.push import push
from components.pusher.withdrawn import withdraw
from pipeline.history.served import served_instead
from pipeline.running.summary import check_served, push_text
from pipeline.storage.store import Artifact


@pytest.mark.parametrize("left", ["", "12", "12/variables", ".copy/variables"])
def test_a_removed_version_is_named_with_a_command_that_restores_it(tmp_path, left):
    _write_versions(tmp_path, {"kept": "seed 7"})
    version = tmp_path / "my models" / "12"
    (version.parent / left).mkdir(parents=True) if left else None

    with pytest.raises(SegpipeError, match=f"{version}.*not found") as refusal:
        check_served(str(version), str(tmp_path / "kept"))

    _run_command_of(refusal)
    check_served(str(version), str(tmp_path / "kept"))
    assert os.listdir(version.parent) == ["12"]
    assert sorted(os.listdir(version)) == ["saved_model.pb", "variables"]


def test_the_newest_version_passes(tmp_path):
    _write_versions(tmp_path, {"9": "seed 7", "12": "seed 8", ".tmp-13": "half", "notes": ""})

    assert check_served(str(tmp_path / "12"), "kept") is None


def test_a_version_older_than_the_newest_is_refused_until_it_is_copied(tmp_path):
    _write_versions(tmp_path, {"8": "seed 7", "9": "seed 8", "12": "seed 7"})

    with pytest.raises(SegpipeError) as refusal:
        check_served(str(tmp_path / "9"), "kept")

    message = str(refusal.value)
    assert f"{tmp_path / '9'}: " in message
    assert f"{tmp_path / '12'}, which is served" in message
    assert "segpipe release" in message
    _run_command_of(refusal)
    assert {"8", "9", "12", "13"} == set(os.listdir(tmp_path))
    assert check_served(str(tmp_path / "9"), "kept") is None


def test_a_stable_version_passes_despite_a_newer_one(tmp_path):
    _write_versions(tmp_path, {"models/9": "seed 8", "models/12": "seed 7"})
    record_moves(str(tmp_path / "models"), {}, {"stable": 9})

    assert check_served(str(tmp_path / "models" / "9"), "kept") is None


def test_a_version_that_was_withdrawn_need_not_be_served(tmp_path):
    _write_versions(tmp_path, {"models/9": "seed 8", "models/12": "seed 7"})
    version = str(tmp_path / "models" / "9")
    pushed = Artifact(1, "PushedModel", "", {"pushed": 1, "pushed_destination": version})
    assert push_text(pushed) == version
    withdraw(str(tmp_path / "models"), 9, "flickers")

    assert check_served(version, "kept") is None
    assert push_text(pushed) == f"{version}, which was withdrawn: flickers"


def test_the_reason_why_a_model_was_not_pushed_is_shown():
    assert push_text(Artifact(1, "PushedModel", "", {"pushed": 0})) == "not pushed: the gate did not bless the model"
    assert push_text(Artifact(1, "PushedModel", "", {"pushed": 0, "withdrawn": 9})) == (
        "not pushed: the model is version 9, which was withdrawn"
    )


def test_a_version_on_an_object_store_is_compared_with_the_newest_published_one(tmp_path):
    _write_versions(tmp_path, {"seven": "seed 7", "eight": "seed 8"})
    seven, eight, base = str(tmp_path / "seven"), str(tmp_path / "eight"), (tmp_path / "my-store").as_uri()
    first, _ = push(seven, base)
    check_served(first, seven)
    second, number = push(eight, base)

    with pytest.raises(SegpipeError, match=f"{first}: .*found {second} instead") as refusal:
        check_served(first, seven)

    assert served_instead(first) == second
    # The remedy of the message: push the copy.
    assert str(refusal.value).endswith(f"segpipe models push {shlex.quote(seven)} {shlex.quote(base)}")
    third, _ = push(seven, base)
    check_served(first, seven)
    assert served_instead(first) is None
    assert served_instead(second) == third
    record_moves(base, {}, {"stable": number})
    assert served_instead(second) is check_served(second, eight) is None
    for version in (first, second, third):
        pathlib.Path(f"{version.removeprefix('file://')}.json").unlink()
    with pytest.raises(SegpipeError, match=f"{first}: .*found no published version"):
        check_served(first, seven)


def _run_command_of(refusal):
    """Runs the shell command that an error gives."""
    message = str(refusal.value)
    subprocess.run(message[message.index("mkdir -p") :].partition("\n")[0], shell=True, check=True)


def _write_versions(folder, versions):
    for name, weights in versions.items():
        (folder / name / "variables").mkdir(parents=True)
        (folder / name / "saved_model.pb").write_text("the same graph")
        (folder / name / "variables" / "variables.data").write_text(weights)
