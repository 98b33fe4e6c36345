"""`segpipe release` against the local server, which follows the file that the command writes."""

import time

from toy_models import Channel, push, serving
from typer.testing import CliRunner

from pipeline.cli.main import app
from serving.release.states import served_by_servers

_X = {"x": [[1.0, 2.0]]}


def test_a_canary_is_promoted_and_rolled_back_while_the_server_follows_the_file(toys, tmp_path):
    for number in (1, 2):
        push(toys, tmp_path, number)
    config = tmp_path / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "toy" base_path: "{tmp_path}" model_platform: "tensorflow" '
        "model_version_policy { specific { versions: 1 } } } }"
    )
    with serving(model_config_file=config, model_config_file_poll_wait_seconds=0.05) as server:

        def release(*words):
            where = ["--server", f"localhost:{server.port}", "--config-file", str(config)]
            done = CliRunner().invoke(app, ["release", *words, *where], catch_exceptions=False)
            assert done.exit_code == 0, done.output
            connection = Channel(server.port)
            with connection.channel:
                labels = ("stable", "canary")
                return [connection.predict(_X, label=label).model_spec.version.value for label in labels]

        answered = [release(*words) for words in (["promote", "1"], ["canary", "2"], ["promote"], ["rollback"])]

    assert answered == [[1, 1], [1, 2], [2, 2], [1, 1]]


def _names(found):
    return {number: [state.state for state in found[number]] for number in found}


def test_a_server_reports_labelled_loaded_and_failed_versions(toys, tmp_path):
    for number in (1, 2, 3):
        push(toys, tmp_path, number)
    (tmp_path / "4").mkdir()
    config = tmp_path / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "toy" base_path: "{tmp_path}" model_platform: "tensorflow" '
        "model_version_policy { specific { versions: 1 versions: 2 versions: 3 versions: 4 } } "
        'version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 2 } } }'
    )
    with serving(model_config_file=config, allow_version_labels_for_unavailable_models=True) as server:
        states = served_by_servers([f"localhost:{server.port}"])
        expected = {1: ["stable"], 2: ["canary"], 3: ["loaded"], 4: ["failed"]}
        deadline = time.monotonic() + 60
        # A label counts once its version is loaded.
        while _names(found := states("/elsewhere/toy")) != expected and time.monotonic() < deadline:
            time.sleep(0.05)
        other = states("/elsewhere/other")

    assert _names(found) == expected
    assert found[4][0].why
    assert other is None
