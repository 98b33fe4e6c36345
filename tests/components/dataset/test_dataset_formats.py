"""TIFF, BMP and WebP images become PNG with the same pixels, or are refused with a reason and a remedy."""

from __future__ import annotations

import hashlib
import io
import os
import shlex
import struct
import subprocess
import sys

import numpy as np
import pytest
from dataset_folder import HEIGHT, WIDTH, encode, random_image, random_mask
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from components.dataset import pairs
from components.dataset.checks import Limits, Sample, read_pair
from components.dataset.conversion import as_png
from components.dataset.encoded import PNG_SIGNATURE, BadFileError, has_16_bits
from components.dataset.inspection import inspect
from components.dataset.pairs import DataIssue, Pair, find_pairs

ORIENTATION = 0x0112
MASK = "train/masks/a_1.png"
TIFF_COMPRESSIONS = ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"]


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def deep_grey(dtype: str = "<u2", shape: tuple[int, int] = (HEIGHT, WIDTH)) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 65536, shape).astype(dtype)
    return Image.frombytes("I;16B" if dtype == ">u2" else "I;16", shape[::-1], values.tobytes())


def tiff(samples: np.ndarray, photometric: int, **tags: int) -> bytes:
    """Writes samples, [H, W] or [H, W, C], as an uncompressed little-endian TIFF; TIFF 6.0, section 2."""
    height, width, *channels = samples.shape
    count = channels[0] if channels else 1
    kinds = {"u": 1, "i": 2, "f": 3}
    entries = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [samples.dtype.itemsize * 8] * count),
        259: (3, [1]),
        262: (3, [photometric]),
        273: (4, [8]),
        277: (3, [count]),
        278: (4, [height]),
        279: (4, [samples.nbytes]),
        339: (3, [kinds[samples.dtype.kind]] * count),
        **{int(tag.removeprefix("tag")): (3, [value]) for tag, value in tags.items()},
    }
    start = 8 + samples.nbytes
    after = start + 2 + 12 * len(entries) + 4
    directory, rest = struct.pack("<H", len(entries)), b""
    for tag, (kind, values) in sorted(entries.items()):
        content = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(content) > 4:
            content, rest = struct.pack("<I", after + len(rest)), rest + content
        directory += struct.pack("<HHI", tag, kind, len(values)) + content.ljust(4, b"\0")
    return struct.pack("<2sHI", b"II", 42, start) + samples.tobytes() + directory + bytes(4) + rest


def noise(dtype: str, channels: int) -> np.ndarray:
    shape = (HEIGHT, WIDTH) if channels == 1 else (HEIGHT, WIDTH, channels)
    return (np.random.default_rng(0).random(shape) * 250).astype(dtype)


@pytest.fixture
def read(folder, tiny):
    """Writes an encoded image beside a mask and reads them as a pair."""

    def write_and_read(image, extension="tif", mask=None, description=tiny, limits=None):
        pair = Pair("a_1", "train", "a", f"train/images/a_1.{extension}", MASK)
        folder.write(pair.image, image)
        folder.save(MASK, Image.fromarray(random_mask() if mask is None else mask))
        return read_pair(str(folder.root), pair, description, limits)

    return write_and_read


FORMS = [
    *[
        ("TIFF", mode, {"compression": compression})
        for mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX")
        for compression in TIFF_COMPRESSIONS
    ],
    ("TIFF", "RGB", {"compression": "jpeg"}),
    ("TIFF", "YCbCr", {"compression": "jpeg"}),
    ("TIFF", "RGB", {"big_tiff": True}),
    *[("BMP", mode, {}) for mode in ("1", "L", "P", "RGB", "RGBA")],
    *[("WEBP", mode, {"lossless": lossless}) for mode in ("L", "RGB", "RGBA") for lossless in (True, False)],
]


def form(kind: str, mode: str, options: dict[str, object]) -> bytes:
    image = random_image().convert("P" if mode == "PA" else mode)
    return encode(image.convert(mode), kind, **options)


@pytest.mark.parametrize(("kind", "mode", "options"), FORMS)
def test_the_stored_png_has_the_pixels_that_pillow_reads(read, kind, mode, options):
    image = form(kind, mode, options)
    expected = opened(image)

    sample = read(image)

    assert isinstance(sample, Sample)
    assert sample.image.startswith(PNG_SIGNATURE)
    assert sample.content_hash == hashlib.sha256(image + encode(Image.fromarray(random_mask()))).hexdigest()
    stored = opened(sample.image)
    assert stored.mode == {"PA": "RGBA"}.get(expected.mode, expected.mode)
    expected = expected.convert("RGBA") if expected.mode == "PA" else expected
    np.testing.assert_array_equal(np.asarray(stored), np.asarray(expected))
    np.testing.assert_array_equal(np.asarray(stored.convert("RGBA")), np.asarray(expected.convert("RGBA")))


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
@pytest.mark.parametrize("compression", TIFF_COMPRESSIONS)
def test_16_bit_grey_stays_16_bits(read, dtype, compression):
    deep = deep_grey(dtype)

    sample = read(encode(deep, "TIFF", compression=compression))

    assert isinstance(sample, Sample)
    assert has_16_bits(sample.image)
    np.testing.assert_array_equal(np.asarray(opened(sample.image)), np.asarray(deep))


def test_a_palette_shorter_than_its_indices_allow_keeps_its_indices(read):
    # A BMP of 8 bits that lists 3 colours and uses index 200: Pillow takes the others as black.
    colors, indices = bytes([9, 8, 7, 0, 6, 5, 4, 0, 3, 2, 1, 0]), np.zeros((HEIGHT, WIDTH), np.uint8)
    indices[0, :3] = (1, 2, 200)

    sample = read(bmp(indices, colors), "bmp")

    assert isinstance(sample, Sample)
    np.testing.assert_array_equal(np.asarray(opened(sample.image)), indices)
    assert np.asarray(opened(sample.image).convert("RGB"))[0, :4].tolist() == [[4, 5, 6], [1, 2, 3], [0] * 3, [7, 8, 9]]


def bmp(indices: np.ndarray, colors: bytes) -> bytes:
    """Writes 8-bit indices with a palette of 4 bytes a colour as BMP, from the last row to the first."""
    height, width = indices.shape
    start = 14 + 40 + len(colors)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 0, indices.size, 0, 0, len(colors) // 4, 0)
    content = header + colors + indices[::-1].tobytes()
    return struct.pack("<2sIHHI", b"BM", 14 + len(content), 0, 0, start) + content


@pytest.mark.parametrize("high", [4095, 16383])
def test_the_range_of_16_bit_tiff_images_is_checked(read, tiny, high):
    values = np.linspace(0, high, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)
    image = encode(Image.fromarray(values), "TIFF")

    issue = read(image)

    assert isinstance(issue, DataIssue)
    assert (issue.reason, issue.file) == (pairs.UNSUITABLE_RANGE, "train/images/a_1.tif")
    assert f"`image_range: [0, {high}]`" in issue.expected
    assert isinstance(read(image, description=tiny.model_copy(update={"image_range": (0, high)})), Sample)


def turned(kind: str, orientation: int) -> bytes:
    if kind == "TIFF":
        tags = ImageFileDirectory_v2()
        tags[ORIENTATION] = orientation
        return encode(random_image(), "TIFF", tiffinfo=tags)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encode(random_image(), "WEBP", lossless=True, exif=exif)


@pytest.mark.parametrize("kind", ["TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_image_is_turned_as_its_orientation_says_if_its_mask_is_upright(read, kind, orientation):
    size = (HEIGHT, WIDTH) if orientation < 5 else (WIDTH, HEIGHT)

    sample = read(turned(kind, orientation), mask=random_mask(size=size))

    assert isinstance(sample, Sample)
    assert (sample.height, sample.width) == size
    stored = opened(sample.image)
    assert stored.getexif().get(ORIENTATION, 1) == orientation
    np.testing.assert_array_equal(np.asarray(stored), np.asarray(random_image()))
    viewer = ImageOps.exif_transpose(opened(turned(kind, orientation)))
    np.testing.assert_array_equal(np.asarray(ImageOps.exif_transpose(stored)), np.asarray(viewer))


@pytest.mark.parametrize("kind", ["TIFF", "WEBP"])
def test_a_turned_image_loses_its_orientation_if_its_mask_was_drawn_on_the_stored_pixels(read, kind):
    sample = read(turned(kind, 6))

    assert isinstance(sample, Sample)
    assert not opened(sample.image).getexif()
    np.testing.assert_array_equal(np.asarray(opened(sample.image)), np.asarray(random_image()))


def test_an_orientation_in_xmp_alone_does_not_turn_a_tiff(read):
    tags = ImageFileDirectory_v2()
    tags[700] = b'<x tiff:Orientation="6"/>'
    image = encode(random_image(), "TIFF", tiffinfo=tags)
    assert opened(image).getexif()[ORIENTATION] == 6

    sample = read(image)

    assert isinstance(sample, Sample)
    np.testing.assert_array_equal(np.asarray(opened(sample.image)), np.asarray(random_image()))


def test_other_metadata_is_dropped(read):
    sample = read(encode(random_image(), "TIFF", icc_profile=b"a profile"))

    assert isinstance(sample, Sample)
    assert "icc_profile" not in opened(sample.image).info


def pages(kind: str) -> bytes:
    return encode(random_image(), kind, save_all=True, append_images=[random_image(1)])


UNSUPPORTED = {
    "16-bit colours": (tiff(noise("<u2", 3), 2), "3 RGB samples of 16 bits", "magick "),
    "16-bit colours and alpha": (tiff(noise("<u2", 4), 2, tag338=2), "4 RGB samples of 16 bits", "magick "),
    "16-bit grey and alpha": (tiff(noise("<u2", 2), 1, tag338=2), "2 grey samples of 16 bits", "magick "),
    "16 bits, white is 0": (tiff(noise("<u2", 1), 0), "0 as white", "magick "),
    "float": (tiff(noise("<f4", 1), 1), "32-bit floating-point samples", "LOW HIGH"),
    "double": (tiff(noise("<f8", 1), 1), "64-bit floating-point samples", "LOW HIGH"),
    "float colours": (tiff(noise("<f4", 3), 2), "32-bit floating-point samples", "export it as PNG"),
    "signed": (tiff(noise("<i2", 1), 1), "16-bit signed samples", "LOW HIGH"),
    "signed bytes": (tiff(noise("i1", 1), 1), "8-bit signed samples", "LOW HIGH"),
    "32 bits": (tiff(noise("<u4", 1), 1), "32-bit unsigned samples", "LOW HIGH"),
    "CMYK": (encode(random_image().convert("CMYK"), "TIFF"), "a CMYK TIFF", "convert it to RGB"),
    "CIELab": (tiff(noise("u1", 3), 8), "a TIFF of CIELab samples", "magick "),
    "uncompressed YCbCr": (tiff(noise("u1", 3), 6), "a TIFF of YCbCr samples", "magick "),
    "unknown photometric": (tiff(noise("u1", 3), 32803), "photometric interpretation 32803", "magick "),
    "unknown compression": (tiff(noise("u1", 1), 1, tag259=34712), "compression 34712", "magick "),
    "thumbnail": (tiff(noise("u1", 3), 2, tag254=1), "first page is a thumbnail", "magick "),
    "palette of 8 bits": (tiff(noise("u1", 1), 3, tag320=255), "palette has 8 bits", "magick "),
    "pages": (pages("TIFF"), "a TIFF of several pages", "if its first page is the image"),
    "animation": (pages("WEBP"), "an animated WebP", "if its first page is the image"),
    "short grey palette": (
        bmp(random_mask(), bytes([0, 0, 0, 0, 255, 255, 255, 0])),
        "a BMP of 8 bits with a short grey palette",
        "magick ",
    ),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_files_that_pillow_cannot_read_completely_are_refused_with_a_command(read, name):
    image, found, action = UNSUPPORTED[name]

    issue = read(image)

    assert isinstance(issue, DataIssue)
    assert (issue.reason, issue.file) == (pairs.UNSUPPORTED, "train/images/a_1.tif")
    assert found in issue.found
    assert action in issue.action


@pytest.mark.parametrize(
    ("name", "further"),
    [("pages", []), ("animation", []), ("CMYK", []), ("float", ["0", "250"]), ("signed", ["0", "9"])],
)
def test_the_python_commands_convert_the_image_to_a_png_that_passes(folder, read, name, further):
    image, _, _ = UNSUPPORTED[name]
    issue = read(image)
    assert isinstance(issue, DataIssue)
    words = [word for word in shlex.split(issue.action.partition("run: ")[2]) if word not in ("LOW", "HIGH")]
    assert words[0] == "python"

    subprocess.run([sys.executable, *words[1:], *further], cwd=folder.root, check=True)

    assert words[-1] == "train/images/a_1.png"
    converted = (folder.root / words[-1]).read_bytes()
    assert isinstance(read(converted, "png"), Sample)
    if name == "float":
        expected = noise("<f4", 1) / 250 * 65535
        np.testing.assert_allclose(np.asarray(opened(converted)), expected, atol=0.51)


@pytest.mark.parametrize("name", ["TIFF", "BMP", "WebP"])
def test_the_size_in_the_header_is_checked_before_anything_is_decoded(name):
    header = {
        # The pixels are missing, which only decoding would find.
        "TIFF": tiff(np.zeros((1, 1), np.uint8), 1, tag256=60000, tag257=60000),
        "BMP": struct.pack("<2sIHHI", b"BM", 100, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 30000, 30000, 1, 24, *[0] * 6),
        "WebP": encode(Image.new("RGB", (9000, 16)), "WEBP"),
    }[name]

    with pytest.raises(BadFileError, match="expected sides of 8 to 8192 pixels") as refused:
        as_png(header, Limits(), "a")

    assert refused.value.reason == pairs.ABSURD_SIZE


@pytest.mark.parametrize(
    "whole",
    [
        *[form("TIFF", "RGB", {"compression": compression}) for compression in [*TIFF_COMPRESSIONS, "jpeg"]],
        form("TIFF", "P", {"compression": "raw"}),
        encode(deep_grey(), "TIFF"),
        form("BMP", "RGB", {}),
        form("BMP", "P", {}),
        form("WEBP", "RGB", {"lossless": True}),
        form("WEBP", "RGB", {"lossless": False}),
    ],
    ids=[*(f"tiff {name}" for name in [*TIFF_COMPRESSIONS, "jpeg", "palette", "16 bits"]), "bmp", "bmp palette", *"ab"],
)
def test_an_image_that_is_cut_short_is_refused_wherever_it_ends(whole):
    for length in range(16, len(whole), max(1, len(whole) // 100)):
        with pytest.raises(BadFileError) as refused:
            as_png(whole[:length], Limits(), "a")
        assert refused.value.reason == pairs.TRUNCATED


def test_strips_that_reach_beyond_the_end_are_refused(read):
    issue = read(tiff(noise("u1", 1), 1, tag279=65535))

    assert isinstance(issue, DataIssue)
    assert issue.reason == pairs.TRUNCATED


def test_strips_that_do_not_cover_the_image_are_refused(read):
    issue = read(tiff(noise("u1", 1), 1, tag278=HEIGHT // 2))

    assert isinstance(issue, DataIssue)
    assert (issue.reason, "strips" in issue.found) == (pairs.UNDECODABLE, True)


@pytest.mark.parametrize(
    ("kind", "options"), [("TIFF", {"compression": "tiff_adobe_deflate"}), ("WEBP", {"lossless": True})]
)
def test_damaged_pixels_are_refused(read, kind, options):
    image = bytearray(encode(random_image(), kind, **options))
    image[40:300] = b"\xff" * 260

    issue = read(bytes(image))

    assert isinstance(issue, DataIssue)
    assert issue.reason in (pairs.UNDECODABLE, pairs.TRUNCATED)


def test_images_of_one_data_set_may_mix_formats_and_copies_of_one_picture_are_found(folder, unsplit):
    for kind, extension in {"PNG": "png", "TIFF": "TIF", "BMP": "bmp", "WEBP": "webp"}.items():
        options = {"lossless": True} if kind == "WEBP" else {}
        folder.write(f"images/s_{kind}.{extension}", encode(random_image(), kind, **options))
        folder.save(f"masks/s_{kind}.png", Image.fromarray(random_mask()))
    for kind, extension in {"PNG": "png", "TIFF": "tiff"}.items():
        folder.write(f"images/t_{kind}.{extension}", encode(deep_grey(), kind))
        folder.save(f"masks/t_{kind}.png", Image.fromarray(random_mask()))

    found = inspect(str(folder.root), unsplit)

    assert (found.pairs, found.issues) == (6, ())
    warnings = " ".join(found.warnings)
    for name in ("s_PNG", "s_TIFF", "s_BMP", "s_WEBP", "t_PNG", "t_TIFF"):
        assert f"/{name}" in warnings


def test_the_original_of_a_converted_image_is_passed_over(folder, unsplit):
    for name in ("a_1", "a_2", "b_1"):
        folder.pair(f"images/{name}.png", f"masks/{name}.png")
        folder.write(f"images/{name}.TIF", encode(random_image(), "TIFF"))

    found, issues = find_pairs(str(folder.root), unsplit)

    assert (len(found), issues) == (3, [])
    assert {pair.image for pair in found} == {f"images/{name}.png" for name in ("a_1", "a_2", "b_1")}


def test_an_image_of_one_name_in_two_formats_that_are_converted_is_an_issue(folder, unsplit):
    folder.write("images/a_1.bmp", encode(random_image(), "BMP"))
    folder.save("masks/a_1.png", Image.fromarray(random_mask()))
    folder.write("images/a_1.tif", encode(random_image(), "TIFF"))
    for name in ("a_2", "b_1"):
        folder.pair(f"images/{name}.png", f"masks/{name}.png")

    _, issues = find_pairs(str(folder.root), unsplit)

    assert {(os.path.basename(issue.file), issue.reason) for issue in issues} == {
        ("a_1.bmp", pairs.DUPLICATE_NAME),
        ("a_1.tif", pairs.DUPLICATE_NAME),
    }


def test_a_mask_is_still_to_be_a_png(folder, tiny):
    folder.write("train/images/a_1.tif", encode(random_image(), "TIFF"))
    folder.write(MASK, encode(Image.fromarray(random_mask()), "TIFF"))

    issue = read_pair(str(folder.root), Pair("a_1", "train", "a", "train/images/a_1.tif", MASK), tiny)

    assert isinstance(issue, DataIssue)
    assert (issue.file, issue.reason, issue.expected) == (MASK, pairs.UNDECODABLE, "a PNG file")


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"II*", b"RIFF1234WAVE", encode(random_image()), b"\xff\xd8\xff"])
def test_data_of_other_kinds_is_returned_as_it_is(data):
    assert as_png(data, Limits(), "a") is data
