import numpy as np
import pytest
import tensorflow as tf

from trainer import resampling

SIZE = HEIGHT, WIDTH = 20, 30


@pytest.fixture
def images() -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH, 3)), tf.uint8)


def spans(first: float, last: float, number: int = 3) -> resampling.Span:
    """Returns the same span for each image of a batch."""
    return tf.fill([number], float(first)), tf.fill([number], float(last))


def largest_step(window: tuple[float, float], size: tuple[int, int]) -> float:
    """Returns source pixels per pixel of the result, on the axis with more of them."""
    return max(extent / length for extent, length in zip(window, size, strict=True))


@pytest.mark.parametrize("size", [(20, 30), (33, 41), (10, 15), (7, 11), (12, 45), (1, 1)])
def test_a_window_of_the_whole_image_is_resized_as_tensorflow_does(images, size):
    found = resampling.linear(images, spans(0, 20), spans(0, 30), size, largest_step(SIZE, size))

    np.testing.assert_allclose(found, tf.image.resize(images, size, antialias=True), atol=0.01)


@pytest.mark.parametrize("size", [(16, 24), (8, 8), (5, 20)])
@pytest.mark.parametrize("window", [(0.0, 12.5, 0.0, 20.25), (3.3, 18.9, 5.7, 28.2), (7.4, 20.0, 29.0, 30.0)])
def test_a_window_with_fractional_borders_is_resized_as_tensorflow_does(images, window, size):
    top, bottom, left, right = window
    extents = bottom - top, right - left

    found = resampling.linear(images, spans(top, bottom), spans(left, right), size, largest_step(extents, size))

    # The operation that tf.image.resize calls for antialiasing, with a window.
    scale = np.array([size[0] / extents[0], size[1] / extents[1]], np.float32)
    expected = tf.raw_ops.ScaleAndTranslate(
        images=images,
        size=size,
        scale=scale,
        translation=-scale * np.array([top, left], np.float32),
        kernel_type="triangle",
        antialias=True,
    )
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_each_image_of_a_batch_has_its_own_window(images):
    rows = tf.constant([0.0, 4.0, 10.0]), tf.constant([10.0, 20.0, 15.0])
    columns = tf.constant([3.0, 0.0, 15.0]), tf.constant([30.0, 30.0, 18.0])

    found = resampling.linear(images, rows, columns, (8, 12), largest_step=2.5)
    labels = resampling.nearest(images[..., 0], rows, columns, (8, 12))

    for i in range(3):
        alone = [tuple(edge[i : i + 1] for edge in span) for span in (rows, columns)]
        np.testing.assert_allclose(
            found[i : i + 1], resampling.linear(images[i : i + 1], *alone, (8, 12), 2.5), atol=0.01
        )
        np.testing.assert_array_equal(labels[i : i + 1], resampling.nearest(images[i : i + 1, ..., 0], *alone, (8, 12)))


def test_a_span_that_runs_backwards_mirrors(images):
    forwards, backwards = spans(4.3, 25.1), spans(25.1, 4.3)
    rows, masks = spans(0, 20), images[..., 0]

    plain, mirrored = (resampling.linear(images, rows, columns, (20, 16), 1.3) for columns in (forwards, backwards))
    np.testing.assert_allclose(mirrored, plain[:, :, ::-1], atol=0.01)
    plain, mirrored = (resampling.nearest(masks, rows, columns, (20, 16)) for columns in (forwards, backwards))
    np.testing.assert_array_equal(mirrored, plain[:, :, ::-1])


@pytest.mark.parametrize("size", [(20, 30), (33, 41), (10, 15), (7, 11)])
def test_masks_of_the_whole_image_are_resized_as_tensorflow_does(images, size):
    found = resampling.nearest(images[..., 0], spans(0, 20), spans(0, 30), size)

    expected = tf.image.resize(images[..., :1], size, method="nearest")[..., 0]
    assert found.dtype == tf.int32
    assert (found.numpy() == expected.numpy()).mean() > 0.99


def test_a_kernel_wider_than_needed_changes_nothing(images):
    window = spans(2.0, 18.0), spans(3.0, 27.0)

    narrow, wide = (resampling.linear(images, *window, (16, 24), step) for step in (1.0, 3.5))

    np.testing.assert_allclose(narrow, wide, atol=1e-3)
