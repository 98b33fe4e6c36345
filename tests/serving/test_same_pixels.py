"""Evaluation scores what is served: for every kind of file, training, evaluation and serving see the same pixels.

Of each kind, the file itself and what ExampleGen stores of it go through an exported model and through Transform.
"""

from __future__ import annotations

import functools
import io
import struct
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform.beam as tft_beam
from PIL import Image, ImageCms, ImageOps
from tensorflow_transform.tf_metadata import dataset_metadata

from components import features, preprocessing, schema
from components.dataset.checks import Sample, read_pair
from components.dataset.description import parse
from components.dataset.pairs import DataIssue, Pair
from components.examples import to_example
from serving.export import export

_SIZE = (16, 24)
_DESCRIPTION = parse(
    """\
classes:
  - {name: road, color: [128, 64, 128]}
  - {name: void, color: [0, 0, 0]}
layout: {images: "{split}/images/{name}", masks: "{split}/masks/{name}.png"}
splits: {train: train, val: val}
""",
    "segpipe.yaml",
)

_ROWS, _COLUMNS = np.mgrid[: _SIZE[0], : _SIZE[1]]
# Smooth, as photos are: JPEG keeps it within a few levels. Every corner has another colour.
_PIXELS = np.stack([40 + 8 * _ROWS, 20 + 9 * _COLUMNS, 230 - 5 * _ROWS - 3 * _COLUMNS], -1).astype(np.uint8)
_DEEP = _PIXELS.astype(np.uint16) * 256 + np.random.default_rng(0).integers(0, 256, _PIXELS.shape, np.uint16)
_RGB = Image.fromarray(_PIXELS)
_GREY = _RGB.convert("L")

# Largest difference from Pillow's pixels, of 255 levels. PNG is exact. Of 16 bits Pillow keeps the high byte,
# value // 256, and the graph computes value / 257. TensorFlow decodes JPEG with a faster and coarser inverse
# transform than Pillow (`dct_method`, tensorflow/core/lib/jpeg/jpeg_mem.h); CMYK adds a rounding in each.
_EXACT, _DEEP_TOLERANCE, _JPEG_TOLERANCE = 0, 1, 6


def _encode(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


_jpeg = functools.partial(_encode, kind="JPEG", quality=95)


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(values, bits, color_type, *further, interlaced=False):
    """Writes a PNG in a format that Pillow does not write; `values` is [H, W] or [H, W, C]."""
    typed = values.astype(">u2" if bits == 16 else "u1")
    # PNG specification, section 8.2: the seven passes of Adam7, as first row, first column and steps.
    adam7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    passes = [typed[y::down, x::across] for y, x, down, across in adam7] if interlaced else [typed]
    rows = b"".join(b"\0" + row.tobytes() for each in passes for row in each)
    header = struct.pack(">IIBBBBB", _SIZE[1], _SIZE[0], bits, color_type, 0, 0, interlaced)
    parts = [_chunk(b"IHDR", header), *further, _chunk(b"IDAT", zlib.compress(rows)), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _turned(kind, orientation):
    """Returns a file with an EXIF orientation whose upright pixels are `_PIXELS`."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Each transform is its own inverse, except the quarter turns, which are inverses of each other.
    undo = Image.Exif()
    undo[0x0112] = {6: 8, 8: 6}.get(orientation, orientation)
    stored = _RGB.copy()
    stored.info["exif"] = undo.tobytes()
    stored = ImageOps.exif_transpose(stored)
    stored.info.clear()
    return _encode(stored, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))


def _adobe(data, transform=None):
    """Sets the colour transform in a JPEG's Adobe segment, or removes the segment."""
    name = data.index(b"Adobe")
    if transform is not None:
        return data[: name + 11] + bytes([transform]) + data[name + 12 :]
    (length,) = struct.unpack_from(">H", data, name - 2)
    return data[: name - 4] + data[name - 2 + length :]


def _ycck():
    """Returns an Adobe YCCK JPEG. Pillow writes CMYK inverted, as Adobe does, and libjpeg inverts what was YCC."""
    inks = ImageOps.invert(_RGB).convert("YCbCr").split()
    return _adobe(_jpeg(Image.merge("CMYK", [*map(ImageOps.invert, inks), Image.new("L", _RGB.size)])), transform=2)


def _cmyk_without_adobe():
    """Returns a CMYK JPEG whose values are inks: without Adobe's segment they are not inverted (libjpeg.txt)."""
    inks = ImageOps.invert(_RGB.convert("RGB")).split()
    # Pillow inverts them once more when it writes.
    return _adobe(_jpeg(Image.merge("CMYK", [*map(ImageOps.invert, inks), ImageOps.invert(Image.new("L", _RGB.size))])))


def _animated(**options):
    second = _RGB.transpose(Image.Transpose.ROTATE_180)
    return _encode(_RGB, save_all=True, append_images=[second], **options)


_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
_PNG_KINDS = {
    "1": _encode(_RGB.convert("1")),
    "L": _encode(_GREY),
    "L, transparent level": _encode(_GREY, transparency=int(_GREY.getpixel((0, 0)))),
    "LA": _encode(Image.merge("LA", [_GREY, _RGB.getchannel(0)])),
    "2-bit grey": _png(np.full((16, 6), 0b00011011), 2, 0),
    "4-bit grey": _png(np.full((16, 12), 0x3A), 4, 0),
    "P": _encode(_RGB.quantize(16)),
    "P, transparent colour": _encode(_RGB.quantize(16), transparency=3),
    "P, alpha of each colour": _encode(_RGB.quantize(16), transparency=bytes(range(0, 256, 16))),
    "P of 2 bits": _encode(_RGB.quantize(4)),
    "RGB": _encode(_RGB),
    "RGB, transparent colour": _encode(_RGB, transparency=(40, 20, 230)),
    "RGBA": _encode(Image.merge("RGBA", [*_RGB.split(), _RGB.getchannel(1)])),
    "interlaced": _png(_PIXELS, 8, 2, interlaced=True),
    "ICC profile": _encode(_RGB, icc_profile=_PROFILE),
    "gamma 1": _png(_PIXELS, 8, 2, _chunk(b"gAMA", struct.pack(">I", 100_000))),
    "sRGB and gamma 2.2": _png(_PIXELS, 8, 2, _chunk(b"sRGB", b"\0"), _chunk(b"gAMA", struct.pack(">I", 45_455))),
    "background and significant bits": _png(
        np.concatenate([_PIXELS, _PIXELS[..., :1]], -1),
        8,
        6,
        _chunk(b"sBIT", bytes([5] * 4)),
        _chunk(b"bKGD", bytes(6)),
    ),
    "APNG": _animated(),
    "APNG, first frame not shown": _animated(default_image=True),
    **{f"EXIF orientation {each}": _turned("PNG", each) for each in range(1, 9)},
}
_DEEP_KINDS = {
    "16-bit grey": _encode(Image.fromarray(np.ascontiguousarray(_DEEP[..., 0]))),
    "16-bit grey, alpha": _png(_DEEP[..., :2], 16, 4),
    "16-bit RGB": _png(_DEEP, 16, 2),
    "16-bit RGB, transparent colour": _png(_DEEP, 16, 2, _chunk(b"tRNS", bytes(6))),
    "16-bit RGBA": _png(np.concatenate([_DEEP, _DEEP[..., :1]], -1), 16, 6),
    "16-bit RGB, interlaced": _png(_DEEP, 16, 2, interlaced=True),
}
_JPEG_KINDS = {
    "JPEG": _jpeg(_RGB),
    "JPEG, 4:4:4": _jpeg(_RGB, subsampling=0),
    "JPEG, grey": _jpeg(_GREY),
    "JPEG, stored as RGB": _jpeg(_RGB, keep_rgb=True),
    "JPEG, progressive": _jpeg(_RGB, progressive=True),
    "JPEG, CMYK": _jpeg(_RGB.convert("CMYK")),
    "JPEG, YCCK": _ycck(),
    "JPEG, CMYK without Adobe": _cmyk_without_adobe(),
    "JPEG, ICC profile": _jpeg(_RGB, icc_profile=_PROFILE),
    **{f"JPEG, EXIF orientation {each}": _turned("JPEG", each) for each in range(1, 9)},
}
_KINDS = {
    **{name: (data, _EXACT) for name, data in _PNG_KINDS.items()},
    **{name: (data, _DEEP_TOLERANCE) for name, data in _DEEP_KINDS.items()},
    **{name: (data, _JPEG_TOLERANCE) for name, data in _JPEG_KINDS.items()},
}


def _pillow(name, data):
    """Returns the upright RGB pixels that Pillow reads, or those that were encoded if Pillow reads them wrongly."""
    if name == "JPEG, CMYK without Adobe":  # Pillow takes every CMYK JPEG for an inverted one
        return _PIXELS
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode == "I;16":  # Pillow clips it at 255
        return np.stack([np.asarray(image) >> 8] * 3, -1)
    return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """What ExampleGen reads of each kind, by name."""
    root = tmp_path_factory.mktemp("data")
    mask = _encode(Image.fromarray(np.zeros(_SIZE, np.uint8)))
    found = {}
    for number, (name, (data, _)) in enumerate(_KINDS.items()):
        pair = Pair(f"a_{number}", "train", "a", f"{number}.png", f"{number}_mask.png")
        (root / pair.image).write_bytes(data)
        (root / pair.mask).write_bytes(mask)
        found[name] = read_pair(str(root), pair, _DESCRIPTION)
    return found


@pytest.fixture(scope="module")
def transformed(samples, tmp_path_factory):
    """Transform's output folder, and its pixels of each valid sample by name."""
    sound = {name: sample for name, sample in samples.items() if isinstance(sample, Sample)}
    examples = [_values(to_example(sample, _DESCRIPTION.class_map)) for sample in sound.values()]
    metadata = dataset_metadata.DatasetMetadata(schema.raw_schema(_DESCRIPTION.class_map, 8192))
    config = {"input_size": list(_SIZE), "normalize_exposure": False, "image_range": None}
    function = functools.partial(preprocessing.preprocessing_fn, custom_config=config)
    directory = str(tmp_path_factory.mktemp("transform"))
    with tft_beam.Context(temp_dir=str(tmp_path_factory.mktemp("beam"))):
        (rows, _), transform_fn = (examples, metadata) | tft_beam.AnalyzeAndTransformDataset(function)
        _ = transform_fn | tft_beam.WriteTransformFn(directory)
    decoded = [tf.io.decode_png(row[features.TRANSFORMED_IMAGE]).numpy() for row in rows]
    return directory, dict(zip(sound, decoded, strict=True))


@pytest.fixture(scope="module")
def served(transformed, tmp_path_factory):
    """Returns the network's input in an exported model for an encoded image."""
    directory = str(tmp_path_factory.mktemp("model"))
    image = keras.Input((*_SIZE, 3))
    network = keras.Model(image, keras.layers.Conv2D(2, 1)(image))
    export(network, transformed[0], directory, _DESCRIPTION.class_map, _SIZE, {"model": "toy"})
    model = tf.saved_model.load(directory)
    return lambda data: model.signatures["preprocess"](image=tf.constant([data]))["pixels"].numpy()[0]


def _values(example):
    """Returns the features of an example as the values that Transform takes."""
    lists = {name: getattr(each, each.WhichOneof("kind")).value for name, each in example.features.feature.items()}
    return {name: values[0] for name, values in lists.items()}


@pytest.mark.parametrize("name", _KINDS)
def test_every_format_is_stored_unchanged(samples, name):
    assert isinstance(samples[name], Sample), samples[name]
    assert samples[name].image == _KINDS[name][0]


@pytest.mark.parametrize("name", _KINDS)
def test_training_evaluation_and_serving_use_the_same_pixels(transformed, samples, served, name):
    trained = transformed[1][name]

    np.testing.assert_array_equal(served(_KINDS[name][0]), trained)
    np.testing.assert_array_equal(served(samples[name].image), trained)


@pytest.mark.parametrize("name", _KINDS)
def test_the_pixels_equal_those_of_pillow(transformed, name):
    data, tolerance = _KINDS[name]

    difference = np.abs(transformed[1][name].astype(int) - _pillow(name, data))

    assert difference.max() <= tolerance


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "WEBP"])
def test_other_formats_are_converted_for_the_model_as_by_examplegen(tmp_path, served, kind):
    data = _encode(_RGB, kind, lossless=True) if kind == "WEBP" else _encode(_RGB, kind)
    (tmp_path / "a.png").write_bytes(data)
    (tmp_path / "a_mask.png").write_bytes(_encode(_GREY.point(lambda _: 0)))

    found = read_pair(str(tmp_path), Pair("a", "train", "a", "a.png", "a_mask.png"), _DESCRIPTION)

    np.testing.assert_array_equal(served(found.image), served(_encode(_RGB)))
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected a PNG or JPEG"):
        served(data)


def test_neither_examplegen_nor_the_model_takes_a_gif(tmp_path, served):
    data = _encode(_RGB, "GIF")
    (tmp_path / "a.png").write_bytes(data)
    (tmp_path / "a_mask.png").write_bytes(_encode(_GREY))

    found = read_pair(str(tmp_path), Pair("a", "train", "a", "a.png", "a_mask.png"), _DESCRIPTION)

    assert isinstance(found, DataIssue)
    assert found.file == "a.png"
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected a PNG or JPEG"):
        served(data)
