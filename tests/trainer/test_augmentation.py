import re

import numpy as np
import pytest
import tensorflow as tf

from components.errors import UsageError
from trainer import augmentation
from trainer.config import TrainingSettings

SIZE = HEIGHT, WIDTH = 32, 48


@pytest.fixture
def encoded() -> tuple[tf.Tensor, tf.Tensor]:
    """A mask of four rectangles, and the image that paints it: 60 times the class index, in all channels."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:14, 20:] = 1
    mask[14:, :30] = 2
    mask[14:, 30:] = 3
    image = np.repeat(mask[..., np.newaxis], 3, axis=-1).astype(np.float32) * 60
    return tf.constant(image), tf.constant(mask)


@pytest.mark.parametrize("seed", range(12))
def test_the_mask_follows_the_image(encoded, seed):
    image, mask = augmentation.scale_and_crop(*encoded, tf.constant([seed, 0]), SIZE, 0.5, max_scale=1.6)
    image, mask = augmentation.flip(image, mask, tf.constant([seed, 1]))

    decoded = image.numpy()[..., 0] / 60
    # Bilinear interpolation mixes classes only next to a border between two of them.
    inside = np.isclose(decoded, np.round(decoded), atol=1e-4)
    assert inside.mean() > 0.8
    agree = decoded.round()[inside] == mask.numpy()[inside]
    assert agree.mean() > 0.99


@pytest.mark.parametrize("crop_size", [SIZE, (16, 16)])
def test_each_mask_pixel_is_the_one_at_the_centre_of_its_image_pixel(crop_size):
    rows, columns = np.meshgrid(np.arange(HEIGHT), np.arange(WIDTH), indexing="ij")
    # Where a pixel of the image comes from; the mask tells the same of its own.
    image = tf.constant(np.stack([rows, columns, rows], axis=-1), tf.float32)
    for seed in range(20):
        for channel, places in enumerate((rows, columns)):
            varied, mask = augmentation.scale_and_crop(
                image, tf.constant(places.astype(np.uint8)), tf.constant([seed, 0]), crop_size, 0.5, max_scale=1.6
            )

            apart = np.abs(varied.numpy()[..., channel] - mask.numpy())
            # The nearest of whole numbers is never further away than a half; a window's rim has fewer neighbours.
            assert apart[2:-2, 2:-2].max() <= 0.5 + 1e-3


def test_scales_reach_from_the_whole_picture_to_the_largest_enlargement():
    column = tf.tile(tf.range(WIDTH, dtype=tf.float32)[tf.newaxis, :, tf.newaxis], [HEIGHT, 1, 3])
    blank = tf.zeros([HEIGHT, WIDTH], tf.uint8)

    shares = []
    for seed in range(60):
        image, _ = augmentation.scale_and_crop(column, blank, tf.constant([seed, 0]), SIZE, 0.5, max_scale=2.0)
        shares.append((float(image[0, -1, 0] - image[0, 0, 0]) + 1) / WIDTH)

    assert 0.48 <= min(shares) < 0.55
    assert 0.93 < max(shares) <= 1.0


def test_no_enlargement_changes_nothing(encoded):
    image, mask = augmentation.scale_and_crop(*encoded, tf.constant([1, 2]), SIZE, 1.0, max_scale=1.0)

    np.testing.assert_array_equal(image, encoded[0])
    np.testing.assert_array_equal(mask, encoded[1])


def test_half_of_the_pairs_are_mirrored_together(encoded):
    mirrored = 0
    for seed in range(40):
        image, mask = augmentation.flip(*encoded, tf.constant([seed, 0]))
        np.testing.assert_array_equal(image[..., 0], tf.cast(mask, tf.float32) * 60)
        mirrored += bool(np.array_equal(mask, encoded[1].numpy()[:, ::-1]))

    assert 10 <= mirrored <= 30


def test_a_seed_repeats_every_choice_and_another_makes_others(encoded):
    vary = augmentation.build(TrainingSettings(color=0.2, exposure=2.0, blur=1.0), SIZE)

    first, again, other = (vary(*encoded, tf.constant(seed)) for seed in ([7, 1], [7, 1], [7, 2]))

    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_pixels_stay_in_range_and_masks_keep_their_labels(encoded):
    vary = augmentation.build(TrainingSettings(color=0.5, exposure=4.0, blur=2.0), SIZE)
    for seed in range(10):
        image, mask = vary(*encoded, tf.constant([seed, 3]))

        assert image.dtype == tf.float32
        assert image.shape == (HEIGHT, WIDTH, 3)
        assert 0 <= image.numpy().min() <= image.numpy().max() <= 255
        assert set(np.unique(mask)) <= {0, 1, 2, 3}


def test_settings_switch_augmentation_off():
    assert augmentation.build(TrainingSettings(augment=False), SIZE) is None
    assert augmentation.build(TrainingSettings(augment=True), SIZE) is not None


@pytest.mark.parametrize("seed", range(8))
def test_a_smaller_crop_shows_the_same_place_in_image_and_mask(encoded, seed):
    image, mask = augmentation.scale_and_crop(*encoded, tf.constant([seed, 0]), (16, 16), 0.5, max_scale=1.5)

    assert image.shape == (16, 16, 3)
    assert mask.shape == (16, 16)
    decoded = image.numpy()[..., 0] / 60
    inside = np.isclose(decoded, np.round(decoded), atol=1e-4)
    agree = decoded.round()[inside] == mask.numpy()[inside]
    assert agree.mean() > 0.97


def test_windows_reach_from_all_of_the_shorter_side_to_the_largest_scale():
    row = tf.tile(tf.range(HEIGHT, dtype=tf.float32)[:, tf.newaxis, tf.newaxis], [1, WIDTH, 3])
    blank = tf.zeros([HEIGHT, WIDTH], tf.uint8)

    shares = []
    for seed in range(60):
        image, _ = augmentation.scale_and_crop(row, blank, tf.constant([seed, 0]), (16, 16), 0.1, max_scale=2.0)
        step = float(image[8, 0, 0] - image[7, 0, 0])
        shares.append(step * 16 / HEIGHT)

    assert 0.24 < min(shares) < 0.32
    assert 0.9 < max(shares) <= 1.01


def test_a_crop_larger_than_the_image_is_refused_by_name():
    with pytest.raises(UsageError, match=r"training\.crop_size: found 64x48, expected at most .* 32x48"):
        augmentation.build(TrainingSettings(crop_size=(64, 48)), SIZE)


def test_the_window_has_the_size_that_is_set(encoded):
    image, mask = augmentation.build(TrainingSettings(crop_size=(16, 32)), SIZE)(*encoded, tf.constant([3, 4]))

    assert (image.shape, mask.shape) == ((16, 32, 3), (16, 32))


def test_a_window_of_less_than_a_pixel_has_one(encoded):
    settings = TrainingSettings(crop_size=(16, 16), min_scale=40, max_scale=40)

    image, mask = augmentation.build(settings, SIZE)(*encoded, tf.constant([3, 4]))

    assert image.shape == (16, 16, 3)
    assert len(np.unique(mask)) == 1


@pytest.mark.parametrize(
    ("option", "off"),
    [({"crop_size": (16, 16)}, "null"), ({"color": 0.3}, 0), ({"exposure": 2.0}, 1), ({"blur": 2.0}, 0)],
)
def test_a_crop_or_variation_without_augmentation_is_refused(option, off):
    ((name, found),) = option.items()
    words = (
        f"{name} is {found}, expected {off} where augment is false; set training.augment=true, or training.{name}={off}"
    )

    with pytest.raises(ValueError, match=re.escape(words)):
        TrainingSettings(augment=False, **option)


def test_scales_are_what_they_are_without_augmentation():
    assert not TrainingSettings(augment=False, min_scale=0.6, max_scale=1.3).augment


def test_scales_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match=r"min_scale is 2, expected at most max_scale, which is 1\.6"):
        TrainingSettings(min_scale=2.0)


@pytest.mark.parametrize("option", [{"color": 0.3}, {"exposure": 2.0}, {"blur": 2.0}])
def test_settings_switch_variations_on_that_leave_the_mask_alone(encoded, option):
    plain, varied = (
        augmentation.build(TrainingSettings(**options), SIZE)(*encoded, tf.constant([3, 4])) for options in ({}, option)
    )

    assert not np.array_equal(plain[0], varied[0])
    np.testing.assert_array_equal(plain[1], varied[1])
