"""The rules of the preset `auto`, on made-up facts."""

import dataclasses

import pytest

from components.errors import UsageError
from pipeline.auto import rules
from pipeline.auto.facts import DataFacts, MachineFacts
from pipeline.auto.rules import Recipe, Speed
from pipeline.configuration.loading import load_config
from pipeline.configuration.presets import PRESETS

# What `inspect_data` finds of CamVid's splits train and val, rounded.
_CAMVID = DataFacts(
    pairs=468,
    training_pairs=367,
    validation_pairs=101,
    scored_pairs=101,
    size=(360, 480),
    fractions={
        "sky": 0.175,
        "building": 0.241,
        "column_pole": 0.010,
        "road": 0.329,
        "side_walk": 0.047,
        "vegetation": 0.103,
        "traffic_light": 0.012,
        "fence": 0.012,
        "vehicle": 0.061,
        "pedestrian": 0.006,
        "bicyclist": 0.003,
    },
    smallest=("column_pole", 19.0),
)
_TWO_CORES = MachineFacts("a processor", 2, 23, (), edges=True)
_GPU = dataclasses.replace(_TWO_CORES, cores=16, gpus=("NVIDIA H100 80GB HBM3",))
# FCN-8's step by docs/recipe.md, and half a minute for a validation.
_SPEED = Speed(batch_size=4, step=0.83, validation_step=1.15, start=8, devices=1, seconds=30)
_RECIPE = Recipe(window=(192, 256), batch_size=4, prediction_cost=2)


def _network(data=_CAMVID, machine=_TWO_CORES, model="fcn8", **options):
    settings, choices = rules.network(data, machine, model, **options)
    return settings, {choice.setting: choice.value for choice in choices}


def _schedule(minutes, data=_CAMVID, **speed):
    found = rules.schedule(data, minutes, _SPEED._replace(**speed), _RECIPE, learning_rate=1e-3)
    return {choice.setting.removeprefix("training."): choice.value for choice in found}


def test_camvid_on_two_cores_gets_the_preset_cpu():
    settings, _ = _network()
    cpu = PRESETS["cpu"]["fcn8"]
    schedule = _schedule(30)

    assert (tuple(settings["size"]), tuple(settings["training"]["crop_size"])) == (cpu["size"], (192, 256))
    assert settings["model"] == cpu["model"]
    decided = {"crop_size", "epochs", "validate_every", "memory_fraction"}
    for name in set(cpu["training"]) - decided:
        assert settings["training"][name] == cpu["training"][name], name
    assert schedule == {"batch_size": 4, "epochs": 20, "validate_every": 20}


@pytest.mark.parametrize("model", sorted({*PRESETS["cpu"]} - {"mask_rcnn"}))
@pytest.mark.parametrize("machine", [_TWO_CORES, _GPU, dataclasses.replace(_TWO_CORES, edges=False)])
@pytest.mark.parametrize("size", [(20, 500), (96, 128), (480, 360), (1024, 2048), (3000, 4000)])
def test_every_choice_is_a_valid_configuration(model, machine, size):
    data = dataclasses.replace(_CAMVID, size=size)
    settings, _ = _network(data, machine, model)

    config = load_config([("auto", settings)])
    assert not any(side % 32 for side in (*config.size, *config.training.crop_size))


@pytest.mark.parametrize(
    ("size", "smallest", "expected"),
    [
        ((360, 480), 19.0, [352, 480]),
        # Twelve times the work of CamVid's.
        ((1024, 2048), 60.0, [288, 576]),
        ((1024, 2048), 20.0, [416, 832]),
        # At most four times the work.
        ((1024, 2048), 2.0, [576, 1152]),
        ((40, 50), 5.0, [32, 32]),
    ],
)
def test_large_images_shrink_as_far_as_their_smallest_objects_allow(size, smallest, expected):
    data = dataclasses.replace(_CAMVID, size=size, smallest=("pole", smallest))

    assert _network(data)[0]["size"] == expected


def test_the_size_that_the_user_chose_decides_the_window():
    _, choices = _network(size=(128, 160))

    assert "size" not in choices
    assert choices["training.crop_size"] == [128, 160]


def test_a_gpu_gets_larger_windows_and_trains_the_whole_encoder():
    training = _network(machine=_GPU)[0]["training"]

    assert (training["crop_size"], training["frozen_blocks"], training["require_gpu"]) == ([256, 352], 0, True)


@pytest.mark.parametrize("gpus", [(), _GPU.gpus])
def test_the_note_on_gpus_is_the_reason_for_the_device(gpus):
    machine = dataclasses.replace(_TWO_CORES, gpus=gpus, gpu_note="why")
    _, choices = rules.network(_CAMVID, machine, "fcn8")

    assert rules.Choice("training.require_gpu", bool(gpus), "why") in choices


def test_without_pretrained_weights_the_whole_encoder_is_trained():
    settings, _ = _network(machine=dataclasses.replace(_TWO_CORES, edges=False))

    assert settings["model"]["encoder_weights"] == "none"
    assert (settings["training"]["frozen_blocks"], settings["training"]["encoder_lr_multiplier"]) == (0, 1.0)


def test_only_imbalanced_classes_are_weighted_and_unseen_ones_ignored():
    even = dataclasses.replace(_CAMVID, fractions={"cat": 0.6, "dog": 0.4, "unseen": 0.0})
    uneven = dataclasses.replace(_CAMVID, fractions={"road": 0.95, "crack": 0.05})

    assert _network(even)[1]["training.class_balance"] == 0
    assert _network(uneven)[1]["training.class_balance"] == 0.4


def test_the_gate_requires_more_than_predicting_the_most_frequent_class():
    assert _network(dataclasses.replace(_CAMVID, fractions={"road": 0.95, "crack": 0.05}))[1][
        "gate.min_mean_iou"
    ] == pytest.approx(0.53)
    assert _network()[1]["gate.min_mean_iou"] == 0.25


def test_more_time_gives_more_epochs_and_validations_up_to_the_longest_training_measured():
    short, long, endless = (_schedule(minutes) for minutes in (10, 60, 6000))

    assert short["epochs"] < 20 < long["epochs"] < endless["epochs"] == 60
    assert short["validate_every"] == short["epochs"]
    assert long["validate_every"] < long["epochs"]


def test_a_batch_that_was_halved_lowers_the_learning_rate_by_the_square_root():
    schedule = _schedule(30, batch_size=2)

    assert (schedule["batch_size"], schedule["learning_rate"]) == (2, 7.07e-4)


def test_devices_share_an_epoch():
    assert _schedule(30, devices=2)["epochs"] > 1.7 * _schedule(30)["epochs"]


def test_a_budget_below_one_epoch_is_refused_with_the_smallest():
    many = dataclasses.replace(_CAMVID, pairs=50_000, training_pairs=40_000, validation_pairs=1_000)
    with pytest.raises(UsageError, match="--minutes 30: expected at least") as error:
        _schedule(30, many)
    least = int(str(error.value).split("at least ")[1].split(",")[0])

    assert _schedule(least, many)["epochs"] == 1
    with pytest.raises(UsageError):
        _schedule(least - 1, many)


def test_unet_needs_time_for_three_times_the_windows_of_half_an_hour():
    def suits(minutes, **speed):
        return rules.suits_unet(_CAMVID, minutes, _SPEED._replace(**speed), _RECIPE)

    assert [suits(minutes) for minutes in (10, 30, 60, 120, 240)] == [False, False, False, True, True]
    assert suits(30, step=0.01)
