"""The model that a training starts from, in real pipelines of toy components on a real metadata store."""

# No postponed annotations here: TFX reads the components' annotations as types.
import dataclasses
import json
import pathlib

import ml_metadata as mlmd
import pytest
from baseline_toys import Input, Output, Parameter, ToyData, ToyPusher
from ml_metadata.proto import metadata_store_pb2
from tfx import v1 as tfx
from tfx.types.standard_artifacts import Examples, Model, ModelBlessing

from components.artifact_files import weights_beside
from components.baseline.warm_start import LastVersionStart
from components.pusher.versions import find_versions
from components.pusher.withdrawn import withdraw

_SETTINGS = {"name": "fcn8", "upsampling": "nearest", "dropout": None}


@tfx.dsl.components.component
def ToyStartTrainer(
    model: Output[Model],
    examples: Input[Examples],
    settings: Parameter[str],
    weights: Parameter[int],
    base_model: Input[Model] = None,
):
    """Writes the metadata that the strategy reads."""
    directory = pathlib.Path(model.uri, "Format-Serving")
    (directory / "assets").mkdir(parents=True)
    description = {"model_settings": json.loads(settings), "class_map": {"names": ["sky", "road"]}}
    (directory / "assets" / "segpipe.json").write_text(json.dumps(description))
    if weights:
        pathlib.Path(weights_beside(str(directory))).write_text("weights")


@tfx.dsl.components.component
def ToyGate(blessing: Output[ModelBlessing], model: Input[Model], blessed: Parameter[int]):
    """Blesses as configured."""
    blessing.set_int_custom_property("blessed", blessed)
    blessing.set_int_custom_property("current_model_id", model.id)


@dataclasses.dataclass(frozen=True)
class Run:
    model: str
    start: str
    trained_anew: bool


@pytest.fixture
def run(tmp_path):
    """Returns a function that runs the toy pipeline on a span and tells what its training started from."""
    connection = tfx.orchestration.metadata.sqlite_metadata_connection_config(str(tmp_path / "metadata.db"))

    def executions(kind):
        store = mlmd.MetadataStore(connection)
        return [e for e in store.get_executions() if e.type.endswith(kind)]

    def run_pipeline(span, blessed=True, weights=True, **settings):
        data = ToyData(span=span, test="t")
        start = tfx.dsl.Resolver(
            strategy_class=LastVersionStart,
            config={"model_settings": json.dumps({**_SETTINGS, **settings}), "class_names": ["sky", "road"]},
            model=tfx.dsl.Channel(type=Model),
            model_blessing=tfx.dsl.Channel(type=ModelBlessing),
            examples=data.outputs["examples"],
        ).with_id("StartResolver")
        trainer = ToyStartTrainer(
            examples=data.outputs["examples"],
            base_model=start.outputs["model"],
            settings=json.dumps({**_SETTINGS, **settings}),
            weights=int(weights),
        )
        gate = ToyGate(model=trainer.outputs["model"], blessed=int(blessed))
        blessing = gate.outputs["blessing"]
        pusher = ToyPusher(
            model=trainer.outputs["model"], blessing=blessing, base=str(tmp_path / "serving"), description="{}"
        )
        tfx.orchestration.LocalDagRunner().run(
            tfx.dsl.Pipeline(
                pipeline_name="toy",
                pipeline_root=str(tmp_path / "artifacts"),
                components=[data, start, trainer, gate, pusher],
                enable_cache=True,
                metadata_connection_config=connection,
            )
        )
        return last_run()

    def last_run():
        store = mlmd.MetadataStore(connection)
        execution = executions("ToyStartTrainer")[-1]
        uris = {"base_model": "", "model": ""}
        for event in store.get_events_by_execution_ids([execution.id]):
            (artifact,) = store.get_artifacts_by_id([event.artifact_id])
            uris[event.path.steps[0].key] = artifact.uri
        cached = execution.last_known_state == metadata_store_pb2.Execution.CACHED
        return Run(uris["model"], uris["base_model"], not cached)

    return run_pipeline


def test_a_new_span_starts_from_the_last_version_and_unchanged_data_is_not_trained_again(run):
    first = run("1")
    first_again = run("1")
    second = run("2")
    second_again = run("2")

    assert (first.start, first.trained_anew) == ("", True)
    assert first_again == dataclasses.replace(first, trained_anew=False)
    assert (second.start, second.trained_anew) == (first.model, True)
    assert second_again == dataclasses.replace(second, trained_anew=False)


def test_training_starts_only_from_a_blessed_model_with_matching_weights(run):
    good = run("1")
    run("2", blessed=False)
    run("3", weights=False)
    other = run("4", upsampling="transposed")
    last = run("5", dropout=0.1)
    edges = run("6", encoder_weights="edges")
    imagenet = run("7", encoder_weights="imagenet")

    assert other.start == ""
    assert last.start == good.model
    # Pretrained weights expect other pixels than random ones.
    assert edges.start == ""
    assert imagenet.start == edges.model


def test_training_does_not_start_from_a_withdrawn_version(run, tmp_path):
    good = run("1")
    run("2")
    withdraw(str(tmp_path / "serving"), max(find_versions(str(tmp_path / "serving"))), "rolled back")

    assert run("3").start == good.model
