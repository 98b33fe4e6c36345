"""What the members of the FCN family share: the encoder with the pixels it expects, and its pools."""

from __future__ import annotations

from typing import Any

from trainer.config import ModelSettings
from trainer.models import encoders, preprocessing
from trainer.models.normalization import BatchNormalization

# pool5 is a 32nd of the image.
STRIDE = 32
ENCODER = "vgg16"


def build(settings: ModelSettings, input_size: tuple[int | None, int | None]) -> tuple[Any, list[Any]]:
    """Returns the image input, RGB, 0 to 255, [B, H, W, 3], and pool3, pool4 and pool5.

    Args:
        settings: `encoder` (VGG16 in the source; of another, the features of the same strides take the
            place of the pools); a pretrained one gets the pixels it was trained on, a new one -1 to 1;
            `normalization` puts batch normalisation on the pools.
        input_size: height and width in pixels; None where any that `STRIDE` divides may come.
    """
    image = preprocessing.image_input(input_size)
    encoder = encoders.chosen(settings, ENCODER)
    pools = encoders.extract(encoder, encoders.pixels(settings, encoder)(image), encoder.features[2:])
    if settings.normalization:
        pools = [
            BatchNormalization(momentum=0.9, name=f"normalize_pool{index}")(pool) for index, pool in enumerate(pools, 3)
        ]
    return image, pools


def deep_layers(settings: ModelSettings) -> tuple[str, ...]:
    """Returns the layer that auxiliary scores can be taken from: pool4."""
    return (encoders.chosen(settings, ENCODER).features[3],)
