"""The tasks of the compiled pipeline run in pods, with the compiled file's image, command, volumes and secrets.

Without Kubeflow's launcher, the test fills in the tasks' parameters and runs the tasks in the file's order.
"""

import base64
import json

import pytest
import yaml
from real_cluster import MOUNT

pytestmark = pytest.mark.slow

_MAKE_DATA = f"""
from components.dataset import synthetic
synthetic.make("{MOUNT}/data", pairs={{"train": 6, "val": 2}}, size=(32, 48))
"""
_READ_STATES = f"""
import json
from pipeline.storage.store import Store
executions = Store("{MOUNT}/runs/metadata.sqlite").executions("run-1")
print("RESULT", json.dumps({{one.node_id: one.state for one in executions}}))
"""


@pytest.fixture
def compiled(compiled_file):
    """Returns the compiled pipeline's specification and its platform specification."""
    return list(yaml.safe_load_all(compiled_file.read_text()))


def _in_order(tasks):
    """Returns the tasks' names, each after its dependencies."""
    done = []
    while len(done) < len(tasks):
        ready = [name for name in tasks if name not in done and set(tasks[name].get("dependentTasks", ())) <= set(done)]
        done += sorted(ready)
    return done


def _pod(compiled, task, values):
    spec, platform = compiled
    label = spec["components"][spec["root"]["dag"]["tasks"][task]["componentRef"]["name"]]["executorLabel"]
    container = spec["deploymentSpec"]["executors"][label]["container"]
    options = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][label]
    given = json.dumps({"inputs": {"parameterValues": values}})
    claims = [(one["constant"], one["mountPath"]) for one in options["pvcMount"]]
    variables = [
        {
            "name": pair["envVar"],
            "valueFrom": {"secretKeyRef": {"name": _secret(secret), "key": pair["secretKey"]}},
        }
        for secret in options["secretAsEnv"]
        for pair in secret["keyToEnv"]
    ]
    main = {
        "name": "main",
        "image": container["image"],
        "command": container["command"],
        "args": [given if word == "{{$}}" else word for word in container["args"]],
        "env": variables,
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in claims],
    }
    pod = {
        "restartPolicy": "Never",
        # Kubeflow Pipelines sets this on the pods of tasks.
        "securityContext": {"runAsNonRoot": True},
        "containers": [main],
        "volumes": [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name, _ in claims],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": task}, "spec": pod}


def _secret(secret):
    return secret.get("secretName") or secret["secretNameParameter"]["runtimeValue"]["constant"]


def test_the_tasks_run_in_pods_as_they_are_compiled(cluster, volume, pipeline_image, compiled):
    cluster.run("data", pipeline_image, _MAKE_DATA)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "segpipe-test"}}
    cluster.apply({**secret, "data": {"word": base64.b64encode(b"open").decode()}})
    dag = compiled[0]["root"]
    values = {name: one.get("defaultValue") for name, one in dag["inputDefinitions"]["parameters"].items()}
    names = _in_order(dag["dag"]["tasks"])

    for name in names:
        cluster.apply(_pod(compiled, name, {**values, "run_id": "run-1"}))
        cluster.finish(name, 300)

    printed = cluster.run("result", pipeline_image, _READ_STATES)
    (line,) = (line for line in printed.splitlines() if line.startswith("RESULT "))
    states = json.loads(line.removeprefix("RESULT "))
    assert len(states) >= len(names)
    assert {states[name] for name in ("ImageMaskExampleGen", "Trainer", "Evaluator", "Pusher", "Report")} == {"ran"}
