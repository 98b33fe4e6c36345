"""Predict and GetModelMetadata over a real socket: responses, and errors with TensorFlow Serving's texts."""

import io
import queue
import struct
import threading
import zlib

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from PIL import Image
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    inference_pb2,
    predict_pb2,
    regression_pb2,
)
from toy_models import Channel, connected, predict_request, push, serving

from serving.server.requests import claimed_size

_X = np.array([[1, 2], [3, 4]], np.float32)
_INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def toy(toys, tmp_path_factory):
    """A connection to a server of versions 1 and 2, of which 2 is served."""
    base_path = tmp_path_factory.mktemp("base")
    push(toys, base_path, 2)
    with connected(model_base_path=base_path, max_image_pixels=100, max_images_per_request=4) as connection:
        yield connection


def _image(height, width, kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, kind)
    return buffer.getvalue()


def test_answer_has_outputs_model_and_version(toy):
    answer = toy.predict({"x": _X})

    np.testing.assert_array_equal(tf.make_ndarray(answer.outputs["y"]), _X * 2)
    np.testing.assert_array_equal(tf.make_ndarray(answer.outputs["sum"]), [3, 7])
    assert list(answer.outputs["y"].float_val) == [2, 4, 6, 8]  # in the field that TensorFlow Serving fills
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("toy", 2)
    assert answer.model_spec.signature_name == "serving_default"


def test_output_filter_limits_the_answer(toy):
    request = predict_request({"x": _X})
    request.output_filter.append("sum")

    assert set(toy.prediction.Predict(request).outputs) == {"sum"}


def test_input_with_a_default_may_be_left_out(toy):
    answer = toy.predict({}, signature="greeting")

    assert list(answer.outputs["word"].string_val) == [b"hello"]


def test_one_value_fills_a_tensor(toy):
    request = predict_request({"x": _X})
    del request.inputs["x"].float_val[:]
    request.inputs["x"].tensor_content = b""
    request.inputs["x"].float_val.append(5)

    np.testing.assert_array_equal(tf.make_ndarray(toy.prediction.Predict(request).outputs["y"]), [[10, 10], [10, 10]])


@pytest.mark.parametrize(
    ("spec", "code", "text"),
    [
        ({"name": "nobody"}, grpc.StatusCode.NOT_FOUND, "Servable not found for request: Latest(nobody)"),
        ({"version": 7}, grpc.StatusCode.NOT_FOUND, "Servable not found for request: Specific(toy, 7)"),
        ({"label": "beta"}, _INVALID, "Unrecognized servable version label: beta"),
        ({"name": ""}, _INVALID, "ModelSpec has no name specified."),
        (
            {"signature": "other"},
            grpc.StatusCode.FAILED_PRECONDITION,
            'Serving signature key "other" not found. Expected one of await_entry, gate, gated_rows, greeting, images, '
            "open_gate, serving_default, slow, two, visit",
        ),
    ],
)
def test_wrong_model_spec_is_refused(toy, spec, code, text):
    assert toy.refusal({"x": _X}, **spec) == (code, text)


def test_request_without_a_model_spec_is_refused(toy):
    with pytest.raises(grpc.RpcError) as refusal:
        toy.prediction.Predict(predict_pb2.PredictRequest())

    assert (refusal.value.code(), refusal.value.details()) == (_INVALID, "Missing ModelSpec")


@pytest.mark.parametrize(
    ("inputs", "signature", "text"),
    [
        ({}, "", "inputs: found nothing, expected x; missing x, unknown nothing"),
        ({"x": _X, "z": _X}, "", "inputs: found x, z, expected x; missing nothing, unknown z"),
        ({"z": _X}, "", "inputs: found z, expected x; missing x, unknown z"),
        ({"x": np.array(["a"])}, "", "x: found type string, expected float"),
        ({"a": np.zeros(1, np.float32), "b": np.zeros(1)}, "two", "b: found type double, expected string"),
        ({"x": np.zeros((2, 3), np.float32)}, "", "x: found a tensor of shape [2, 3], expected [?, 2]"),
        ({"x": np.float32(1)}, "", "x: found a tensor of shape [], expected [?, 2]"),
        ({"x": np.zeros((5, 2), np.float32)}, "", "x: found 5 rows, expected at most 4"),
        ({"image": np.array([], np.bytes_)}, "images", "image: found 0 images, expected at least 1"),
        (
            {"image": [_image(2, 2), b"GIF89a"]},
            "images",
            "image[1] of 2: found 6 bytes in another format, expected a PNG or JPEG",
        ),
        ({"image": [_image(2, 2)[:40]]}, "images", "Invalid PNG"),
    ],
)
def test_wrong_inputs_are_refused(toy, inputs, signature, text):
    code, found = toy.refusal(inputs, signature=signature)

    assert code == _INVALID
    assert text in found


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["nope"], "output tensor alias not found in signature: nope Expected one of sum, y"),
        (["y", "y"], "duplicate output tensor alias: y"),
    ],
)
def test_wrong_output_filter_is_refused(toy, names, text):
    request = predict_request({"x": _X})
    request.output_filter.extend(names)

    with pytest.raises(grpc.RpcError) as refusal:
        toy.prediction.Predict(request)

    assert (refusal.value.code(), refusal.value.details()) == (_INVALID, text)


def _contradicting_tensors():
    negative = predict_request({"x": _X}).inputs["x"]
    negative.tensor_shape.dim[0].size = -2
    short = predict_request({"x": _X}).inputs["x"]
    short.tensor_content = b"123"
    unknown = predict_request({"x": _X}).inputs["x"]
    unknown.tensor_shape.unknown_rank = True
    return {"negative": negative, "short": short, "unknown rank": unknown}


@pytest.mark.parametrize("kind", ["negative", "short", "unknown rank"])
def test_inconsistent_tensor_is_rejected(toy, kind):
    request = predict_request({})
    request.inputs["x"].CopyFrom(_contradicting_tensors()[kind])

    with pytest.raises(grpc.RpcError) as refusal:
        toy.prediction.Predict(request)

    assert refusal.value.code() == _INVALID
    assert refusal.value.details().startswith("x: found ")


def test_single_value_for_a_giant_tensor_is_rejected(toy):
    request = predict_request({"x": np.float32(1)})
    request.inputs["x"].tensor_shape.dim.add(size=1 << 40)
    request.inputs["x"].tensor_shape.dim.add(size=2)

    with pytest.raises(grpc.RpcError) as refusal:
        toy.prediction.Predict(request)

    assert refusal.value.code() == _INVALID


def test_single_long_string_for_a_batch_is_rejected(toys, tmp_path):
    push(toys, tmp_path, 1)
    request = predict_request({"word": ["x" * 5_000]}, signature="greeting")
    request.inputs["word"].tensor_shape.dim[0].size = 100
    with connected(model_base_path=tmp_path, max_message_bytes=10_000) as connection:
        with pytest.raises(grpc.RpcError) as refusal:
            connection.prediction.Predict(request)

        assert refusal.value.code() == _INVALID
        assert refusal.value.details().startswith("word: found ")


@pytest.mark.parametrize("letter", ["n", "語"])
def test_error_about_a_very_long_name_arrives(toy, letter):
    code, text = toy.refusal({"x": _X}, name=letter * 100_000)

    assert code == grpc.StatusCode.NOT_FOUND
    assert text.startswith(f"Servable not found for request: Latest({letter * 3}")


def test_strings_must_fill_the_shape(toy):
    request = predict_request({"image": [_image(2, 2)] * 3}, signature="images")
    del request.inputs["image"].string_val[2]

    with pytest.raises(grpc.RpcError) as refusal:
        toy.prediction.Predict(request)

    assert refusal.value.code() == _INVALID


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_image_that_claims_too_many_pixels_is_refused_by_its_index(toy, kind):
    code, text = toy.refusal({"image": [_image(10, 10), _image(10, 11, kind)]}, signature="images")

    assert code == _INVALID
    assert text.startswith("image[1] of 2: found [10 11] pixels (height, width), expected at most 100 in all (--max_im")


@pytest.mark.parametrize("junk", [b"", b"\0", b"\0" * 40, b"\xff\0", b"\xff\xff"])
def test_jpeg_with_bytes_between_its_segments_is_measured_as_it_is_decoded(toy, junk):
    image = _image(10, 11, "JPEG")
    image = image[:20] + junk + image[20:]  # behind the first segment, APP0

    assert tf.io.decode_image(image).shape == (10, 11, 3)
    assert claimed_size(image) == (10, 11)
    assert toy.refusal({"image": [image]}, signature="images")[1].startswith("image[0] of 1: found [10 11] pixels")


@pytest.mark.parametrize("end", [b"", b"\xff", b"\xff\xc0", b"\xff\xd9", b"\0" * 20, b"\xff\xe0\xff\xff\0\0\0\0\0\0"])
def test_jpeg_without_a_frame_claims_no_size(end):
    assert claimed_size(b"\xff\xd8" + b"\xff\xe0\0\x02" + end) == (0, 0)


def test_gigapixels_in_a_few_bytes_are_not_decoded(toy):
    header = struct.pack(">IIBBBBB", 1 << 30, 1 << 30, 8, 2, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + checksum

    code, text = toy.refusal({"image": [bomb]}, signature="images")

    assert code == _INVALID
    assert text.startswith("image[0] of 1: found [1073741824 1073741824] pixels")


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("Classify", classification_pb2.ClassificationRequest()),
        ("Regress", regression_pb2.RegressionRequest()),
        ("MultiInference", inference_pb2.MultiInferenceRequest()),
    ],
)
def test_calls_with_examples_are_unimplemented(toy, method, request_):
    with pytest.raises(grpc.RpcError) as refusal:
        getattr(toy.prediction, method)(request_)

    assert refusal.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "Call Predict instead" in refusal.value.details()


def test_metadata_holds_every_signature(toy):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "toy"

    answer = toy.prediction.GetModelMetadata(request)

    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    assert {"serving_default", "two", "images", "gate", "greeting"} <= set(signatures.signature_def)
    assert answer.model_spec.version.value == 2


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ([], "GetModelMetadataRequest must specify at least one metadata_field"),
        (["weights"], "Metadata field weights is not supported"),
    ],
)
def test_wrong_metadata_field_is_refused(toy, fields, text):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = "toy"

    with pytest.raises(grpc.RpcError) as refusal:
        toy.prediction.GetModelMetadata(request)

    assert (refusal.value.code(), refusal.value.details()) == (_INVALID, text)


def test_reflection_lists_the_services(toy):
    assert set(ProtoReflectionDescriptorDatabase(toy.channel).get_services()) >= {
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
        "grpc.health.v1.Health",
    }


def test_open_streams_leave_threads_for_predictions(toys, tmp_path):
    push(toys, tmp_path, 1)
    channels = [("grpc.max_concurrent_streams", 1000)]
    with serving(model_base_path=tmp_path, max_concurrent_requests=1, max_queue=0) as server:
        connection = Channel(server.port, options=channels)
        ends, ended, streams = queue.SimpleQueue(), queue.SimpleQueue(), []
        for _ in range(40):
            for call in (
                health_pb2_grpc.HealthStub(connection.channel).Watch(health_pb2.HealthCheckRequest()),
                reflection_pb2_grpc.ServerReflectionStub(connection.channel).ServerReflectionInfo(iter(ends.get, None)),
            ):
                streams.append(call)
                call.add_done_callback(lambda call=call: ended.put(call.code()))

        answers = [connection.predict({"x": _X}).model_spec.version.value for _ in range(20)]
        refused = {ended.get(timeout=30) for _ in range(len(streams) - 16)}
        for call in streams:
            ends.put(None)
            call.cancel()
        # The places of streams that ended are free again.
        again = next(health_pb2_grpc.HealthStub(connection.channel).Watch(health_pb2.HealthCheckRequest(), timeout=20))

    assert answers == [1] * 20
    assert refused == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert again.status == health_pb2.HealthCheckResponse.SERVING


def test_a_watch_of_an_unknown_name_is_rejected(toy):
    with pytest.raises(grpc.RpcError) as refusal:
        list(health_pb2_grpc.HealthStub(toy.channel).Watch(health_pb2.HealthCheckRequest(service="x" * 1000)))

    assert refusal.value.code() == grpc.StatusCode.NOT_FOUND


def test_request_larger_than_the_limit_is_refused(toys, tmp_path):
    push(toys, tmp_path, 1)
    with connected(model_base_path=tmp_path, max_message_bytes=10_000) as connection:
        code, _ = connection.refusal({"x": np.zeros((10_000, 2), np.float32)})

    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_answers_may_carry_raw_bytes(toys, tmp_path):
    push(toys, tmp_path, 1)
    with connected(model_base_path=tmp_path, enable_serialization_as_tensor_content=True) as connection:
        answer = connection.predict({"x": _X})

    assert answer.outputs["y"].tensor_content == _X.tobytes()


def test_requests_from_many_threads_are_merged_and_each_gets_its_own_rows(toys, tmp_path):
    push(toys, tmp_path, 3)
    parameters = tmp_path / "batching.txt"
    parameters.write_text("max_batch_size { value: 8 } batch_timeout_micros { value: 2000 }")
    answers = {}
    with connected(model_base_path=tmp_path, enable_batching=True, batching_parameters_file=parameters) as connection:

        def ask(number):
            answers[number] = connection.predict({"x": np.full((1, 2), number, np.float32)})

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert {n: list(answer.outputs["y"].float_val) for n, answer in answers.items()} == {
        n: [3 * n] * 2 for n in range(8)
    }


def test_cut_connections_do_not_affect_the_server(toy):
    other = Channel(int(toy.channel._channel.target().decode().rsplit(":", 1)[1]))
    calls = [other.prediction.Predict.future(predict_request({"x": _X})) for _ in range(20)]
    other.channel.close()

    assert toy.predict({"x": _X}).model_spec.version.value == 2
    assert all(call.done() for call in calls)
