"""Sliding windows: seams, weights, odd sizes, and the same result as on the whole image."""

import numpy as np
import pytest
import tensorflow as tf

from serving.tiling import Tiling

_CLASSES = 4


def _image(height, width):
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), np.uint8)


def _by_pixel(pixels):
    """A network whose output at a pixel depends only on that pixel, so windows must change nothing."""
    scores = tf.concat([pixels / 255.0, 1 - pixels[..., :1] / 255.0], axis=-1)
    return scores / tf.reduce_sum(scores, axis=-1, keepdims=True)


def _segment(tiling, pixels, network):
    segment = tf.function(
        lambda image: tiling.segment(image, network, _CLASSES),
        input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)],
    )
    segments = segment(pixels)
    mask = segments.mask.numpy()
    shares = np.bincount(mask.ravel(), minlength=_CLASSES) / mask.size
    np.testing.assert_allclose(segments.class_share, shares, rtol=1e-6)
    assert segments.levels.shape == mask.shape
    assert np.mean(segments.levels / 255) == pytest.approx(float(segments.confidence), abs=1 / 510 + 1e-5)
    return mask, float(segments.confidence)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.8])
@pytest.mark.parametrize(
    "size", [(32, 48), (33, 48), (64, 96), (100, 131), (20, 30), (20, 200), (200, 20), (1, 1)], ids=str
)
def test_tiling_does_not_change_a_pixelwise_network(size, overlap):
    pixels = _image(*size)

    mask, confidence = _segment(Tiling((32, 48), overlap), pixels, _by_pixel)

    whole = _by_pixel(pixels.astype(np.float32)).numpy()
    # Rounding may decide between two classes that are equally likely.
    sure = np.diff(np.sort(whole)[..., -2:])[..., 0] > 1e-5
    assert mask.shape == size
    np.testing.assert_array_equal(mask[sure], whole.argmax(-1)[sure])
    assert confidence == pytest.approx(whole.max(-1).mean(), rel=1e-5)


@pytest.mark.parametrize("size", [(33, 48), (100, 131), (20, 30), (1, 1)], ids=str)
def test_the_confidence_of_a_pixel_is_that_of_its_class(size):
    pixels = _image(*size)

    levels = tf.function(lambda image: Tiling((32, 48), 0.25).segment(image, _by_pixel, _CLASSES).levels)(pixels)

    assert levels.dtype == tf.uint8
    whole = _by_pixel(pixels.astype(np.float32)).numpy()
    np.testing.assert_allclose(levels / 255, whole.max(-1), atol=1 / 510 + 1e-5)


def test_windows_lie_inside_the_image_with_the_given_overlap():
    seen = []

    def network(pixels):
        seen.append(tf.numpy_function(lambda window: calls.append(window) or np.float32(0), [pixels], tf.float32))
        with tf.control_dependencies(seen[-1:]):
            return _by_pixel(pixels)

    calls: list[np.ndarray] = []
    rows, columns = np.indices((100, 131))
    pixels = np.stack([rows, columns, rows * 0], -1).astype(np.uint8)
    _segment(Tiling((32, 48), 0.25), pixels, network)

    corners = [(int(call[0, 0, 0, 0]), int(call[0, 0, 0, 1])) for call in calls]
    assert all(call.shape == (1, 32, 48, 3) for call in calls)
    assert all(
        (call[0, -1, -1, :2] == np.add(corner, (31, 47))).all() for call, corner in zip(calls, corners, strict=True)
    )
    tops, lefts = sorted({top for top, _ in corners}), sorted({left for _, left in corners})
    assert (tops[0], tops[-1], lefts[0], lefts[-1]) == (0, 68, 0, 83)
    assert max(np.diff(tops)) <= 24
    assert max(np.diff(lefts)) <= 36


def test_probabilities_are_blended_linearly_between_windows():
    """Two windows that disagree: the class changes in the middle of their overlap."""

    def network(pixels):
        first = tf.cast(pixels[:, :1, :1, :1] < 100, tf.float32)
        scores = tf.stack([first, 1 - first, first * 0, first * 0], axis=-1)[..., 0, :]
        return tf.broadcast_to(scores, [1, 32, 48, _CLASSES])

    pixels = np.zeros((32, 72, 3), np.uint8)
    pixels[:, 24:] = 200
    mask, confidence = _segment(Tiling((32, 48), 0.5), pixels, network)

    np.testing.assert_array_equal(mask, np.repeat(np.arange(72) >= 36, 32).reshape(72, 32).T)
    # 48 columns in only one window, and 24 in both, with a larger weight that falls from 1 to 1/2 and rises again.
    ramp = np.arange(1, 25) / 25
    assert confidence == pytest.approx((48 + np.maximum(ramp, 1 - ramp).sum()) / 72, rel=1e-4)


def test_tiling_is_restored_from_metadata():
    tiling = Tiling((704, 960), 0.5)

    assert Tiling.of({"tiling": tiling.to_dict()}) == tiling
    assert Tiling.of({"tiling": None}) is None
    assert Tiling.of({}) is None
