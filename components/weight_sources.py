"""The sources of an encoder's weights, the setting `model.encoder_weights`."""

from __future__ import annotations

# Sources that are not paths.
NAMES = ("none", "edges", "imagenet")


def from_pytorch(source: str) -> bool:
    """Tells whether weights come from PyTorch: a safetensors file, or a folder of Hugging Face or keras-hub.

    keras-hub's presets were converted from timm. Only the name decides, because the file may be missing when a trained
    network is rebuilt.
    """
    return source not in NAMES and not source.endswith((".h5", ".keras"))
