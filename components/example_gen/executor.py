"""The Beam job behind ExampleGen: reads and checks every pair, writes the good ones as examples.

Only paths are grouped, never pixels, so memory stays flat however large the data set is.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import tensorflow as tf

# The base class of every Beam executor of TFX; it has no public alias.
from tfx.dsl.components.base import base_beam_executor
from tfx.types import artifact_utils, standard_component_specs

from components import features, files
from components.class_map import ClassMap
from components.dataset.checks import Limits, Sample, read_pair
from components.dataset.description import DatasetDescription
from components.dataset.pairs import Pair, find_pairs
from components.example_gen.quarantine import COUNTS_FILE, FAULTS_FILE, SHARED_FILE

DESCRIPTION = "description"
MAX_SIDE = "max_side"
MAX_PIXELS = "max_pixels"
CODE = "code"
QUARANTINE = "quarantine"

_RECORDS = "data_tfrecord"
_PAIRS_A_SHARD = 64
_FAULTS = "faults"
_IMAGES = "images"


class Executor(base_beam_executor.BaseBeamExecutor):
    """Writes one set of TFRecords a split, and the quarantine."""

    def Do(self, input_dict: dict[str, Any], output_dict: dict[str, Any], exec_properties: dict[str, Any]) -> None:
        """Reads the folder; `ImageMaskExampleGenSpec` lists the properties."""
        self._log_startup(input_dict, output_dict, exec_properties)
        root = exec_properties[standard_component_specs.INPUT_BASE_KEY]
        description = DatasetDescription.from_json(exec_properties[DESCRIPTION])
        pairs, listing_faults = find_pairs(root, description)
        splits = sorted({pair.split for pair in pairs})
        examples = artifact_utils.get_single_instance(output_dict[standard_component_specs.EXAMPLES_KEY])
        examples.split_names = artifact_utils.encode_split_names(splits)
        examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
        quarantine_uri = artifact_utils.get_single_uri(output_dict[QUARANTINE])

        limits = Limits(max_side=exec_properties[MAX_SIDE], max_pixels=exec_properties[MAX_PIXELS])
        read = ReadPair(root, description, limits)
        with self._make_beam_pipeline() as pipeline:
            faults = [pipeline | "ListingFaults" >> beam.Create(listing_faults, reshuffle=False)]
            counts = []
            images = []
            for split in splits:
                results = (
                    pipeline
                    | f"Pairs[{split}]" >> ShardedPairs([pair for pair in pairs if pair.split == split])
                    | f"Read[{split}]" >> beam.ParDo(read).with_outputs(_FAULTS, _IMAGES, main="records")
                )
                path = os.path.join(artifact_utils.get_split_uri([examples], split), _RECORDS)
                _ = results.records | f"Write[{split}]" >> beam.io.WriteToTFRecord(path, file_name_suffix=".gz")
                counts.append(
                    results.records
                    | f"Count[{split}]" >> beam.combiners.Count.Globally()
                    | f"CountOf[{split}]" >> beam.Map(lambda count, split: (split, count), split)
                )
                faults.append(results[_FAULTS])
                images.append(results[_IMAGES])
            _write_quarantine(faults, counts, quarantine_uri)
            _write_shared_images(images, quarantine_uri)


class ShardedPairs(beam.PTransform):
    """Spreads pairs over workers in an order that depends on their names alone.

    Consecutive video frames are nearly the same picture; a hash of the name mixes them, and gives
    the same order on every machine, which a random reshuffle would not. Beam promises no order
    among several workers: there the examples are the same, and their order need not be.
    """

    def __init__(self, pairs: list[Pair]) -> None:
        super().__init__()
        self._pairs = sorted(pairs, key=lambda pair: hashlib.sha256(pair.name.encode()).digest())

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Returns a PCollection of pairs."""
        numbered = [(index // _PAIRS_A_SHARD, pair) for index, pair in enumerate(self._pairs)]
        return (
            pipeline | beam.Create(numbered, reshuffle=False) | beam.GroupByKey() | beam.FlatMap(lambda shard: shard[1])
        )


class ReadPair(beam.DoFn):
    """Turns a pair into a serialized example and its image's hash, or into a fault."""

    def __init__(self, root: str, description: DatasetDescription, limits: Limits) -> None:
        self._root = root
        self._description = description
        self._limits = limits
        self._class_map = description.class_map

    def process(self, pair: Pair) -> Iterator[Any]:
        """Yields the example's bytes and a tagged (hash, (split, name)), or the tagged fault."""
        result = read_pair(self._root, pair, self._description, self._limits)
        if isinstance(result, Sample):
            yield to_example(result, self._class_map).SerializeToString(deterministic=True)
            yield beam.pvalue.TaggedOutput(_IMAGES, (result.image_hash, (pair.split, pair.name)))
        else:
            yield beam.pvalue.TaggedOutput(_FAULTS, result)


def to_example(sample: Sample, class_map: ClassMap) -> tf.train.Example:
    """Returns the raw example of a sample, with the features that `components.features` names."""
    example = tf.train.Example()
    feature = example.features.feature
    for name, data in (
        (features.IMAGE, sample.image),
        (features.MASK, sample.mask),
        (features.NAME, sample.pair.name.encode()),
        (features.SEQUENCE, sample.pair.sequence.encode()),
        (features.CONTENT_HASH, sample.content_hash.encode()),
    ):
        feature[name].bytes_list.value.append(data)
    feature[features.HEIGHT].int64_list.value.append(sample.height)
    feature[features.WIDTH].int64_list.value.append(sample.width)
    shares = sample.class_pixels / (sample.height * sample.width)
    for class_name, share in zip(class_map.names, shares, strict=True):
        feature[features.class_share(class_name)].float_list.value.append(float(share))
    return example


def _write_quarantine(faults: list[beam.PCollection], counts: list[beam.PCollection], uri: str) -> None:
    """Adds the steps that write the quarantine artifact: the faults, and the counts by split."""
    all_faults = faults | "Faults" >> beam.Flatten()
    _ = (
        all_faults
        | "FaultToJson" >> beam.Map(lambda fault: json.dumps(dataclasses.asdict(fault), sort_keys=True))
        | "WriteFaults" >> _write_single_file(uri, FAULTS_FILE)
    )
    fault_counts = (
        all_faults
        | "FaultKey" >> beam.Map(lambda fault: ((fault.split, fault.reason), 1))
        | "CountFaults" >> beam.CombinePerKey(sum)
        | "ListFaultCounts" >> beam.combiners.ToList()
    )
    _ = (
        counts
        | "Counts" >> beam.Flatten()
        | "ListCounts" >> beam.combiners.ToList()
        | "CountsToJson" >> beam.Map(_counts_json, beam.pvalue.AsSingleton(fault_counts))
        | "WriteCounts" >> _write_single_file(uri, COUNTS_FILE)
    )


def _write_shared_images(images: list[beam.PCollection], uri: str) -> None:
    """Adds the steps that write which images are in more than one split; only hashes and names are grouped."""
    _ = (
        images
        | "Images" >> beam.Flatten()
        | "ByImage" >> beam.GroupByKey()
        | "SharedImages" >> beam.FlatMap(lambda item: _names_by_split(item[1]))
        | "WriteSharedImages" >> _write_single_file(uri, SHARED_FILE)
    )


def _names_by_split(places: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yields, as JSON, the names by split of an image that is in more than one."""
    names: dict[str, list[str]] = {}
    for split, name in sorted(places):
        names.setdefault(split, []).append(name)
    if len(names) > 1:
        yield json.dumps(names, sort_keys=True)


def _counts_json(examples: Iterable[tuple[str, int]], faults: Iterable[tuple[tuple[str, str], int]]) -> str:
    quarantined: dict[str, Counter[str]] = {}
    for (split, reason), count in faults:
        quarantined.setdefault(split, Counter())[reason] += count
    return json.dumps({"examples": dict(examples), "quarantined": quarantined}, sort_keys=True)


def _write_single_file(uri: str, name: str) -> beam.io.WriteToText:
    """Writes one file, not a set of shards: what is written is small, and people open it."""
    return beam.io.WriteToText(files.join(uri, name), shard_name_template="", num_shards=1)
