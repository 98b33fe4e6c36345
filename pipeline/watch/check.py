"""One look at a source: observes it, compares it with the training data of the served model, and tells what moved."""

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

# Data with masks is the next span to train on; the others are what is served.
_HOW: dict[str, Comparator] = {DATA: "drift", IMAGES: "skew", REQUESTS: "skew"}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a look came to.

    Attributes:
        run_id: the run whose training data was compared with.
        kind: data, images or requests.
        images: how many were compared.
        unreadable: how many could not be read.
        findings: one a feature, furthest beyond its bound first; none where there were too few images.
    """

    run_id: str
    kind: str
    images: int
    unreadable: int
    findings: list[Finding]

    @property
    def drifted(self) -> list[Finding]:
        """The features that have moved too far."""
        return [finding for finding in self.findings if finding.drifted]

    def to_dict(self) -> dict[str, Any]:
        """Returns the verdict in plain JSON types."""
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
) -> Verdict:
    """Compares a source with the training data of a run.

    Of logged requests, those for the served model count: one server may log those of several.

    Image sizes, and the class shares of data with masks, are compared with StatisticsGen's statistics;
    brightness and contrast with those of the run's examples. Requests have no masks: the model's own
    predictions stand for them, on the training images too, so that what the model always gets wrong is
    not taken for drift.

    Args:
        source: see `read_source`.
        reference: the run's training data and model.
        bounds: the distances allowed.
        limit: most images to read on each side.
        at_least: fewer images than these are no evidence.
        model: the model to predict with; the one that the run pushed where empty.
        description: see `read_source`.
        sizes: see `read_source`.

    Raises:
        UsageError: nothing to watch, or nothing to compare with.
    """
    served_name = os.path.basename(os.path.dirname(reference.model))
    found = read_source(source, limit, reference.split, description, sizes, served_name)
    verdict = Verdict(reference.run_id, found.kind, len(found.images), found.unreadable, [])
    if len(found.images) < at_least:
        return verdict
    directory = find_version(model or reference.model)
    names = tuple(read_metadata(directory)["class_map"]["names"])
    training = [
        observe(example.image) for example in read_examples(example_files(reference.examples, reference.split), limit)
    ]
    images, how = found.images, _HOW[found.kind]
    if found.class_names is None:
        predicting = LocalModel(Predictor(directory))
        training, images = _predicted(training, predicting), _predicted(images, predicting)
    elif found.class_names != names:
        raise UsageError(
            f"{source}: found classes {', '.join(found.class_names)}; expected the model's, {', '.join(names)}"
        )
    # What is measured here replaces what StatisticsGen says of the same feature.
    before = combine(read_statistics(reference.statistics), statistics_of(_measured(training, names)))
    now = statistics_of({**_sizes(images), **_measured(images, names)})
    return dataclasses.replace(verdict, findings=compare(before, now, names, how, bounds))


def _predicted(images: Sequence[Observation], model: LocalModel) -> list[Observation]:
    """Returns images with the class shares that a model sees in them, without those that it refuses."""
    return [
        dataclasses.replace(image, class_share=np.array(list(result.class_share.values())))
        for image, result in model.segment_all((image, image.image) for image in images)
        if not isinstance(result, Refused)
    ]


def _sizes(images: Sequence[Observation]) -> dict[str, list[float]]:
    return {features.HEIGHT: [image.height for image in images], features.WIDTH: [image.width for image in images]}


def _measured(images: Sequence[Observation], class_names: Sequence[str]) -> dict[str, list[float]]:
    """Returns a column a feature, one value an image; class shares where the images have them."""
    columns = {
        BRIGHTNESS: [image.brightness for image in images],
        CONTRAST: [image.contrast for image in images],
    }
    shares = [image.class_share for image in images if image.class_share is not None]
    for index, name in enumerate(class_names if shares else ()):
        columns[features.class_share(name)] = [float(share[index]) for share in shares]
    return columns
