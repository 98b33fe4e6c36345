import numpy as np
import pytest
from imported_folder import SIZE, box, flat, inside

from components.annotations.regions import (
    coco_runs,
    ellipse,
    label_studio_values,
    polygon,
    rectangle,
)
from components.instances import decode_mask

# Encoded by pycocotools 2.0.11 (`mask.encode`): a frame of 3 x 4 pixels around a hole.
FRAME = np.zeros((6, 7), dtype=bool)
FRAME[1:4, 2:6] = True
FRAME[2, 3] = False
FRAME_TEXT = "=33NN022005"


def _whole(region, size=SIZE):
    mask = np.zeros(size, dtype=bool)
    height, width = region.mask.shape
    mask[region.top : region.top + height, region.left : region.left + width] = region.mask
    return mask


def test_a_polygon_on_the_borders_of_pixels_covers_exactly_these_pixels():
    assert np.array_equal(_whole(polygon([3, 2, 9, 2, 9, 7, 3, 7], SIZE)), box(2, 3, 7, 9))


@pytest.mark.parametrize("seed", range(20))
def test_polygons_cover_the_pixels_whose_centres_lie_inside(seed):
    points = np.random.default_rng(seed).uniform(-5, 35, (7, 2)).tolist()

    assert np.array_equal(_whole(polygon(flat(points), SIZE)), inside(points))


def test_a_polygon_outside_the_image_covers_nothing():
    assert not polygon([40, 2, 50, 2, 50, 9], SIZE).mask.any()


@pytest.mark.parametrize("points", [[1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, float("nan")]])
def test_an_invalid_polygon_is_an_error(points):
    with pytest.raises(ValueError, match="expected at least 3 corners"):
        polygon(points, SIZE)


def test_polygons_agree_with_pycocotools_except_for_rounded_corners():
    # pycocotools 2.0.11: mask.frPyObjects([[4.3, 2.2, 24.8, 6.1, 15.6, 17.9]], 20, 30), 136 pixels.
    theirs = decode_mask(coco_runs("V32c00O1O2N1O2O0O2N1O1O2ON1N2O1O1O2M2O1Oc3"), *SIZE)

    assert theirs.sum() == 136
    assert (theirs != _whole(polygon([4.3, 2.2, 24.8, 6.1, 15.6, 17.9], SIZE))).sum() <= 2


def test_polygons_agree_with_a_recorded_one_of_pycocotools():
    # pycocotools 2.0.11: mask.decode(mask.frPyObjects([[1.2, 0.7, 6.4, 2.1, 3.3, 5.6]], 6, 7)).
    theirs = ["0000000", "0011000", "0011110", "0011100", "0001000", "0000000"]

    ours = _whole(polygon([1.2, 0.7, 6.4, 2.1, 3.3, 5.6], (6, 7)), (6, 7))

    assert ["".join(map(str, row)) for row in ours.astype(int)] == theirs


def test_ellipses_and_rotated_rectangles():
    x, y = np.meshgrid(np.arange(30) + 0.5, np.arange(20) + 0.5)

    circle = _whole(ellipse((12, 9), (6, 6), 0, SIZE))
    turned = _whole(rectangle(8, 6, 14, 8, 90, SIZE))

    assert np.array_equal(circle, (x - 12) ** 2 + (y - 9) ** 2 < 36)
    assert np.array_equal(turned, box(4, 10, 10, 12))


def test_an_ellipse_is_rotated_clockwise():
    falling = _whole(ellipse((10, 10), (8, 2), 45, SIZE))

    assert falling[14, 14]
    assert not falling[5, 14]


def test_compressed_runs_of_coco_are_decoded():
    assert np.array_equal(decode_mask(coco_runs(FRAME_TEXT), 6, 7), FRAME)


def test_runs_that_shrink_have_negative_differences():
    # pycocotools 2.0.11, of a mask of 4 x 5 pixels whose runs are 9 inside, 2 outside, 1 inside, 8 outside.
    assert coco_runs("092H6") == [0, 9, 2, 1, 8]


@pytest.mark.parametrize(("text", "message"), [("=3 3", "character ' '"), ("=3d", "ends within a number")])
def test_damaged_compressed_runs_are_an_error(text, message):
    with pytest.raises(ValueError, match=message):
        coco_runs(text)


@pytest.mark.parametrize("runs", [[3, 4], [30, -6, 18], [100]])
def test_runs_must_add_up_to_the_mask(runs):
    with pytest.raises(ValueError, match="expected 42, of a mask of 7x6"):
        decode_mask(runs, 6, 7)


# Encoded by `encode_rle` of label-studio-converter 0.0.59: the frame as the four channels of an image, 0 or 255.
BRUSH = [0, 0, 0, 168, 57, 27, 254, 35, 0, 191, 255, 108, 2, 63, 248, 192, 39, 255, 182, 1, 127, 255, 29, 128, 0]


def test_a_brush_of_label_studio_is_decoded():
    values = label_studio_values(BRUSH)

    assert np.array_equal(values.reshape(6, 7, 4)[..., 3], FRAME * 255)


def test_literal_values_of_label_studio_are_decoded():
    # Two literal bytes: length 2, words of 8 bits, sizes 3 4 8 16; flag 0, size 0, count 2, then 7 and 9.
    bits = f"{2:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}" + "0" + "00" + f"{1:03b}" + f"{7:08b}{9:08b}"
    data = [int(bits[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(bits), 8)]

    assert label_studio_values(data).tolist() == [7, 9]


@pytest.mark.parametrize("length", [3, 10, 20])
def test_a_brush_cut_short_is_an_error(length):
    with pytest.raises(ValueError, match="end before the mask does"):
        label_studio_values(BRUSH[:length])
