"""Extracts the part of Transform's graph that decodes images to pixels, without the final PNG encoding."""

from __future__ import annotations

import os

import tensorflow as tf

from components import preprocessing


class TransformGraph:
    """Transform's graph between the tensors `preprocessing.ENCODED` and `preprocessing.PIXELS`."""

    def __init__(self, transform_dir: str) -> None:
        """Loads the graph.

        Args:
            transform_dir: Transform's output.

        Raises:
            ValueError: the graph was written by another version of segpipe.
        """
        path = os.path.join(transform_dir, "transform_fn")
        # Kept alive: TensorFlow drops the functions of loops and branches together with the loaded object.
        self._loaded = tf.saved_model.load(path)
        graph = self._loaded.transform_fn.graph.as_graph_def()
        nodes = {node.name: node for node in graph.node}
        missing = {preprocessing.ENCODED, preprocessing.PIXELS, preprocessing.SETTINGS} - nodes.keys()
        if missing:
            raise ValueError(
                f"{path}: found no node {', '.join(sorted(missing))}, expected a graph of this version of segpipe's "
                "preprocessing; run Transform again"
            )
        self._graph = tf.compat.v1.GraphDef(versions=graph.versions, library=graph.library)
        pending, taken = [preprocessing.PIXELS], {preprocessing.ENCODED}
        while pending:
            name = pending.pop()
            if name not in taken:
                taken.add(name)
                self._graph.node.append(nodes[name])
                # Inputs are named node:output, or ^node for a control dependency.
                pending += [source.lstrip("^").partition(":")[0] for source in nodes[name].input]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def pixels(self, data: tf.Tensor) -> tf.Tensor:
        """Returns the pixels, uint8 [B, H, W, 3] at the network's input size, of encoded images, string [B]."""
        (pixels,) = tf.import_graph_def(
            self._graph, {f"{preprocessing.ENCODED}:0": data}, [f"{preprocessing.PIXELS}:0"], name="transform"
        )
        return pixels

    def own_pixels(self, data: tf.Tensor) -> tf.Tensor:
        """Returns the pixels, uint8 [H, W, 3], of an encoded image, string []; like `pixels` but not resized."""
        (value,) = (node.attr["value"].tensor for node in self._graph.node if node.name == preprocessing.SETTINGS)
        height, width, even, low, high = tf.make_ndarray(value).tolist()
        return preprocessing.own_pixels(data, int(height), int(width), bool(even), (low, high))
