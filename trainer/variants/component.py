"""The pipeline component between Trainer and Evaluator that builds and compares variants of the model."""

import logging
from collections.abc import Iterator

from tfx.utils import path_utils  # where a Model artifact keeps its SavedModel; no public alias
from tfx.v1.dsl.components import InputArtifact, OutputArtifact, Parameter, component
from tfx.v1.types.standard_artifacts import Examples, Model, ModelRun, TransformGraph

from components.examples import example_files, read_examples
from serving.comparison import table
from serving.settings import ExportSettings
from trainer import saved_network
from trainer.variants.build import Trained, optimize

# TFX reads the annotations of a component's function as objects, so this file has no
# `from __future__ import annotations`.

PROGRESS = logging.getLogger("segpipe.progress")


@component
def Optimizer(  # TFX's naming: a component is a noun
    optimized_model: OutputArtifact[Model],
    model: InputArtifact[Model],
    model_run: InputArtifact[ModelRun],
    transform_graph: InputArtifact[TransformGraph],
    examples: InputArtifact[Examples],
    settings: Parameter[str],
    train_split: Parameter[str],
    eval_split: Parameter[str],
    code: Parameter[str],
) -> None:
    """Writes the first variant whose loss of mean IoU is small enough, or the exported model if all lose too much.

    `settings` is the JSON of `ExportSettings`; `code` the hash of the source, part of the cache key.
    """
    del code
    trained = Trained(
        model=path_utils.serving_model_path(model.uri),
        network=saved_network.load(model_run.uri),
        transform=transform_graph.uri,
        calibration=lambda: (image for image, _ in _pairs(examples.uri, train_split)),
        pairs=lambda: _pairs(examples.uri, eval_split),
    )
    directory = path_utils.serving_model_dir(optimized_model.uri)
    rows = optimize(trained, ExportSettings.model_validate_json(settings), directory)
    PROGRESS.info("%s", table(rows), extra={"progress": {"component": "Optimizer"}})


def _pairs(examples: str, split: str) -> Iterator[tuple[bytes, bytes]]:
    """Yields the encoded image and the mask PNG of each raw example of a split."""
    for example in read_examples(example_files(examples, split)):
        yield example.image, example.mask
