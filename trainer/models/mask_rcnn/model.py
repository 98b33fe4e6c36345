"""Mask R-CNN, from pixels to instances."""

from __future__ import annotations

import keras
from keras import layers, ops

from components.errors import UsageError
from trainer.config import ModelSettings
from trainer.models import encoders, preprocessing
from trainer.models.mask_rcnn import feature_pyramid, heads
from trainer.models.mask_rcnn.detection import Detections
from trainer.models.mask_rcnn.proposals import Proposals, head
from trainer.models.mask_rcnn.roi_align import RoiAlign

STRIDE = 32


def build(settings: ModelSettings, input_size: tuple[int | None, int | None], things: int) -> keras.Model:
    """Builds the network with random weights.

    Args:
        settings: `encoder` by name, `pyramid_filters`, `proposals`, `max_instances` and `min_score`.
        input_size: height and width of the input in pixels, which determine the anchors.
        things: number of classes with instances.

    Returns:
        A model from RGB, 0 to 255, float32 [B, H, W, 3], to a dictionary, with M = `max_instances`:
        boxes: float32 [B, M, 4], in pixels of the input, by descending score.
        classes: int32 [B, M], indices in things; -1 for no instance.
        scores: float32 [B, M]; 0 for no instance.
        masks: float32 [B, M, 28, 28], the probability that each part of a box belongs to the instance.

        Training uses the layers `p2` to `p5`, `objectness`, `offsets`, `proposals`, `box_align`, `box_head`,
        `mask_align` and `mask_head`.

    Raises:
        UsageError: if height or width is None.
    """
    height, width = input_size
    if height is None or width is None:
        raise UsageError("size: found none, but mask_rcnn needs a fixed image size; set height and width")
    size = (height, width)
    filters, encoder = settings.pyramid_filters, encoders.chosen(settings)
    image = preprocessing.image_input(size)
    features = encoders.extract(encoder, encoders.pixels(settings)(image), encoder.features[1:])
    *levels, p6 = feature_pyramid.build(features, filters)
    objectness, offsets = head([*levels, p6], filters)
    proposals = Proposals(settings.proposals, size, name="proposals")(objectness, offsets)
    box_features = RoiAlign(heads.BOX_BINS, size, name="box_align")(proposals, levels)
    logits, box_offsets = heads.box_head(filters, things)(box_features)
    detections = Detections(settings.max_instances, settings.min_score, size, name="detections")
    boxes, classes, scores = detections(proposals, logits, box_offsets)
    mask_features = RoiAlign(heads.MASK_BINS, size, name="mask_align")(boxes, levels)
    masks = heads.mask_head(filters, things)(ops.reshape(mask_features, (-1, *mask_features.shape[2:])))
    masks = ops.reshape(masks, (-1, settings.max_instances, *masks.shape[1:]))
    chosen = ops.one_hot(classes, things, dtype="float32")[:, :, None, None]
    masks = layers.Activation("sigmoid", dtype="float32", name="masks")(ops.sum(masks * chosen, axis=-1))
    return keras.Model(image, {"boxes": boxes, "classes": classes, "scores": scores, "masks": masks}, name="mask_rcnn")
