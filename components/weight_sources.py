"""What the name of an encoder's weights, `model.encoder_weights`, tells of them."""

from __future__ import annotations

# Sources that are no paths.
NAMES = ("none", "edges", "imagenet")


def from_pytorch(source: str) -> bool:
    """Tells whether weights come from PyTorch's libraries.

    They do in a file of safetensors, and in a folder of Hugging Face or keras-hub, whose presets were converted from
    timm. The name alone decides, because the file may be missing when a trained network is built again.
    """
    return source not in NAMES and not source.endswith((".h5", ".keras"))
