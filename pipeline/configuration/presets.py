"""Presets: settings for a purpose and a model.

A preset overrides the defaults; `--config` and `--set` override the preset. docs/recipe.md describes how the values
were found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.errors import UsageError

DEFAULT_MODEL = "fcn8"

# Above the published scores of a VGG16-FCN8 on these frames (mean IoU 0.397, pedestrian 0.000, bicyclist 0.024), and
# below the scores of `cpu` and `cpu-long`, so that a broken training does not pass.
_CAMVID_GATE: dict[str, Any] = {
    "min_mean_iou": 0.50,
    "min_class_iou": {"pedestrian": 0.20, "bicyclist": 0.20},
}

# The smallest networks that learn the synthetic data set, in minutes on two cores.
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
    "mask_rcnn": {
        "task": "instance",
        # Larger than the images, because half of the instances are smaller than 7x7 pixels.
        "size": (192, 256),
        "model": {
            "name": "mask_rcnn",
            "encoder": "efficientnet_lite0",
            "encoder_weights": "imagenet",
            "pyramid_filters": 64,
            "proposals": 200,
        },
        "training": {"epochs": 8, "batch_size": 4, "learning_rate": 1e-3, "proposals": 64, "validate_every": 4},
        # It reaches 0.132; after two epochs, the AP50 is a third of the final one.
        "gate": {"min_mask_ap": 0.06},
    },
}

# Trains on windows of full-size frames: a step costs less, and poles keep their width.
_WINDOWS: dict[str, Any] = {
    "batch_size": 4,
    "crop_size": (192, 256),
    "min_scale": 0.6,
    "max_scale": 1.3,
    "frozen_blocks": 2,
}

# Predicting a frame takes half a second. The gate scores all frames anyway.
_REPORT: dict[str, Any] = {"max_frames": 48}

# Real data on two CPU cores: half an hour for each, an hour for `mask_rcnn`.
_CPU: dict[str, dict[str, Any]] = {
    "fcn8": {
        "size": (352, 480),
        "normalize_exposure": True,
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
            "encoder_lr_multiplier": 0.4,
            "class_balance": 0.4,
            "lovasz_weight": 1.0,
            # A validation takes half a minute.
            "validate_every": 21,
        },
        "report": _REPORT,
        "gate": _CAMVID_GATE,
    },
    "unet": {
        "size": (352, 480),
        "normalize_exposure": True,
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
            "encoder_lr_multiplier": 0.15,
            "deep_supervision": 1.0,
            "lovasz_weight": 0.5,
            "validate_every": 7,
        },
        "report": _REPORT,
        "gate": {**_CAMVID_GATE, "min_mean_iou": 0.45},
    },
    "mask_rcnn": {
        **_SMOKE["mask_rcnn"],
        "size": (352, 480),
        "training": {**_SMOKE["mask_rcnn"]["training"], "epochs": 12, "validate_every": 3},
        "report": _REPORT,
        # It reaches 0.313 on CamVid.
        "gate": {"min_mask_ap": 0.15},
    },
}


def _longer(settings: dict[str, Any], **training: Any) -> dict[str, Any]:
    """Returns a preset with other training settings and test-time augmentation at three scales."""
    return {
        **settings,
        "model": {**settings["model"], "test_time_scales": (0.5, 1.0, 1.5)},
        "training": {**settings["training"], "validate_every": 8, **training},
    }


# The same for over two hours; predictions take 3.5 times as long. Only `unet` was run.
_CPU_LONG: dict[str, dict[str, Any]] = {
    "fcn8": _longer(_CPU["fcn8"], epochs=120),
    "unet": _longer(_CPU["unet"], epochs=60, learning_rate=2e-3, class_balance=0.4, lovasz_weight=1.0),
}

# On a GPU: larger windows, no frozen blocks. An earlier version reached a mean IoU of 0.708 (fcn8, in 67 s) and 0.756
# (unet) on the validation split on an H200, without horizontal flips; docs/gpu.md.
_GPU_TRAINING: dict[str, Any] = {
    "batch_size": 8,
    "crop_size": (256, 352),
    "epochs": 40,
    "class_balance": 0.4,
    "lovasz_weight": 1.0,
    "frozen_blocks": 0,
    "validate_every": 10,
    "require_gpu": True,
}
_GPU: dict[str, dict[str, Any]] = {
    "fcn8": {
        **_CPU["fcn8"],
        "training": {**_CPU["fcn8"]["training"], **_GPU_TRAINING},
        "gate": {**_CAMVID_GATE, "min_mean_iou": 0.60},
    },
    "unet": {
        **_CPU["unet"],
        "model": {**_CPU["unet"]["model"], "base_filters": 32},
        "training": {**_CPU["unet"]["training"], **_GPU_TRAINING, "learning_rate": 2e-3},
        "gate": {**_CAMVID_GATE, "min_mean_iou": 0.60},
    },
    # Not run.
    "mask_rcnn": {
        **_CPU["mask_rcnn"],
        "training": {
            **_CPU["mask_rcnn"]["training"],
            "batch_size": 8,
            "epochs": 40,
            "validate_every": 10,
            "require_gpu": True,
        },
    },
}


def _source(size: tuple[int, int], epochs: int, batch_size: int, **model: Any) -> dict[str, Any]:
    """Returns the network and recipe of its source: cross-entropy on whole images, without augmentation.

    Deviations that no setting removes:
    - The sources use SGD with momentum. Here it is AdamW without weight decay, which is Adam. Its learning rate, 1e-4,
      is a tenth of Keras' default, because the encoders are pretrained. The rate follows a cosine.
    - Void pixels are ignored. The sources learn void as a class.
    - Pretrained encoders get the pixel range that they were trained with. The source of `fcn8_conv7` uses -1 to 1.
    - Transposed convolutions of class scores start as interpolation (Long et al. 2015), not from random weights.
    """
    return {
        "size": size,
        "model": model,
        "training": {
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": 1e-4,
            "warmup_epochs": 0.0,
            "weight_decay": 0.0,
            "class_balance": 0.0,
            "augment": False,
            "keep": "last",
        },
        # The source of `fcn8_conv7` reports 0.033 for CamVid.
        "gate": {"min_mean_iou": 0.03},
    }


# The unmodified networks and recipes of the architectures' sources, which docs/recipe.md names.
_SOURCE: dict[str, dict[str, Any]] = {
    # The published scores are of 170 epochs. The slides give no batch size; 32 is that of `fcn8_conv7`.
    "fcn8": _source((224, 224), 170, 32, name="fcn8", encoder_weights="imagenet"),
    # The source trains on 311 of CamVid's 367 training pairs and validates on the others.
    "fcn8_conv7": _source((224, 224), 10, 32, name="fcn8_conv7", encoder_weights="imagenet"),
    # The slides give the network for 128x128 pixels, but no recipe: epochs and batch size are those of `fcn8`.
    "unet": _source((128, 128), 170, 32, name="unet"),
    # The paper uses other data sets: epochs, batch size and input size are those of `fcn8`.
    "fcn16": _source((224, 224), 170, 32, name="fcn16", encoder_weights="imagenet"),
    "fcn32": _source((224, 224), 170, 32, name="fcn32", encoder_weights="imagenet"),
    # CamVid at 360x480, batches of 12; the stride requires 352. The paper also weights classes by median frequency.
    "segnet": _source((352, 480), 170, 12, name="segnet", encoder_weights="imagenet"),
    # Batches of 16. The paper adds an auxiliary loss, random scaling and flips, and does not use CamVid.
    "pspnet": _source((352, 480), 170, 16, name="pspnet", encoder_weights="imagenet"),
    # Batches of 16. The paper adds an auxiliary data set, random scaling and flips, and does not use CamVid.
    "deeplabv3plus": _source((352, 480), 170, 16, name="deeplabv3plus", encoder_weights="imagenet"),
}

# The UNet of the slides with the recipe of their notebook: 10 epochs of Adam at 1e-3, batches of 64, flips.
# docs/recipe.md lists the differences. Predicting one class everywhere has a mean IoU of at most a third.
_PETS: dict[str, Any] = _source((128, 128), 10, 64, name="unet")
_PETS |= {
    "data": {"description": "oxford_pets_outline"},
    "training": {**_PETS["training"], "learning_rate": 1e-3, "augment": True, "min_scale": 1.0, "max_scale": 1.0},
    "gate": {"min_mean_iou": 0.50, "min_class_iou": {"pet": 0.50, "outline": 0.20}},
}

# Changes to the model settings of `fcn8` for the other architectures.
_OTHERS: dict[str, dict[str, Any]] = {
    "fcn16": {"head_filters": 0},
    "fcn32": {"head_filters": 0},
    "fcn8_conv7": {"head_filters": 0},
    # It unpools with the pooling indices of the encoder.
    "segnet": {"head_filters": 0, "normalization": False, "upsampling": "default"},
    # No package has weights for their ResNet50, and a few epochs are too short to train it from random weights.
    "pspnet": {"head_filters": 0, "normalization": False, "encoder": "vgg16"},
    "deeplabv3plus": {"head_filters": 0, "normalization": False, "encoder": "vgg16"},
    # No package has weights for its encoder.
    "segformer": {"head_filters": 0, "normalization": False, "encoder_weights": "none"},
}
# A randomly initialised encoder must train all blocks, at the full learning rate.
RANDOM_ENCODER = {"frozen_blocks": 0, "encoder_lr_multiplier": 1.0}


def _with_others(presets: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Adds the other architectures, with the training of `fcn8` and a lower bound of the gate."""
    fcn8 = presets["fcn8"]
    others = {
        name: {
            **fcn8,
            "model": {**fcn8["model"], **changes, "name": name},
            "training": fcn8["training"] | (RANDOM_ENCODER if changes.get("encoder_weights") == "none" else {}),
            "gate": {"min_mean_iou": min(fcn8["gate"]["min_mean_iou"], 0.30)},
        }
        for name, changes in _OTHERS.items()
    }
    return {**presets, **others}


PRESETS: Mapping[str, Mapping[str, dict[str, Any]]] = {
    "smoke": _with_others(_SMOKE),
    "cpu": _with_others(_CPU),
    "cpu-long": _with_others(_CPU_LONG),
    "gpu": _with_others(_GPU),
    "source": _SOURCE,
    "pets": {"unet": _PETS},
}

MODELS = tuple(PRESETS["smoke"])


def preset(name: str, model: str) -> dict[str, Any]:
    """Returns the settings of a preset for a model. Raises UsageError if the name or the model is unknown."""
    if name not in PRESETS:
        raise UsageError(f"--preset {name}: expected one of {', '.join(PRESETS)}; `segpipe run` also takes auto")
    if model not in MODELS:
        raise UsageError(f"--model {model}: expected one of {', '.join(MODELS)}")
    if model not in PRESETS[name]:
        known = list(PRESETS[name])
        others = [other for other, models in PRESETS.items() if model in models]
        raise UsageError(
            f"--model {model}: expected one of {', '.join(known)} with --preset {name}. "
            f"Add --model {known[0]}, or choose a preset with {model}: {', '.join(others)}"
        )
    return PRESETS[name][model]


def for_classes(settings: Mapping[str, Any], class_names: Sequence[str]) -> dict[str, Any]:
    """Returns a preset's settings without the bounds for classes that the data set lacks.

    The bounds of presets name CamVid's rarest classes. Bounds that the user sets are never dropped.
    """
    gate = settings.get("gate", {})
    bounds = {name: bound for name, bound in gate.get("min_class_iou", {}).items() if name in class_names}
    return {**settings, "gate": {**gate, "min_class_iou": bounds}}
