"""A SavedModel with the signatures that the client uses, written in seconds: dark pixels are road, light ones sky."""

import json

import tensorflow as tf
from toy_servicer import CLASS_MAP

from components.artifact_files import MODEL_METADATA

_ABOUT = {
    "model": "tiny",
    "class_map": CLASS_MAP.to_dict(),
    "input_size": [24, 32],
    "max_pixels": 100_000,
    "metrics": {"mean_iou": 0.5},
}


class _Tiny(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def serving_default(self, image):
        def segment(data):
            grey = tf.io.decode_image(data, channels=1, expand_animations=False)
            mask = tf.cast(grey < 128, tf.uint8)
            share = tf.reduce_mean(tf.one_hot(tf.cast(mask[..., 0], tf.int32), 3), axis=[0, 1])
            return tf.io.encode_png(mask), share

        masks, shares = tf.map_fn(segment, image, fn_output_signature=(tf.string, tf.TensorSpec([3], tf.float32)))
        return {"mask_png_bytes": masks, "class_share": shares, "confidence": tf.fill(tf.shape(image), 0.75)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="unused")])
    def describe(self, unused):
        return {"json": tf.fill(tf.shape(unused), json.dumps(_ABOUT))}


def export_tiny(directory):
    """Writes the model as version 7 below a folder and returns the folder."""
    module = _Tiny()
    version = directory / "7"
    tf.saved_model.save(module, str(version), {"serving_default": module.serving_default, "describe": module.describe})
    (version / MODEL_METADATA).parent.mkdir(exist_ok=True)
    (version / MODEL_METADATA).write_text(json.dumps(_ABOUT))
    return str(directory)
