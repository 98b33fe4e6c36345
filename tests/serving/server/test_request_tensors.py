"""Tensors between the wire and NumPy, and sizes that image headers claim."""

import io

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from tensorflow.core.framework import tensor_pb2

from serving.server.errors import ServingError
from serving.server.image_limits import check_images, claimed_size
from serving.server.tensors import from_proto, to_proto

_TYPES = ["float32", "float64", "float16", "uint8", "int8", "int16", "uint16", "int32", "int64", "uint32", "bool"]
_ARRAYS = st.sampled_from(_TYPES).flatmap(
    lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
_LIMIT = 1 << 16


@given(_ARRAYS, st.booleans())
def test_numbers_survive_the_wire_in_both_forms(array, as_content):
    proto = tensor_pb2.TensorProto.FromString(to_proto(array, as_content).SerializeToString())

    np.testing.assert_array_equal(tf.make_ndarray(proto), array)
    np.testing.assert_array_equal(from_proto("x", proto, _LIMIT), array)


@given(st.lists(st.binary(), max_size=5))
def test_strings_survive_the_wire(values):
    array = np.empty(len(values), object)
    array[:] = values

    found = from_proto("x", to_proto(array), _LIMIT)

    assert found.tolist() == values


def _refusal(call, *arguments):
    """Returns the text of a refusal, or None; any other exception fails the test."""
    try:
        call(*arguments)
    except ServingError as error:
        return error.message
    return None


@given(
    st.sampled_from([tf.float32, tf.string, tf.uint8, tf.bool, tf.int64]),
    st.lists(st.one_of(st.integers(-2, 4), st.integers(1 << 20, 1 << 62)), max_size=3),
    st.binary(max_size=40),
    st.lists(st.integers(0, 1), max_size=5),
)
def test_tensors_that_contradict_themselves_are_refused(dtype, shape, content, values):
    proto = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum, tensor_content=content, int_val=values)
    proto.string_val.extend(bytes(value) for value in values)
    proto.float_val.extend(values)
    for side in shape:
        proto.tensor_shape.dim.add(size=side)

    refusal = _refusal(from_proto, "x", proto, _LIMIT)

    assert refusal is None or refusal.startswith("tensor parsing error: x")
    if any(side < 0 for side in shape) or np.prod(shape, dtype=float) > _LIMIT:
        assert refusal is not None


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP"])
@pytest.mark.parametrize("size", [(1, 1), (7, 300), (400, 3)])
def test_headers_say_what_the_decoder_finds(kind, size):
    height, width = size
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, kind)

    assert claimed_size(buffer.getvalue()) == size


def test_jpeg_with_a_long_comment_before_its_frame_is_measured():
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20)).save(buffer, "JPEG", comment=b"x" * 60_000, progressive=True)

    assert claimed_size(buffer.getvalue()) == (20, 30)


@given(st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM"]), st.binary(max_size=64))
def test_no_header_breaks_the_check(start, rest):
    refusal = _refusal(check_images, "image", [start + rest], 100)

    assert refusal is None or refusal.startswith("image[0]: found an image of")
