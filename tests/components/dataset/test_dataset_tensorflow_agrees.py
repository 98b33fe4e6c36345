"""TensorFlow decodes all files that pass the checks; `tests/serving/test_same_pixels.py` compares the pixels."""

from __future__ import annotations

import numpy as np
import pytest
from dataset_folder import encode, random_image, random_mask
from PIL import Image

from components.dataset.checks import Sample, read_pair
from components.dataset.pairs import Pair


@pytest.mark.slow
@pytest.mark.parametrize(
    "image",
    [encode(random_image(), "JPEG"), encode(random_image()) + b"trailing bytes"],
    ids=["jpeg", "png with trailing bytes"],
)
def test_tensorflow_decodes_files_that_pass(folder, tiny, image):
    tf = pytest.importorskip("tensorflow")
    folder.write("a.png", image)
    folder.save("a_mask.png", Image.fromarray(random_mask()))

    sample = read_pair(str(folder.root), Pair("a", "train", "a", "a.png", "a_mask.png"), tiny)

    assert isinstance(sample, Sample)
    assert tf.io.decode_image(sample.image, channels=3, expand_animations=False).shape == (16, 24, 3)
    np.testing.assert_array_equal(tf.io.decode_png(sample.mask, channels=1).numpy()[..., 0], random_mask())
