"""The graph reads the EXIF orientation that Pillow reads, and turns pixels as Pillow turns them."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from components import exif
from components.dataset.orientation import upright, without_exif

_SHORT, _LONG, _ASCII = 3, 4, 2
_PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)

_read = tf.function(exif.read_orientation, input_signature=[tf.TensorSpec([], tf.string)])


def _entry(order, tag, kind, value):
    packed = {_SHORT: struct.pack(order + "HH", value, 0), _LONG: struct.pack(order + "L", value)}
    return struct.pack(order + "HHL", tag, kind, 1) + packed[kind]


def _exif(orientation, order="<", kind=_SHORT):
    """Returns EXIF data with the orientation between two other entries."""
    entries = _entry(order, 0x0100, _LONG, 7) + _entry(order, 0x0112, kind, orientation)
    entries += _entry(order, 0x0128, _SHORT, 2)
    header = b"II*\0" if order == "<" else b"MM\0*"
    return b"Exif\0\0" + header + struct.pack(order + "LH", 8, 3) + entries + bytes(4)


def _encode(kind, data=None, **options):
    buffer = io.BytesIO()
    Image.fromarray(_PIXELS).save(buffer, kind, **options, **({} if data is None else {"exif": data}))
    return buffer.getvalue()


def _pillow(data):
    """Returns the orientation that `upright` applies, found by comparison with all eight."""
    image = Image.open(io.BytesIO(data))
    turned = np.asarray(upright(image))
    for orientation in range(1, 9):
        plain = Image.fromarray(np.asarray(image))
        plain.info = {"exif": _exif(orientation)}
        if np.array_equal(np.asarray(ImageOps.exif_transpose(plain)), turned):
            return orientation
    raise AssertionError


@pytest.mark.parametrize("file_type", ["PNG", "JPEG"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", [_SHORT, _LONG])
def test_every_orientation_is_read_as_pillow_reads_it(file_type, order, kind):
    for orientation in range(10):
        data = _encode(file_type, _exif(orientation, order, kind))

        assert _read(data) == _pillow(data) == (orientation if 1 <= orientation <= 8 else 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_are_turned_as_pillow_turns_them(orientation):
    turned = exif.turn_upright(tf.constant(_PIXELS), tf.constant(orientation))

    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(_encode("PNG", _exif(orientation)))))
    np.testing.assert_array_equal(turned, np.asarray(expected))


@pytest.mark.parametrize("file_type", ["PNG", "JPEG"])
def test_truncated_exif_data_is_read_as_pillow_reads_it(file_type):
    whole = _exif(6)
    for length in range(len(whole)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of it
            data = _encode(file_type, whole[:length])
            assert _read(data) == _pillow(data), length


@pytest.mark.parametrize(
    "damaged",
    [
        _exif(6).replace(b"II*", b"XX*"),
        _exif(6).replace(struct.pack("<L", 8), struct.pack("<L", 2**32 - 1), 1),
        _exif(6).replace(struct.pack("<HHL", 0x0112, _SHORT, 1), struct.pack("<HHL", 0x0112, _ASCII, 1)),
    ],
    ids=["byte order", "place beyond the end", "text"],
)
@pytest.mark.parametrize("file_type", ["PNG", "JPEG"])
def test_an_image_with_damaged_exif_data_is_not_turned(file_type, damaged):
    data = _encode(file_type, damaged)

    assert _read(data) == _pillow(data) == 1


def test_a_jpeg_s_exif_segment_is_found_behind_others_and_fill_bytes():
    data = _encode("JPEG", _exif(8))
    comment = b"\xff\xfe" + struct.pack(">H", 2 + 5000) + bytes(5000)
    start = data.index(b"\xff\xe1")

    assert _read(data[:start] + comment + b"\xff\xff\xff" + data[start:]) == 8


def test_exif_data_in_a_jpeg_s_comment_is_ignored():
    assert _read(_encode("JPEG", comment=_encode("JPEG", _exif(8)))) == 1


def test_a_png_s_exif_chunk_is_read_even_after_the_pixels():
    data = _encode("PNG")
    content = b"eXIf" + _exif(6)[6:]
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))

    data = data[:-12] + chunk + data[-12:]

    assert _read(data) == _pillow(data) == 6


def test_an_orientation_in_xmp_or_in_a_png_s_text_is_ignored():
    data = _encode("JPEG", xmp=b'<x tiff:Orientation="6"/>')

    assert Image.open(io.BytesIO(data)).getexif()[0x0112] == 6
    assert _read(data) == _pillow(data) == 1


@pytest.mark.parametrize("file_type", ["PNG", "JPEG"])
def test_truncated_or_changed_files_are_read_without_an_error(file_type):
    data = _encode(file_type, _exif(6))
    random = np.random.default_rng(1)

    for length in range(120):
        assert 1 <= _read(data[:length]) <= 8
    for _ in range(100):
        changed = np.frombuffer(data, np.uint8).copy()
        changed[random.integers(2, len(data), 4)] = random.integers(0, 256, 4)
        assert 1 <= _read(changed.tobytes()) <= 8


@pytest.mark.parametrize("file_type", ["PNG", "JPEG"])
def test_a_file_without_its_exif_data_has_the_same_pixels_to_tensorflow(file_type):
    data = _encode(file_type, _exif(6), icc_profile=b"a profile")

    plain = without_exif(data)

    assert _read(plain) == 1
    assert len(plain) < len(data)
    np.testing.assert_array_equal(*(tf.io.decode_image(each).numpy() for each in (plain, data)))
