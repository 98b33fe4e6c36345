import contextlib
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator

import attempts_toy
import keras
import numpy as np
import pytest
import training_toy as toy

from components import files
from components.errors import SegpipeError
from trainer import attempts, checkpoints
from trainer.checkpoints import Checkpoints, State
from trainer.training import train

PROJECT = pathlib.Path(__file__).parents[2]


class Killed(BaseException):
    """Simulates a killed process: only its files remain."""


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(attempts, "WATCH_SECONDS", 0.3)
    monkeypatch.setattr(attempts, "ALIVE_SECONDS", 0.01)


@pytest.fixture
def folder(tmp_path) -> str:
    return str(tmp_path / "checkpoints" / "0123456789abcdef")


def variables(value: float) -> list[keras.Variable]:
    return [keras.Variable(np.full((2, 3), value, np.float32))]


def entry(epoch: int) -> dict[str, int]:
    return {"epoch": epoch}


def state_after(epochs: int, best: int = 1) -> State:
    state = State(seed=7)
    for epoch in range(1, epochs + 1):
        state = state.after_epoch(entry(epoch), 1.0 if epoch == best else 0.5)
    return state


@contextlib.contextmanager
def killed(folder: str) -> Iterator[Checkpoints]:
    """Yields the checkpoints of an attempt that is killed when the block ends."""
    with contextlib.suppress(Killed), attempts.begin(folder, "41") as kept:
        yield kept
        raise Killed


def killed_after(folder: str, epochs: int, step: int = 0) -> str:
    """Writes the files of an attempt that is killed after some epochs; returns its folder."""
    with killed(folder) as kept:
        for epoch in range(1, epochs + 1):
            kept.save(variables(epoch), state_after(epoch))
        if step:
            kept.save(variables(epochs + 0.5), state_after(epochs).after_step(step, 1.0))
    return kept.folder


def names(folder: str) -> list[str]:
    """Returns the content of the folder of all checkpoints."""
    return sorted(os.listdir(os.path.dirname(folder)))


def test_an_attempt_that_ends_leaves_nothing(folder):
    with attempts.begin(folder) as kept:
        assert kept.read() is None
        kept.save(variables(1), state_after(1))
        assert kept.read() == state_after(1)

    assert names(folder) == []


def test_the_next_attempt_resumes_the_newest_checkpoint_in_its_own_folder(folder):
    first = killed_after(folder, epochs=3)

    with attempts.begin(folder, "42") as kept:
        state, newest, best = kept.read(), variables(0), variables(0)
        kept.restore(newest, state)
        kept.restore_best(best, state)

        assert state == state_after(3)
        assert (newest[0].numpy()[0, 0], best[0].numpy()[0, 0]) == (3, 1)
        assert kept.folder != first
        assert not os.path.exists(first)
        assert checkpoints.execution_of(kept.folder) == "42"
    assert names(folder) == []


def test_the_most_advanced_of_several_ended_attempts_is_resumed(folder, monkeypatch):
    # The names of the attempts sort in this order.
    numbers = itertools.count()
    monkeypatch.setattr("uuid.uuid4", lambda: types.SimpleNamespace(hex=f"{next(numbers):012}"))
    with monkeypatch.context() as alone:
        alone.setattr(attempts, "_attempts", lambda *_: [])
        killed = [killed_after(folder, epochs, step) for epochs, step in ((1, 9), (2, 0), (2, 5), (0, 0))]

    with attempts.begin(folder) as kept:
        assert (kept.read().epoch, kept.read().step) == (2, 5)
        assert not any(os.path.exists(each) for each in killed)
    assert names(folder) == []


def test_other_trainings_are_not_changed(folder):
    other = killed_after(folder[:-1] + "0", epochs=1)
    plain = Checkpoints(folder)
    plain.save(variables(1), state_after(1))
    # An object store may still list a folder whose files are gone.
    os.mkdir(f"{folder}-0123")

    with attempts.begin(folder) as kept:
        assert kept.read() is None
    assert os.path.isdir(f"{folder}-0123")
    assert Checkpoints(other).read() == plain.read() == state_after(1)


def test_a_running_attempt_is_not_taken_over(folder, monkeypatch):
    # Long enough on a busy machine; the wait ends as soon as the counter has advanced.
    monkeypatch.setattr(attempts, "WATCH_SECONDS", 60)
    with attempts.begin(folder) as first:
        first.save(variables(1), state_after(1))
        with attempts.begin(folder) as second:
            assert second.read() is None
            second.save(variables(2), state_after(2))
        first.save(variables(3), state_after(3))
        assert first.read() == state_after(3)
    assert names(folder) == []


def stand_still(monkeypatch):
    """Makes each later attempt conclude that all others have ended."""
    monkeypatch.setattr(attempts, "_ended", lambda others: list(others))


def test_an_attempt_that_was_taken_over_stops_writing(folder, monkeypatch):
    stand_still(monkeypatch)
    with killed(folder) as first:
        first.save(variables(1), state_after(1))
        with killed(folder) as second:
            assert second.read() == state_after(1)
        before = names(folder)

        with pytest.raises(SegpipeError, match=r"another run with the same settings .* this one stops"):
            first.save(variables(2), state_after(2))

    assert not os.path.exists(first.folder)
    assert names(folder) == before
    assert second.read() == state_after(1)


def test_an_attempt_that_is_taken_over_while_it_exports_removes_nothing(folder, monkeypatch):
    stand_still(monkeypatch)
    with attempts.begin(folder) as first:
        first.save(variables(1), state_after(1))
        with killed(folder) as second:
            second.save(variables(2), state_after(2))
        before = names(folder)
        first.remove()

    assert names(folder) == before
    assert second.read() == state_after(2)


def test_an_attempt_whose_successor_has_ended_writes_nothing_more(folder, monkeypatch):
    stand_still(monkeypatch)
    monkeypatch.setattr(attempts, "ALIVE_SECONDS", 3600)
    with killed(folder) as first:
        first.save(variables(1), state_after(1))
        with attempts.begin(folder):
            pass
        with pytest.raises(SegpipeError, match="this one stops"):
            first.save(variables(2), state_after(2))
    assert names(folder) == []


def test_a_takeover_during_a_save_keeps_the_files_of_the_previous_state(tmp_path):
    answers = iter([True, True, True, False, False])
    kept = Checkpoints(str(tmp_path / "c"), is_owner=lambda: next(answers))
    kept.save(variables(1), state_after(1, best=9))

    with pytest.raises(SegpipeError, match="this one stops"):
        kept.save(variables(2), state_after(2, best=2))
    kept.remove()

    assert files.list_names(kept.folder) == ["epoch-0001.variables", "epoch-0002.variables", "state.json"]
    assert kept.read() == state_after(2, best=2)


def test_a_state_that_is_removed_while_it_is_copied_is_not_resumed(folder, monkeypatch):
    first = killed_after(folder, epochs=1)
    read = Checkpoints.read

    def read_late(self):
        state = read(self)
        if self.folder == first:
            os.remove(os.path.join(first, state.values))
        return state

    monkeypatch.setattr(Checkpoints, "read", read_late)
    with attempts.begin(folder) as kept:
        assert kept.read() is None
    assert names(folder) == []


def test_writing_the_counter_is_retried(folder, monkeypatch, caplog):
    count, written, failures = attempts.Attempt.count, threading.Event(), iter([OSError(5, "away")] * 2)

    def unreliable(self, number):
        if number and (failure := next(failures, None)):
            raise failure
        count(self, number)
        if number:
            written.set()

    monkeypatch.setattr(attempts.Attempt, "count", unreliable)
    with attempts.begin(folder):
        assert written.wait(60)
    assert "cannot be written: [Errno 5] away" in caplog.text


def test_an_attempt_that_was_taken_over_stops_counting(folder, monkeypatch):
    stand_still(monkeypatch)
    monkeypatch.setattr(attempts, "ALIVE_SECONDS", 3600)
    with killed(folder) as first:
        with attempts.begin(folder):
            pass
        pauses = iter([False, False, True])
        attempts._count(
            attempts.Attempt(*first.folder.rsplit("/", 1)), types.SimpleNamespace(wait=lambda _: next(pauses))
        )
    assert names(folder) == []


def test_counter_files_of_a_killed_attempt_are_removed(folder):
    first = killed_after(folder, epochs=1)
    os.rename(f"{first}.alive", f"{first}.alive.0123.tmp")

    with attempts.begin(folder) as kept:
        assert kept.read() == state_after(1)
    assert names(folder) == []


def test_attempts_resume_checkpoints_on_an_object_store(s3, monkeypatch):
    # Longer times, because reading from a store is slow.
    monkeypatch.setattr(attempts, "ALIVE_SECONDS", 0.2)
    monkeypatch.setattr(attempts, "WATCH_SECONDS", 2)
    folder = f"{s3}/checkpoints/0123456789abcdef"
    killed_after(folder, epochs=2)

    with attempts.begin(folder) as kept:
        assert kept.read() == state_after(2)
        newest = variables(0)
        kept.restore(newest, kept.read())
        assert newest[0].numpy()[0, 0] == 2
    assert list(files.list_files(f"{s3}/checkpoints")) == []
    assert attempts._attempts(f"{s3}/checkpoints", "0123456789abcdef") == []


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Returns a function that starts an attempt in a process; all processes are killed after the test."""
    with contextlib.ExitStack() as processes:

        def start(name: str, action: str = "", watch: float = 1) -> subprocess.Popen:
            command = [sys.executable, attempts_toy.__file__, str(tmp_path), str(tmp_path / "checkpoints" / "abc")]
            environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
            process = subprocess.Popen(
                [*command, str(tmp_path / f"{name}.npz"), action, str(watch)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
            )
            processes.callback(process.kill)
            return process

        toy.write_splits(tmp_path)
        yield start


def records(process: subprocess.Popen, code: int = 0) -> list[dict]:
    lines, errors = process.communicate()
    assert process.returncode == code, errors[-3000:]
    return [json.loads(line) for line in lines.splitlines() if line.startswith("{")]


def await_second_epoch(process: subprocess.Popen) -> None:
    # Not every step reports progress, so an attempt may stop after its second epoch is saved.
    assert any(line.startswith("{") and json.loads(line)["epoch"] >= 2 for line in process.stdout)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> list[np.ndarray]:
    """The weights of an uninterrupted training."""
    root = tmp_path_factory.mktemp("unbroken")
    toy.write_splits(root)
    return toy.weights(train(toy.job(root, root / "logs", keep="best"), Checkpoints(str(root / "checkpoint"))))


def check_weights(unbroken: list[np.ndarray], tmp_path: pathlib.Path, *outputs: str) -> None:
    """Checks that the trainings ended like an uninterrupted one, and that no checkpoints remain."""
    for name in outputs:
        with np.load(tmp_path / f"{name}.npz") as found:
            for array, expected in zip(found, unbroken, strict=True):
                np.testing.assert_allclose(found[array], expected, atol=1e-5)
    assert os.listdir(tmp_path / "checkpoints") == []


@pytest.mark.slow
def test_another_execution_resumes_a_killed_training(tmp_path, start, unbroken):
    records(start("first", "SIGKILL"), code=-signal.SIGKILL)

    second = records(start("second"))

    assert second[0]["resumed_from"] in (1, 2)
    assert second[0]["epoch"] == second[0]["resumed_from"] + 1
    assert not (tmp_path / "first.npz").exists()
    check_weights(unbroken, tmp_path, "second")


@pytest.mark.slow
def test_two_trainings_at_once_do_not_mix(tmp_path, start, unbroken):
    go_on = tmp_path / "go-on"
    first = start("first", str(go_on))
    await_second_epoch(first)

    # The wait ends as soon as the first attempt's counter has advanced.
    second = records(start("second", watch=300))
    go_on.touch()

    assert (second[0]["resumed_from"], second[0]["epoch"]) == (None, 1)
    assert records(first)[-1]["epoch"] == 3
    check_weights(unbroken, tmp_path, "first", "second")


@pytest.mark.slow
def test_a_suspended_training_that_was_taken_over_writes_nothing_more(tmp_path, start, unbroken):
    first = start("first", "SIGSTOP")
    await_second_epoch(first)
    (folder,) = {name.partition(".")[0] for name in os.listdir(tmp_path / "checkpoints")}
    go_on = tmp_path / "go-on"
    second = start("second", str(go_on))
    await_second_epoch(second)

    first.send_signal(signal.SIGCONT)
    _, errors = first.communicate()

    assert first.returncode == 1
    assert f"{folder}: found that another run with the same settings has resumed this training" in errors
    assert not (tmp_path / "checkpoints" / folder).exists()
    assert not (tmp_path / "first.npz").exists()
    go_on.touch()
    records(second)
    check_weights(unbroken, tmp_path, "second")
