import json

import pytest
import tensorflow as tf

from components.errors import SegpipeError, UsageError
from trainer import distribution
from trainer.sharding import WHOLE


def test_a_process_without_tf_config_uses_all_its_gpus(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)

    assert distribution.choose().num_replicas_in_sync == max(1, len(tf.config.list_physical_devices("GPU")))


def test_tf_config_is_read_from_the_environment(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "nonsense")

    with pytest.raises(UsageError, match="TF_CONFIG"):
        distribution.choose()


def test_a_worker_that_cannot_join_is_an_error(monkeypatch):
    tf.constant(1) + 1
    task = {"type": "worker", "index": 0}
    config = json.dumps({"cluster": {"worker": ["localhost:1", "localhost:2"]}, "task": task})
    monkeypatch.setenv("TF_CONFIG", config)

    with pytest.raises(SegpipeError, match=r"worker 0 of 2 cannot join .* train in a separate process"):
        distribution.choose()


def test_with_one_device_nothing_is_exchanged():
    alone = tf.distribute.get_strategy()
    value = tf.constant([1.0, 2.0])

    assert distribution.total(value) is value
    assert distribution.agree(alone, [7, 2**40]) == [7, 2**40]
    assert distribution.gather(alone, [7, 2**40]) == [[7, 2**40]]
    assert distribution.sharding(alone) == WHOLE
