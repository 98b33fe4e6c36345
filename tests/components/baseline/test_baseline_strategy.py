"""The baseline that a run resolves, in real pipelines of toy components on a real metadata store."""

# No postponed annotations here: TFX reads the components' annotations as types.
import dataclasses
import json
import pathlib
import shutil

import ml_metadata as mlmd
import pytest
from ml_metadata.proto import metadata_store_pb2
from tfx import v1 as tfx
from tfx.types.standard_artifacts import Model, ModelBlessing, ModelEvaluation

from components.artifact_files import MODEL_METADATA
from components.baseline.strategy import LatestBlessedBaseline

Input = tfx.dsl.components.InputArtifact
Output = tfx.dsl.components.OutputArtifact
Parameter = tfx.dsl.components.Parameter


@tfx.dsl.components.component
def ToyTrainer(
    model: Output[Model],
    architecture: Parameter[str],
    classes: Parameter[str],
    recipe: Parameter[str],
    max_pixels: Parameter[int],
):
    """Writes what the strategy reads of an exported model; a new recipe trains a new model."""
    path = pathlib.Path(model.uri, "Format-Serving", MODEL_METADATA)
    path.parent.mkdir(parents=True)
    description = {
        "model": architecture,
        "class_map": {"names": classes.split()},
        "recipe": recipe,
        "max_pixels": max_pixels,
    }
    path.write_text(json.dumps(description))


@tfx.dsl.components.component
def ToyEvaluator(
    blessing: Output[ModelBlessing],
    evaluation: Output[ModelEvaluation],
    model: Input[Model],
    blessed: Parameter[int],
    baseline_model: Input[Model] = None,
):
    """Blesses as told, and notes the baseline that it was given."""
    blessing.set_int_custom_property("blessed", blessed)
    blessing.set_int_custom_property("current_model_id", model.id)
    pathlib.Path(evaluation.uri, "baseline").write_text(baseline_model.uri if baseline_model else "")


@dataclasses.dataclass(frozen=True)
class Run:
    model: str
    baseline: str
    evaluated_anew: bool


class Workplace:
    """A directory in which the toy pipeline is run again and again."""

    def __init__(self, root: pathlib.Path):
        self._root = root
        self._connection = tfx.orchestration.metadata.sqlite_metadata_connection_config(str(root / "metadata.db"))

    def run(
        self,
        recipe: str,
        blessed: bool = True,
        architecture: str = "fcn8",
        classes: str = "sky road",
        max_pixels: int = 100,
    ) -> Run:
        trainer = ToyTrainer(architecture=architecture, classes=classes, recipe=recipe, max_pixels=max_pixels)
        baseline = tfx.dsl.Resolver(
            strategy_class=LatestBlessedBaseline,
            config={"model_name": architecture, "class_names": classes.split()},
            model=tfx.dsl.Channel(type=Model),
            model_blessing=tfx.dsl.Channel(type=ModelBlessing),
            candidate=trainer.outputs["model"],
        ).with_id("BaselineResolver")
        evaluator = ToyEvaluator(
            model=trainer.outputs["model"], baseline_model=baseline.outputs["model"], blessed=int(blessed)
        )
        before = self._evaluations()
        tfx.orchestration.LocalDagRunner().run(
            tfx.dsl.Pipeline(
                pipeline_name="toy",
                pipeline_root=str(self._root / "artifacts"),
                components=[trainer, baseline, evaluator],
                enable_cache=True,
                metadata_connection_config=self._connection,
            )
        )
        return self._last_run(before)

    def _evaluations(self) -> int:
        if not (self._root / "metadata.db").exists():
            return 0
        return len(self._store().get_artifacts_by_type("ModelEvaluation"))

    def _store(self) -> mlmd.MetadataStore:
        return mlmd.MetadataStore(self._connection)

    def _last_run(self, evaluations_before: int) -> Run:
        """Reads the models of the latest evaluation, cached or not, from the metadata store."""
        store = self._store()
        execution = max(
            (
                e
                for e in store.get_executions()
                if store.get_execution_types_by_id([e.type_id])[0].name.endswith("ToyEvaluator")
            ),
            key=lambda execution: execution.id,
        )
        uris = {"model": "", "baseline_model": ""}
        for event in store.get_events_by_execution_ids([execution.id]):
            if event.type == metadata_store_pb2.Event.INPUT:
                (artifact,) = store.get_artifacts_by_id([event.artifact_id])
                uris[event.path.steps[0].key] = artifact.uri
        return Run(uris["model"], uris["baseline_model"], self._evaluations() > evaluations_before)


@pytest.fixture
def workplace(tmp_path) -> Workplace:
    return Workplace(tmp_path)


def test_the_first_run_has_no_baseline_and_the_same_run_again_has_none_either(workplace):
    first = workplace.run("a")
    again = workplace.run("a")

    assert first.baseline == ""
    assert first.evaluated_anew
    assert again == dataclasses.replace(first, evaluated_anew=False)


def test_a_run_again_finds_its_old_baseline_and_its_evaluation_cached(workplace):
    first = workplace.run("a")
    second = workplace.run("b")
    again = workplace.run("b")

    assert second.baseline == first.model
    assert second.evaluated_anew
    assert again == dataclasses.replace(second, evaluated_anew=False)


def test_only_a_blessed_model_of_the_same_kind_is_a_baseline(workplace):
    good = workplace.run("a")
    workplace.run("b", blessed=False)
    other_architecture = workplace.run("c", architecture="unet")
    other_classes = workplace.run("d", classes="sky road car")
    last = workplace.run("e")

    assert other_architecture.baseline == ""
    assert other_classes.baseline == ""
    assert last.baseline == good.model


def test_a_model_whose_files_are_gone_is_passed_over(workplace):
    good = workplace.run("a")
    gone = workplace.run("b")
    shutil.rmtree(gone.model)

    assert workplace.run("c").baseline == good.model


def test_a_model_that_accepts_smaller_images_only_is_passed_over(workplace):
    good = workplace.run("a", max_pixels=101)
    workplace.run("b")

    assert workplace.run("c", max_pixels=101).baseline == good.model
    assert workplace.run("d", max_pixels=102).baseline == ""
