"""What a check lets through, TensorFlow decodes, and to the pixels PIL sees."""

from __future__ import annotations

import io

import numpy as np
import pytest
from dataset_folder import encode, random_image, random_mask
from PIL import Image

from components.dataset.checks import Sample, read_pair
from components.dataset.pairs import Pair


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1", "I;16"])
def test_tensorflow_sees_the_pixels_pil_sees(folder, tiny, mode):
    tf = pytest.importorskip("tensorflow")
    levels = np.random.default_rng(0).integers(0, 65536, (16, 24), dtype=np.uint16)
    folder.save("a.png", Image.fromarray(levels) if mode == "I;16" else random_image().convert(mode))
    folder.save("a_mask.png", Image.fromarray(random_mask()))

    sample = read_pair(str(folder.root), Pair("a", "train", "a", "a.png", "a_mask.png"), tiny)

    assert isinstance(sample, Sample)
    decoded = tf.io.decode_image(sample.image, channels=3, expand_animations=False).numpy()
    np.testing.assert_array_equal(decoded, np.asarray(Image.open(io.BytesIO(sample.image)).convert("RGB")))
    mask = tf.io.decode_png(sample.mask, channels=1).numpy()[..., 0]
    np.testing.assert_array_equal(mask, random_mask())


@pytest.mark.slow
@pytest.mark.parametrize(
    "image",
    [encode(random_image(), "JPEG"), encode(random_image()) + b"trailing bytes"],
    ids=["jpeg", "png with trailing bytes"],
)
def test_tensorflow_decodes_what_passes(folder, tiny, image):
    tf = pytest.importorskip("tensorflow")
    folder.write("a.png", image)
    folder.save("a_mask.png", Image.fromarray(random_mask()))

    sample = read_pair(str(folder.root), Pair("a", "train", "a", "a.png", "a_mask.png"), tiny)

    assert isinstance(sample, Sample)
    assert tf.io.decode_image(sample.image, channels=3, expand_animations=False).shape == (16, 24, 3)
