"""The baseline that a run resolves, in real pipelines of toy components on a real metadata store."""

# No postponed annotations here: TFX reads the components' annotations as types.
import dataclasses
import itertools
import json
import pathlib
import shutil

import ml_metadata as mlmd
import pytest
from baseline_toys import Input, Output, Parameter, ToyData, ToyPusher
from ml_metadata.proto import metadata_store_pb2
from tfx import v1 as tfx
from tfx.types.standard_artifacts import Examples, Model, ModelBlessing, ModelEvaluation

from components.artifact_files import MODEL_METADATA
from components.baseline.strategy import ServedBaseline
from components.errors import SegpipeError
from components.pusher.versions import find_versions
from components.pusher.withdrawn import withdraw
from pipeline.running.nodes import run_nodes


@tfx.dsl.components.component
def ToyTrainer(model: Output[Model], examples: Input[Examples], description: Parameter[str], recipe: Parameter[str]):
    """Writes the metadata that the strategy reads; a new recipe trains a new model."""
    path = pathlib.Path(model.uri, "Format-Serving", MODEL_METADATA)
    path.parent.mkdir(parents=True)
    path.write_text(description)


@tfx.dsl.components.component
def ToyEvaluator(
    blessing: Output[ModelBlessing],
    evaluation: Output[ModelEvaluation],
    model: Input[Model],
    blessed: Parameter[int],
    baseline_model: Input[Model] = None,
):
    """Blesses as configured, and records its baseline."""
    blessing.set_int_custom_property("blessed", blessed)
    blessing.set_int_custom_property("current_model_id", model.id)
    pathlib.Path(evaluation.uri, "baseline").write_text(baseline_model.uri if baseline_model else "")


@dataclasses.dataclass(frozen=True)
class Run:
    model: str
    baseline: str
    passed_over: str
    evaluated_anew: bool


class Workplace:
    """A directory in which the toy pipeline is run again and again."""

    def __init__(self, root: pathlib.Path):
        self._root = root
        self._connection = tfx.orchestration.metadata.sqlite_metadata_connection_config(str(root / "metadata.db"))
        self._numbers = itertools.count(1)
        self.base = str(root / "serving")

    def run(self, recipe, blessed=True, mean_iou=0.5, test="t", best_of=1, project="toy", classes="sky road", **says):
        """Runs the pipeline once; `says` is the metadata of the model besides its classes."""
        names, description = classes.split(), {"model": "fcn8", "max_pixels": 100, **says}
        description["class_map"] = {"names": names}
        scores = {"metrics": {"mean_iou": mean_iou}, "evaluated_on": {"split": "test", "fingerprint": test}}
        data = ToyData(span="1", test=test)
        examples = data.outputs["examples"]
        trainer = ToyTrainer(examples=examples, description=json.dumps(description), recipe=recipe)
        model = trainer.outputs["model"]
        baseline = tfx.dsl.Resolver(
            strategy_class=ServedBaseline,
            config={"gate_split": "test", "best_of": best_of},
            model=tfx.dsl.Channel(type=Model),
            model_blessing=tfx.dsl.Channel(type=ModelBlessing),
            served=tfx.dsl.Channel(type=Model),
            candidate=model,
            examples=examples,
        ).with_id("BaselineResolver")
        evaluator = ToyEvaluator(model=model, baseline_model=baseline.outputs["model"], blessed=int(blessed))
        pusher = ToyPusher(
            model=model,
            blessing=evaluator.outputs["blessing"],
            base=self.base,
            description=json.dumps({**description, **scores}),
        )
        before = self._evaluations()
        pipeline = tfx.dsl.Pipeline(
            pipeline_name=project,
            pipeline_root=str(self._root / "artifacts"),
            components=[data, trainer, baseline, evaluator, pusher],
            enable_cache=True,
            metadata_connection_config=self._connection,
        )
        run_nodes(pipeline, f"run-{next(self._numbers)}")
        return self._last_run(before)

    def withdraw_last(self) -> None:
        withdraw(self.base, max(find_versions(self.base)), "pedestrians are missed")

    def _evaluations(self) -> int:
        if not (self._root / "metadata.db").exists():
            return 0
        return len(self._store().get_artifacts_by_type("ModelEvaluation"))

    def _store(self) -> mlmd.MetadataStore:
        return mlmd.MetadataStore(self._connection)

    def _last_run(self, evaluations_before: int) -> Run:
        """Reads the models of the latest evaluation, cached or not, from the metadata store."""
        uris = {
            **self._uris("ToyEvaluator", metadata_store_pb2.Event.INPUT),
            **self._uris("Resolver", metadata_store_pb2.Event.INTERNAL_OUTPUT, only=("served",)),
        }
        return Run(
            uris["model"],
            uris.get("baseline_model", ""),
            uris.get("served", ""),
            self._evaluations() > evaluations_before,
        )

    def _uris(self, kind: str, event_type: int, only=("model", "baseline_model")) -> dict[str, str]:
        """Returns what the latest execution of a kind read or wrote, by key."""
        store = self._store()
        execution = max((e for e in store.get_executions() if e.type.endswith(kind)), key=lambda each: each.id)
        events = [e for e in store.get_events_by_execution_ids([execution.id]) if e.type == event_type]
        found = {e.path.steps[0].key: store.get_artifacts_by_id([e.artifact_id])[0].uri for e in events}
        return {key: uri for key, uri in found.items() if key in only}


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


def test_only_a_pushed_model_of_the_same_task_and_classes_is_a_baseline(workplace):
    good = workplace.run("a")
    workplace.run("b", blessed=False)
    other_classes = workplace.run("c", classes="sky road car")
    other_task = workplace.run("d", task="instance")
    last = workplace.run("e", task="semantic")

    assert other_classes.baseline == other_task.baseline == ""
    assert last.baseline == good.model


def test_another_architecture_is_compared_with_the_served_version(workplace):
    good = workplace.run("a")

    assert workplace.run("b", model="unet").baseline == good.model


def test_projects_on_one_store_have_their_own_baselines(workplace):
    first = workplace.run("a", project="one")
    other = workplace.run("b", project="two")
    second = workplace.run("c", project="one")

    assert other.baseline == ""
    assert second.baseline == first.model


def test_a_withdrawn_version_is_skipped(workplace):
    good = workplace.run("a")
    workplace.run("b")
    workplace.withdraw_last()

    assert workplace.run("c").baseline == good.model


def test_a_damaged_record_of_withdrawn_versions_stops_the_run(workplace):
    workplace.run("a")
    workplace.withdraw_last()
    pathlib.Path(workplace.base, "withdrawn.json").write_text("{")

    with pytest.raises(SegpipeError, match=r"^BaselineResolver: .*withdrawn\.json: .*Correct the file$"):
        workplace.run("b")


def test_a_model_whose_files_are_missing_is_skipped(workplace):
    good = workplace.run("a")
    gone = workplace.run("b")
    shutil.rmtree(gone.model)

    assert workplace.run("c").baseline == good.model


def test_a_model_that_accepts_only_smaller_images_is_skipped(workplace):
    good = workplace.run("a", max_pixels=101)
    workplace.run("b")

    assert workplace.run("c", max_pixels=101).baseline == good.model
    assert workplace.run("d", max_pixels=102).baseline == ""


def test_tolerated_drops_do_not_add_up(workplace):
    best = workplace.run("a", mean_iou=0.60, best_of=3)
    workplace.run("b", mean_iou=0.59, best_of=3)
    last = workplace.run("c", mean_iou=0.58, best_of=3)

    fourth = workplace.run("d", mean_iou=0.57, best_of=3)
    served_alone = workplace.run("e", best_of=1)
    fifth = workplace.run("f", best_of=3)

    assert (fourth.baseline, fourth.passed_over) == (best.model, last.model)
    assert (served_alone.baseline, served_alone.passed_over) == (fourth.model, "")
    # The best one is no longer among the last three.
    assert fifth.baseline == last.model


def test_scores_on_other_images_are_not_compared(workplace):
    workplace.run("a", mean_iou=0.9, best_of=3)
    other_images = workplace.run("b", mean_iou=0.5, test="u", best_of=3)

    assert workplace.run("c", test="u", best_of=3).baseline == other_images.model
    # The served version has no score on these images, so nothing is known to be better.
    last = workplace.run("d", test="u", best_of=3)
    assert workplace.run("e", test="t", best_of=3).baseline == last.model


def test_a_better_but_withdrawn_version_is_skipped(workplace):
    workplace.run("a", mean_iou=0.9, best_of=3)
    workplace.withdraw_last()
    last = workplace.run("b", mean_iou=0.5, best_of=3)

    found = workplace.run("c", best_of=3)
    assert (found.baseline, found.passed_over) == (last.model, "")
