"""The files and tables of the benchmarks; one benchmark runs completely, on a tiny network."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import boxes, gpu_table, held_out, machine, recipes, records, scaling, training
from components.dataset import synthetic
from components.dataset.pairs import find_pairs
from components.errors import UsageError
from components.gpu import Build, Device, GpuInspection
from components.instances import Instances
from pipeline.cli.run import build_config
from pipeline.configuration.data import describe, with_gate_split
from pipeline.storage.store import NodeExecution
from trainer import decoded

_ROOT = Path(__file__).parent.parent
_THIN = {"column_pole": 0.1, "traffic_light": 0.2, "pedestrian": 0.3, "bicyclist": 0.4}


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    """A data set in CamVid's layout; its training split has a sequence of three pairs and one of one pair."""
    root = tmp_path_factory.mktemp("streets") / "data"
    synthetic.make(str(root), pairs={"train": 4, "val": 1}, size=(32, 48))
    for folder in ("train", "trainannot"):
        for index, name in enumerate(sorted(os.listdir(root / folder))):
            sequence = "0001TP" if index < 3 else "0006R0"
            os.rename(root / folder / name, root / folder / f"{sequence}_{index:06d}.png")
    return str(root)


def test_the_benchmark_holds_one_sequence_out_and_selects_nothing_on_it(streets):
    config = build_config(streets, "fcn8", "cpu", None, None, None, held_out.settings("0001TP"))

    config = with_gate_split(config, describe(config.data))
    pairs, _ = find_pairs(streets, describe(config.data))
    assert {(pair.split, pair.sequence) for pair in pairs if pair.split != "val"} == {
        ("train", "0006R0"),
        ("held_out", "0001TP"),
    }
    assert (config.data.eval_split, config.data.gate_split, config.training.keep) == ("val", "held_out", "last")
    assert config.gate.min_class_iou == {}


def test_an_unknown_sequence_is_refused_with_the_known_ones(streets):
    with pytest.raises(UsageError, match="data.held_out_sequences: '0005VD' is not there.*0001TP, 0006R0"):
        find_pairs(
            streets, describe(build_config(streets, "fcn8", "cpu", None, None, None, held_out.settings("0005VD")).data)
        )


def test_the_table_of_a_held_out_sequence_ends_in_the_gap():
    scores = {"class_iou": {"sky": 0.9, **_THIN, "fence": None}, "mean_iou": 0.38}
    validation = {"class_iou": {"sky": 0.95, **_THIN, "fence": 0.5}, "mean_iou": 0.5}

    lines = [line.split() for line in held_out.table(scores, validation).splitlines()]

    assert ["fence", "absent", "0.500"] in lines
    assert [*", ".join(_THIN).split(), "0.250", "0.250"] in lines
    assert lines[-2:] == [["mean", "IoU", "0.380", "0.500"], ["gap:", "0.120"]]


def _result(name, mean_iou):
    return recipes.Result(name, ((1.5, 0.25), (3.0, 0.5)), minutes=4.0, mean_iou=mean_iou, small_objects=None)


def test_results_are_kept_and_replaced_by_those_of_the_same_name(tmp_path):
    path = str(tmp_path / "recipes.json")
    recipes.keep([_result("first", 0.5), _result("second", 0.6)], path)

    recipes.keep([_result("first", 0.7), _result("third", 0.4)], path)

    assert recipes.keep([], path) == [_result("first", 0.7), _result("second", 0.6), _result("third", 0.4)]


def test_a_file_of_another_format_is_refused_and_unchanged(tmp_path):
    path = tmp_path / "recipes.json"
    for content in ('{"a": 1}', '[{"name": "first"}]', "[1]", "no JSON"):
        path.write_text(content)

        with pytest.raises(UsageError, match=r"recipes\.json: .*expected results of this command"):
            recipes.keep([_result("first", 0.5)], str(path))

        assert path.read_text() == content


def test_the_best_recipe_is_first_in_the_table(capsys, tmp_path, monkeypatch):
    path = str(tmp_path / "recipes.json")
    recipes.keep([_result("good", 0.5), _result("better", 0.625)], path)
    monkeypatch.setattr("sys.argv", ["recipes", "--results", path])

    recipes.main()

    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:] == [["better", "0.625", "4.0"], ["good", "0.500", "4.0"]]


def test_a_partly_cached_run_has_no_minutes(monkeypatch):
    def newest(root):
        states = {"Transform": "cached", "Trainer": "ran"}
        return {}, {node: NodeExecution(1, node, state, 0, 60, {}, {}, {}) for node, state in states.items()}

    monkeypatch.setattr(recipes, "newest_training", newest)

    with pytest.raises(UsageError, match="work: found a run that took Transform from the cache"):
        recipes.check_whole("work")


def test_records_equal_those_of_transform(streets, tmp_path):
    path = str(tmp_path / "train.gz")

    description = records.write(streets, (64, 32), path, count=6)

    split = decoded.load([path], (64, 32), memory_fraction=1.0)
    facts = decoded.facts([split.counts()], description.class_map.num_classes, "train", [path])
    # The split has four pairs; two are repeated.
    assert facts.examples == 6
    assert (split.images.shape, split.masks.shape) == ((6, 64, 32, 3), (6, 64, 32))


def _contender(*seconds, **facts):
    return training.Contender(steps=lambda steps: 0.0, seconds=list(seconds), **facts)


_FOUND = {
    training.REPEATED: _contender(1.0, 2.0, 4.0, first_step=30.0, peak_memory=2_500_000_000),
    training.DATA: _contender(1.1, 2.2, 4.4),
    training.KERAS: _contender(1.5, 3.0, 6.0),
    training.TORCH: "UsageError: no PyTorch",
}


def _measured(model="fcn8", xla=True):
    settings = {"model": model, "batch": 40, "XLA": xla}
    return {"machine": {"device": "a card"}, "settings": settings, **training.summary(_FOUND, batch_size=40)}


def test_the_training_benchmark_alternates_between_contenders():
    lines = training.table(_measured()).splitlines()

    assert "device: a card" in lines
    assert ["segpipe", "20.00", "30.0", "2.50"] in [line.split() for line in lines]
    assert "torch               not measured: UsageError: no PyTorch" in lines
    assert lines[-2:] == ["step time with real data over one batch repeated: 1.100", "segpipe over keras: 1.500"]


def test_the_table_of_a_gpu_names_the_machine_once_and_has_a_row_for_each_measurement():
    lines = gpu_table.markdown([_measured(), _measured("unet", xla=False)]).splitlines()

    assert lines[:3] == ["- device: a card", "- batch: 40", ""]
    assert "| fcn8 | yes | 20.0 | 18.2 | 1.100 | 13.3 | 1.50 | - | - | 30.0 | 2.50 |" in lines
    assert "| unet | no | 20.0 | 18.2 | 1.100 | 13.3 | 1.50 | - | - | 30.0 | 2.50 |" in lines
    assert "- unet, torch was not measured: UsageError: no PyTorch" in lines


def test_a_machine_with_a_gpu_is_described_by_it(monkeypatch):
    devices = (Device("NVIDIA L4", (8, 9), 24 * 2**30),)
    found = GpuInspection(Build("2.21.0", "12.5.1", "9"), driver="550.54.15", devices=devices)
    monkeypatch.setattr(machine.gpu, "usable_gpus", lambda: ["GPU:0"])
    monkeypatch.setattr(machine.gpu, "inspect", lambda: found)

    facts = machine.describe()

    assert facts["device"] == "NVIDIA L4, compute capability 8.9"
    assert (facts["driver"], facts["TensorFlow built for"]) == ("550.54.15", "CUDA 12.5.1, cuDNN 9")


@pytest.mark.parametrize(
    ("model", "setting", "gpus", "expected"),
    [
        ("fcn8", "auto", ["GPU:0"], "on"),
        ("pspnet", "auto", ["GPU:0"], "off"),
        ("pspnet", "on", ["GPU:0"], "on"),
        ("fcn8", "auto", [], "off"),
    ],
)
def test_the_training_benchmark_reports_the_xla_that_it_uses(
    streets, tmp_path, monkeypatch, model, setting, gpus, expected
):
    monkeypatch.setattr(training.precision.tf.config, "list_physical_devices", lambda kind: gpus)
    command = ["--data", streets, "--model", model, "--xla", setting, "--size", "64", "96", "--pairs", "1"]
    found = []

    def stop(job, torch_python):
        found.append(job.training.xla)
        raise UsageError("seen")

    monkeypatch.setattr(training, "Benchmark", stop)
    monkeypatch.setattr("sys.argv", ["training", *command])

    with pytest.raises(SystemExit):
        training.main()

    assert found == [expected]


class _Benchmark:
    """Replaces a benchmark: Keras fails to start, and PyTorch fails after one turn."""

    def __init__(self):
        self.made = []

    def contender(self, name):
        if name == training.KERAS:
            raise RuntimeError("out of memory\nmore")

        def steps(number):
            self.made.append((name, number))
            if name == training.TORCH and len(self.made) > 2:
                raise UsageError("gone")
            return 0.5 * number

        return training.Contender(steps, epoch=4 if name == training.REPEATED else 1)


def test_a_contender_that_fails_does_not_end_the_others():
    benchmark = _Benchmark()

    *_, found = training.measure(benchmark, [training.REPEATED, training.KERAS, training.TORCH], steps=5, turns=3)

    assert found[training.KERAS] == "RuntimeError: out of memory"
    assert found[training.TORCH] == "UsageError: gone"
    assert found[training.REPEATED].seconds == [0.5, 0.5, 0.5]
    # The repeated contender runs whole epochs.
    assert benchmark.made == [("segpipe", 8), ("torch", 5), ("segpipe", 8), ("torch", 5), ("segpipe", 8)]


def test_the_training_benchmark_needs_neither_tfx_nor_beam(tmp_path):
    blocked = ("tfx", "apache_beam", "tensorflow_transform", "tensorflow_model_analysis", "tensorflow_data_validation")
    arguments = "training --model unet --size 32 48 --pairs 3 --batch 2 --steps 1 --turns 1 --only segpipe,segpipe-data"
    result = tmp_path / "result.json"
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked})); sys.argv = {arguments.split()}"
        f" + ['--json', {str(result)!r}]; from benchmarks import training; training.main()"
    )

    done = subprocess.run([sys.executable, "-c", script], cwd=_ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr[-2000:]
    contenders = json.loads(result.read_text())["contenders"]
    assert list(contenders) == ["segpipe", "segpipe-data"]
    assert all(values["images_per_second"] > 0 for values in contenders.values())


def test_memory_of_a_process_includes_that_of_the_processes_that_it_started():
    program = "import sys\nheld = bytearray(b'x') * (64 << 20)\nprint('ready', flush=True)\nsys.stdin.read()"
    before = scaling.memory_of(os.getpid())
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        during = scaling.memory_of(os.getpid())
        child.communicate()

    assert during - before > 60 << 20
    assert scaling.memory_of(child.pid) == 0


def test_objects_that_touch_and_objects_in_pieces_are_counted():
    masks = np.zeros((3, 4, 9), bool)
    masks[0, 1:3, 0:2] = True
    masks[1, 3, 2] = True  # touches the first only at a corner
    masks[2, 0, [4, 8]] = True
    counts = boxes.Counts()

    counts.add_instances(Instances(masks, np.full(3, 1), np.zeros(3, bool)), 1)
    counts.add(masks.any(axis=0).astype(np.uint8), 1, pixels=1)

    assert boxes.table({"car": counts}).splitlines()[-1] == "| car | 3 | 85% | 3 | 2 | 1 |"
