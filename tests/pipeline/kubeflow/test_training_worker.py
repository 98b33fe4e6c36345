"""The pods of a multi-worker training: the chief, the tasks before the training, and the inputs of the others."""

import dataclasses
import json
import os

import pytest

from components.errors import UsageError
from pipeline.kubeflow import training_worker
from pipeline.kubeflow.training_worker import TF_CONFIG, await_chief, fn_args, main, open_store, set_tf_config
from pipeline.storage.settings import MetadataSettings
from pipeline.storage.store import Artifact, NodeExecution, Store
from pipeline.storage.workdir import Workdir


def _execution(node_id, state, **fields):
    return NodeExecution(7, node_id, state, 0.0, 0.0, **{"properties": {}, "inputs": {}, "outputs": {}, **fields})


@dataclasses.dataclass
class _History:
    """A metadata store that returns the next of some states of a run at every read."""

    states: list

    def __call__(self):
        self._now = self.states.pop(0)
        return self

    def has_run(self, run_id):
        return self._now is not None

    def executions(self, run_id):
        return self._now


def test_a_malformed_tf_config_is_explained(monkeypatch, capsys):
    monkeypatch.setenv(TF_CONFIG, "{")

    assert main(["--run-id", "r", "--configuration", "[]", "--parameters", "{}"]) == 2
    message = capsys.readouterr().err
    assert "TF_CONFIG: found '{'" in message
    assert "Invalid JSON" in message


def test_an_existing_tf_config_is_kept():
    environment = {TF_CONFIG: "the operator's", "JOB_COMPLETION_INDEX": "1"}

    set_tf_config(environment, "a:1,b:1")

    assert environment[TF_CONFIG] == "the operator's"


def test_a_worker_without_index_or_addresses_is_refused(monkeypatch, capsys):
    monkeypatch.delenv(TF_CONFIG, raising=False)
    with pytest.raises(UsageError, match="expected one of them to say which worker this is"):
        set_tf_config({}, "a:1,b:1")

    assert main(["--run-id", "r", "--configuration", "[]", "--parameters", "{}"]) == 2
    assert "which worker" in capsys.readouterr().err


@pytest.mark.parametrize(("index", "part"), [(0, "_lead"), (1, "_follow")])
def test_a_pod_prepares_its_process_for_gpus(monkeypatch, index, part):
    monkeypatch.setenv(
        TF_CONFIG, json.dumps({"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": index}})
    )
    monkeypatch.delenv("TF_FORCE_GPU_ALLOW_GROWTH", raising=False)
    seen = []

    def run(*_):
        seen.append(os.environ.get("TF_FORCE_GPU_ALLOW_GROWTH"))
        return 0

    monkeypatch.setattr(training_worker, part, run)

    assert main(["--run-id", "r", "--configuration", "[]", "--parameters", "{}"]) == 0
    assert seen == ["true"]


def test_a_worker_waits_until_the_chief_trains():
    running = _execution("Trainer", "interrupted")
    states = _History([None, [], [_execution("Transform", "ran")], [_execution("Transform", "ran"), running]])

    assert await_chief(states, "r", seconds=0) is running


def test_a_worker_waits_for_the_chief_of_a_training_that_failed():
    running = _execution("Trainer", "interrupted")
    states = _History([[_execution("Trainer", "failed")], [_execution("Trainer", "failed")], [running]])

    assert await_chief(states, "r", seconds=0) is running


@pytest.mark.parametrize("path", ["", "elsewhere.sqlite"])
def test_a_worker_finds_the_store_that_the_chief_has_made(tmp_path, path):
    settings = MetadataSettings(path=str(tmp_path / path) if path else "")
    workdir = Workdir(str(tmp_path / "work"), settings, shared=True)
    workdir.create()
    assert open_store(workdir, "sqlite") is None

    Store(workdir.connection)

    assert open_store(workdir, "sqlite") is not None


@pytest.mark.parametrize("state", ["ran", "cached"])
def test_a_worker_ends_if_the_chief_has_the_model_from_the_cache(state):
    assert await_chief(_History([[_execution("Trainer", state)]]), "r", seconds=0) is None


def test_a_worker_has_the_inputs_of_the_chief(tmp_path):
    execution = _execution(
        "Trainer",
        "interrupted",
        properties={"custom_config": '{"seed": 7}'},
        inputs={
            "examples": [Artifact(1, "Examples", "/volume/Transform/examples/5", {})],
            "transform_graph": [Artifact(2, "TransformGraph", "/volume/Transform/graph/5", {})],
        },
    )

    arguments = fn_args(execution, "/volume/artifacts", "train", "val", str(tmp_path))

    assert arguments.custom_config == {"seed": 7}
    assert arguments.train_files == ["/volume/Transform/examples/5/Split-train/*"]
    assert arguments.eval_files == ["/volume/Transform/examples/5/Split-val/*"]
    assert arguments.transform_output == "/volume/Transform/graph/5"
    assert arguments.model_run_dir == "/volume/artifacts/Trainer/model_run/7"
    assert arguments.serving_model_dir.startswith(str(tmp_path))
