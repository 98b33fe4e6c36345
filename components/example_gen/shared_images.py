"""The steps of ExampleGen's Beam job that find images, and near duplicates, in more than one split.

Only hashes and names are grouped, never pixels.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator

import apache_beam as beam

from components.dataset.near_duplicates import HashedImage, bands, closest, nearest
from components.example_gen.quarantine import SHARED_FILE, SIMILAR_FILE
from components.example_gen.single_file import write_single_file


def write_shared_images(images: list[beam.PCollection], uri: str) -> None:
    """Adds the steps that write the quarantine's files of shared images and near duplicates.

    Args:
        images: the images of each split as `HashedImage`.
        uri: the quarantine artifact.
    """
    all_images = images | "Images" >> beam.Flatten()
    _ = (
        all_images
        | "ImageKey" >> beam.Map(lambda image: (image.pixels, (image.split, image.name)))
        | "ByImage" >> beam.GroupByKey()
        | "SharedImages" >> beam.FlatMap(lambda item: _names_by_split(item[1]))
        | "WriteSharedImages" >> write_single_file(uri, SHARED_FILE)
    )
    _ = (
        all_images
        | "Bands" >> beam.FlatMap(_by_band)
        | "ByBand" >> beam.GroupByKey()
        | "Nearest" >> beam.FlatMap(lambda item: nearest(item[1]))
        | "NearestKey" >> beam.Map(lambda pair: ((pair.split, pair.name, pair.other_split), pair))
        | "Closest" >> beam.CombinePerKey(closest)
        | "SimilarToJson" >> beam.Map(lambda item: json.dumps(dataclasses.asdict(item[1]), sort_keys=True))
        | "WriteSimilarImages" >> write_single_file(uri, SIMILAR_FILE)
    )


def _by_band(image: HashedImage) -> Iterator[tuple[str, HashedImage]]:
    for band in bands(image.perceptual):
        yield band, image


def _names_by_split(places: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yields the names by split, as JSON, of an image in more than one split."""
    names: dict[str, list[str]] = {}
    for split, name in sorted(places):
        names.setdefault(split, []).append(name)
    if len(names) > 1:
        yield json.dumps(names, sort_keys=True)
