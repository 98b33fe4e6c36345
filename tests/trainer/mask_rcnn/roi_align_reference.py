"""Writes the results of torchvision's `roi_align` to `roi_align_reference.npz`: `python roi_align_reference.py`.

Needs torch and torchvision; the committed file was made by torchvision 0.23.0.
"""

import pathlib

import numpy as np

FILE = pathlib.Path(__file__).with_suffix(".npz")
BINS, SCALE = 7, 0.25


def inputs() -> tuple[np.ndarray, np.ndarray]:
    """Returns features, float32 [2, H, W, 3], and boxes, float32 [2, 6, 4], (y_min, x_min, y_max, x_max) in pixels.

    Some boxes cross the border, one is outside, one is smaller than a bin, and one has no area.
    """
    rng = np.random.default_rng(4)
    features = rng.normal(size=(2, 12, 17, 3)).astype(np.float32)
    boxes = np.array([[3, 5, 30, 40], [-9, -6, 20, 66], [31, 50, 70, 90], [60, 80, 90, 95], [7, 8, 8, 9], [0, 0, 0, 0]])
    return features, np.stack([boxes, boxes[::-1] + 1.75]).astype(np.float32)


def torchvision_roi_align(features: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Returns torchvision's result as float32 [B, R, BINS, BINS, C]."""
    import torch
    import torchvision

    pooled = torchvision.ops.roi_align(
        torch.from_numpy(features.transpose(0, 3, 1, 2)),
        [torch.from_numpy(each[:, [1, 0, 3, 2]]) for each in boxes],
        output_size=BINS,
        spatial_scale=SCALE,
        sampling_ratio=2,
        aligned=True,
    )
    return pooled.numpy().transpose(0, 2, 3, 1).reshape(*boxes.shape[:2], BINS, BINS, -1)


if __name__ == "__main__":
    np.savez_compressed(FILE, expected=torchvision_roi_align(*inputs()))
