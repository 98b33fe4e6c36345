"""The calls that an exported model answers, as graphs: encoded images in, class maps and maybe depth maps out.

Every one begins with Transform's own graph, so serving sees the pixels that training saw.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from components import features
from serving.decoding import encode_each, image_size
from serving.image_module import BATCH_OF_STRINGS, CHUNK, ImageModule
from serving.masks import class_mask, class_mask_and_confidence
from serving.test_time import NO_AUGMENTATION, TestTimeAugmentation
from serving.tiling import Tiling

_BATCH_OF_PIXELS = [tf.TensorSpec([None, None, None, 3], tf.uint8, name=features.IMAGE)]


class ServingModule(ImageModule):
    """A network between Transform's graph and the class maps that clients want."""

    def __init__(
        self,
        network: Any,
        transform_dir: str,
        metadata_file: str,
        input_size: tuple[int, int],
        max_pixels: int,
        test_time: TestTimeAugmentation = NO_AUGMENTATION,
        tiling: Tiling | None = None,
        depth_scale: float | None = None,
    ) -> None:
        """Connects the parts.

        Args:
            network: a Keras model, or what is called like one and has `variables`; from float32
                [B, H, W, 3], 0 to 255, to logits [B, H, W, N]; of any size, where `test_time` has several scales. With
                `depth_scale`, to a list of these and the logarithm of depth in metres, [B, H, W, 1].
            transform_dir: Transform's output, whose graph decodes and resizes images.
            metadata_file: JSON that the signature `describe` returns.
            input_size: height and width of the network's input, in pixels.
            max_pixels: height times width of the largest image that is decoded.
            test_time: sizes and flips whose probabilities are averaged.
            tiling: sliding windows over an image at its own size; None resizes the whole image.
            depth_scale: value of a depth map at a distance of 1 metre; None without depth, or with `tiling`.
        """
        super().__init__(network, transform_dir, metadata_file, input_size, max_pixels)
        self._num_classes = self._classes()
        self._test_time = test_time
        self._tiling = tiling
        self._depth_scale = depth_scale

    def signatures(self) -> dict[str, Any]:
        """Returns the signatures by name, as `tf.saved_model.save` takes them.

        With sliding windows there are no `probabilities`: they would be those of another prediction.
        """
        signatures = {
            "serving_default": self.serving_default,
            "raw": self.raw,
            "probabilities": self.probabilities,
            "describe": self._describe(),
            "evaluation": self.evaluation,
            "preprocess": self.preprocess,
        }
        if self._tiling is not None:
            del signatures["probabilities"]
        return signatures

    @tf.function(input_signature=BATCH_OF_STRINGS)
    def serving_default(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Segments encoded images of any sizes.

        Args:
            image: string [B], PNG or JPEG.

        Returns:
            class_map: uint8 [B, H, W] at the network's input size.
            mask_png_bytes: string [B], the class map as a grey PNG at each image's own size.
            class_share: float32 [B, num_classes], each class's share of the pixels.
            confidence: float32 [B], mean over pixels of the winning class's probability.
            depth_png_bytes: string [B], with depth alone: a 16-bit grey PNG at each image's own size, whose values are
                the distance in metres times the metadata's `depth_scale`.
        """
        return self._segment(image)

    @tf.function(input_signature=_BATCH_OF_PIXELS)
    def raw(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Segments RGB images of one size, uint8 [B, H, W, 3]; returns what `serving_default` returns.

        PNG keeps every pixel, so Transform's graph sees what it would have seen in a PNG file.
        """
        encoded = encode_each(image, self._max_pixels)
        return self._segment(encoded)

    @tf.function(input_signature=BATCH_OF_STRINGS)
    def probabilities(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns `probabilities`, float32 [B, H, W, N] at the network's input size, for encoded images."""
        return {"probabilities": self._seen(image)[..., : self._num_classes]}

    @tf.function(input_signature=BATCH_OF_STRINGS)
    def evaluation(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns what the metrics compare with the truth.

        The evaluation's batches grow to a thousand images; the network takes them in small chunks.

        Args:
            image: string [B], PNG or JPEG.

        Returns:
            mask_png_bytes: as `serving_default` returns it.
            confidence_png_bytes: string [B], the probability of each pixel's class as a grey PNG of the same size, 0 to
                255 for 0 to 1.
            depth_png_bytes: as `serving_default` returns it.
        """
        names = [features.MASK_PNG, features.CONFIDENCE_PNG, *([features.DEPTH_PNG] if self._depth_scale else [])]

        def chunk(start: tf.Tensor) -> dict[str, tf.Tensor]:
            part = image[start : start + CHUNK]
            found = self._segment(part, start, tf.size(image), with_confidence=True)
            return {name: found[name] for name in names}

        ragged = tf.RaggedTensorSpec([None], tf.string, ragged_rank=0)
        chunks = tf.map_fn(
            chunk,
            tf.range(0, tf.size(image, out_type=tf.int64), CHUNK),
            fn_output_signature=dict.fromkeys(names, ragged),
            parallel_iterations=1,
        )
        return {name: each.flat_values for name, each in chunks.items()}

    def _segment(
        self,
        image: tf.Tensor,
        start: tf.Tensor | int = 0,
        total: tf.Tensor | None = None,
        with_confidence: bool = False,
    ) -> dict[str, tf.Tensor]:
        """Returns what `serving_default` returns, and `confidence_png_bytes` if asked.

        `start` and `total` place a chunk in the caller's batch.
        """
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
        # Decodes each image once more than needed, and so names the first that cannot be decoded.
        checked = self._pixels(image, start, total)

        def segment(data: tf.Tensor) -> dict[str, tf.Tensor]:
            pixels = self._own_pixels(data)
            segments = tiling.segment(pixels, self._window, self._num_classes)
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
        """Returns a window's probabilities, float32 [1, h, w, N], through the network's input size."""
        assert self._tiling is not None
        whole = tuple(self._input_size) == self._tiling.window
        resized = pixels if whole else tf.round(tf.image.resize(pixels, self._input_size, antialias=True))
        seen = self._test_time.average(self._softmax, tf.ensure_shape(resized, [1, *self._input_size, 3]))
        return seen if whole else tf.image.resize(seen, self._tiling.window)

    def _own_pixels(self, data: tf.Tensor) -> tf.Tensor:
        """Returns an encoded image's pixels at its own size, uint8 [H, W, 3]."""
        return self._transform.own_pixels(data)

    def _seen(self, image: tf.Tensor, start: tf.Tensor | int = 0, total: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the probabilities, float32 [B, H, W, N], and the logarithm of the depth behind them, if any."""
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
        """Returns each image's depth at its own size, of its logarithm at the network's, float32 [B, H, W, 1]."""

        def png(pair: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            data, values = pair
            resized = tf.image.resize(values, image_size(data))
            return tf.io.encode_png(tf.cast(tf.round(resized), tf.uint16), compression=1)

        # 0 would be unknown.
        values = tf.clip_by_value(tf.exp(log_depth) * self._depth_scale, 1, 65535)
        pngs = tf.map_fn(png, (image, values), parallel_iterations=1, fn_output_signature=tf.TensorSpec([], tf.string))
        return {features.DEPTH_PNG: pngs}

    def _pngs_at_own_size(
        self, image: tf.Tensor, probabilities: tf.Tensor, with_confidence: bool
    ) -> dict[str, tf.Tensor]:
        """Returns each image's classes, and their probabilities if asked, at its own size as PNGs."""

        def pngs(pair: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
            data, scores = pair
            size = image_size(data)
            return _pngs(*(class_mask_and_confidence(scores, size) if with_confidence else [class_mask(scores, size)]))

        return tf.map_fn(
            pngs, (image, probabilities), parallel_iterations=1, fn_output_signature=_png_specs(with_confidence)
        )


def _pngs(*maps: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns a mask, and the confidence if it is given, uint8 [H, W] each, as grey PNGs by output name."""
    encoded = [tf.io.encode_png(each[..., tf.newaxis], compression=1) for each in maps]
    return dict(zip((features.MASK_PNG, features.CONFIDENCE_PNG), encoded, strict=False))


def _png_specs(with_confidence: bool) -> dict[str, tf.TensorSpec]:
    names = (features.MASK_PNG, features.CONFIDENCE_PNG) if with_confidence else (features.MASK_PNG,)
    return dict.fromkeys(names, tf.TensorSpec([], tf.string))
