"""A model server for tests of its clients: the official stubs over a real socket, and a model of ten lines.

Its model calls a pixel road where it is dark and sky where it is light; its faults are set by the tests.
"""

import contextlib
import io
import json
import threading
from concurrent import futures

import grpc
import numpy as np
from PIL import Image
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from components.class_map import ClassMap

CLASS_MAP = ClassMap(("sky", "road", "void"), ((0, 0, 255), (128, 64, 128), (0, 0, 0)), ignore_index=2)
FLOAT, UINT8, STRING = 1, 4, 7


class ToyModel(prediction_service_pb2_grpc.PredictionServiceServicer, model_service_pb2_grpc.ModelServiceServicer):
    """Serves versions of the model "toy" and records its requests."""

    def __init__(self):
        self.versions = {3: CLASS_MAP}
        self.labels = {"stable": 3}
        self.names_the_image = True
        self.mask_name = "mask_png_bytes"
        self.depth_scale = None
        self.failures = []  # (status, details) of the next calls, in order
        self.seconds_of_work = 0.0
        self.released = threading.Event()
        self.requests = []

    @property
    def batches(self):
        """Batch sizes of the requests, without those for the description."""
        return [len(r.inputs["image"].string_val) for r in self.requests if "image" in r.inputs]

    def Predict(self, request, context):
        self.requests.append(request)
        if self.failures:
            context.abort(*self.failures.pop(0))
        version = self._version(request.model_spec, context)
        if self.seconds_of_work:
            self.released.wait(self.seconds_of_work)
        response = predict_pb2.PredictResponse()
        response.model_spec.name, response.model_spec.version.value = "toy", version
        class_map = self.versions[version]
        if request.model_spec.signature_name == "describe":
            about = {"class_map": class_map.to_dict(), "input_size": [24, 32], "metrics": {"mean_iou": 0.5}}
            about |= {"depth_scale": self.depth_scale}
            _strings(response.outputs["json"], [json.dumps(about).encode()])
        else:
            self._segment(request, response, len(class_map.names), context)
        return response

    def GetModelStatus(self, request, context):
        self._version(request.model_spec, context)
        response = get_model_status_pb2.GetModelStatusResponse()
        for version in self.versions:
            response.model_version_status.add(version=version, state=30)
        return response

    def GetModelMetadata(self, request, context):
        self._version(request.model_spec, context)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        image = signatures.signature_def["serving_default"].inputs["image"]
        image.dtype = STRING
        image.tensor_shape.dim.add(size=-1)
        class_map = signatures.signature_def["serving_default"].outputs["class_map"]
        class_map.dtype = UINT8
        for size in (-1, 24, 32):
            class_map.tensor_shape.dim.add(size=size)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.metadata["signature_def"].Pack(signatures)
        return response

    def _version(self, spec, context):
        if spec.name != "toy":
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Latest({spec.name})")
        if spec.WhichOneof("version_choice") == "version_label":
            return self.labels[spec.version_label]
        version = spec.version.value if spec.HasField("version") else max(self.versions)
        if version not in self.versions:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Specific(toy, {version})")
        return version

    def _segment(self, request, response, num_classes, context):
        masks, shares = [], []
        for index, data in enumerate(request.inputs["image"].string_val):
            try:
                grey = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
            except OSError:
                issue = "found a PNG that is truncated"
                if self.names_the_image:
                    issue = f"image[{index}] of {len(request.inputs['image'].string_val)}: {issue}"
                # As TensorFlow words a failed assertion.
                context.abort(
                    grpc.StatusCode.INVALID_ARGUMENT, f"assertion failed: [{issue}]\n\t [[{{{{node Assert}}}}]]"
                )
            mask = (grey < 128).astype(np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(mask).save(buffer, "PNG")
            masks.append(buffer.getvalue())
            shares.append([np.mean(mask == each) for each in range(num_classes)])
        depth = ["depth_png_bytes"] if self.depth_scale else []
        unknown = [n for n in request.output_filter if n not in (self.mask_name, "class_share", "confidence", *depth)]
        if unknown:
            # tensorflow_serving/servables/tensorflow/predict_util.cc at 2.20, PreProcessPrediction.
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"output tensor alias not found in signature: {unknown[0]} Outputs expected to be in the set {{}}.",
            )
        _strings(response.outputs[self.mask_name], masks)
        for name in set(depth) & set(request.output_filter):
            _strings(response.outputs[name], [b"depth of %d" % index for index in range(len(masks))])
        _floats(response.outputs["class_share"], np.array(shares, np.float32))
        _floats(response.outputs["confidence"], np.full(len(masks), 0.75, np.float32))


def _strings(tensor, values):
    tensor.dtype = STRING
    tensor.string_val.extend(values)
    tensor.tensor_shape.dim.add(size=len(values))


def _floats(tensor, values):
    tensor.dtype = FLOAT
    tensor.tensor_content = values.tobytes()
    for size in values.shape:
        tensor.tensor_shape.dim.add(size=size)


@contextlib.contextmanager
def serving(model, credentials=None, port=0, options=()):
    """Serves a model while the block runs; yields HOST:PORT."""
    server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0), *options])
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(model, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(model, server)
    address = f"localhost:{port}"
    bound = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    try:
        yield f"localhost:{bound}"
    finally:
        model.released.set()
        server.stop(None).wait()


def picture(light, size=(24, 32), kind="PNG"):
    """Returns an encoded image whose left half is dark and whose right half has the given brightness."""
    pixels = np.full((*size, 3), 10, np.uint8)
    pixels[:, size[1] // 2 :] = light
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()
