"""Compares a source of images with the training data of the served model, and reports drift."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from components import features
from components.dataset.description import DatasetDescription
from components.dataset.encoded import Limits
from components.errors import UsageError
from components.examples import example_files, read_examples
from components.stored_folder import explained, fetch
from pipeline.watch.comparison import (
    BRIGHTNESS,
    CONTRAST,
    Bounds,
    Comparator,
    Finding,
    combine,
    compare,
    read_statistics,
    statistics_of,
)
from pipeline.watch.reference import Reference
from pipeline.watch.sources import DATA, IMAGES, REQUESTS, Observation, observe, read_source
from serving.client.results import Refused
from serving.local import LocalModel
from serving.predictor import Predictor, find_version, read_metadata

# Data with masks is a later span of training data; images and requests are serving data.
_COMPARATORS: dict[str, Comparator] = {DATA: "drift", IMAGES: "skew", REQUESTS: "skew"}


@dataclasses.dataclass(frozen=True)
class DriftVerdict:
    """The result of a comparison.

    Attributes:
        run_id: the run whose training data is the reference.
        kind: data, images or requests.
        images: number of compared images.
        unreadable: number of images that could not be read.
        findings: one for each feature, furthest beyond its bound first; empty if there were too few images.
    """

    run_id: str
    kind: str
    images: int
    unreadable: int
    findings: list[Finding]

    @property
    def drifted(self) -> list[Finding]:
        """The features whose distance is beyond its bound."""
        return [finding for finding in self.findings if finding.drifted]

    def to_dict(self) -> dict[str, Any]:
        """Returns the verdict in JSON types."""
        findings = [{**dataclasses.asdict(finding), "drifted": finding.drifted} for finding in self.findings]
        return {**dataclasses.asdict(self), "findings": findings, "drifted": bool(self.drifted)}


def watch(
    source: str,
    reference: Reference,
    bounds: Bounds,
    limit: int,
    at_least: int,
    model: str = "",
    description: DatasetDescription | None = None,
    sizes: Limits | None = None,
) -> DriftVerdict:
    """Compares a source with the training data of a run.

    Image sizes, and the class proportions of data with masks, are compared with StatisticsGen's statistics; brightness
    and contrast with the run's examples. Without masks, the class proportions are those of the model's predictions, on
    the training images too, so that constant errors of the model do not count as drift.

    Args:
        source: see `read_source`. Only requests for the served model count.
        reference: the run's training data and model.
        bounds: the allowed distances.
        limit: largest number of images to read on each side.
        at_least: smallest number of images to compare.
        model: the model to predict with; if empty, the model that the run pushed.
        description: see `read_source`.
        sizes: see `read_source`.

    Raises:
        UsageError: the source has no images, or not the model's classes.
        SegpipeError: a file cannot be read.
    """
    served_name = os.path.basename(os.path.dirname(reference.model))
    with explained(source):
        found = read_source(source, limit, reference.split, description, sizes, served_name)
    verdict = DriftVerdict(reference.run_id, found.kind, len(found.images), found.unreadable, [])
    if len(found.images) < at_least:
        return verdict
    directory = find_version(model or reference.model)
    names = tuple(read_metadata(directory)["class_map"]["names"])
    examples = example_files(fetch(reference.examples), reference.split)
    training = [observe(example.image) for example in read_examples(examples, limit)]
    images = found.images
    if found.class_names is None:
        predictor = LocalModel(Predictor(directory))
        training, images = _with_predicted_classes(training, predictor), _with_predicted_classes(images, predictor)
    elif found.class_names != names:
        raise UsageError(
            f"{source}: found classes {', '.join(found.class_names)}; expected the model's, {', '.join(names)}"
        )
    # These values replace StatisticsGen's for the same features.
    before = combine(read_statistics(reference.statistics), statistics_of(_measured(training, names)))
    sizes_now = {features.HEIGHT: [image.height for image in images], features.WIDTH: [image.width for image in images]}
    now = statistics_of({**sizes_now, **_measured(images, names)})
    return dataclasses.replace(verdict, findings=compare(before, now, names, _COMPARATORS[found.kind], bounds))


def _with_predicted_classes(images: Sequence[Observation], model: LocalModel) -> list[Observation]:
    """Returns images with the class proportions of a model's predictions, without images that it rejects."""
    return [
        dataclasses.replace(image, class_share=np.array(list(result.class_share.values())))
        for image, result in model.segment_all((image, image.image) for image in images)
        if not isinstance(result, Refused)
    ]


def _measured(images: Sequence[Observation], class_names: Sequence[str]) -> dict[str, list[float]]:
    """Returns values by feature, one for each image, including class proportions if the images have them."""
    columns = {
        BRIGHTNESS: [image.brightness for image in images],
        CONTRAST: [image.contrast for image in images],
    }
    proportions = [image.class_share for image in images if image.class_share is not None]
    for index, name in enumerate(class_names if proportions else ()):
        columns[features.class_share(name)] = [float(row[index]) for row in proportions]
    return columns
