"""The five losses of Mask R-CNN, each over the global batch (see `trainer.losses`)."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from trainer import distribution
from trainer.models.mask_rcnn import anchors, boxes, heads, matching, roi_align
from trainer.models.mask_rcnn.truth import Truth

# Source: Ren et al. 2015, section 3.1.3, and Detectron (SmoothL1 with sigma 3 for proposals).
_ANCHORS_PER_IMAGE = 256
_ANCHOR_IOUS = 0.7, 0.3
_ANCHOR_BETA = 1 / 9

# Girshick 2015, arXiv 1504.08083, section 2.3: a quarter of the boxes overlaps by half with an instance.
_BOX_IOU = 0.5
_BOXES_PER_POSITIVE = 4


def proposal_losses(
    objectness: tf.Tensor, offsets: tf.Tensor, truth: Truth, size: tuple[int, int], seed: tf.Tensor
) -> tf.Tensor:
    """Returns the sum of the losses of objectness and of the anchors' offsets, float32 [].

    Args:
        objectness: logits [B, A].
        offsets: [B, A, 4].
        truth: the instances.
        size: height and width of the network's input in pixels.
        seed: integer [2], for the sample of anchors.
    """
    all_anchors = tf.constant(anchors.anchors(size))
    labels, instance = matching.match(all_anchors, truth.boxes, *_ANCHOR_IOUS, force_best=True)
    index, positive, drawn = matching.sample(labels, _ANCHORS_PER_IMAGE, _ANCHORS_PER_IMAGE // 2, seed)
    drawn &= truth.images[:, tf.newaxis] > 0
    target = boxes.encode(
        tf.gather(all_anchors, index), _of_instance(truth.boxes, instance, index), boxes.ANCHOR_VARIANCE
    )
    score_losses = tf.nn.sigmoid_cross_entropy_with_logits(
        tf.cast(positive, tf.float32), tf.gather(objectness, index, batch_dims=1)
    )
    box_losses = smooth_l1(target, tf.gather(offsets, index, batch_dims=1), _ANCHOR_BETA)
    return _mean(score_losses, drawn, drawn) + _mean(box_losses, drawn & positive, drawn)


def head_losses(
    model: keras.Model,
    levels: list[Any],
    proposals: tf.Tensor,
    truth: Truth,
    number: int,
    seed: tf.Tensor,
    training: bool,
) -> tf.Tensor:
    """Returns the sum of the losses of classes, boxes and masks, float32 [].

    The true boxes are added to the proposals, as in Detectron: early in training, no others would be positive.

    Args:
        model: the network of `model.build`.
        levels: the pyramid, P2 to P5.
        proposals: float32 [B, P, 4].
        truth: the instances.
        number: number of sampled proposals per image.
        seed: integer [2], for the sample of proposals.
        training: passed to the heads.
    """
    proposals = tf.concat([proposals, truth.boxes], axis=1)
    labels, instance = matching.match(proposals, truth.boxes, _BOX_IOU, _BOX_IOU)
    labels = tf.where(boxes.have_area(proposals), labels, matching.NEITHER)
    most_positive = number // _BOXES_PER_POSITIVE
    index, positive, drawn = matching.sample(labels, number, most_positive, seed)
    drawn &= truth.images[:, tf.newaxis] > 0
    positive &= drawn
    proposals = tf.gather(proposals, index, batch_dims=1)
    target = boxes.encode(proposals, _of_instance(truth.boxes, instance, index), boxes.BOX_VARIANCE)
    label = tf.where(positive, _of_instance(truth.labels, instance, index), 0)
    logits, offsets = model.get_layer("box_head")(model.get_layer("box_align")(proposals, levels), training=training)
    offsets = tf.reshape(offsets, [-1, index.shape[1], logits.shape[-1] - 1, 4])
    thing = tf.maximum(label - 1, 0)
    class_losses = tf.nn.sparse_softmax_cross_entropy_with_logits(label, logits)
    box_losses = smooth_l1(target, tf.gather(offsets, thing, batch_dims=2), 1.0)

    # `sample` returns positive boxes first.
    proposals, instance, thing, positive_masks = (
        each[:, :most_positive] for each in (proposals, tf.gather(instance, index, batch_dims=1), thing, positive)
    )
    features = model.get_layer("mask_align")(proposals, levels)
    masks = model.get_layer("mask_head")(tf.reshape(features, [-1, *features.shape[2:]]), training=training)
    masks = tf.gather(tf.transpose(masks, [0, 3, 1, 2]), tf.reshape(thing, [-1]), batch_dims=1)
    masks = tf.reshape(masks, [-1, proposals.shape[1], heads.MASK_SIZE, heads.MASK_SIZE])
    pixels = tf.nn.sigmoid_cross_entropy_with_logits(mask_targets(truth.masks, instance, proposals), masks)
    mask_loss = _mean(tf.reduce_mean(pixels, axis=[2, 3]), positive_masks, positive_masks)
    return _mean(class_losses, drawn, drawn) + _mean(box_losses, positive, drawn) + mask_loss


def mask_targets(masks: tf.Tensor, instance: tf.Tensor, proposals: tf.Tensor) -> tf.Tensor:
    """Returns the part of each box's mask inside the box, float32 [B, R, 28, 28], 0 or 1.

    Args:
        masks: of the instances, uint8 [B, M, H, W].
        instance: index of each box's instance, int32 [B, R].
        proposals: the boxes, float32 [B, R, 4].
    """
    height, width = masks.shape[2:]
    flat = tf.reshape(masks, [-1, masks.shape[1] * height * width, 1])
    maps = (instance * height * width, tf.fill(tf.shape(instance), height), tf.fill(tf.shape(instance), width))
    return tf.round(roi_align.align(flat, maps, proposals, heads.MASK_SIZE)[..., 0])


def smooth_l1(target: tf.Tensor, found: tf.Tensor, beta: float) -> tf.Tensor:
    """Returns the smooth L1 loss, [...], summed over the last axis: quadratic below `beta`, linear above."""
    # Keras' Huber loss is `beta` times the mean over the last axis.
    return found.shape[-1] / beta * keras.losses.huber(target, found, beta)


def _of_instance(values: tf.Tensor, instance: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """Gathers the values, [B, M, ...], of the instances that the boxes with some indices match."""
    return tf.gather(values, tf.gather(instance, index, batch_dims=1), batch_dims=1)


def _mean(values: tf.Tensor, counted: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    """Returns the sum of the counted values divided by the number, in the global batch; 0 if the number is 0."""
    total = distribution.total(tf.reduce_sum(tf.where(counted, values, 0.0)))
    return tf.math.divide_no_nan(total, distribution.total(tf.reduce_sum(tf.cast(number, tf.float32))))
