"""SavedModels that are written in a second, and a server for them in this process."""

import contextlib
import os
import shutil
import threading

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import model_service_pb2_grpc, predict_pb2, prediction_log_pb2, prediction_service_pb2_grpc

from serving.server.errors import ServingError
from serving.server.main import Server
from serving.server.options import ServeOptions
from serving.warmup import WARMUP_FILE


def _queue(name):
    """Returns a queue that all signatures of a session share."""
    return tf.raw_ops.FIFOQueueV2(component_types=[tf.float32], shared_name=name)


class ToyModel(tf.Module):
    """Multiplies by its number. A request for `gate` waits until `open_gate` is called for it."""

    def __init__(self, number):
        super().__init__()
        self.number = tf.Variable(float(number))
        self.visits = tf.Variable(0.0)

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def serving_default(self, x):
        return {"y": x * self.number, "sum": tf.reduce_sum(x, axis=1)}

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.float32, name="a"), tf.TensorSpec([None], tf.string, name="b")]
    )
    def two(self, a, b):
        return {"length": tf.strings.length(b), "a": a}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def images(self, image):
        return {
            "shape": tf.map_fn(lambda data: tf.shape(tf.io.decode_image(data)), image, fn_output_signature=tf.int32)
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="word")])
    def greeting(self, word=tf.constant(["hello"])):  # noqa: B008
        return {"word": word}

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32, name="by")])
    def visit(self, by):
        return {"visits": self.visits.assign_add(by)}

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32, name="value")])
    def gate(self, value):
        tf.raw_ops.QueueEnqueueV2(handle=_queue("entered"), components=[value])
        (opened,) = tf.raw_ops.QueueDequeueV2(handle=_queue("opened"), component_types=[tf.float32])
        return {"number": opened * self.number}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="by")])
    def gated_rows(self, by):
        tf.raw_ops.QueueEnqueueV2(handle=_queue("entered"), components=[0.0])
        (opened,) = tf.raw_ops.QueueDequeueV2(handle=_queue("opened"), component_types=[tf.float32])
        return {"by": by * opened}

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32, name="value")])
    def open_gate(self, value):
        tf.raw_ops.QueueEnqueueV2(handle=_queue("opened"), components=[value])
        return {"value": value}

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32, name="value")])
    def await_entry(self, value):
        (entered,) = tf.raw_ops.QueueDequeueV2(handle=_queue("entered"), component_types=[tf.float32])
        return {"value": value + entered}

    @tf.function(input_signature=[tf.TensorSpec([], tf.int64, name="steps")])
    def slow(self, steps):
        tf.raw_ops.QueueEnqueueV2(handle=_queue("entered"), components=[0.0])
        return {
            "steps": tf.while_loop(lambda step: step < steps, lambda step: [step + 1], [tf.constant(0, tf.int64)])[0]
        }


SIGNATURES = (
    "serving_default",
    "two",
    "images",
    "greeting",
    "visit",
    "gate",
    "gated_rows",
    "open_gate",
    "await_entry",
    "slow",
)
ONE = {"value": np.float32(1)}


def export_toy(directory, number):
    """Writes the toy as a SavedModel."""
    model = ToyModel(number)
    tf.saved_model.save(model, str(directory), {name: getattr(model, name) for name in SIGNATURES})


def stage(template, base_path, number):
    """Copies the toy into the base path under a name that is not a version, and returns its path."""
    staging = base_path / f".tmp-{number}"
    shutil.copytree(template / str(number), staging)
    return staging


def push(template, base_path, number):
    """Adds the toy as a version, atomically as the pipeline's pusher does."""
    os.rename(stage(template, base_path, number), base_path / str(number))


def write_warmup(version, request):
    """Adds a warm-up request to a version."""
    (version / WARMUP_FILE).parent.mkdir(exist_ok=True)
    log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
    with tf.io.TFRecordWriter(str(version / WARMUP_FILE)) as writer:
        writer.write(log.SerializeToString())


def predict_request(inputs, signature="", name="toy", version=None, label=None):
    """Returns a PredictRequest; `inputs` are what `tf.make_tensor_proto` takes."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    if label is not None:
        request.model_spec.version_label = label
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    return request


class Channel:
    """The stubs of one connection."""

    def __init__(self, port, credentials=None, options=(), host="localhost"):
        address = f"{host}:{port}"
        if credentials is None:
            self.channel = grpc.insecure_channel(address, options)
        else:
            self.channel = grpc.secure_channel(address, credentials, options)
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def predict(self, inputs, timeout=20, **spec):
        """Calls Predict with `predict_request`'s arguments."""
        return self.prediction.Predict(predict_request(inputs, **spec), timeout=timeout)

    def refusal(self, inputs, timeout=20, **spec):
        """Returns the status code and the text of a Predict call that must fail."""
        try:
            answer = self.predict(inputs, timeout, **spec)
        except grpc.RpcError as error:
            return error.code(), error.details()
        raise AssertionError(f"answered with {answer}")


@contextlib.contextmanager
def serving(**options):
    """Runs a server in this process and yields it when its first models are available or have failed."""
    ready = threading.Event()
    defaults = {
        "port": 0,
        "host": "localhost",
        "model_name": "toy",
        "file_system_poll_wait_seconds": 0.05,
        "max_num_load_retries": 0,
        "max_queue_wait_in_ms": 60_000,
    }
    options = {key: str(value) if isinstance(value, os.PathLike) else value for key, value in options.items()}
    server = Server(ServeOptions(**{**defaults, **options}), lambda _: ready.set())
    try:
        assert ready.wait(60)
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def connected(**options):
    """Runs a server and yields a connection to it."""
    with serving(**options) as server:
        connection = Channel(server.port)
        with connection.channel:
            yield connection


def wait_until(server, condition):
    """Waits for a condition on a server's registry."""
    with server.core.registry.changed:
        assert server.core.registry.changed.wait_for(lambda: condition(server.core.registry), 60)


def state_of(registry, version, name="toy"):
    """Returns the state of a version, None if it is unknown. For `wait_until`."""
    servable = registry.models[name].versions.get(version) if name in registry.models else None
    return servable.state if servable is not None else None


def run_inside(server, signature, version=1):
    """Runs `await_entry` or `open_gate` of the toy without admission, for a request that waits."""
    session = server.core.registry.models["toy"].versions[version].session
    # Opening the gate may end the version's last request, so the version may be unloaded before this call returns.
    with contextlib.suppress(ServingError):
        session.run(signature, ONE, ["value"])
