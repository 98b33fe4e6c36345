"""The preset `auto` from a data folder to a configuration, without the slow process of the trial."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from components import gpu
from components.dataset import synthetic
from components.errors import DataRejectedError, SegpipeError, UsageError
from pipeline.auto import choose, facts, trial
from pipeline.auto.facts import MachineFacts
from pipeline.cli import run
from pipeline.cli.run import build_config
from pipeline.configuration.data import describe, with_gate_split
from pipeline.configuration.loading import load_config
from pipeline.configuration.presets import MODELS
from trainer.trial import OUT_OF_MEMORY, StepCosts

_PYTHON = sys.executable
_MACHINE = MachineFacts("a processor", 2, 23, (), edges=True)
_TIMING = StepCosts(step=0.2, alone=0.19, validation_step=0.1, start=8, devices=1, memory=10**9)


@pytest.fixture
def trials(monkeypatch):
    """The list of trials, each of which returns `_TIMING`."""
    tried = []

    def one(job, seconds):
        tried.append((job["model"]["name"], job["training"]["batch_size"]))
        return _TIMING

    monkeypatch.setattr(trial, "_measure", one)
    monkeypatch.setattr(facts, "inspect_machine", lambda: _MACHINE)
    return tried


def _choose(data, out, *layers, model=None, minutes=30):
    return choose.choose([("command line", {"data": {"dir": data}}), *layers], model, minutes, str(out))


def test_facts_of_a_data_set_are_counted(tmp_path):
    for name in ("images", "masks"):
        os.makedirs(tmp_path / name)
    mask = np.zeros((48, 64), np.uint8)
    mask[:, :16], mask[10:14, 30:34], mask[0, 60] = 2, 1, 1
    for name in ("a_train", "b_train", "c_val", "d_test"):
        Image.new("RGB", (64, 48), "red").save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    (tmp_path / "segpipe.yaml").write_text(
        "classes: [{name: road, color: [1, 1, 1]}, {name: pole, color: [2, 2, 2]},"
        " {name: void, color: [0, 0, 0]}]\n"
        "ignore: void\nmask_encoding: index\nsplits: {train: train, val: val, test: test}\n"
        "layout: {images: 'images/{name}_{split}', masks: 'masks/{name}_{split}'}\n"
    )
    config = load_config([("test", {"data": {"dir": str(tmp_path)}})])
    description = describe(config.data)

    found = facts.inspect_data(with_gate_split(config, description).data, description)

    assert (found.pairs, found.training_pairs, found.validation_pairs, found.scored_pairs) == (4, 2, 1, 2)
    assert found.size == (48, 64)
    assert found.fractions == {"road": (48 * 48 - 17) / 48**2, "pole": 17 / 48**2}
    # The speck of one pixel does not count as a pole.
    assert found.smallest == ("pole", 4.0)


def test_this_machine_has_cores_and_memory():
    machine = facts.inspect_machine()

    assert machine.cores == len(os.sched_getaffinity(0))
    assert 0 < machine.memory < 2**20
    assert machine.processor


def _show_gpu(monkeypatch):
    """Makes the driver show a GPU."""
    found = gpu.GpuInspection(gpu.Build(""), devices=(gpu.Device("Tesla T4", (7, 5), 2**34),))
    monkeypatch.setattr(gpu, "inspect", lambda build: found)


def test_a_gpu_that_tensorflow_cannot_use_does_not_count_and_the_reason_is_kept(monkeypatch):
    _show_gpu(monkeypatch)
    # Also on a machine with a GPU, `segpipe doctor` finds none.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    machine = facts.inspect_machine()

    assert machine.gpus == ()
    assert re.match("TensorFlow can use no GPU: .*(driver|CUDA).*; `segpipe doctor` says", machine.gpu_note)


def test_only_gpus_that_tensorflow_can_use_count(tmp_path, monkeypatch):
    _show_gpu(monkeypatch)
    gpus = [{"name": "GeForce GTX 970", "capability": [5, 2]}, {"name": "Tesla T4", "capability": [7, 5]}]
    _script(tmp_path, monkeypatch, f"print('{json.dumps({'gpus': gpus, 'usable_gpus': 1, 'precision': 'float16'})}')")
    machine = facts.inspect_machine()

    assert machine.gpus == ("Tesla T4",)
    assert machine.gpu_note == "compute capability 7.5, with which training.precision=auto selects float16"


def test_a_repeated_choice_reuses_the_measurement(street_scenes, tmp_path, trials, monkeypatch):
    first = _choose(street_scenes, tmp_path / "work")
    slower = dataclasses.replace(_TIMING, step=2.0)
    monkeypatch.setattr(trial, "_measure", lambda job, seconds: slower)
    again = _choose(street_scenes, tmp_path / "work")
    elsewhere = _choose(street_scenes, tmp_path / "elsewhere")
    monkeypatch.setattr(facts, "inspect_machine", lambda: dataclasses.replace(_MACHINE, cores=4))
    other_machine = _choose(street_scenes, tmp_path / "work")

    assert again.config == first.config
    assert elsewhere.note != first.note
    assert "Other programs slowed it" in elsewhere.note
    assert other_machine.note.split(";")[0] != first.note.split(";")[0]
    remembered = first.note.split(": ")[1].split(";")[0]
    assert json.loads(Path(remembered).read_text())["machine"]["processor"] == "a processor"


def test_a_short_budget_selects_fcn8_and_a_long_one_unet_after_its_own_trial(street_scenes, tmp_path, trials):
    short = _choose(street_scenes, tmp_path, minutes=5)
    assert (short.config.model.name, trials) == ("fcn8", [("fcn8", 4)])

    # The measurement of FCN-8 is stored.
    long = _choose(street_scenes, tmp_path, minutes=600)
    assert (long.config.model.name, trials) == ("unet", [("fcn8", 4), ("unet", 4)])
    assert long.config.training.learning_rate == 2e-3


def test_a_network_with_depth_gets_the_long_preset_without_other_sizes(street_scenes, tmp_path, trials):
    chosen = _choose(street_scenes, tmp_path, ("--set", {"model": {"depth": True}}), minutes=600)

    model = chosen.config.model
    assert (model.name, model.depth, model.test_time_flip, model.test_time_scales) == ("unet", True, True, (1.0,))
    assert "model.test_time_scales" not in [choice.setting for choice in chosen.choices]


def test_a_data_set_of_ignored_pixels_is_refused(tmp_path, trials):
    synthetic.make(str(tmp_path / "data"), pairs={"train": 3, "val": 2}, size=(48, 64))
    for path in (tmp_path / "data" / "trainannot").iterdir():
        Image.new("L", (64, 48), 11).save(path)

    with pytest.raises(
        DataRejectedError, match=r"every pixel in 3 masks of the split train in .* is void, the ignored"
    ):
        _choose(str(tmp_path / "data"), tmp_path)


def test_settings_of_the_user_override_the_choices(street_scenes, tmp_path, trials):
    own = {"size": "64x96", "training": {"epochs": 3, "batch_size": 2}, "gate": {"min_mean_iou": 0.4}}
    chosen = _choose(street_scenes, tmp_path, ("--set", own), model="unet", minutes=600)

    assert (chosen.config.size, chosen.config.model.name) == ((64, 96), "unet")
    assert (chosen.config.training.epochs, chosen.config.gate.min_mean_iou) == (3, 0.4)
    assert trials == [("unet", 2)]
    reasons = {choice.setting: choice.reason for choice in chosen.choices}
    assert not {"size", "training.epochs", "gate.min_mean_iou"} & set(reasons)
    assert reasons["model.name"] == "as requested"


def test_the_yaml_is_a_configuration_that_run_takes(street_scenes, tmp_path, trials):
    chosen = _choose(street_scenes, tmp_path, minutes=600)
    text = choose.as_yaml(chosen)
    (tmp_path / "auto.yaml").write_text(text)

    config = build_config(street_scenes, None, "cpu", None, None, str(tmp_path / "auto.yaml"), [])

    assert config == chosen.config
    for choice in chosen.choices:
        assert f"# {choice.reason}\n" in text
    assert "auto" not in yaml.safe_load(text)


def test_instances_an_unknown_model_and_a_missing_data_folder_are_refused(street_scenes, tmp_path, trials):
    with pytest.raises(UsageError, match="found no --data"):
        _choose("", tmp_path)
    with pytest.raises(UsageError, match="found task instance, expected semantic"):
        _choose(street_scenes, tmp_path, model="mask_rcnn")
    with pytest.raises(UsageError, match=f"^--model vgg: expected one of {', '.join(MODELS)}$"):
        _choose(street_scenes, tmp_path, model="vgg")


def _job(batch_size=8):
    return {"model": {"name": "fcn8"}, "training": {"batch_size": batch_size}, "size": [32, 32]}


def _script(tmp_path, monkeypatch, script):
    """Replaces Python in other processes by a script."""
    path = tmp_path / "python"
    path.write_text(f"#!{_PYTHON}\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


def _program(tmp_path, monkeypatch, script):
    """Replaces the trial by a script, whose input is the job."""
    _script(tmp_path, monkeypatch, f"import json, os, sys, time\njob = json.load(sys.stdin)\n{script}")


@pytest.mark.parametrize(
    "end", [f"sys.exit({OUT_OF_MEMORY})", f"os.kill(os.getpid(), {int(signal.SIGKILL)})", "os.abort()"]
)
def test_the_batch_size_is_halved_until_it_fits_the_memory(tmp_path, monkeypatch, end):
    printed = json.dumps(dataclasses.asdict(_TIMING))
    _program(tmp_path, monkeypatch, f"if job['training']['batch_size'] > 3: {end}\nprint('{printed}')")

    assert trial._largest(_job(), 60, least=1)["batch_size"] == 2


def test_steps_that_would_leave_no_memory_for_the_images_do_not_fit(tmp_path, monkeypatch):
    printed = json.dumps(dataclasses.asdict(_TIMING))
    _program(tmp_path, monkeypatch, f"print('{printed}')")
    monkeypatch.setattr(trial.memory, "available", lambda: int(1.9 * _TIMING.memory))

    with pytest.raises(UsageError, match="a step of fcn8 at 32x32 does not fit even with training.batch_size=1"):
        trial._largest(_job(), 60, least=1)


@pytest.mark.parametrize(("gpus", "tried"), [((), [4, 2]), (("a GPU", "a GPU"), [4, 2, 1])])
def test_short_memory_is_named_for_a_network_that_needs_two_images(street_scenes, tmp_path, monkeypatch, gpus, tried):
    batches = []
    monkeypatch.setattr(trial, "_measure", lambda job, seconds: batches.append(job["training"]["batch_size"]))
    monkeypatch.setattr(facts, "inspect_machine", lambda: dataclasses.replace(_MACHINE, gpus=gpus))
    own = {"training": {"batch_size": 4}}

    with pytest.raises(UsageError, match=f"GiB of memory, .* even with training.batch_size={tried[-1]}; choose"):
        _choose(street_scenes, tmp_path, ("--set", own), model="deeplabv3plus")
    assert batches == tried


def test_a_trial_that_fails_or_takes_the_whole_budget_is_explained(tmp_path, monkeypatch):
    _program(tmp_path, monkeypatch, "sys.exit('no such layer')")
    with pytest.raises(SegpipeError, match="a trial of fcn8 failed: no such layer"):
        trial._largest(_job(), 60, least=1)
    _program(tmp_path, monkeypatch, "time.sleep(600)")
    with pytest.raises(UsageError, match="--minutes 0.01: a few steps of fcn8 take longer"):
        trial._largest(_job(), 0.6, least=1)


def test_run_prints_the_reasons_and_then_runs_the_plain_settings(street_scenes, tmp_path, trials, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr("pipeline.running.run.run_pipeline", lambda config, out, wait: seen.append(config) or True)

    run.run(data=street_scenes, preset="auto", minutes=5, out=str(tmp_path / "work"))

    chosen = _choose(street_scenes, tmp_path / "work", minutes=5)
    assert seen == [chosen.config]
    printed = " ".join(capsys.readouterr().out.split())
    assert "a validation takes" in printed
    assert "delete it to measure again" in printed


@pytest.mark.parametrize("command", ["run", "config"])
def test_minutes_need_the_preset_auto(command, street_scenes):
    words = [sys.executable, "-m", "pipeline.cli.main", command, "--data", street_scenes, "--minutes", "5"]
    done = subprocess.run(words, capture_output=True, text=True)

    assert done.returncode == 2
    assert "--minutes 5: found it without --preset auto" in " ".join(done.stderr.split())
