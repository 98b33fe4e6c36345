"""The Beam job of ExampleGen: reads and checks every pair, and writes the good ones as examples.

The size of the job's graph does not depend on the number of pairs, because the workers read the list of pairs. Only
paths are grouped, never pixels, so memory does not grow with the data set.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import apache_beam as beam

# The base class of every Beam executor of TFX; it has no public alias.
from tfx.dsl.components.base import base_beam_executor
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import proto_utils

from components.dataset.checks import Limits, Sample, read_pair
from components.dataset.description import DatasetDescription
from components.dataset.pairs import DataIssue, Pair
from components.example_gen import listing
from components.example_gen.artifacts import SPLIT_FINGERPRINTS
from components.example_gen.quarantine_steps import write_issues, write_shared_images
from components.examples import to_example

DESCRIPTION = "description"
MAX_SIDE = "max_side"
MAX_PIXELS = "max_pixels"
CODE = "code"
INDEX = "index"
LISTING = "listing"
QUARANTINE = "quarantine"

_RECORDS = "data_tfrecord"
_ISSUES = "issues"
_IMAGES = "images"


class Executor(base_beam_executor.BaseBeamExecutor):
    """Writes one set of TFRecords per split, and the quarantine."""

    def Do(self, input_dict: dict[str, Any], output_dict: dict[str, Any], exec_properties: dict[str, Any]) -> None:
        """Reads the pairs of the driver's list; for the properties see `ImageMaskExampleGenSpec`."""
        self._log_startup(input_dict, output_dict, exec_properties)
        root = exec_properties[standard_component_specs.INPUT_BASE_KEY]
        description = DatasetDescription.from_json(exec_properties[DESCRIPTION])
        input_config = example_gen_pb2.Input()
        proto_utils.json_to_proto(exec_properties[standard_component_specs.INPUT_CONFIG_KEY], input_config)
        splits = [split.name for split in input_config.splits]
        examples = artifact_utils.get_single_instance(output_dict[standard_component_specs.EXAMPLES_KEY])
        examples.split_names = artifact_utils.encode_split_names(splits)
        examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
        examples.set_string_custom_property(SPLIT_FINGERPRINTS, exec_properties[SPLIT_FINGERPRINTS])
        quarantine_uri = artifact_utils.get_single_uri(output_dict[QUARANTINE])

        limits = Limits(max_side=exec_properties[MAX_SIDE], max_pixels=exec_properties[MAX_PIXELS])
        read = ReadPair(root, description, limits)
        with self._make_beam_pipeline() as pipeline:
            listed = (
                pipeline
                | "Listing" >> beam.Create([exec_properties[LISTING]])
                # Not with Beam's `ReadFromText`: its file systems lack some of those of components/files.py.
                | "ReadListing" >> beam.FlatMap(listing.read)
            )
            issues = [listed | "ListingIssues" >> beam.FlatMap(_issues)]
            counts = []
            images = []
            for split in splits:
                results = (
                    listed
                    | f"Pairs[{split}]" >> beam.Filter(_is_pair_of, split)
                    # Distributes the pairs to the workers. One worker keeps the order of the list; several may not.
                    | f"Group[{split}]" >> beam.GroupByKey()
                    | f"Ungroup[{split}]" >> beam.FlatMap(lambda shard: shard[1])
                    | f"Read[{split}]" >> beam.ParDo(read).with_outputs(_ISSUES, _IMAGES, main="records")
                )
                path = os.path.join(artifact_utils.get_split_uri([examples], split), _RECORDS)
                _ = results.records | f"Write[{split}]" >> beam.io.WriteToTFRecord(path, file_name_suffix=".gz")
                counts.append(
                    results.records
                    | f"Count[{split}]" >> beam.combiners.Count.Globally()
                    | f"CountOf[{split}]" >> beam.Map(lambda count, split: (split, count), split)
                )
                issues.append(results[_ISSUES])
                images.append(results[_IMAGES])
            write_issues(issues, counts, quarantine_uri)
            write_shared_images(images, quarantine_uri)


def _issues(listed: tuple[int, Pair | DataIssue]) -> list[DataIssue]:
    """Returns the entry of the list if it is an issue."""
    return [listed[1]] if isinstance(listed[1], DataIssue) else []


def _is_pair_of(listed: tuple[int, Pair | DataIssue], split: str) -> bool:
    """Tells whether an entry of the list is a pair of a split."""
    return isinstance(listed[1], Pair) and listed[1].split == split


class ReadPair(beam.DoFn):
    """Turns a pair into a serialized example and hashes of its image, or into an issue."""

    def __init__(self, root: str, description: DatasetDescription, limits: Limits) -> None:
        self._root = root
        self._description = description
        self._limits = limits
        self._class_map = description.class_map

    def process(self, pair: Pair) -> Iterator[Any]:
        """Yields the example's bytes and the tagged hashes of its image, or the tagged issue."""
        result = read_pair(self._root, pair, self._description, self._limits)
        if isinstance(result, Sample):
            yield to_example(result, self._class_map).SerializeToString(deterministic=True)
            yield beam.pvalue.TaggedOutput(_IMAGES, result.hashed)
        else:
            yield beam.pvalue.TaggedOutput(_ISSUES, result)
