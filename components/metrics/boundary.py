"""Compute boundary IoU: the IoU of the pixels near the edges of a class, which does not depend on large areas.

Source: Cheng et al., Boundary IoU: Improving Object-Centric Image Segmentation Evaluation, CVPR 2021 (arXiv
2103.16562), section 4. The authors' code is `mask_to_boundary` in boundary_iou/utils/boundary_utils.py of
github.com/bowenc0221/boundary-iou-api. It erodes each mask d times by 3x3 pixels, so a pixel is near an edge if another
class, or the image's edge, lies within a Chebyshev distance of d pixels. For all classes at once: the largest and the
smallest class index differ in the window of 2d + 1 pixels around the pixel.

The paper has no ignored pixels. Here the prediction copies those of the truth, so both masks end at an ignored area, as
they do at the image's edge. The prediction inside such an area has no effect.
"""

from __future__ import annotations

import numpy as np

from components.class_map import ClassMap

# The paper's width of the band, as a fraction of the image's diagonal.
BAND = 0.02


def band_width(height: int, width: int) -> int:
    """Returns the width of the band in pixels, at least 1."""
    return max(round(BAND * float(np.hypot(height, width))), 1)


def near_edges(mask: np.ndarray, distance: int) -> np.ndarray:
    """Returns which pixels lie within a distance of another class or of the image's edge.

    Args:
        mask: class indices, uint8 [H, W].
        distance: Chebyshev distance, in pixels.

    Returns:
        bool [H, W].
    """
    from scipy import ndimage

    window = 2 * distance + 1
    # Pad with the highest and the lowest index, which differ whatever the mask holds.
    highest = ndimage.maximum_filter(mask, window, mode="constant", cval=255)
    return highest != ndimage.minimum_filter(mask, window, mode="constant", cval=0)


def boundary_counts(truth: np.ndarray, prediction: np.ndarray, class_map: ClassMap) -> np.ndarray:
    """Counts the pixels near the edges of each scored class.

    Args:
        truth: class indices, uint8 [H, W].
        prediction: class indices, uint8 [H, W].
        class_map: the classes.

    Returns:
        Pixels hit, true and predicted of each scored class, int64 [3, scored classes], the input of `scores.iou`.
    """
    if class_map.ignore_index is not None:
        prediction = np.where(truth == class_map.ignore_index, truth, prediction)
    distance = band_width(*truth.shape)
    in_truth, in_prediction = near_edges(truth, distance), near_edges(prediction, distance)
    hit = (truth == prediction) & in_truth & in_prediction
    counted = truth[hit], truth[in_truth], prediction[in_prediction]
    counts = np.stack([np.bincount(classes, minlength=class_map.num_classes) for classes in counted])
    return counts[:, list(class_map.scored_indices)].astype(np.int64)
