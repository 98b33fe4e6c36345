"""The ExampleGen of folders with images and masks, and its driver, whose cache key is the content."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from tfx import types

# TFX has no public way to add an output and a driver to a file-based ExampleGen. So this uses the classes behind
# `tfx.v1.components.ImportExampleGen`, and tests/components/example_gen runs them.
from tfx.components.example_gen import driver as tfx_driver
from tfx.components.example_gen import utils
from tfx.components.example_gen.component import FileBasedExampleGen
from tfx.dsl.components.base import executor_spec
from tfx.proto import example_gen_pb2
from tfx.types import component_spec, standard_artifacts, standard_component_specs
from tfx.utils import proto_utils

from components.dataset.data_files import forget, listed_once
from components.dataset.description import DatasetDescription
from components.dataset.fingerprint import content_hashes, fingerprint_of
from components.dataset.pairs import Pair, find_pairs
from components.errors import DataRejectedError
from components.example_gen import listing
from components.example_gen.artifacts import SPLIT_FINGERPRINTS, Quarantine
from components.example_gen.executor import (
    CODE,
    DESCRIPTION,
    INDEX,
    LISTING,
    MAX_PIXELS,
    MAX_SIDE,
    QUARANTINE,
    Executor,
)


class ImageMaskExampleGenSpec(component_spec.ComponentSpec):
    """TFX's file-based ExampleGen with the data set's description and the quarantine."""

    PARAMETERS = {  # noqa: RUF012 - the base class declares it so
        **standard_component_specs.FileBasedExampleGenSpec.PARAMETERS,
        DESCRIPTION: component_spec.ExecutionParameter(type=str),
        MAX_SIDE: component_spec.ExecutionParameter(type=int),
        MAX_PIXELS: component_spec.ExecutionParameter(type=int),
        CODE: component_spec.ExecutionParameter(type=str),
        INDEX: component_spec.ExecutionParameter(type=str),
        LISTING: component_spec.ExecutionParameter(type=str),
        SPLIT_FINGERPRINTS: component_spec.ExecutionParameter(type=str),
    }
    INPUTS: dict[str, Any] = {}  # noqa: RUF012
    OUTPUTS = {  # noqa: RUF012
        standard_component_specs.EXAMPLES_KEY: component_spec.ChannelParameter(type=standard_artifacts.Examples),
        QUARANTINE: component_spec.ChannelParameter(type=Quarantine),
    }


class Driver(tfx_driver.FileBasedDriver):
    """Lists the pairs, and replaces TFX's fingerprint of sizes and times by one of the content."""

    def resolve_exec_properties(
        self, exec_properties: dict[str, Any], pipeline_info: Any, component_info: Any
    ) -> dict[str, Any]:
        """Adds the splits, the list of pairs and the fingerprint of the content.

        Lists the folder once per run; the executor, possibly on another machine, reads the list.

        Raises:
            DataRejectedError: the folder has no pair.
        """
        del pipeline_info, component_info
        root = exec_properties[standard_component_specs.INPUT_BASE_KEY]
        description = DatasetDescription.from_json(exec_properties[DESCRIPTION])
        with listed_once():
            pairs, issues = find_pairs(root, description)
            hashes = content_hashes(root, description, exec_properties[INDEX])
            # Frees the list, which is large. A run that waits for others lists again.
            forget()
        if not pairs:
            raise DataRejectedError(
                f"{root}: no image with a mask was found; expected the layout of {description.name!r}. "
                f"Inspect the folder with: segpipe data check {root}"
            )
        splits = sorted({pair.split for pair in pairs})
        input_config = example_gen_pb2.Input(
            splits=[example_gen_pb2.Input.Split(name=split, pattern="*") for split in splits]
        )
        exec_properties[standard_component_specs.INPUT_CONFIG_KEY] = proto_utils.proto_to_json(input_config)
        exec_properties[utils.FINGERPRINT_PROPERTY_NAME] = fingerprint_of(description, hashes)
        exec_properties[SPLIT_FINGERPRINTS] = json.dumps(
            {split: _fingerprint_of_split(split, pairs, description, hashes) for split in splits}
        )
        exec_properties[LISTING] = listing.write(exec_properties[INDEX], pairs, issues)
        exec_properties[utils.SPAN_PROPERTY_NAME] = 0
        exec_properties[utils.VERSION_PROPERTY_NAME] = None
        return exec_properties


def _fingerprint_of_split(
    split: str, pairs: Iterable[Pair], description: DatasetDescription, hashes: Mapping[str, str]
) -> str:
    """Returns the fingerprint of a split's files, which does not depend on other splits."""
    own = [pair for pair in pairs if pair.split == split]
    used = {path for pair in own for path in (pair.image, pair.mask, pair.instances, pair.depth) if path}
    return fingerprint_of(description, {path: hashes[path] for path in sorted(used)})


class ImageMaskExampleGen(FileBasedExampleGen):
    """Writes images and masks to gzip TFRecords, and bad pairs to the quarantine.

    Outputs: `examples`, with the splits of the data set; `quarantine`, a `Quarantine`.
    """

    SPEC_CLASS = ImageMaskExampleGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(
        self,
        input_base: str,
        description: DatasetDescription,
        max_side: int,
        max_pixels: int,
        code: str,
        index: str,
    ) -> None:
        """Constructs the component.

        Args:
            input_base: the data set's folder, local or on an object store.
            description: its layout, splits and classes.
            max_side: largest height or width accepted, in pixels.
            max_pixels: largest product of the two, at most what the model will accept.
            code: hash of the source code that reads pairs, part of the cache key.
            index: folder for the list of pairs and the hashes of files, which driver and workers can access.
        """
        spec = ImageMaskExampleGenSpec(
            input_base=input_base,
            input_config=example_gen_pb2.Input(),
            output_config=example_gen_pb2.Output(),
            output_data_format=example_gen_pb2.FORMAT_TF_EXAMPLE,
            output_file_format=example_gen_pb2.FORMAT_TFRECORDS_GZIP,
            description=description.to_json(),
            max_side=max_side,
            max_pixels=max_pixels,
            code=code,
            index=index,
            # The driver fills these in.
            listing="",
            split_fingerprints="",
            examples=types.Channel(type=standard_artifacts.Examples),
            quarantine=types.Channel(type=Quarantine),
        )
        # Skips the constructor of FileBasedExampleGen, which has no second output.
        super(FileBasedExampleGen, self).__init__(spec=spec)
