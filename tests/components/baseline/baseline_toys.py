"""Toy components that write the examples and pushed versions for the resolver strategies."""

# No postponed annotations here: TFX reads the components' annotations as types.
import json
import pathlib

from tfx import v1 as tfx
from tfx.types.standard_artifacts import Examples, Model, ModelBlessing, PushedModel

from components.artifact_files import MODEL_METADATA
from components.example_gen.artifacts import SPLIT_FINGERPRINTS
from components.pusher.push import push

Input = tfx.dsl.components.InputArtifact
Output = tfx.dsl.components.OutputArtifact
Parameter = tfx.dsl.components.Parameter


@tfx.dsl.components.component
def ToyData(examples: Output[Examples], span: Parameter[str], test: Parameter[str]):
    """Other data for another span; `test` stands for the content of the split that is judged."""
    pathlib.Path(examples.uri, "span").write_text(span)
    examples.set_string_custom_property(SPLIT_FINGERPRINTS, json.dumps({"train": span, "test": test}))


@tfx.dsl.components.component
def ToyPusher(
    model: Input[Model],
    blessing: Input[ModelBlessing],
    pushed_model: Output[PushedModel],
    base: Parameter[str],
    description: Parameter[str],
):
    """Pushes a blessed model with the metadata `description` and the properties of TFX's Pusher."""
    pushed = blessing.get_int_custom_property("blessed")
    pushed_model.set_int_custom_property("pushed", pushed)
    if pushed:
        path = pathlib.Path(pushed_model.uri, MODEL_METADATA)
        path.parent.mkdir(parents=True)
        path.write_text(description)
        pathlib.Path(pushed_model.uri, "saved_model.pb").write_bytes(b"graph")
        directory, number = push(pushed_model.uri, base)
        pushed_model.set_string_custom_property("pushed_destination", directory)
        pushed_model.set_string_custom_property("pushed_version", str(number))
