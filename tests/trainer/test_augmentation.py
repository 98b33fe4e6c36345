import re

import numpy as np
import pytest
import tensorflow as tf

from components.errors import UsageError
from trainer import augmentation
from trainer.config import TrainingSettings

SIZE = HEIGHT, WIDTH = 32, 48


Batch = tuple[tf.Tensor, tf.Tensor]


@pytest.fixture
def encoded() -> Batch:
    """24 masks of four rectangles, and images with 60 times the class index in all channels."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:14, 20:] = 1
    mask[14:, :30] = 2
    mask[14:, 30:] = 3
    masks = np.repeat(mask[np.newaxis], 24, axis=0)
    return tf.constant(masks[..., np.newaxis] * np.full(3, 60, np.uint8)), tf.constant(masks)


def ramps(number: int) -> tuple[tf.Tensor, np.ndarray, np.ndarray]:
    """Images whose channels hold the row, the column and the row; rows and columns, uint8 [number, H, W]."""
    rows, columns = np.meshgrid(np.arange(HEIGHT, dtype=np.uint8), np.arange(WIDTH, dtype=np.uint8), indexing="ij")
    rows, columns = (np.repeat(places[np.newaxis], number, axis=0) for places in (rows, columns))
    return tf.constant(np.stack([rows, columns, rows], axis=-1)), rows, columns


@pytest.mark.parametrize(("size", "least"), [(SIZE, 0.99), ((16, 16), 0.97)])
def test_the_mask_follows_the_image(encoded, size, least):
    images, masks = augmentation.scale_and_crop(*encoded, tf.constant([1, 0]), size, 0.5, max_scale=1.6)

    assert (images.shape, masks.shape) == ((24, *size, 3), (24, *size))
    for image, mask in zip(images.numpy(), masks.numpy(), strict=True):
        decoded = image[..., 0] / 60
        # Linear interpolation mixes classes only at the border between two classes.
        inside = np.isclose(decoded, np.round(decoded), atol=1e-4)
        assert inside.mean() > 0.75
        assert (decoded.round()[inside] == mask[inside]).mean() > least


@pytest.mark.parametrize("crop_size", [SIZE, (16, 16)])
def test_mask_pixels_are_sampled_at_the_centres_of_image_pixels(crop_size):
    images, *places = ramps(20)
    for channel, masks in enumerate(places):
        varied, labels = augmentation.scale_and_crop(
            images, tf.constant(masks), tf.constant([3, 0]), crop_size, 0.5, max_scale=1.6
        )

        apart = np.abs(varied.numpy()[..., channel] - labels.numpy())
        # Rounding to the nearest pixel adds at most 0.5. Pixels at the image's border have fewer neighbours, and a
        # kernel of fractional width is slightly asymmetric.
        assert apart[:, 2:-2, 2:-2].max() <= 0.5 + 0.05


def test_scales_reach_from_the_whole_picture_to_the_largest_enlargement():
    images, masks, _ = ramps(60)

    varied, _ = augmentation.scale_and_crop(images, tf.constant(masks), tf.constant([1, 0]), SIZE, 0.5, max_scale=2.0)

    fractions = (np.abs(varied[:, 8, -3, 1] - varied[:, 8, 2, 1]) / (WIDTH - 5)).clip(max=1)
    assert 0.48 <= fractions.min() < 0.55
    assert 0.93 < fractions.max() <= 1.0


def test_windows_reach_from_all_of_the_shorter_side_to_the_largest_scale():
    images, masks, _ = ramps(60)

    varied, _ = augmentation.scale_and_crop(
        images, tf.constant(masks), tf.constant([1, 0]), (16, 16), 0.1, max_scale=2.0
    )

    fractions = (varied[:, 8, 0, 0] - varied[:, 7, 0, 0]).numpy() * 16 / HEIGHT
    assert 0.24 < fractions.min() < 0.32
    assert 0.9 < fractions.max() <= 1.01


def test_windows_cover_the_image_and_never_leave_it():
    images, _, masks = ramps(200)

    varied, labels = augmentation.scale_and_crop(
        images, tf.constant(masks), tf.constant([1, 0]), (16, 16), 1.0, max_scale=2.0, flip=0.0
    )

    first, last = labels.numpy()[:, 0, 0], labels.numpy()[:, 0, -1]
    assert (first.min(), last.max()) == (0, WIDTH - 1)
    # Beyond the border the values would be constant; inside, a step is at least half a pixel.
    assert np.diff(varied.numpy()[..., 1], axis=2)[:, :, 1:-1].min() > 0.4


def test_no_enlargement_changes_nothing(encoded):
    images, masks = augmentation.scale_and_crop(*encoded, tf.constant([1, 2]), SIZE, 1.0, max_scale=1.0, flip=0.0)

    np.testing.assert_array_equal(images, encoded[0])
    np.testing.assert_array_equal(masks, encoded[1])


def test_half_of_the_pairs_are_mirrored_together(encoded):
    images, masks = augmentation.scale_and_crop(*encoded, tf.constant([1, 2]), SIZE, 1.0, max_scale=1.0)

    np.testing.assert_array_equal(images[..., 0], tf.cast(masks, tf.float32) * 60)
    mirrored = [np.array_equal(mask, encoded[1].numpy()[0, :, ::-1]) for mask in masks.numpy()]
    straight = [np.array_equal(mask, encoded[1].numpy()[0]) for mask in masks.numpy()]
    assert 6 <= sum(mirrored) <= 18
    assert sum(mirrored) + sum(straight) == 24


def test_the_seed_determines_every_random_choice(encoded):
    vary = augmentation.build(TrainingSettings(), SIZE)

    first, again, other = (vary(*encoded, tf.constant(seed)) for seed in ([7, 1], [7, 1], [7, 2]))

    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_each_image_of_a_batch_has_its_own_choices(encoded):
    images, _ = augmentation.build(TrainingSettings(), SIZE)(*encoded, tf.constant([7, 1]))

    assert len({image.tobytes() for image in images.numpy()}) == 24


def test_pixels_stay_in_range_and_masks_keep_their_labels(encoded):
    vary = augmentation.build(TrainingSettings(), SIZE)

    images, masks = vary(*encoded, tf.constant([1, 3]))

    assert (images.dtype, masks.dtype) == (tf.float32, tf.int32)
    assert images.shape == (24, HEIGHT, WIDTH, 3)
    assert 0 <= images.numpy().min() <= images.numpy().max() <= 255
    assert set(np.unique(masks)) <= {0, 1, 2, 3}


def test_images_may_be_float32(encoded):
    vary = augmentation.build(TrainingSettings(), SIZE)

    of_integers, of_floats = (
        vary(tf.cast(encoded[0], t), encoded[1], tf.constant([7, 1])) for t in ("uint8", "float32")
    )

    np.testing.assert_array_equal(of_integers[0], of_floats[0])


@pytest.mark.parametrize("crop_size", [None, (16, 24)])
def test_xla_gives_the_same_batch(encoded, crop_size):
    settings = TrainingSettings(crop_size=crop_size, min_scale=0.5)
    vary = augmentation.build(settings, SIZE)

    plain, compiled = (
        tf.function(vary, jit_compile=xla)(*encoded, tf.constant([7, 1], tf.int64)) for xla in (False, True)
    )

    np.testing.assert_allclose(plain[0], compiled[0], atol=0.05)
    # A centre on the border between two pixels may round to either.
    assert (plain[1].numpy() == compiled[1].numpy()).mean() > 0.999


def test_settings_switch_augmentation_off():
    assert augmentation.build(TrainingSettings(augment=False), SIZE) is None
    assert augmentation.build(TrainingSettings(augment=True), SIZE) is not None


def test_a_crop_larger_than_the_image_is_refused_by_name():
    with pytest.raises(UsageError, match=r"training\.crop_size: found 64x48, expected at most .* 32x48"):
        augmentation.build(TrainingSettings(crop_size=(64, 48)), SIZE)


def test_the_window_has_the_size_that_is_set(encoded):
    images, masks = augmentation.build(TrainingSettings(crop_size=(16, 32)), SIZE)(*encoded, tf.constant([3, 4]))

    assert (images.shape, masks.shape) == ((24, 16, 32, 3), (24, 16, 32))


def test_a_window_of_less_than_a_pixel_is_enlarged(encoded):
    settings = TrainingSettings(crop_size=(16, 16), min_scale=40, max_scale=40)

    images, masks = augmentation.build(settings, SIZE)(*encoded, tf.constant([3, 4]))

    assert np.isfinite(images).all()
    # The window overlaps at most two rows.
    assert np.count_nonzero(np.diff(masks.numpy()[:, :, 0], axis=1), axis=1).max() <= 1


def test_a_crop_without_augmentation_is_refused():
    words = (
        "crop_size is (16, 16), expected null if augment is false; set training.augment=true, or "
        "training.crop_size=null"
    )

    with pytest.raises(ValueError, match=re.escape(words)):
        TrainingSettings(augment=False, crop_size=(16, 16))


def test_any_scales_are_accepted_without_augmentation():
    assert not TrainingSettings(augment=False, min_scale=0.6, max_scale=1.3).augment


def test_scales_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match=r"min_scale is 2, expected at most max_scale, which is 1\.6"):
        TrainingSettings(min_scale=2.0)
