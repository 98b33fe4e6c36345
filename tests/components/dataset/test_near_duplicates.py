"""Copies of an image are found by their hashes in another split; other images of a recording are not."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from dataset_folder import encode, random_image
from PIL import Image

from components.dataset import near_duplicates as search
from components.dataset.near_duplicates import BITS, MAX_DISTANCE, HashedImage, bands, nearest, perceptual_hash


def flipped(perceptual: str, places: list[int]) -> str:
    """Returns a hash with the bits at some places inverted."""
    return format(int(perceptual, 16) ^ sum(1 << place for place in places), f"0{BITS // 4}x")


def distance(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def brighter(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(np.asarray(image) * 1.05), 0, 255).astype(np.uint8))


COPIES = {
    "jpeg90": lambda image: jpeg(image, 90),
    "jpeg50": lambda image: jpeg(image, 50),
    "half size": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC),
    "5 % brighter": brighter,
}


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
def test_copies_of_real_images_are_within_the_bound(real_camvid, copy):
    for path in sorted((real_camvid / "val").glob("*.png"))[::10]:
        image = Image.open(path).convert("RGB")

        assert distance(perceptual_hash(image), perceptual_hash(copy(image))) <= MAX_DISTANCE, path.name


def test_hardly_any_frame_of_a_recording_is_a_copy_of_the_one_a_second_before(real_camvid):
    frames = sorted((real_camvid / "train").glob("0006R0_*.png"))
    hashes = [perceptual_hash(Image.open(path)) for path in frames]
    near = [distance(one, other) <= MAX_DISTANCE for one, other in itertools.pairwise(hashes)]

    assert len(near) == 100
    assert not any(near)


def test_the_bits_say_which_neighbours_are_brighter():
    rising = Image.fromarray(np.tile(np.arange(0, 252, 7, dtype=np.uint8), (36, 1)))

    assert perceptual_hash(rising) == "f" * 16 + "0" * 16
    assert perceptual_hash(rising.transpose(Image.Transpose.ROTATE_270)) == "0" * 16 + "f" * 16
    assert perceptual_hash(rising.convert("RGB")) == perceptual_hash(rising)


def test_an_image_of_16_bits_has_the_hash_of_the_same_image_in_8():
    grey = random_image(3).convert("L").resize((90, 90))
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)

    assert deep.mode.startswith("I")
    assert distance(perceptual_hash(deep), perceptual_hash(grey)) <= 2
    assert perceptual_hash(Image.fromarray(np.asarray(grey).astype(np.uint16) + 60000)) != "0" * 32


def test_hashes_within_the_bound_have_a_band_in_common():
    random = np.random.default_rng(5)
    hashed = perceptual_hash(random_image(1))

    for _ in range(300):
        other = flipped(hashed, random.choice(BITS, MAX_DISTANCE, replace=False).tolist())
        assert set(bands(hashed)) & set(bands(other))
    assert "".join(band.partition(":")[2] for band in bands(hashed)) == f"{int(hashed, 16):0{BITS}b}"


def test_the_nearest_of_each_other_split_is_found_up_to_the_bound(monkeypatch):
    monkeypatch.setattr(search, "_ROWS", 2)
    base = perceptual_hash(random_image(1))
    far = perceptual_hash(random_image(2))
    images = [
        HashedImage("train", "a", "1", base),
        HashedImage("train", "b", "2", flipped(base, [0])),
        HashedImage("train", "z", "3", far),
        HashedImage("val", "near", "4", flipped(base, [0, 1])),
        HashedImage("val", "at the bound", "5", flipped(base, [0, *range(10, 10 + MAX_DISTANCE)])),
        HashedImage("val", "beyond", "6", flipped(base, list(range(20, 22 + MAX_DISTANCE)))),
        HashedImage("test", "same pixels", "3", far),
        HashedImage("test", "same hash", "7", base),
    ]

    found = {
        (pair.split, pair.name, pair.other_split): (pair.other_name, pair.distance)
        for pair in search.near_duplicates(images)
    }

    assert found == {
        ("val", "near", "train"): ("b", 1),
        ("val", "near", "test"): ("same hash", 2),
        ("val", "at the bound", "train"): ("b", MAX_DISTANCE),
        ("test", "same hash", "train"): ("a", 0),
        ("test", "same hash", "val"): ("near", 2),
        ("train", "a", "val"): ("near", 2),
        ("train", "a", "test"): ("same hash", 0),
        ("train", "b", "val"): ("near", 1),
        ("train", "b", "test"): ("same hash", 1),
    }
    assert found == {
        (pair.split, pair.name, pair.other_split): (pair.other_name, pair.distance) for pair in nearest(images)
    }


def test_images_of_one_split_are_not_compared():
    hashed = perceptual_hash(Image.open(io.BytesIO(encode(random_image(1)))))

    assert search.near_duplicates([HashedImage("train", name, name, hashed) for name in "ab"]) == []
