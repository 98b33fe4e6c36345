"""`overlays/local` and `release` on a cluster: they become ready, and lose no request in a rollout and a release.

Skipped on a cluster of several nodes, because the models are in a folder of one. TensorFlow Serving and nginx have the
images of the manifests. `kubernetes/serving` is applied unchanged, in its own namespace, except for the node's folder
and the image of the tools.
"""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from real_cluster import MOUNT, Cluster

pytestmark = pytest.mark.slow

_SERVING = Path(__file__).parents[2] / "kubernetes" / "serving"
_FOLDER = {"path": "/var/tmp/segpipe-test-serving", "type": "DirectoryOrCreate"}
# Versions 1 and 2 of a model that multiplies by its version.
_MAKE_MODELS = f"""
import tensorflow as tf


class Model(tf.Module):
    def __init__(self, factor):
        self.factor = tf.Variable(factor)

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def __call__(self, x):
        return {{"y": x * self.factor}}


for version in (1, 2):
    model = Model(float(version))
    tf.saved_model.save(model, f"{MOUNT}/fcn8/{{version}}", signatures=model.__call__.get_concrete_function())
"""
_DELETE_MODELS = f"import shutil; shutil.rmtree('{MOUNT}/fcn8', ignore_errors=True)"
# Sends requests through the Service, without retries, until stdin closes; prints the successes and the failures.
_ASK = """
import http.client, json, sys, threading
import grpc
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
import tensorflow as tf

ended = threading.Event()
counts, failures = {"grpc": 0, "rest": 0}, []


def by_grpc():
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "fcn8"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([[1.0, 2.0]]))
    with grpc.insecure_channel("segpipe-serving:8500", [("grpc.enable_retries", 0)]) as channel:
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        while not ended.is_set():
            answer = tf.make_ndarray(predict(request, timeout=30).outputs["y"])
            assert answer.tolist() in ([[1.0, 2.0]], [[2.0, 4.0]]), answer
            yield "grpc"


def by_rest():
    while not ended.is_set():
        connection = http.client.HTTPConnection("segpipe-serving", 8501, timeout=30)
        connection.request("POST", "/v1/models/fcn8:predict", json.dumps({"instances": [[1.0, 2.0]]}))
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        assert json.load(answer)["predictions"] in ([[1.0, 2.0]], [[2.0, 4.0]])
        connection.close()
        yield "rest"


def keep_asking(ask):
    while not ended.is_set():
        try:
            for kind in ask():
                counts[kind] += 1
                ended.wait(0.02)
        except Exception as error:
            failures.append(repr(error)[:300])


threads = [threading.Thread(target=keep_asking, args=(ask,)) for ask in (by_grpc, by_rest)]
for thread in threads:
    thread.start()
print("asking", flush=True)
sys.stdin.read()
ended.set()
for thread in threads:
    thread.join()
print(json.dumps({"counts": counts, "failures": failures}))
"""


@pytest.fixture
def serving(cluster, tools_image, tmp_path):
    """Creates models on the node, applies the folders, and waits until all pods are ready."""
    served = Cluster("segpipe")
    if served.kubectl("get", "namespace", "segpipe", "--ignore-not-found"):
        pytest.skip("the cluster has the namespace segpipe already; this test would change what is served there")
    cluster.skip_if_several_nodes("use a cluster of one node")
    node = {"hostPath": _FOLDER}
    cluster.run("models", tools_image, _MAKE_MODELS, user=0, volume=node)
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(_kustomization(tmp_path, tools_image)))
    try:
        served.kubectl("apply", f"--kustomize={tmp_path}")
        for name in ("segpipe-serving", "segpipe-tools"):
            served.kubectl("rollout", "status", f"deployment/{name}", "--timeout=300s")
        yield served
    finally:
        served.kubectl("delete", f"--kustomize={tmp_path}", "--timeout=180s")
        cluster.run("clean", tools_image, _DELETE_MODELS, user=0, volume=node)


def _kustomization(folder, tools_image):
    path = [{"op": "replace", "path": "/spec/hostPath", "value": _FOLDER}]
    name, _, tag = tools_image.rpartition(":")
    return {
        "resources": [os.path.relpath(_SERVING / one, folder) for one in ("overlays/local", "release")],
        "patches": [{"target": {"kind": "PersistentVolume"}, "patch": yaml.safe_dump(path)}],
        "images": [{"name": "registry.example.com/segpipe/serving-tools", "newName": name, "newTag": tag}],
    }


@pytest.fixture
def asking(serving):
    """Starts load from a pod; the returned function stops it and returns its counts and failures."""
    command = ["kubectl", "--namespace=segpipe", "exec", "--stdin", "deploy/segpipe-tools", "--", "python", "-c", _ASK]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "asking\n", process.stderr.read()

    def end():
        printed, complaints = process.communicate("", timeout=60)
        assert process.returncode == 0, complaints[-2000:]
        return json.loads(printed)

    yield end
    process.kill()


def _release(serving, *words):
    options = ("--server", "segpipe-serving-headless:8500", "--model", "fcn8")
    return serving.kubectl("exec", "deploy/segpipe-tools", "--", "segpipe", "release", *words, *options)


def test_a_rollout_and_a_release_lose_no_request(serving, asking):
    (before,) = serving.get("pods", "--selector=app.kubernetes.io/name=segpipe-serving")["items"]

    serving.kubectl("rollout", "restart", "deployment/segpipe-serving")
    serving.kubectl("rollout", "status", "deployment/segpipe-serving", "--timeout=300s")
    gone = f"pod/{before['metadata']['name']}"
    serving.kubectl("wait", gone, "--for=delete", "--timeout=120s")
    # Without a label, the newest version is served. The last step makes the older one stable.
    for words in (("promote", "2"), ("canary", "1"), ("promote",)):
        # Kubernetes updates a mounted ConfigMap within about a minute.
        _release(serving, *words, "--configmap", "segpipe/segpipe-models")
    found = asking()

    assert found["failures"] == []
    assert min(found["counts"].values()) > 100, found
    status = _release(serving, "status")
    assert re.search(r"\b1 +AVAILABLE +stable\b", status), status
