"""Signatures of an exported semantic segmentation model: encoded images in, class maps and maybe depth maps out."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from components import features
from serving.decoding import encode_each, image_size
from serving.image_module import BATCH_OF_STRINGS, ImageModule
from serving.masks import class_mask
from serving.test_time import TestTimeAugmentation
from serving.tiling import Tiling

_BATCH_OF_PIXELS = [tf.TensorSpec([None, None, None, 3], tf.uint8, name=features.IMAGE)]
_PNG = tf.TensorSpec([], tf.string)


class ServingModule(ImageModule):
    """A network between Transform's graph and class maps at the images' own sizes."""

    def __init__(self, network: Any, transform_dir: str, metadata_file: str, metadata: Mapping[str, Any]) -> None:
        """Takes the arguments of `ImageModule`.

        The metadata also contains the test-time augmentation, the sliding windows and the scale of depth. The network
        returns logits [B, H, W, N], for images of any size if `test_time_scales` has several entries. With
        `depth_scale`, the value of a depth map at 1 metre, it returns a list of the logits and the logarithm of depth
        in metres, [B, H, W, 1]. With `tiling`, which excludes depth, sliding windows cover an image at its own size.
        """
        super().__init__(network, transform_dir, metadata_file, metadata)
        self._num_classes = self._classes()
        self._test_time = TestTimeAugmentation.of(metadata)
        self._tiling = Tiling.of(metadata)
        self._depth_scale = metadata.get("depth_scale")

    def signatures(self) -> dict[str, Any]:
        """Returns the signatures by name, as `tf.saved_model.save` takes them.

        With sliding windows there are no `probabilities`, because they would belong to another prediction.
        """
        return {
            "serving_default": self.serving_default,
            "raw": self.raw,
            **({} if self._tiling else {"probabilities": self.probabilities}),
            "describe": self._describe(),
            "evaluation": self.evaluation,
            "preprocess": self.preprocess,
        }

    @tf.function(input_signature=BATCH_OF_STRINGS)
    def serving_default(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Segments encoded images of any sizes.

        Args:
            image: string [B], PNG or JPEG.

        Returns:
            class_map: uint8 [B, H, W] at the network's input size.
            mask_png_bytes: string [B], the class map as a grey PNG at each image's own size.
            class_share: float32 [B, num_classes], each class's fraction of the pixels.
            confidence: float32 [B], mean over pixels of the winning class's probability.
            depth_png_bytes: string [B], only with depth: a 16-bit grey PNG at each image's own size, whose values are
                the distance in metres times the metadata's `depth_scale`.
        """
        return self._segment(image)

    @tf.function(input_signature=_BATCH_OF_PIXELS)
    def raw(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Segments RGB images of one size, uint8 [B, H, W, 3]; returns the outputs of `serving_default`.

        Encodes them as PNG, which keeps every pixel, for Transform's graph.
        """
        return self._segment(encode_each(image, self._max_pixels))

    @tf.function(input_signature=BATCH_OF_STRINGS)
    def probabilities(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns `probabilities`, float32 [B, H, W, N] at the network's input size, for encoded images."""
        return {"probabilities": self._seen(image)[..., : self._num_classes]}

    @tf.function(input_signature=BATCH_OF_STRINGS)
    def evaluation(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the outputs that the metrics compare with the truth, for batches of any size.

        Args:
            image: string [B], PNG or JPEG.

        Returns:
            mask_png_bytes: as in `serving_default`.
            confidence_png_bytes: string [B], the probability of each pixel's class as a grey PNG of the same size, 0 to
                255 for 0 to 1.
            depth_png_bytes: as in `serving_default`.
        """
        names = [features.MASK_PNG, features.CONFIDENCE_PNG, *([features.DEPTH_PNG] if self._depth_scale else [])]
        segment = functools.partial(self._segment, with_confidence=True)
        return self._in_chunks(image, segment, dict.fromkeys(names, _PNG))

    def _segment(
        self,
        image: tf.Tensor,
        start: tf.Tensor | int = 0,
        total: tf.Tensor | None = None,
        with_confidence: bool = False,
    ) -> dict[str, tf.Tensor]:
        """Returns the outputs of `serving_default`, and `confidence_png_bytes` if asked; see `_pixels`."""
        if self._tiling is not None:
            return self._segment_tiled(image, self._tiling, start, total, with_confidence)
        seen = self._seen(image, start, total)
        probabilities = seen[..., : self._num_classes]
        class_map = tf.cast(tf.argmax(probabilities, axis=-1), tf.uint8)
        one_hot = tf.one_hot(tf.cast(class_map, tf.int32), probabilities.shape[-1])
        return {
            "class_map": class_map,
            **self._pngs_at_own_size(image, probabilities, with_confidence),
            "class_share": tf.reduce_mean(one_hot, axis=[1, 2]),
            "confidence": tf.reduce_mean(tf.reduce_max(probabilities, axis=-1), axis=[1, 2]),
            **(self._depth_pngs(image, seen[..., self._num_classes :]) if self._depth_scale else {}),
        }

    def _segment_tiled(
        self,
        image: tf.Tensor,
        tiling: Tiling,
        start: tf.Tensor | int,
        total: tf.Tensor | None,
        with_confidence: bool,
    ) -> dict[str, tf.Tensor]:
        # Decodes each image twice, so that the error names the first one that cannot be decoded.
        checked = self._pixels(image, start, total)

        def segment(data: tf.Tensor) -> dict[str, tf.Tensor]:
            segments = tiling.segment(self._transform.own_pixels(data), self._window, self._num_classes)
            mask = segments.mask[..., tf.newaxis]
            return {
                "class_map": tf.image.resize(mask, self._input_size, method="nearest")[..., 0],
                **_pngs(segments.mask, *([segments.levels] if with_confidence else [])),
                "class_share": segments.class_share,
                "confidence": segments.confidence,
            }

        outputs = {
            "class_map": tf.TensorSpec(self._input_size, tf.uint8),
            **_png_specs(with_confidence),
            "class_share": tf.TensorSpec([self._num_classes], tf.float32),
            "confidence": tf.TensorSpec([], tf.float32),
        }
        with tf.control_dependencies([checked]):
            return tf.map_fn(segment, image, parallel_iterations=1, fn_output_signature=outputs)

    def _window(self, pixels: tf.Tensor) -> tf.Tensor:
        """Returns a window's probabilities, float32 [1, h, w, N], computed at the network's input size."""
        assert self._tiling is not None
        whole = tuple(self._input_size) == self._tiling.window
        resized = pixels if whole else tf.round(tf.image.resize(pixels, self._input_size, antialias=True))
        seen = self._test_time.average(self._softmax, tf.ensure_shape(resized, [1, *self._input_size, 3]))
        return seen if whole else tf.image.resize(seen, self._tiling.window)

    def _seen(self, image: tf.Tensor, start: tf.Tensor | int = 0, total: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the probabilities, float32 [B, H, W, N], followed by the logarithm of the depth, if any."""
        pixels = tf.cast(self._pixels(image, start, total), tf.float32)
        return self._test_time.average(self._softmax, pixels)

    def _classes(self) -> int:
        pixels = tf.TensorSpec([1, *self._input_size, 3], tf.float32)
        outputs = tf.function(self._network).get_concrete_function(pixels).structured_outputs
        return int(tf.nest.flatten(outputs)[0].shape[-1])

    def _softmax(self, pixels: tf.Tensor) -> tf.Tensor:
        logits, *log_depth = (tf.cast(each, tf.float32) for each in tf.nest.flatten(self._network(pixels)))
        return tf.concat([tf.nn.softmax(logits), *log_depth], axis=-1)

    def _depth_pngs(self, image: tf.Tensor, log_depth: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns depth maps at the images' own sizes, from the logarithm of depth, float32 [B, H, W, 1]."""

        def png(pair: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            data, values = pair
            resized = tf.image.resize(values, image_size(data))
            return tf.io.encode_png(tf.cast(tf.round(resized), tf.uint16), compression=1)

        # 0 means unknown.
        values = tf.clip_by_value(tf.exp(log_depth) * self._depth_scale, 1, 65535)
        pngs = tf.map_fn(png, (image, values), parallel_iterations=1, fn_output_signature=_PNG)
        return {features.DEPTH_PNG: pngs}

    def _pngs_at_own_size(
        self, image: tf.Tensor, probabilities: tf.Tensor, with_confidence: bool
    ) -> dict[str, tf.Tensor]:
        """Returns the classes, and their probabilities if asked, at the images' own sizes as PNGs."""

        def pngs(pair: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
            data, scores = pair
            return _pngs(*class_mask(scores, image_size(data), with_confidence))

        return tf.map_fn(
            pngs, (image, probabilities), parallel_iterations=1, fn_output_signature=_png_specs(with_confidence)
        )


def _pngs(*maps: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns the mask and, if given, the confidence, uint8 [H, W] each, as grey PNGs by output name."""
    encoded = [tf.io.encode_png(each[..., tf.newaxis], compression=1) for each in maps]
    return dict(zip((features.MASK_PNG, features.CONFIDENCE_PNG), encoded, strict=False))


def _png_specs(with_confidence: bool) -> dict[str, tf.TensorSpec]:
    names = (features.MASK_PNG, features.CONFIDENCE_PNG) if with_confidence else (features.MASK_PNG,)
    return dict.fromkeys(names, _PNG)
