import json

import pytest
import tensorflow as tf

from components.errors import SegpipeError
from trainer import cluster, loop
from trainer.checkpoints import Checkpoints, State

COURSE = loop.Course(epochs=1, steps=1, validation_steps=1, validated=frozenset({1}), checkpoint_steps=0, is_chief=True)


class Unavailable:
    """A learner whose first step ends as one that reads from a store, or waits for a worker, that is away."""

    def __init__(self, message: str) -> None:
        self._message = message

    def reset_scores(self) -> None:
        pass

    def train(self, batches) -> None:
        raise tf.errors.UnavailableError(None, None, self._message)


def _run(folder, message="service is down\n\twhile reading") -> None:
    loop.run(Unavailable(message), COURSE, [], [], Checkpoints(str(folder)), State(seed=1), ())


def test_in_one_process_no_worker_is_blamed(tmp_path):
    with pytest.raises(tf.errors.UnavailableError, match="service is down"):
        _run(tmp_path)


@pytest.mark.parametrize(
    ("message", "words"),
    [("service is down\n\twhile reading", "UnavailableError: service is down"), ("", "UnavailableError: ")],
)
def test_of_several_workers_one_is_lost_and_the_error_has_its_words(tmp_path, monkeypatch, message, words):
    workers = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv(cluster.TF_CONFIG, json.dumps(workers))

    with pytest.raises(SegpipeError, match=rf"worker is lost in epoch 1 \({words}\); start all"):
        _run(tmp_path, message)
