"""Drawings have exact colours on tiny arrays, and sheets have their parts."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from components.class_map import ClassMap
from components.drawing import (
    EDGE,
    IGNORED,
    PAPER,
    WRONG,
    draw_boxes,
    error_map,
    legend,
    overlay,
    photo,
    png_bytes,
    prediction_sheet,
)

CLASSES = ClassMap(("road", "sky", "void"), ((200, 0, 100), (0, 100, 200), (0, 0, 0)), ignore_index=2)
IMAGE = np.array([[[100, 100, 100], [10, 20, 30]], [[0, 0, 0], [255, 255, 255]]], np.uint8)
MASK = np.array([[0, 1], [2, 0]], np.uint8)


def test_overlay_mixes_image_and_class_colour_and_leaves_ignored_pixels():
    mixed = overlay(IMAGE, MASK, CLASSES, opacity=0.5)

    expected = [[[150, 50, 100], [5, 60, 115]], [[0, 0, 0], [228, 128, 178]]]
    np.testing.assert_array_equal(mixed, np.array(expected, np.uint8))


def test_overlay_opacity_runs_from_the_image_to_the_mask():
    np.testing.assert_array_equal(overlay(IMAGE, MASK, CLASSES, opacity=0), IMAGE)
    scored = MASK != 2
    full = overlay(IMAGE, MASK, CLASSES, opacity=1)
    np.testing.assert_array_equal(full[scored], CLASSES.palette[MASK[scored]])


def test_overlay_enlarges_a_small_mask_without_mixing_classes():
    image = np.zeros((4, 4, 3), np.uint8)

    painted = overlay(image, MASK, CLASSES, opacity=1)

    np.testing.assert_array_equal(painted, CLASSES.palette[np.repeat(np.repeat(MASK, 2, 0), 2, 1)])


def test_overlay_does_not_change_its_arguments():
    image, mask = IMAGE.copy(), MASK.copy()

    overlay(image, mask, CLASSES)

    np.testing.assert_array_equal(image, IMAGE)
    np.testing.assert_array_equal(mask, MASK)


@pytest.mark.parametrize(
    ("image", "mask", "opacity", "message"),
    [
        (IMAGE.astype(np.float32), MASK, 0.5, "image: expected uint8"),
        (IMAGE[..., 0], MASK, 0.5, "image: expected uint8"),
        (IMAGE, MASK.astype(np.int64), 0.5, "mask: expected uint8"),
        (IMAGE, IMAGE, 0.5, "mask: expected uint8"),
        (IMAGE, MASK, 1.5, "opacity 1.5"),
    ],
)
def test_overlay_refuses_wrong_arguments_with_a_reason(image, mask, opacity, message):
    with pytest.raises(ValueError, match=message):
        overlay(image, mask, CLASSES, opacity)


def test_error_map_shows_misses_red_ignored_dark_and_hits_dim():
    truth = np.array([[0, 1], [2, 0]], np.uint8)
    prediction = np.array([[0, 0], [0, 2]], np.uint8)

    shown = error_map(truth, prediction, CLASSES, IMAGE)

    dim = 300 // 6 + 32
    np.testing.assert_array_equal(shown, np.array([[[dim] * 3, WRONG], [IGNORED, WRONG]], np.uint8))


def test_error_map_hatches_ignored_areas():
    truth = np.full((16, 16), 2, np.uint8)

    shown = error_map(truth, np.zeros((16, 16), np.uint8), CLASSES, np.zeros((16, 16, 3), np.uint8))

    colors, counts = np.unique(shown.reshape(-1, 3), axis=0, return_counts=True)
    assert {tuple(color) for color in colors.tolist()} == {IGNORED, (70, 70, 70)}
    assert sorted(counts) == [32, 224]


def test_error_map_refuses_an_image_of_another_size():
    with pytest.raises(ValueError, match="expected the image's size"):
        error_map(MASK, MASK, CLASSES, np.zeros((3, 2, 3), np.uint8))


def swatches(picture: Image.Image) -> set[tuple[int, int, int]]:
    """Colours of all 15x15 blocks of one colour: paper and the inside of swatches."""
    pixels = np.asarray(picture)
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (15, 15), axis=(0, 1))
    even = (windows == windows[..., :1, :1]).all(axis=(2, 3, 4))
    return {tuple(color) for color in pixels[: even.shape[0], : even.shape[1]][even].tolist()} - {PAPER, EDGE}


def test_legend_has_a_swatch_and_ink_for_every_class():
    picture = legend(CLASSES)

    assert swatches(picture) == set(CLASSES.colors)
    assert (np.asarray(picture) < 80).all(axis=-1).sum() > 100


def test_legend_shows_only_the_named_classes():
    assert swatches(legend(CLASSES, ["sky"])) == {CLASSES.colors[1]}
    with pytest.raises(ValueError, match="river"):
        legend(CLASSES, ["river"])


def test_legend_wraps_to_its_width():
    wide, narrow = legend(CLASSES, width=600), legend(CLASSES, width=100)

    assert (wide.width, narrow.width) == (600, 100)
    assert narrow.height > wide.height


def test_prediction_sheet_puts_image_mask_and_overlay_in_a_row_above_the_legend():
    image = np.full((40, 60, 3), 90, np.uint8)
    mask = np.zeros((20, 30), np.uint8)

    sheet = prediction_sheet(image, mask, CLASSES, width=312)

    assert sheet.shape[1] == 312
    middle = sheet[30, [50, 156, 262]]
    np.testing.assert_array_equal(middle, [[90, 90, 90], CLASSES.colors[0], [145, 45, 95]])
    assert sheet.shape[0] > 67
    assert swatches(Image.fromarray(np.ascontiguousarray(sheet[67:]))) == {CLASSES.colors[0]}


def test_prediction_sheet_never_shrinks_an_image():
    sheet = prediction_sheet(np.zeros((30, 500, 3), np.uint8), np.zeros((30, 500), np.uint8), CLASSES, width=100)

    assert sheet.shape[1] >= 1500


@pytest.mark.parametrize("pixels", [IMAGE, MASK])
def test_png_bytes_decode_to_the_same_pixels(pixels):
    decoded = np.asarray(Image.open(io.BytesIO(png_bytes(pixels))))

    np.testing.assert_array_equal(decoded, pixels)


def _encoded(pixels, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


def test_a_photo_is_shown_upright():
    exif = Image.Exif()
    exif[0x0112] = 6

    np.testing.assert_array_equal(photo(_encoded(IMAGE, exif=exif)), np.rot90(IMAGE, -1))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA"])
def test_a_photo_of_any_mode_is_shown_in_colours(mode):
    image = Image.fromarray(IMAGE).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")

    np.testing.assert_array_equal(photo(buffer.getvalue()), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(("low", "high"), [(0, 65535), (1000, 1255), (700, 700)])
def test_a_photo_of_16_bits_is_shown_from_black_to_white(low, high):
    values = np.array([[low, high], [(low + high) // 2, low]], np.uint16)

    shown = photo(_encoded(values))

    white = 255 if high > low else 0
    assert shown.shape == (2, 2, 3)
    np.testing.assert_allclose(shown[..., 0].astype(int), [[0, white], [white // 2, 0]], atol=1)


@pytest.mark.parametrize(("left", "seen"), [(20, False), (150, True)])
def test_a_label_that_would_touch_one_above_it_is_left_out(left, seen):
    boxes = np.array([(40, left, 60, left + 30), (45, 10, 70, 30)])

    first, second = (
        draw_boxes(Image.new("RGB", (240, 90)), boxes, (below, "vehicle"), ((255, 0, 0), (0, 255, 0)))
        for below in ("bicyclist", "pedestrian")
    )

    assert np.any(first != second) == seen
    assert first.min(axis=-1).max() > 100  # the text above
