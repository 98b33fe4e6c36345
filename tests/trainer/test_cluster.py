import json

import pytest

from components.errors import UsageError
from trainer import cluster
from trainer.cluster import Worker


def tf_config(job: str, index: object, **jobs: object) -> str:
    return json.dumps({"cluster": jobs, "task": {"type": job, "index": index}})


@pytest.mark.parametrize(
    ("text", "index", "workers"),
    [
        ("{}", 0, 1),
        ('{"cluster": null, "task": null}', 0, 1),
        (tf_config("worker", 0, worker=["a:1"]), 0, 1),
        (tf_config("worker", 1, worker=["a:1", "b:1", "c:1"]), 1, 3),
        (tf_config("worker", "1", worker=["a:1", "b:1"]), 1, 2),
        (tf_config("chief", 0, chief=["a:1"], worker=["b:1", "c:1"]), 0, 3),
        (tf_config("worker", 0, chief=["a:1"], worker=["b:1", "c:1"]), 1, 3),
    ],
)
def test_the_first_of_all_workers_is_the_chief(text, index, workers):
    worker = cluster.parse(text)

    assert (worker.index, worker.workers, worker.is_chief) == (index, workers, index == 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"'{' as the JSON \(Invalid JSON"),
        ("[]", r"\[\] as the JSON \(.*should be an object"),
        ('{"cluster": "a:1"}', r"'a:1' as cluster \(.*(valid dictionary|object)"),
        (tf_config("worker", 0, worker="a:1"), r"'a:1' as cluster.worker \(.*valid (list|array)"),
        (tf_config("worker", 0, worker=["a"]), r"'a' as cluster.worker.0 \(.*should match pattern ':'"),
        (tf_config("worker", 2, worker=["a:1", "b:1"]), "task.index is 2, expected 0 to 1, as cluster.worker has 2"),
        (tf_config("worker", "x", worker=["a:1", "b:1"]), r"'x' as task.index \(.*valid integer"),
        (tf_config("trainer", 0, worker=["a:1", "b:1"]), "task.type is 'trainer', expected worker, as in"),
        (json.dumps({"cluster": {"worker": ["a:1", "b:1"]}}), "task.type is '', expected worker"),
        (tf_config("chief", 0, worker=["a:1"]), "task.type is 'chief', expected worker"),
        (tf_config("ps", 0, ps=["a:1"], worker=["b:1"]), "the job ps, expected only chief and worker"),
        (tf_config("trainer", 0, trainer=["a:1"]), r"the jobs \['trainer'\], expected a job worker"),
    ],
)
def test_a_malformed_tf_config_is_explained(text, message):
    with pytest.raises(UsageError, match=f"TF_CONFIG: found {message}"):
        cluster.parse(text)


def test_this_worker_reads_the_environment(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", tf_config("worker", 1, worker=["a:1", "b:1"]))

    assert cluster.this_worker() == Worker(index=1, workers=2)


def test_a_process_without_tf_config_is_the_only_worker(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)

    assert cluster.this_worker() == Worker(index=0, workers=1)
