"""Finds the splits, the pairs and the content hash of a data set, before Vertex AI looks into its cache.

It replaces TFX's driver of file-based ExampleGens, which cannot find them, and has the same command line and output.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from tfx.components.example_gen import driver as tfx_driver
from tfx.components.example_gen import utils
from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_entrypoint_utils as entrypoint
from tfx.types import standard_component_specs

from components import files
from components.example_gen.artifacts import SPLIT_FINGERPRINTS
from components.example_gen.component import Driver
from components.example_gen.executor import LISTING

_FOUND = (
    utils.FINGERPRINT_PROPERTY_NAME,
    utils.SPAN_PROPERTY_NAME,
    standard_component_specs.INPUT_CONFIG_KEY,
    LISTING,
    SPLIT_FINGERPRINTS,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads Vertex AI's `ExecutorInput` and writes an `ExecutorOutput` to its output file.

    Raises:
        DataRejectedError: the folder has no pair.
    """
    parser = argparse.ArgumentParser(description="Run the driver of ImageMaskExampleGen on Vertex AI.")
    parser.add_argument("--json_serialized_invocation_args", required=True, help="ExecutorInput, JSON")
    parser.add_argument("--json_serialized_inputs_spec_args", required=True, help="ComponentInputsSpec, JSON")
    # Vertex AI also passes Beam's options.
    options, _ = parser.parse_known_args(arguments)
    executor_input, spec = pipeline_spec_pb2.ExecutorInput(), pipeline_spec_pb2.ComponentInputsSpec()
    json_format.Parse(options.json_serialized_invocation_args, executor_input, ignore_unknown_fields=True)
    json_format.Parse(options.json_serialized_inputs_spec_args, spec, ignore_unknown_fields=True)
    output = resolve(executor_input, spec)
    files.write_bytes(executor_input.outputs.output_file, json_format.MessageToJson(output, sort_keys=True).encode())


def resolve(
    executor_input: pipeline_spec_pb2.ExecutorInput, spec: pipeline_spec_pb2.ComponentInputsSpec
) -> pipeline_spec_pb2.ExecutorOutput:
    """Returns the properties that Vertex AI's cache key and the executor need."""
    properties = entrypoint.parse_execution_properties(
        executor_input.inputs.parameter_values, executor_input.inputs.parameters, spec
    )
    Driver(None).resolve_exec_properties(properties, None, None)
    output = pipeline_spec_pb2.ExecutorOutput()
    for name in _FOUND:
        value = output.parameter_values[name]
        if isinstance(properties[name], str):
            value.string_value = properties[name]
        else:
            value.number_value = properties[name]
    names: dict[int, str] = {}
    key = standard_component_specs.EXAMPLES_KEY
    (examples,) = entrypoint.parse_raw_artifact_dict(executor_input.outputs.artifacts, names)[key]
    tfx_driver.update_output_artifact(exec_properties=properties, output_artifact=examples.mlmd_artifact)
    output.artifacts[key].artifacts.add().CopyFrom(entrypoint.to_runtime_artifact(examples, names))
    return output


if __name__ == "__main__":
    main()
