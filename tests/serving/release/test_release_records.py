"""The records that releases write beside a model's versions: moved labels and withdrawn versions."""

import json

import pytest
from release_commands import UNLABELLED, config_text, options_of, release
from toy_model_server import ToyModelServer

from components.errors import ReleaseError, UsageError
from components.pusher.moves import newest_moves, read_moves, record_moves
from components.pusher.withdrawn import read_withdrawn, withdraw


@pytest.fixture
def base(tmp_path, config_file):
    """The directory of versions that the servers' configuration names."""
    base = tmp_path / "models" / "fcn8"
    for version in (12, 13):
        (base / str(version)).mkdir(parents=True)
        (base / str(version) / "saved_model.pb").write_text(f"graph {version}")
    config_file.write_text(UNLABELLED.replace("/models/fcn8", str(base)))
    return base


def _leads_to(base):
    return {label: move.version for label, move in newest_moves(str(base)).items()}


def test_releases_record_moves_and_a_rollback_withdraws(base, following, config_file):
    options = options_of(following, config_file)
    for words in (["promote", "13"], ["canary", "12"], ["promote"]):
        assert release(*words, *options).exit_code == 0

    assert _leads_to(base) == {"stable": 12, "canary": 12, "previous": 13}
    assert release("rollback", "--why", "flickers", *options).exit_code == 0

    assert _leads_to(base) == {"stable": 13, "canary": 13, "previous": None}
    moves = [(move.label, move.version) for move in read_moves(str(base))]
    assert moves[-3:] == [("canary", 13), ("previous", None), ("stable", 13)]
    assert {version: each.why for version, each in read_withdrawn(str(base)).items()} == {12: "flickers"}


@pytest.mark.parametrize("words", [["promote", "12"], ["canary", "12"]])
def test_a_withdrawn_version_gets_no_label(base, following, config_file, words):
    options = options_of(following, config_file)
    release("promote", "13", *options)
    withdraw(str(base), 12, "flickers")

    refused = release(*words, *options)

    assert isinstance(refused.exception, ReleaseError)
    assert "version 12: found that it was withdrawn (flickers)" in str(refused.exception)
    assert f"segpipe release withdraw 12 --undo --versions {base}" in str(refused.exception)
    assert following[0].labels == {"stable": 13, "canary": 13}


def test_for_a_directory_on_another_machine_the_command_to_run_there_is_printed(following, config_file):
    options = options_of(following, config_file)
    assert "--versions DIR" in release("promote", "13", *options).output
    for words in (["canary", "12"], ["promote"]):
        assert release(*words, *options).exit_code == 0

    rolled_back = release("rollback", *options)

    assert rolled_back.exit_code == 0
    assert "segpipe release withdraw 12 --versions /models/fcn8 --why 'rolled back'" in rolled_back.output


def test_the_directory_can_be_named(base, following, config_file, tmp_path):
    config_file.write_text(UNLABELLED)

    assert release("promote", "13", *options_of(following, config_file), "--versions", f"{base}/").exit_code == 0

    assert _leads_to(base) == {"stable": 13, "canary": 13}
    assert not (base / "withdrawn.json").exists()


def test_a_dry_run_records_nothing(base, following, config_file):
    assert release("promote", "13", "--dry-run", *options_of(following, config_file)).exit_code == 0

    assert read_moves(str(base)) == []


def test_a_version_is_withdrawn_and_restored(base):
    done = release("withdraw", "12", "--why", "flickers", "--versions", str(base))

    assert done.output == f"version 12 of {base} is withdrawn\n"
    assert read_withdrawn(str(base))[12].why == "flickers"
    assert release("withdraw", "12", "--undo", "--versions", str(base)).exit_code == 0
    assert read_withdrawn(str(base)) == {}


def test_the_version_below_the_work_directory_is_found(base, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    base.parent.rename(tmp_path / "work" / "serving")
    monkeypatch.chdir(tmp_path)

    newest = release("withdraw", "13", "--why", "flickers")

    assert "Note: it is the newest version, which servers without labels serve" in newest.output
    assert list(read_withdrawn("work/serving/fcn8")) == [13]


def test_a_missing_version_is_recorded_and_reported(base):
    assert "Note: it is not in that directory" in release("withdraw", "9", "--why", "x", "--versions", str(base)).output

    assert list(read_withdrawn(str(base))) == [9]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"stable": 13, "canary": 13}, r"found it served \(stable\), .* segpipe release rollback"),
        ({"stable": 12, "canary": 13}, "found that it is the canary.* segpipe release canary --withdraw"),
    ],
)
@pytest.mark.parametrize("source", ["--config-file", "--configmap", "--server", "the record"])
def test_a_served_version_is_not_withdrawn(base, start, cluster, config_file, source, labels, message):
    config = config_text([12, 13], labels)
    if source == "--config-file":
        config_file.write_text(config)
        where = [source, str(config_file)]
    elif source == "--configmap":
        cluster.set("models.config", config)
        where = [source, "segpipe/segpipe-models"]
    elif source == "--server":
        server = start(ToyModelServer, {12, 13})
        server.start_with(config)
        where = [source, server.address]
    else:
        record_moves(str(base), {}, labels)
        where = []

    refused = release("withdraw", "13", "--why", "flickers", "--versions", str(base), *where)

    assert isinstance(refused.exception, ReleaseError)
    with pytest.raises(ReleaseError, match=message):
        raise refused.exception
    assert read_withdrawn(str(base)) == {}


def test_the_newest_version_is_not_withdrawn_from_servers_without_labels(base, config_file):
    words = ["--why", "flickers", "--versions", str(base), "--config-file", str(config_file)]

    assert "found it served (latest)" in str(release("withdraw", "13", *words).exception)
    assert release("withdraw", "12", *words).exit_code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["12"], "expected either --why TEXT or --undo"),
        (["12", "--why", "x", "--undo"], "expected either --why TEXT or --undo"),
        (["12", "--why", "x"], "found no directory work/serving/*/12, expected one"),
        (["12", "--why", "x", "--versions", "nowhere"], "--versions nowhere: found nothing there"),
        (["12", "--undo", "--versions", "BASE"], "found no withdrawn version 12, expected one of: none"),
    ],
)
def test_a_wrong_command_line_is_explained(base, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)

    refused = release("withdraw", *(word.replace("BASE", str(base)) for word in words))

    assert isinstance(refused.exception, UsageError)
    assert message in str(refused.exception)


def test_a_record_is_json_for_other_programs(base):
    release("withdraw", "12", "--why", "flickers", "--versions", str(base))

    assert set(json.loads((base / "withdrawn.json").read_text())["12"]) == {"why", "when", "model"}
