"""Bad files are found and named; valid files are stored unchanged."""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from dataset_folder import HEIGHT, WIDTH, encode, random_image, random_mask
from PIL import Image, ImageOps

from components.dataset import pairs
from components.dataset.checks import Limits, Sample, read_pair
from components.dataset.description import detect
from components.dataset.encoded import pixel_hash
from components.dataset.pairs import DataIssue, Pair, find_pairs
from components.errors import SegpipeError

IMAGE, MASK = "train/images/a_1.png", "train/masks/a_1.png"
PAIR = Pair("a_1", "train", "a", IMAGE, MASK)


def png(width: int, height: int, bit_depth: int, color_type: int, rows: bytes, *further: tuple[bytes, bytes]) -> bytes:
    """Writes a PNG by hand, in the depths PIL does not write; further chunks come before the pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bit_depth, color_type, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *(chunk(*more) for more in further)]
    parts += [chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.fixture
def read(folder, tiny):
    """Writes an image and a mask, by default valid ones, and reads them as a pair."""

    def write_and_read(image=None, mask=None, description=tiny, limits=None):
        folder.write(IMAGE, encode(random_image()) if image is None else image)
        folder.write(MASK, encode(Image.fromarray(random_mask())) if mask is None else mask)
        return read_pair(str(folder.root), PAIR, description, limits)

    return write_and_read


def test_a_valid_pair_keeps_its_bytes(read):
    image, mask = encode(random_image()), encode(Image.fromarray(random_mask()))

    sample = read(image, mask)

    assert isinstance(sample, Sample)
    assert (sample.image, sample.mask) == (image, mask)
    assert (sample.height, sample.width) == (HEIGHT, WIDTH)
    assert sample.content_hash == hashlib.sha256(image + mask).hexdigest()
    assert sample.class_pixels.dtype == np.int64
    assert sample.class_pixels.tolist() == np.bincount(random_mask().ravel()).tolist()


PNG_IMAGE = encode(random_image())
JPEG_IMAGE = encode(random_image(), "JPEG")
ROWS = bytes((WIDTH + 1) * HEIGHT)
COMMENT = struct.pack(">I", 3) + b"tEXta\0b" + struct.pack(">I", zlib.crc32(b"tEXta\0b"))
FLIPPED = bytearray(PNG_IMAGE)
FLIPPED[len(PNG_IMAGE) // 2] ^= 1
# Only the pixel data's checksum is wrong, which Pillow does not look at and TensorFlow does.
WRONG_SUM = bytearray(PNG_IMAGE)
WRONG_SUM[-13] ^= 1


BAD_IMAGES = {
    "no bytes": (b"", pairs.EMPTY),
    "text": (b"not an image at all", pairs.UNDECODABLE),
    "gif": (b"GIF89a" + bytes(60), pairs.UNDECODABLE),
    "png signature only": (PNG_IMAGE[:5], pairs.UNDECODABLE),
    "png header cut": (PNG_IMAGE[:20], pairs.TRUNCATED),
    "png half": (PNG_IMAGE[: len(PNG_IMAGE) // 2], pairs.TRUNCATED),
    "png without end": (PNG_IMAGE[:-12], pairs.TRUNCATED),
    "png short of a byte": (PNG_IMAGE[:-1], pairs.TRUNCATED),
    "png bit flipped": (bytes(FLIPPED), pairs.UNDECODABLE),
    "png checksum wrong": (bytes(WRONG_SUM), pairs.UNDECODABLE),
    "png without its palette": (png(WIDTH, HEIGHT, 8, 3, ROWS, (b"tRNS", b"\0")), pairs.UNDECODABLE),
    "png of its end alone": (PNG_IMAGE[:8] + PNG_IMAGE[-12:], pairs.UNDECODABLE),
    "png with an unknown chunk": (png(WIDTH, HEIGHT, 8, 0, ROWS, (b"ABCD", b"")), pairs.UNDECODABLE),
    "png with its header second": (PNG_IMAGE[:8] + COMMENT + PNG_IMAGE[8:], pairs.UNDECODABLE),
    "jpeg header cut": (JPEG_IMAGE[:10], pairs.TRUNCATED),
    "jpeg half": (JPEG_IMAGE[: len(JPEG_IMAGE) // 2], pairs.TRUNCATED),
    "jpeg without end": (JPEG_IMAGE[:-2], pairs.TRUNCATED),
    "jpeg padded in place of its end": (JPEG_IMAGE[:-2] + bytes(16), pairs.TRUNCATED),
    "jpeg with another in its comment and no end": (
        encode(random_image(), "JPEG", comment=JPEG_IMAGE)[:-2] + bytes(16),
        pairs.TRUNCATED,
    ),
    "jpeg of zeros": (b"\xff\xd8\xff\xe0" + bytes(100) + b"\xff\xd9", pairs.UNDECODABLE),
    "too small": (encode(random_image(size=(4, 24))), pairs.ABSURD_SIZE),
    "too large": (png(60_000, 60_000, 8, 2, b""), pairs.ABSURD_SIZE),
    "too wide": (png(20_000, 5_000, 8, 2, b""), pairs.ABSURD_SIZE),
}


@pytest.mark.parametrize(("image", "reason"), BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_a_bad_image_is_an_issue_of_the_image(read, image, reason):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        issue = read(image=image)

    assert isinstance(issue, DataIssue)
    assert (issue.file, issue.reason, issue.split, issue.name) == (IMAGE, reason, "train", "a_1")
    assert issue.found
    assert issue.expected
    assert issue.action


BAD_MASKS = {
    "no bytes": (b"", pairs.EMPTY, "zero bytes"),
    "cut short": (PNG_IMAGE[:-20], pairs.TRUNCATED, "bytes that end before"),
    "jpeg": (JPEG_IMAGE, pairs.UNDECODABLE, "a JPEG file"),
    "other size": (encode(Image.fromarray(random_mask(size=(HEIGHT, WIDTH + 1)))), pairs.SIZE_MISMATCH, "25x16"),
    "colours": (encode(random_image()), pairs.COLOUR_MASK, "channels differ in"),
    "index outside": (
        encode(Image.fromarray(random_mask() + 3)),
        pairs.LABEL_OUTSIDE_MAP,
        "value 3, 4 in 384 of 384",
    ),
    "16-bit index outside": (
        encode(Image.fromarray(random_mask().astype(np.uint16) * 900)),
        pairs.LABEL_OUTSIDE_MAP,
        "value 900",
    ),
    "16-bit colours": (
        png(WIDTH, HEIGHT, 16, 2, (b"\0" + bytes(6 * WIDTH)) * HEIGHT),
        pairs.UNDECODABLE,
        "16-bit colour",
    ),
}


@pytest.mark.parametrize(("mask", "reason", "found"), BAD_MASKS.values(), ids=BAD_MASKS)
def test_a_bad_mask_is_an_issue_of_the_mask(read, mask, reason, found):
    issue = read(mask=mask)

    assert isinstance(issue, DataIssue)
    assert (issue.file, issue.reason) == (MASK, reason)
    assert found in issue.found


def test_a_broken_link_is_an_issue(folder, tiny):
    folder.write(MASK, b"-")
    (folder.root / IMAGE).parent.mkdir(parents=True)
    (folder.root / IMAGE).symlink_to("gone.png")

    issue = read_pair(str(folder.root), PAIR, tiny)

    assert isinstance(issue, DataIssue)
    assert (issue.file, issue.reason) == (IMAGE, pairs.UNREADABLE)


def test_a_file_that_is_gone_stops_the_reading(folder, tiny):
    with pytest.raises(SegpipeError, match=rf"{IMAGE}: cannot be read \(FileNotFoundError"):
        read_pair(str(folder.root), PAIR, tiny)


def test_limits_on_sides_are_the_callers(read):
    assert isinstance(read(limits=Limits(max_side=WIDTH)), Sample)

    issue = read(limits=Limits(max_side=WIDTH - 1))

    assert isinstance(issue, DataIssue)
    assert "8 to 23 pixels" in issue.expected


def test_no_pair_is_larger_than_the_model_accepts(read):
    assert isinstance(read(limits=Limits(max_pixels=HEIGHT * WIDTH)), Sample)

    issue = read(limits=Limits(max_pixels=HEIGHT * WIDTH - 1))

    assert isinstance(issue, DataIssue)
    assert issue.reason == pairs.ABSURD_SIZE
    assert f"at most {HEIGHT * WIDTH - 1} pixels in all" in issue.expected
    assert "export.max_pixels" in issue.action


def index_mask() -> np.ndarray:
    mask = random_mask()
    mask[0, 0] = 255
    return mask


def canonical() -> np.ndarray:
    return np.where(index_mask() == 255, 1, index_mask()).astype(np.uint8)


def palette_mask() -> Image.Image:
    image = Image.fromarray(index_mask(), "P")
    image.putpalette(list(np.random.default_rng(1).integers(0, 256, 768)))
    return image


@pytest.mark.parametrize(
    "mask",
    [
        encode(Image.fromarray(index_mask())),
        encode(palette_mask()),
        encode(Image.fromarray(np.dstack([index_mask()] * 3))),
        encode(Image.fromarray(np.dstack([index_mask()] * 3 + [random_mask()]))),
        encode(Image.fromarray(np.dstack([index_mask(), random_mask()]))),
        encode(Image.fromarray(index_mask().astype(np.uint16))),
    ],
    ids=["grey", "palette", "three equal channels", "with alpha", "grey with alpha", "16 bits"],
)
def test_masks_of_every_kind_become_one_canonical_png(read, mask):
    sample = read(mask=mask)

    assert isinstance(sample, Sample)
    assert Image.open(io.BytesIO(sample.mask)).mode == "L"
    np.testing.assert_array_equal(pixels(sample.mask), canonical())
    assert sample.class_pixels.tolist() == np.bincount(canonical().ravel()).tolist()


def test_a_palette_mask_is_stored_grey_even_where_its_indices_fit(read):
    mask = Image.fromarray(random_mask(), "P")
    mask.putpalette([9, 9, 9, 200, 200, 200])

    sample = read(mask=encode(mask))

    assert isinstance(sample, Sample)
    assert Image.open(io.BytesIO(sample.mask)).mode == "L"
    np.testing.assert_array_equal(pixels(sample.mask), random_mask())


@pytest.mark.parametrize(("bit_depth", "byte"), [(1, 0b01010101), (2, 0b00010001), (4, 0b00000001)])
def test_grey_masks_of_few_bits_hold_indices_not_grey_levels(read, bit_depth, byte):
    row = b"\0" + bytes([byte]) * (WIDTH * bit_depth // 8)

    sample = read(mask=png(WIDTH, HEIGHT, bit_depth, 0, row * HEIGHT))

    assert isinstance(sample, Sample)
    np.testing.assert_array_equal(pixels(sample.mask), np.tile([0, 1], (HEIGHT, WIDTH // 2)))


def color_mask(**colors: tuple[int, int, int]) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    mask[2:5] = (128, 64, 128)
    for row, color in enumerate(colors.values(), start=6):
        mask[row, :3] = color
    return mask


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colour_masks_become_indices(read, tiny_color, mode):
    mask = Image.fromarray(color_mask())

    sample = read(mask=encode(mask.convert(mode) if mode != "P" else mask.quantize(4)), description=tiny_color)

    assert isinstance(sample, Sample)
    assert sample.class_pixels.tolist() == [3 * WIDTH, (HEIGHT - 3) * WIDTH]
    np.testing.assert_array_equal(pixels(sample.mask) == 0, color_mask()[..., 1] == 64)


def test_unknown_colours_are_named_with_their_pixels(read, tiny_color):
    mask = encode(Image.fromarray(color_mask(first=(255, 255, 255), second=(1, 2, 3))))

    issue = read(mask=mask, description=tiny_color)

    assert isinstance(issue, DataIssue)
    assert (issue.file, issue.reason) == (MASK, pairs.UNKNOWN_COLOUR)
    assert "(1, 2, 3) in 3 pixels; (255, 255, 255) in 3 pixels" in issue.found


def test_a_colour_mask_of_16_bits_is_refused(read, tiny_color):
    white = tiny_color.classes[1].model_copy(update={"color": (255, 255, 255)})
    described = tiny_color.model_copy(update={"classes": (tiny_color.classes[0], white)})

    # Cut down to eight bits, 300 would be white.
    issue = read(mask=encode(Image.fromarray(np.full((HEIGHT, WIDTH), 300, np.uint16))), description=described)

    assert isinstance(issue, DataIssue)
    assert (issue.file, issue.reason) == (MASK, pairs.UNDECODABLE)


def levels(low: int, high: int) -> np.ndarray:
    """Returns random 16-bit values, uint16 [H, W], of which the least is `low` and the greatest `high`."""
    values = np.random.default_rng(0).integers(low, high, (HEIGHT, WIDTH), dtype=np.uint16, endpoint=True)
    values[0, :2] = low, high
    return values


def deep_colors(low: int, high: int) -> bytes:
    """Returns a 16-bit RGB PNG, which Pillow cannot write."""
    rows = np.stack([levels(low, high)] * 3, axis=-1).astype(">u2")
    return png(WIDTH, HEIGHT, 16, 2, b"".join(b"\0" + row.tobytes() for row in rows))


def deep_grey(low: int, high: int) -> bytes:
    return encode(Image.fromarray(levels(low, high)))


@pytest.mark.parametrize(
    "image",
    [
        encode(random_image(), "JPEG"),
        encode(random_image(), "JPEG", progressive=True, restart_marker_blocks=1) + b"\xff\xdamore bytes",
        encode(random_image().convert("L"), "JPEG"),
        encode(random_image().convert("CMYK"), "JPEG"),
        encode(random_image().convert("L")),
        encode(random_image().convert("P"), transparency=3),
        encode(random_image().convert("RGBA")),
        encode(random_image().convert("LA")),
        encode(random_image().convert("1")),
        encode(random_image(), transparency=(1, 2, 3)),
        deep_grey(0, 65535),
        deep_colors(0, 65535),
    ],
    ids=[
        *("jpeg", "jpeg with bytes after its end", "grey jpeg", "cmyk jpeg", "grey png", "palette", "alpha"),
        *("grey and alpha", "one bit", "transparent colour", "16 bits", "16-bit colours"),
    ],
)
def test_images_of_every_kind_keep_their_bytes(read, image):
    sample = read(image=image)

    assert isinstance(sample, Sample)
    assert sample.image == image


@pytest.mark.parametrize("kind", [deep_grey, deep_colors])
@pytest.mark.parametrize(("low", "high"), [(0, 4095), (0, 16383), (60000, 60100), (700, 700)])
def test_an_image_of_16_bits_that_keeps_few_levels_is_an_issue(read, kind, low, high):
    issue = read(image=kind(low, high))

    assert isinstance(issue, DataIssue)
    assert (issue.file, issue.reason) == (IMAGE, pairs.UNSUITABLE_RANGE)
    found = f"{low} to {high}" if kind is deep_grey else f"{low // 256 * 256} to {high // 256 * 256 + 255}"
    assert f"16-bit values from {found}, which span" in issue.found
    assert f"`image_range: [0, {2 ** high.bit_length() - 1}]`" in issue.expected or kind is deep_colors
    assert "add image_range: [low, high] to segpipe.yaml" in issue.action


def test_an_image_of_16_bits_that_keeps_enough_levels_passes(read):
    assert isinstance(read(image=deep_grey(1000, 1000 + 64 * 257)), Sample)


@pytest.mark.parametrize("kind", [deep_grey, deep_colors])
def test_with_an_image_range_only_an_image_outside_of_it_is_an_issue(read, tiny, kind):
    described = tiny.model_copy(update={"image_range": (1024, 4095)})

    assert isinstance(read(image=kind(1100, 1200), description=described), Sample)
    assert isinstance(read(image=kind(0, 2000), description=described), Sample)
    for low, high in ((0, 1000), (4096, 65535)):
        issue = read(image=kind(low, high), description=described)
        assert isinstance(issue, DataIssue)
        assert issue.reason == pairs.UNSUITABLE_RANGE
        assert issue.expected == "values within image_range: [1024, 4095]"


def test_the_lower_bits_of_16_bit_colours_count_in_the_images_hash(read):
    samples = [
        read(png(WIDTH, HEIGHT, 16, 2, (b"\0" + bytes([200, low, 0, 0, 0, 0] * WIDTH)) * HEIGHT)) for low in (0, 1)
    ]

    assert len({sample.hashed.pixels for sample in samples}) == 2


def orientation_exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x0100] = WIDTH  # another entry
    return exif


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_image_keeps_its_bytes_if_its_mask_is_upright(read, kind, orientation):
    image = encode(random_image(), kind, exif=orientation_exif(orientation))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(image)))

    sample = read(image, encode(Image.fromarray(random_mask(size=(upright.height, upright.width)))))

    assert isinstance(sample, Sample)
    assert (sample.height, sample.width) == (upright.height, upright.width)
    assert sample.image == image
    assert sample.hashed.pixels == pixel_hash(upright, encode(upright))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_turned_image_loses_its_exif_data_and_no_pixel_if_its_mask_was_drawn_on_the_stored_pixels(read, kind):
    image = encode(random_image(), kind, exif=orientation_exif(6), icc_profile=b"a profile")

    sample = read(image)

    assert isinstance(sample, Sample)
    stored = Image.open(io.BytesIO(sample.image))
    assert not stored.getexif()
    assert stored.info["icc_profile"] == b"a profile"
    np.testing.assert_array_equal(np.asarray(stored), pixels(image))


def test_an_orientation_in_xmp_alone_does_not_count(read):
    image = encode(random_image(), "JPEG", xmp=b'<x tiff:Orientation="6"/>')
    assert Image.open(io.BytesIO(image)).getexif()[0x0112] == 6

    sample = read(image)

    assert isinstance(sample, Sample)
    assert sample.image == image


@pytest.mark.parametrize(("orientation", "mask_size"), [(1, (HEIGHT, WIDTH)), (6, (WIDTH, HEIGHT))])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_damaged_exif_data_is_not_an_issue_and_its_orientation_counts_if_it_can_be_read(
    read, kind, orientation, mask_size
):
    # A number that is stored as text, which can be read and not be written again.
    width_as_text = struct.pack("<HHL4s", 0x0100, 2, 4, b"abc")
    entries = struct.pack("<HHLL", 0x0112, 3, 1, orientation) + width_as_text
    exif = b"Exif\0\0II*\0" + struct.pack("<LH", 8, 2) + entries + bytes(4)
    if orientation == 1:
        exif = exif.replace(b"II*", b"XX*")

    sample = read(
        image=encode(random_image(), kind, exif=exif), mask=encode(Image.fromarray(random_mask(size=mask_size)))
    )

    assert isinstance(sample, Sample)
    assert (sample.height, sample.width) == mask_size


def test_the_content_hash_follows_the_stored_bytes(read):
    one = read(mask=encode(Image.fromarray(random_mask(1))))
    other = read(mask=encode(Image.fromarray(random_mask(1)), compress_level=0))

    assert isinstance(one, Sample)
    assert isinstance(other, Sample)
    assert one.content_hash != other.content_hash


def test_real_camvid_pairs_are_valid(real_camvid):
    description = detect(str(real_camvid))
    found = [pair for pair in find_pairs(str(real_camvid), description)[0] if pair.split in ("train", "val")][::23]

    samples = [read_pair(str(real_camvid), pair, description) for pair in found]

    assert all(isinstance(sample, Sample) for sample in samples)
