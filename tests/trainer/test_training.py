import json
import logging
import math
import pathlib
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
import training_toy as toy

from components.errors import DataRejectedError, SegpipeError, UsageError
from components.gpu import Build, GpuInspection
from trainer import cluster, distribution, input_pipeline, loop, optimizer, precision, training
from trainer.callbacks import example_panels
from trainer.checkpoints import Checkpoints
from trainer.config import ModelSettings
from trainer.decoded import SplitFacts
from trainer.learner import Learner
from trainer.metrics import MeanIoU
from trainer.models import registry
from trainer.training import TrainedModel, make_learner, train


class Listener(logging.Handler):
    """Collects progress records, and optionally interrupts the training at the end of an epoch."""

    def __init__(self, break_after_epoch: int | None = None) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self._break_after_epoch = break_after_epoch

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        if record.progress["epoch"] == self._break_after_epoch and record.progress["epoch_ended"]:
            raise InterruptedError


def run(job, checkpoints: Checkpoints, listener: Listener) -> TrainedModel:
    logger = logging.getLogger("segpipe.progress")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(listener)
    try:
        return train(job, checkpoints)
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)


def without_seconds(history: list[dict]) -> list[dict]:
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in history]


def events(directory: pathlib.Path, tag: str) -> dict[int, tf.Tensor]:
    return {
        event.step: tf.make_ndarray(value.tensor)
        for path in sorted(directory.iterdir())
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
        if value.tag == tag
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> pathlib.Path:
    directory = tmp_path_factory.mktemp("data")
    toy.write_splits(directory)
    return directory


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory) -> tuple[TrainedModel, Listener, pathlib.Path]:
    root = tmp_path_factory.mktemp("unbroken")
    listener = Listener()
    trained = run(toy.job(data, root / "logs", keep="last"), Checkpoints(str(root / "checkpoint")), listener)
    return trained, listener, root


def test_history_has_one_entry_an_epoch(unbroken):
    trained, _, _ = unbroken

    assert [entry["epoch"] for entry in trained.history] == [1, 2, 3]
    assert set(trained.history[0]) == {
        "epoch", "loss", "mean_iou", "val_loss", "val_mean_iou", "learning_rate", "seconds",
    }  # fmt: skip
    assert json.loads(json.dumps(trained.history)) == trained.history


def test_progress_contains_place_and_scores(unbroken):
    _, listener, _ = unbroken

    ends = [r.progress for r in listener.records if r.progress["epoch_ended"]]
    assert [record["epoch"] for record in ends] == [1, 2, 3]
    assert ends[-1]["component"] == "Trainer"
    assert (ends[-1]["epochs"], ends[-1]["step"], ends[-1]["steps"], ends[-1]["resumed_from"]) == (3, 5, 5, None)
    assert listener.records[-1].getMessage().startswith("epoch 3/3, step 5/5: loss ")


def test_curves_and_example_masks_are_logged_for_every_epoch(unbroken):
    trained, _, root = unbroken

    losses = events(root / "logs" / "validation", "loss")
    panels = events(root / "logs" / "validation", "image, truth, prediction")

    assert {step: float(loss) for step, loss in losses.items()} == {
        entry["epoch"]: pytest.approx(entry["val_loss"]) for entry in trained.history
    }
    width, height, *frames = panels[3]
    assert (int(width), int(height), len(frames)) == (3 * toy.SIZE[1], toy.SIZE[0], 3)
    assert set(events(root / "logs" / "train", "learning_rate")) == {1, 2, 3}


def test_the_model_has_no_optimizer_to_export_and_takes_plain_pixels(unbroken):
    model = unbroken[0].model

    assert getattr(model, "optimizer", None) is None
    assert model(np.zeros((1, *toy.SIZE, 3), np.uint8)).shape == (1, *toy.SIZE, 4)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(unbroken, data, tmp_path):
    again = run(toy.job(data, tmp_path, keep="last"), Checkpoints(str(tmp_path / "again")), Listener())
    other = run(toy.job(data, tmp_path, seed=6, epochs=1), Checkpoints(str(tmp_path / "other")), Listener())

    for first, second in zip(toy.weights(unbroken[0]), toy.weights(again), strict=True):
        np.testing.assert_array_equal(first, second)
    assert without_seconds(again.history) == without_seconds(unbroken[0].history)
    assert other.history[0]["loss"] != again.history[0]["loss"]


def test_an_interrupted_training_resumes_and_ends_like_an_uninterrupted_one(unbroken, data, tmp_path):
    job, checkpoints = toy.job(data, tmp_path / "logs", keep="last"), Checkpoints(str(tmp_path / "checkpoint"))
    with pytest.raises(InterruptedError):
        run(job, checkpoints, Listener(break_after_epoch=2))
    listener = Listener()

    resumed = run(job, checkpoints, listener)

    assert {record.progress["resumed_from"] for record in listener.records} == {2}
    assert without_seconds(resumed.history) == without_seconds(unbroken[0].history)
    for found, expected in zip(toy.weights(resumed), toy.weights(unbroken[0]), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert set(events(tmp_path / "logs" / "validation", "loss")) == {1, 2, 3}


class BreakingCheckpoints(Checkpoints):
    """Interrupts the training after the checkpoint of a step."""

    def __init__(self, folder: str, epoch: int, step: int) -> None:
        super().__init__(folder)
        self._place = epoch, step

    def save(self, variables, state) -> None:
        super().save(variables, state)
        if (state.epoch, state.step) == self._place:
            raise InterruptedError


def test_a_training_interrupted_within_an_epoch_resumes_after_the_last_saved_step(unbroken, data, tmp_path):
    job, folder = toy.job(data, tmp_path / "logs", keep="last", checkpoint_steps=2), str(tmp_path / "checkpoint")
    with pytest.raises(InterruptedError):
        run(job, BreakingCheckpoints(folder, epoch=1, step=4), Listener())
    listener = Listener()

    resumed = run(job, Checkpoints(folder), listener)

    first = listener.records[0].progress
    assert (first["epoch"], first["step"]) == (2, 5)
    assert without_seconds(resumed.history) == without_seconds(unbroken[0].history)
    for found, expected in zip(toy.weights(resumed), toy.weights(unbroken[0]), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_finished_training_is_not_trained_again(unbroken, data):
    trained, _, root = unbroken
    listener = Listener()

    again = run(toy.job(data, root / "logs", keep="last"), Checkpoints(str(root / "checkpoint")), listener)

    assert listener.records == []
    assert again.history == trained.history
    for found, expected in zip(toy.weights(again), toy.weights(trained), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_finished_training_waits_for_no_other_worker(unbroken, data, monkeypatch):
    trained, _, root = unbroken
    job, checkpoints = toy.job(data, root / "logs", keep="last"), Checkpoints(str(root / "checkpoint"))
    addresses = {"worker": ["localhost:1", "localhost:2"]}

    def interrupt(*_) -> None:
        raise InterruptedError

    monkeypatch.setattr(distribution, "choose", interrupt)
    # No step runs, so the size of the batch must not matter.
    monkeypatch.setattr(registry, "check_batch", interrupt)
    ends = []
    for index in range(2):
        config = {"cluster": addresses, "task": {"type": "worker", "index": index}}
        monkeypatch.setenv(cluster.TF_CONFIG, json.dumps(config))
        ends.append(train(job, checkpoints))

    chief, other = ends
    assert other is None
    assert chief.history == trained.history
    for found, expected in zip(toy.weights(chief), toy.weights(trained), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_training_resumes_a_checkpoint_saved_while_its_workers_connected(unbroken, data, tmp_path, monkeypatch):
    trained, _, root = unbroken

    def gather() -> tf.distribute.Strategy:
        shutil.copytree(root / "checkpoint", tmp_path / "checkpoint", dirs_exist_ok=True)
        return tf.distribute.get_strategy()

    monkeypatch.setattr(distribution, "choose", gather)

    again = train(toy.job(data, tmp_path / "logs", keep="last"), Checkpoints(str(tmp_path / "checkpoint")))

    # Including the seconds of the epochs.
    assert again.history == trained.history


def test_the_kept_epoch_is_the_best_on_validation(unbroken, data):
    trained, _, root = unbroken

    best = run(toy.job(data, root / "logs", keep="best"), Checkpoints(str(root / "checkpoint")), Listener())

    scores = [entry["val_mean_iou"] for entry in trained.history]
    assert best.epoch == 1 + scores.index(max(scores))
    assert trained.epoch == 3


class RecordingCheckpoints(Checkpoints):
    """Records the values of the variables at the end of every epoch: by epoch, by path."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.epochs: dict[int, dict[str, np.ndarray]] = {}

    def save(self, variables, state) -> None:
        super().save(variables, state)
        self.epochs[state.epoch] = {variable.path: variable.numpy() for variable in variables}


def test_the_weights_are_those_of_the_epoch_that_is_kept(data, tmp_path, monkeypatch):
    falling = iter([{"loss": 1.0, "mean_iou": 0.3}, {"loss": 1.0, "mean_iou": 0.2}])
    monkeypatch.setattr(loop.TrainingLoop, "_validate", lambda _: next(falling))
    checkpoints = RecordingCheckpoints(str(tmp_path / "checkpoint"))

    trained = run(toy.job(data, tmp_path, epochs=2), checkpoints, Listener())

    assert trained.epoch == 1
    for weight in trained.model.weights:
        np.testing.assert_array_equal(weight.numpy(), checkpoints.epochs[1][weight.path])
    kernels = [weight.path for weight in trained.model.trainable_weights if weight.path.endswith("kernel")]
    assert not all(np.array_equal(checkpoints.epochs[1][path], checkpoints.epochs[2][path]) for path in kernels)


def test_it_learns_a_toy_set(data, tmp_path):
    job = toy.job(data, tmp_path, epochs=25, augment=False, class_balance=0.0)

    trained = run(job, Checkpoints(str(tmp_path / "checkpoint")), Listener())

    assert trained.history[-1]["loss"] < 0.3 * trained.history[0]["loss"]
    assert max(entry["val_mean_iou"] for entry in trained.history) > 0.8


# Settings that are disabled by default.
RECIPE = {
    "dice_weight": 0.5, "lovasz_weight": 0.5, "ema": 0.9, "deep_supervision": 0.4,
}  # fmt: skip


def test_the_whole_recipe_interrupted_within_an_epoch_ends_like_an_uninterrupted_one(unbroken, data, tmp_path):
    before = keras.config.dtype_policy().name
    job = toy.job(data, tmp_path, epochs=1, checkpoint_steps=3, precision="mixed_bfloat16", **RECIPE)
    expected = run(job, Checkpoints(str(tmp_path / "unbroken")), Listener())
    with pytest.raises(InterruptedError):
        run(job, BreakingCheckpoints(str(tmp_path / "broken"), 0, 3), Listener())

    resumed = run(job, Checkpoints(str(tmp_path / "broken")), Listener())

    assert without_seconds(resumed.history) == without_seconds(expected.history)
    for found, value in zip(toy.weights(resumed), toy.weights(expected), strict=True):
        np.testing.assert_array_equal(found, value)
    # Without the heads of deep supervision.
    assert resumed.model.count_params() == unbroken[0].model.count_params()
    # The global policy is restored, also after the interruption.
    assert expected.policy == resumed.policy == "mixed_bfloat16"
    assert keras.config.dtype_policy().name == before


def test_a_moving_average_is_what_is_validated_and_kept(unbroken, data, tmp_path):
    job = toy.job(data, tmp_path, keep="last", ema=0.9)

    averaged = run(job, Checkpoints(str(tmp_path / "checkpoint")), Listener())

    plain = unbroken[0]
    assert [e["loss"] for e in averaged.history] == pytest.approx([e["loss"] for e in plain.history], rel=1e-5)
    assert [e["val_loss"] for e in averaged.history] != pytest.approx([e["val_loss"] for e in plain.history], rel=1e-3)
    images, masks = next(input_pipeline.evaluation_batches(toy.split(job, "eval").pixels, 6, 1).as_numpy_iterator())
    score = MeanIoU(toy.CLASS_MAP)
    score.update_state(masks, averaged.model(images, training=False))
    assert float(score.result()) == pytest.approx(averaged.history[-1]["val_mean_iou"], abs=1e-3)


def test_it_trains_in_float16(data, tmp_path):
    job = toy.job(data, tmp_path, epochs=1, precision="mixed_float16")

    trained = run(job, Checkpoints(str(tmp_path / "checkpoint")), Listener())

    assert trained.policy == "mixed_float16"
    # Predicting one class everywhere gives at most 1/3.
    assert trained.history[0]["val_mean_iou"] > 0.4


def test_only_float16_scales_the_loss(data, tmp_path):
    def learner(policy: str) -> Learner:
        job = toy.job(data, tmp_path)
        with precision.policy(policy):
            return make_learner(job, toy.split(job).facts, tf.distribute.get_strategy())

    def scales(policy: str) -> bool:
        return any(variable.name == "dynamic_scale" for variable in learner(policy).variables)

    assert [scales(policy) for policy in precision.POLICIES] == [False, False, True]


def test_it_trains_on_windows_and_validates_whole_images_every_n_epochs(data, tmp_path):
    job = toy.job(data, tmp_path, epochs=3, crop_size=(16, 32), validate_every=2)

    trained = run(job, Checkpoints(str(tmp_path / "checkpoint")), Listener())

    scores = {entry["epoch"]: entry["val_mean_iou"] for entry in trained.history}
    assert scores[1] is None
    # Only an epoch that was validated can be the best.
    assert trained.epoch == max((2, 3), key=scores.__getitem__)
    assert set(events(tmp_path / "validation", "image, truth, prediction")) == {2, 3}
    assert trained.model(np.zeros((1, *toy.SIZE, 3), np.float32)).shape == (1, *toy.SIZE, 4)


def test_the_encoder_is_frozen_and_has_its_own_learning_rate(data, tmp_path, monkeypatch):
    network = ModelSettings(name="unet", encoder="mobilenet_v2", encoder_weights="imagenet", base_filters=4)
    job = toy.job(data, tmp_path, model=network, frozen_blocks=1, encoder_lr_multiplier=0.5)
    given, build = [], optimizer.build
    monkeypatch.setattr(optimizer, "build", lambda *arguments: (given.extend(arguments), build(*arguments))[1])

    # As in a resumed training, so that no pretrained weights are read.
    learner = make_learner(job, toy.split(job).facts, tf.distribute.get_strategy(), fresh=False)

    assert [learner.model.get_layer(name).trainable for name in ("Conv1", "block_1_depthwise")] == [False, True]
    assert given[-1] == registry.encoder_blocks(network)


def test_a_step_of_one_image_is_rejected_for_networks_that_need_more(data, tmp_path):
    job = toy.job(data, tmp_path, model=ModelSettings(name="pspnet"), batch_size=1)

    with pytest.raises(UsageError, match=r"training\.batch_size: found 1 image per step, but pspnet .* at least 2"):
        train(job, Checkpoints(str(tmp_path / "checkpoint")))


def test_nothing_is_traced_twice_even_if_the_last_batches_are_smaller(data, tmp_path, monkeypatch):
    traced = []

    def count(name: str) -> None:
        step = getattr(Learner, name)

        def counting(self, images, *rest) -> None:
            traced.append((images.shape[0], name))
            step(self, images, *rest)

        monkeypatch.setattr(Learner, name, counting)

    count("_train_step")
    count("_validation_step")

    run(toy.job(data, tmp_path, batch_size=8, epochs=2), Checkpoints(str(tmp_path / "checkpoint")), Listener())

    assert sorted(traced) == [(8, "_train_step"), (8, "_validation_step")]


def test_the_validation_loss_does_not_depend_on_what_fills_up_its_last_batch(unbroken, data, tmp_path):
    # Six images are 1.5 batches of four, or one batch of six.
    scores = []
    for batch_size in (4, 6):
        job = toy.job(data, tmp_path, batch_size=batch_size, dice_weight=1.0, cross_entropy=0.0)
        learner = make_learner(job, toy.split(job).facts, tf.distribute.get_strategy())
        learner.model.set_weights(toy.weights(unbroken[0]))
        steps = input_pipeline.steps(6, batch_size)
        for batch in input_pipeline.evaluation_batches(toy.split(job, "eval").pixels, batch_size, steps):
            learner.validate(batch)
        scores.append(learner.scores())

    assert scores[0] == pytest.approx(scores[1], rel=1e-5)


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (
            {"crop_size": (20, 32)},
            r"training\.crop_size: found 20x32, but unet needs a height that is a multiple of 16",
        ),
        ({"crop_size": (64, 48)}, r"training\.crop_size: found 64x48, expected at most the input size, 32x48"),
    ],
)
def test_a_window_that_does_not_fit_is_refused(data, tmp_path, training, message):
    with pytest.raises(UsageError, match=message):
        train(toy.job(data, tmp_path, **training), Checkpoints(str(tmp_path / "checkpoint")))


def test_a_missing_required_gpu_is_an_error(data, tmp_path, monkeypatch):
    monkeypatch.setattr(training.gpu, "usable_gpus", lambda: [])
    monkeypatch.setattr(training.gpu, "inspect", lambda: GpuInspection(Build("2.21.0")))

    with pytest.raises(UsageError, match=r"require_gpu: found no GPU(.|\n)*TensorFlow 2\.21\.0 was built without CUDA"):
        train(toy.job(data, tmp_path, require_gpu=True), Checkpoints(str(tmp_path / "checkpoint")))


# The smallest number of steps per epoch for which the training has `precision.XLA_PIXELS` pixels.
_XLA_STEPS = math.ceil(precision.XLA_PIXELS / (3 * 4 * math.prod(toy.SIZE)))


@pytest.mark.parametrize(
    ("model", "recipe", "steps", "expected"),
    [
        (toy.UNET, {}, _XLA_STEPS, True),
        (toy.UNET, {}, _XLA_STEPS - 1, False),
        (toy.UNET, {"crop_size": (16, 32)}, _XLA_STEPS, False),
        (toy.UNET, {"xla": "off"}, _XLA_STEPS, False),
        (ModelSettings(name="unet", base_filters=4, encoder="mobilenet_v2"), {}, _XLA_STEPS, False),
        (toy.UNET, {"deep_supervision": 0.4}, _XLA_STEPS, False),
        (toy.UNET.model_copy(update={"depth": True}), {}, _XLA_STEPS, False),
        (ModelSettings(name="pspnet"), {}, _XLA_STEPS, False),
        (ModelSettings(name="pspnet"), {"xla": "on"}, 1, True),
    ],
)
def test_auto_compiles_long_trainings_of_networks_that_xla_compiles(
    data, tmp_path, monkeypatch, model, recipe, steps, expected
):
    job = toy.job(data, tmp_path, model=model, **recipe)
    pixels = np.full(4, 100)
    facts = SplitFacts(examples=4 * steps, largest_shard=4 * steps, class_pixels=pixels, present_pixels=pixels)
    monkeypatch.setattr(training, "Learner", lambda *_, xla, **__: xla)
    strategy = tf.distribute.get_strategy()
    monkeypatch.setattr(precision.tf.config, "list_physical_devices", lambda _: ["GPU"])

    assert make_learner(job, facts, strategy) == expected


def test_a_nan_loss_stops_the_training(data, tmp_path):
    job = toy.job(data, tmp_path, learning_rate=1e38, warmup_epochs=0, weight_decay=0)

    with pytest.raises(SegpipeError, match=r"the loss is nan at step \d+, expected a finite number; lower"):
        run(job, Checkpoints(str(tmp_path / "checkpoint")), Listener())


def test_an_empty_training_split_is_rejected(tmp_path):
    toy.write_splits(tmp_path, train_examples=0)

    with pytest.raises(DataRejectedError, match="split train: no examples"):
        train(toy.job(tmp_path, tmp_path), Checkpoints(str(tmp_path / "checkpoint")))


@pytest.mark.parametrize("split", ["train", "eval"])
def test_a_split_that_is_all_void_is_rejected(tmp_path, split):
    toy.write_splits(tmp_path)
    void = np.full(toy.SIZE, toy.CLASS_MAP.ignore_index, np.uint8)
    toy.write_records(tmp_path / f"{split}.gz", [(np.zeros((*toy.SIZE, 3), np.uint8), void)] * 4)

    with pytest.raises(DataRejectedError, match=rf"split {split}: every pixel is void, the ignored class"):
        train(toy.job(tmp_path, tmp_path), Checkpoints(str(tmp_path / "checkpoint")))


def test_example_panels_show_image_truth_and_prediction():
    images = np.full((2, 4, 5, 3), 7.0, np.float32)
    masks, predictions = np.zeros((2, 4, 5), np.uint8), np.ones((2, 4, 5), np.int64)

    panels = example_panels(images, masks, predictions, toy.CLASS_MAP)

    assert (panels.shape, panels.dtype) == ((2, 4, 15, 3), np.uint8)
    assert panels[0, 0, [0, 5, 10]].tolist() == [[7, 7, 7], [90, 90, 90], [200, 40, 40]]
