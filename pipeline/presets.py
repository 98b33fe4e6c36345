"""Presets: settings that go together, by what the run is for and which model it trains.

A preset is plain settings over the defaults; whatever it names can be set otherwise by
`--config` or `--set`. How the numbers were found is told in docs/recipe.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.errors import UsageError

DEFAULT_MODEL = "fcn8"

# Well above the published table of a VGG16-FCN8 on these frames (mean IoU 0.397, pedestrian 0.000,
# bicyclist 0.024), and below what `cpu` and `cpu-long` reached, so that a broken training does not pass.
_CAMVID_GATE: dict[str, Any] = {
    "min_mean_iou": 0.50,
    "min_class_iou": {"pedestrian": 0.20, "bicyclist": 0.20},
}

# The smallest that learns, for the synthetic set: minutes on two cores.
_SMOKE: dict[str, dict[str, Any]] = {
    "unet": {
        "size": (96, 128),
        "model": {"name": "unet", "base_filters": 16, "normalization": True, "dropout": 0.1},
        "training": {"epochs": 10, "batch_size": 4, "learning_rate": 5e-3, "augment": False},
        "gate": {"min_mean_iou": 0.30, "min_class_iou": {"pedestrian": 0.03, "bicyclist": 0.03}},
    },
    "fcn8": {
        "size": (96, 128),
        "model": {"name": "fcn8", "normalization": True, "head_filters": 64},
        "training": {"epochs": 4, "batch_size": 8, "learning_rate": 4e-4},
        "gate": {"min_mean_iou": 0.05},
    },
}

# Steps on windows of frames of full size: a window costs what its pixels cost, and poles keep their width.
_WINDOWS: dict[str, Any] = {
    "batch_size": 4,
    "crop_size": (192, 256),
    "min_scale": 0.6,
    "max_scale": 1.3,
    "frozen_blocks": 2,
}

# Predicting a frame takes half a second, and the gate's scores are those of all frames anyway.
_REPORT: dict[str, Any] = {"max_frames": 48}

# Real data on two processor cores: half an hour for these two.
_CPU: dict[str, dict[str, Any]] = {
    "fcn8": {
        "size": (352, 480),
        "auto_exposure": True,
        "model": {
            "name": "fcn8",
            "encoder_weights": "edges",
            "normalization": True,
            "head_filters": 256,
            "upsampling": "bilinear",
            "test_time_flip": True,
        },
        "training": {
            **_WINDOWS,
            "epochs": 21,
            "learning_rate": 1e-3,
            "encoder_rate": 0.4,
            "class_balance": 0.4,
            "lovasz": 1.0,
            # A validation costs half a minute.
            "validate_every": 21,
        },
        "report": _REPORT,
        "gate": _CAMVID_GATE,
    },
    "unet": {
        "size": (352, 480),
        "auto_exposure": True,
        "model": {
            "name": "unet",
            "encoder": "vgg16",
            "encoder_weights": "edges",
            "base_filters": 16,
            "normalization": True,
            "dropout": 0.0,
            "test_time_flip": True,
        },
        "training": {
            **_WINDOWS,
            "epochs": 14,
            "learning_rate": 3e-3,
            "encoder_rate": 0.15,
            "deep_supervision": 1.0,
            "lovasz": 0.5,
            "validate_every": 7,
        },
        "report": _REPORT,
        "gate": {**_CAMVID_GATE, "min_mean_iou": 0.45},
    },
}


def _longer(settings: dict[str, Any], **training: Any) -> dict[str, Any]:
    """Returns a preset with some settings of its training changed, and predictions that take their time too."""
    return {
        **settings,
        "model": {**settings["model"], "test_time_scales": (0.5, 1.0, 1.5)},
        "training": {**settings["training"], "validate_every": 8, **training},
    }


# The same for over two hours, with predictions that cost three and a half times as much; only `unet` has been run.
_CPU_LONG: dict[str, dict[str, Any]] = {
    "fcn8": _longer(_CPU["fcn8"], epochs=120),
    "unet": _longer(_CPU["unet"], epochs=60, learning_rate=2e-3, class_balance=0.4, lovasz=1.0),
}

# Full resolution and the architectures' own widths, for one or more GPUs; not run to the end yet.
_GPU: dict[str, dict[str, Any]] = {
    "fcn8": {
        "size": (352, 480),
        "auto_exposure": True,
        "model": {"name": "fcn8", "encoder_weights": "imagenet", "normalization": True, "head_filters": 512},
        "training": {"epochs": 80, "batch_size": 16, "learning_rate": 4e-4},
        "gate": {**_CAMVID_GATE, "min_mean_iou": 0.60},
    },
    "unet": {
        "size": (352, 480),
        "auto_exposure": True,
        "model": {"name": "unet", "normalization": True},
        "training": {"epochs": 120, "batch_size": 16, "learning_rate": 1e-3},
        "gate": {**_CAMVID_GATE, "min_mean_iou": 0.50},
    },
}

# What the other architectures are given in place of `fcn8`'s model settings.
_OTHERS: dict[str, dict[str, Any]] = {
    "fcn16": {"head_filters": 0},
    "fcn32": {"head_filters": 0},
    "fcn8_conv7": {"head_filters": 0},
    # It unpools with the encoder's indices.
    "segnet": {"head_filters": 0, "normalization": False, "upsampling": "default"},
    "pspnet": {"head_filters": 0, "normalization": False},
}


def _with_others(presets: dict[str, dict[str, Any]], pspnet_encoder: str) -> dict[str, dict[str, Any]]:
    """Returns presets in which the other architectures are trained as `fcn8` is, under a lower bound."""
    fcn8 = presets["fcn8"]
    others = {
        name: {
            **fcn8,
            "model": {**fcn8["model"], **changes, "name": name},
            "gate": {"min_mean_iou": min(fcn8["gate"]["min_mean_iou"], 0.30)},
        }
        for name, changes in _OTHERS.items()
    }
    others["pspnet"]["model"]["encoder"] = pspnet_encoder
    return {**presets, **others}


PRESETS: Mapping[str, Mapping[str, dict[str, Any]]] = {
    # PSPNet's own ResNet50 has no weights in any package, and from random ones a few epochs do not suffice.
    "smoke": _with_others(_SMOKE, "vgg16"),
    "cpu": _with_others(_CPU, "vgg16"),
    "cpu-long": _with_others(_CPU_LONG, "vgg16"),
    "gpu": _with_others(_GPU, "resnet50"),
}


def preset(name: str, model: str) -> dict[str, Any]:
    """Returns the settings of a preset for a model. Raises UsageError where there is none."""
    if name not in PRESETS:
        raise UsageError(f"--preset {name}: expected one of {', '.join(PRESETS)}")
    if model not in PRESETS[name]:
        raise UsageError(f"--model {model}: expected one of {', '.join(PRESETS[name])}")
    return PRESETS[name][model]


def for_classes(settings: Mapping[str, Any], class_names: Sequence[str]) -> dict[str, Any]:
    """Returns a preset's settings without the bounds on classes that a data set does not have.

    The bounds name CamVid's rarest classes; a bound that the user sets is never dropped.
    """
    gate = settings.get("gate", {})
    bounds = {name: bound for name, bound in gate.get("min_class_iou", {}).items() if name in class_names}
    return {**settings, "gate": {**gate, "min_class_iou": bounds}}
