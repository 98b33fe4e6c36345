"""A run prints the names of its files as they are, and refuses a folder that TensorFlow could not read."""

import os
import urllib.parse
import urllib.request

import pytest

from components.errors import SegpipeError, UsageError
from pipeline.cli.run import build_config
from pipeline.configuration.loading import load_config, read_config_file
from pipeline.running import run


def test_the_work_directory_is_printed_as_it_is(street_scenes, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(run, "_run", lambda *_: True)
    out = str(tmp_path / "work :smile: 100% #1 für")

    assert run.run_pipeline(load_config([("test", {"data": {"dir": street_scenes}})]), out)

    assert f"log {out}/runs/" in capfd.readouterr().out


def test_a_run_records_the_split_of_its_gate(street_scenes, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(run, "_run", lambda config, *_: seen.append(config) or True)

    run.run_pipeline(build_config(street_scenes, "unet", "smoke", None, None, None, []), str(tmp_path / "work"))

    (written,) = tmp_path.glob("work/runs/*/config.yaml")
    kept = load_config([("config.yaml", read_config_file(str(written)))])
    assert [config.data.gate_split for config in (*seen, kept)] == ["val", "val"]


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

    # The remedy of the message: a link.
    folder.mkdir(parents=True)
    (tmp_path / "link").symlink_to(folder)
    assert run.run_pipeline(load_config([("test", data)]), str(tmp_path / "link"))


def test_a_run_that_requires_a_missing_gpu_fails_before_any_component_runs(street_scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "usable_gpus", list)
    monkeypatch.setattr(run, "import_tfx", lambda: pytest.fail("went on to start TFX"))
    config = build_config(street_scenes, "unet", "gpu", None, None, None, [])
    assert config.training.require_gpu

    with pytest.raises(UsageError, match="training.require_gpu: found no GPU") as raised:
        run.run_pipeline(config, str(tmp_path / "work"))

    assert raised.value.exit_code == 2
    assert not (tmp_path / "work" / "metadata.sqlite").exists()


def test_workers_that_cannot_access_the_results_are_refused_before_any_component_runs(street_scenes, tmp_path):
    runner = 'beam.args=["--runner=FlinkRunner", "--flink_master=flink:8081"]'
    config = build_config(street_scenes, "unet", "smoke", None, None, None, [runner])

    with pytest.raises(UsageError, match=f"beam.args: .* cannot access the results at {tmp_path}/work/artifacts"):
        run.run_pipeline(config, str(tmp_path / "work"))

    assert not (tmp_path / "work" / "metadata.sqlite").exists()


@pytest.mark.parametrize(
    ("preset", "assignments", "gpus"),
    [("cpu", [], []), ("gpu", ["training.require_gpu=false"], []), ("gpu", [], ["GPU:0"])],
)
def test_other_runs_continue_in_a_process_prepared_for_gpus(
    street_scenes, tmp_path, monkeypatch, preset, assignments, gpus
):
    monkeypatch.delenv("TF_FORCE_GPU_ALLOW_GROWTH", raising=False)

    def start_tfx():
        assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
        raise SegpipeError("TFX is started")

    monkeypatch.setattr(run, "usable_gpus", lambda: gpus)
    monkeypatch.setattr(run, "import_tfx", start_tfx)

    with pytest.raises(SegpipeError, match="TFX is started"):
        run.run_pipeline(
            build_config(street_scenes, "unet", preset, None, None, None, assignments), str(tmp_path / "work")
        )


def test_the_address_of_the_report_leads_to_the_file(tmp_path):
    path = tmp_path / "Mein Projekt 100% #1 für?" / "report.html"

    address = urllib.parse.urlsplit(run._address(str(path)))

    assert (address.scheme, address.query, address.fragment) == ("file", "", "")
    assert urllib.request.url2pathname(address.path) == str(path)
