"""Conversion of tensors from and to NumPy, and image sizes from headers."""

import io
import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from tensorflow.core.framework import tensor_pb2, types_pb2

from serving.server.errors import ServingError
from serving.server.requests import check_images, claimed_size
from serving.server.tensors import from_proto, to_proto

_TYPES = ["float32", "float64", "float16", "uint8", "int8", "int16", "uint16", "int32", "int64", "uint32", "bool"]
_ARRAYS = st.sampled_from(_TYPES).flatmap(
    lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
_LIMIT = 1 << 16


@given(_ARRAYS, st.booleans())
def test_numbers_round_trip_in_both_forms(array, as_content):
    proto = tensor_pb2.TensorProto.FromString(to_proto(array, as_content).SerializeToString())

    np.testing.assert_array_equal(tf.make_ndarray(proto), array)
    np.testing.assert_array_equal(from_proto("x", proto, _LIMIT), array)


@given(st.lists(st.binary(), max_size=5))
def test_strings_round_trip(values):
    array = np.empty(len(values), object)
    array[:] = values

    found = from_proto("x", to_proto(array), _LIMIT)

    assert found.tolist() == values


def _refusal(call, *arguments):
    """Returns the text of a ServingError, or None; any other exception fails the test."""
    try:
        call(*arguments)
    except ServingError as error:
        return error.message
    return None


_FIELDS = [field.name for field in tensor_pb2.TensorProto.DESCRIPTOR.fields if field.name.endswith("_val")]


def _proto(dtype, shape, content=b"", field="float_val", values=(), unknown_rank=False):
    """A tensor of any dtype, shape and values, consistent or not."""
    proto = tensor_pb2.TensorProto(dtype=dtype, tensor_content=content)
    proto.tensor_shape.unknown_rank = unknown_rank
    for side in shape:
        proto.tensor_shape.dim.add(size=side)
    if field == "float8_val":
        proto.float8_val = bytes(len(values))
        return proto
    for value in values:
        if field in ("string_val", "resource_handle_val", "variant_val"):
            getattr(proto, field).append(bytes(abs(value)) if field == "string_val" else getattr(proto, field).add())
        elif field in ("uint32_val", "uint64_val"):
            getattr(proto, field).append(abs(value))
        else:
            getattr(proto, field).append(bool(value) if field == "bool_val" else value)
    return proto


_PROTOS = st.builds(
    _proto,
    st.sampled_from([*types_pb2.DataType.values(), 77]),
    st.lists(st.one_of(st.integers(-2, 4), st.integers(1 << 20, 1 << 62)), max_size=3),
    st.binary(max_size=40),
    st.sampled_from(_FIELDS),
    st.lists(st.integers(-300, 70_000), max_size=5),
    st.booleans(),
)


@settings(max_examples=500)
@given(_PROTOS)
@example(_proto(types_pb2.DT_STRING, [0, 1 << 60]))
@example(_proto(types_pb2.DT_STRING, [0, 1 << 60], field="string_val", values=[1]))
@example(_proto(types_pb2.DT_FLOAT, [0, 1 << 60]))
@example(_proto(types_pb2.DT_STRING, [1] * 70, field="string_val", values=[1]))
@example(_proto(types_pb2.DT_UINT8, [1], field="int_val", values=[300]))
@example(_proto(types_pb2.DT_HALF, [1], field="half_val", values=[70_000]))
@example(_proto(types_pb2.DT_COMPLEX64, [1], field="scomplex_val", values=[1]))
@example(_proto(types_pb2.DT_STRING, [2], content=b"ab"))
@example(_proto(types_pb2.DT_RESOURCE, [1], content=b"12345678"))
@example(_proto(77, [1]))
def test_any_tensor_is_read_in_its_own_shape_or_refused(proto):
    shape = [dim.size for dim in proto.tensor_shape.dim]
    read = []

    refusal = _refusal(lambda: read.append(from_proto("x", proto, _LIMIT)))

    assert [[list(array.shape), array.nbytes <= _LIMIT] for array in read] == [[shape, True]] * (refusal is None)
    assert refusal is None or refusal.startswith("x: found ")


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("size", [(1, 1), (7, 300), (400, 3)])
def test_header_sizes_match_the_decoder(kind, size):
    height, width = size
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, kind)

    assert claimed_size(buffer.getvalue()) == size


def test_jpeg_with_a_long_comment_before_its_frame_is_measured():
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20)).save(buffer, "JPEG", comment=b"x" * 60_000, progressive=True)

    assert claimed_size(buffer.getvalue()) == (20, 30)


@pytest.mark.parametrize("padding", [b"\xff", b"\xff\0", b"\0", b"\xff\xe0\0\x02"])
def test_long_padding_of_a_jpeg_is_not_walked_in_python(padding):
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20)).save(buffer, "JPEG")
    image = buffer.getvalue()[:20] + padding * ((8 << 20) // len(padding)) + buffer.getvalue()[20:]
    lines = []

    def trace(frame, event, argument):
        lines.append(frame.f_lineno)
        assert len(lines) < 1000
        return trace

    sys.settrace(trace)
    try:
        size = claimed_size(image)
    finally:
        sys.settrace(None)

    assert size == (20, 30)


@given(st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM"]), st.binary(max_size=64))
def test_no_header_breaks_the_check(start, rest):
    refusal = _refusal(check_images, [start + rest], {"limit": 100})

    assert refusal is None or refusal.startswith("image[0] of 1: found ")


@pytest.mark.parametrize(
    ("pixels", "text"),
    [
        (600, None),
        (500, "expected at most 500 in all (server); send"),
        (300, "expected at most 300 in all (server) and at most 400 in all (model); send"),
    ],
)
def test_an_error_about_a_large_image_lists_every_limit(pixels, text):
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20)).save(buffer, "PNG")
    limits = {"server": pixels, "model": 400 if pixels < 400 else 600}

    refusal = _refusal(check_images, [buffer.getvalue()], limits)

    assert (refusal is None) == (text is None)
    assert text is None or text in refusal
