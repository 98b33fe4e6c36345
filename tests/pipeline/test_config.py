"""The configuration: layers, validation, and messages that lead to the right name."""

import pytest

from components.errors import UsageError
from pipeline.cli.run import build_config
from pipeline.configuration.config import parse_size
from pipeline.configuration.loading import field_names, load_config, read_assignments, read_config_file
from pipeline.configuration.presets import PRESETS, preset


def _config(*assignments, config=None, model="unet", preset_name="smoke", epochs=None):
    return build_config("", model, preset_name, None, epochs, config, list(assignments))


@pytest.mark.parametrize(("name", "model"), [(name, model) for name, models in PRESETS.items() for model in models])
def test_every_preset_is_valid_and_names_its_model(name, model):
    config = load_config([("preset", preset(name, model))])

    assert config.model.name == model


def test_later_layers_win_field_by_field(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("training:\n  epochs: 5\n  batch_size: 3\n")

    config = _config("training.batch_size=2", config=str(file))

    assert (config.training.epochs, config.training.batch_size) == (5, 2)
    assert config.training.learning_rate == preset("smoke", "unet")["training"]["learning_rate"]


def test_the_epochs_option_beats_the_file(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("training: {epochs: 5}\n")

    assert _config(config=str(file), epochs=9).training.epochs == 9


def test_assignments_nest_and_read_yaml():
    nested = read_assignments(["gate.min_class_iou={pedestrian: 0.2}", "size=[64, 96]", "model.dropout=0"])

    assert nested == {"gate": {"min_class_iou": {"pedestrian": 0.2}}, "size": [64, 96], "model": {"dropout": 0}}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("training.epoch=3", r"unknown setting training\.epoch; did you mean training\.epochs\?"),
        ("trainin.epochs=3", r"unknown setting trainin\.epochs; did you mean training\.epochs\?"),
        ("epochs=3", r"unknown setting epochs; did you mean training\.epochs\?"),
        ("training=3", r"training is a group; set one of .*training\.epochs"),
        ("training.epochs=many", r"training\.epochs: found 'many'"),
        ("training.epochs=0", r"training\.epochs: found 0.*greater than or equal to 1"),
        ("model.name=unett", r"model\.name: found 'unett'.*did you mean unet\?"),
        ("size=64", r"size: found 64"),
        ("training.epochs", r"expected key=value"),
        ("seed=4294967296", r"seed: found 4294967296, .*less than 4294967296"),
        ("training={1: 2}", r"unknown setting training\.1;"),
    ],
)
def test_a_wrong_setting_is_named_with_the_expected_value(assignment, message):
    with pytest.raises(UsageError, match=message):
        _config(assignment)


@pytest.mark.parametrize("text", ["7", "007", "2024-05-01", "on", "'7'"])
def test_a_text_stays_as_it_is_written(text):
    config = load_config([("--set", read_assignments([f"data.span={text}"]))])

    assert config.data.span == text.strip("'")


def test_a_file_may_hold_numbers_where_texts_are_meant(tmp_path):
    (tmp_path / "run.yaml").write_text("data: {span: 7}\nkubeflow: {cpu: 4, env: {OMP_NUM_THREADS: 2}}\n")

    config = load_config([("run.yaml", read_config_file(str(tmp_path / "run.yaml")))])

    assert (config.data.span, config.kubeflow.cpu, config.kubeflow.env) == ("7", "4", {"OMP_NUM_THREADS": "2"})


def test_the_preset_is_that_of_the_model_that_is_named(tmp_path):
    (tmp_path / "run.yaml").write_text("model: {name: unet}\n")

    by_file = build_config("", None, "cpu", None, None, str(tmp_path / "run.yaml"), [])
    by_assignment = build_config("", None, "cpu", None, None, None, ["model.name=unet"])

    assert by_file == by_assignment == build_config("", "unet", "cpu", None, None, None, [])
    with pytest.raises(UsageError, match=r"--model fcn8: found model.name unet in .*run.yaml, expected the same"):
        build_config("", "fcn8", "cpu", None, None, str(tmp_path / "run.yaml"), [])


def test_paths_among_settings_mean_the_same_in_any_folder(tmp_path, monkeypatch):
    (tmp_path / "run.yaml").write_text("serving_dir: served\nmodel: {encoder_weights: start.weights.h5}\n")
    monkeypatch.chdir(tmp_path)

    config = build_config("", "fcn8", "cpu", None, None, "run.yaml", ["data.description=layout.yaml"])
    words = build_config("", "fcn8", "cpu", None, None, None, ["serving_dir=gs://bucket/served"])

    assert (config.serving_dir, config.model.encoder_weights, config.data.description) == tuple(
        str(tmp_path / name) for name in ("served", "start.weights.h5", "layout.yaml")
    )
    assert (words.serving_dir, words.model.encoder_weights, words.data.description) == (
        "gs://bucket/served",
        "edges",
        "auto",
    )


def test_the_served_name_is_the_projects_unless_it_is_set():
    project = {"project": {"name": "streets"}}
    assert load_config([("test", {"model": {"name": "unet"}})]).served_name == "segpipe"
    assert load_config([("test", project)]).served_name == "streets"
    assert load_config([("test", {**project, "serving_name": "Street_scenes.2"})]).served_name == "Street_scenes.2"


@pytest.mark.parametrize("name", ["", "Streets", "street_scenes", "a.b", "-a", "a-", "a/b", "a" * 64])
def test_a_project_name_that_kubernetes_would_refuse_is_refused(name):
    with pytest.raises(UsageError, match="project.name: found .*expected at most 63 lower-case letters"):
        load_config([("test", {"project": {"name": name}})])


@pytest.mark.parametrize("name", ["a", "street-scenes-2", "a" * 63])
def test_a_project_name_is_one_for_kfp_and_vertex_ai_too(name):
    from kfp.dsl.utils import validate_pipeline_name
    from tfx.orchestration.kubeflow.v2 import pipeline_builder

    assert load_config([("test", {"project": {"name": name}})]).project.name == name
    validate_pipeline_name(name)
    assert pipeline_builder._LEGAL_NAME_PATTERN.fullmatch(name)


@pytest.mark.parametrize("name", ["a/b", "..", "street scenes", "v1:predict"])
def test_a_served_name_that_no_address_can_hold_is_refused(name):
    with pytest.raises(UsageError, match="serving_name: found .*expected letters, digits"):
        load_config([("test", {"serving_name": name})])


def test_a_group_that_is_given_a_value_too_is_named():
    with pytest.raises(UsageError, match="--set training.epochs=3: another --set gives training the value None"):
        _config("training=null", "training.epochs=3")


def test_an_unknown_key_in_a_file_names_the_file(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("training: {epocs: 5}\n")

    with pytest.raises(UsageError, match=r"settings\.yaml: unknown setting training\.epocs"):
        _config(config=str(file))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- 1\n", r"settings\.yaml: found \[1\]; expected a mapping"),
        ("a: [", "not valid YAML"),
        (
            "training: {epochs: 5}\nsize: 64x96\ntraining: {batch_size: 3}\n",
            r"found 'training' twice(.|\n)*line 1(.|\n)*line 3",
        ),
        ("a: &a {}\nb:\n  <<: *a\n  <<: *a\n", r"found '<<' twice.*<<: \[\*one, \*other\]"),
    ],
)
def test_a_file_that_holds_no_settings_is_refused(tmp_path, content, message):
    file = tmp_path / "settings.yaml"
    file.write_text(content)

    with pytest.raises(UsageError, match=message):
        read_config_file(str(file))


def test_a_binary_file_is_refused(tmp_path):
    file = tmp_path / "picture.png"
    file.write_bytes(b"\x89PNG\r\n")

    with pytest.raises(UsageError, match=r"picture\.png: is not a text file"):
        read_config_file(str(file))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"absent\.yaml: cannot be read"):
        read_config_file(str(tmp_path / "absent.yaml"))


def test_a_file_may_override_the_values_of_a_yaml_anchor(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("a: &base {epochs: 5}\nb: &more {<<: *base, epochs: 6}\nc: {<<: *more, seed: 1}\n")

    assert read_config_file(str(file))["c"] == {"epochs": 6, "seed": 1}


def test_a_dotted_name_in_a_file_is_refused_with_the_nested_form():
    with pytest.raises(UsageError, match=r"training\.epochs as one key.*\ntraining:\n  epochs: 5$"):
        load_config([("file", {"training.epochs": 5})])


@pytest.mark.parametrize("text", ["192", "192x", "0x4", "axb", "1x2x3", "²x4"])
def test_a_size_is_height_by_width(text):
    assert parse_size("192x256") == (192, 256)
    with pytest.raises(UsageError, match="HEIGHTxWIDTH"):
        parse_size(text)


def test_windows_larger_than_the_frames_are_refused_before_anything_runs():
    settings = {"size": [96, 128], "training": {"crop_size": [96, 160]}}

    with pytest.raises(
        UsageError, match="crop_size: found 96x160, expected at most size, 96x128; make it smaller, set"
    ):
        load_config([("settings.yaml", settings)])


def test_every_setting_has_a_description():
    assert all(description for _, description, _ in field_names())


def test_an_unknown_preset_or_model_lists_the_known():
    with pytest.raises(UsageError, match="smoke, cpu, cpu-long, gpu, source"):
        preset("fast", "unet")
    with pytest.raises(UsageError, match="unet"):
        preset("cpu", "resnet")


def test_one_split_to_train_and_to_evaluate_on_is_refused():
    with pytest.raises(UsageError, match="data: train_split and eval_split: found 'val' for both, expected two splits"):
        load_config([("test", {"data": {"train_split": "val"}})])


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["model.name=mask_rcnn"], "task: found semantic, but model.name is mask_rcnn.* set task to instance"),
        (["task=instance"], "task: found instance, but model.name is unet.* set task to semantic"),
        (["task=instance", "model.name=mask_rcnn", "export.precision=bfloat16"], "export.precision to float32"),
    ],
)
def test_a_network_of_another_task_is_refused(assignments, message):
    with pytest.raises(UsageError, match=message):
        load_config([("--set", {"model": {"name": "unet"}}), ("--set", read_assignments(assignments))])
