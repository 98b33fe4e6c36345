"""The wiring: Beam options reach their components, and edited code is never taken for the old."""

import json

import pytest
import tensorflow_data_validation as tfdv
from tfx.dsl.compiler import compiler

from components import features, schema
from components.dataset.description import built_in
from components.errors import UsageError
from pipeline.configuration.loading import load_config
from pipeline.storage.workdir import Workdir
from pipeline.wiring.create_pipeline import create_pipeline
from pipeline.wiring.resolvers import RESOLVERS

_INSTANCES = {"task": "instance", "size": (64, 96), "model": {"name": "mask_rcnn"}}


@pytest.fixture
def compiled(tmp_path):
    """Returns a function from settings, and a data set's description, to the compiled pipeline."""

    def compile_pipeline(description=None, **settings):
        workdir = Workdir(str(tmp_path / "work"))
        workdir.create()
        config = load_config([("test", {"data": {"dir": str(tmp_path)}}), ("test", settings)])
        return compiler.Compiler().compile(
            create_pipeline(config, workdir, description or built_in("segnet_tutorial").without_instances())
        )

    return compile_pipeline


def _beam_args(ir, node_id):
    from tfx.orchestration.local import runner_utils

    spec = runner_utils.extract_executor_spec(runner_utils.extract_local_deployment_config(ir), node_id)
    return list(spec.beam_pipeline_args)


def test_beam_options_reach_all_components_or_one(compiled):
    direct, prism, dataflow = (f"--runner={name}Runner" for name in ("Direct", "Prism", "Dataflow"))
    own = {"Transform": [prism, "--job_name=9"], "Evaluator": [dataflow]}
    ir = compiled(beam={"args": [direct], "component_args": own})

    no_package = "--sdk_container_image=unused"
    assert _beam_args(ir, "StatisticsGen") == [direct, no_package]
    assert _beam_args(ir, "ImageMaskExampleGen") == [direct, no_package]
    assert _beam_args(ir, "Transform") == [direct, prism, "--job_name=9", no_package]
    assert _beam_args(ir, "Evaluator") == [direct, dataflow]


def test_a_runner_that_beam_lacks_is_refused(compiled):
    with pytest.raises(UsageError, match=r"beam.args: found the runner 'X', expected a runner of Beam: .*DirectRunner"):
        compiled(beam={"args": ["--runner=X"]})


@pytest.mark.parametrize("name", ["Transfrom", "Trainer"])
def test_beam_options_for_a_component_without_beam_are_refused(compiled, name):
    with pytest.raises(UsageError, match=f"'{name}'.*Transform"):
        compiled(beam={"component_args": {name: ["--runner=X"]}})


def test_every_component_reached_by_dotted_path_carries_the_hash_of_its_source(compiled):
    nodes = {node.pipeline_node.node_info.id: node.pipeline_node for node in compiled().nodes}

    def parameter(node_id, name):
        return nodes[node_id].parameters.parameters[name].field_value.string_value

    assert parameter("ImageMaskExampleGen", "code")
    assert parameter("Report", "code")
    assert parameter("QuarantineGate", "code") == parameter("AnomalyGate", "code") != ""
    for node_id, name in (("Transform", "custom_config"), ("Trainer", "custom_config"), ("Evaluator", "eval_config")):
        assert '"code' in parameter(node_id, name).replace("\\", "")


@pytest.mark.parametrize(
    ("settings", "folder"),
    [
        ({"project": {"name": "streets"}}, "streets"),
        ({"serving_name": "street-scenes"}, "street-scenes"),
        # Clients of masks must not get the answers of another task.
        ({**_INSTANCES, "project": {"name": "streets"}}, "streets-instance"),
        ({**_INSTANCES, "serving_name": "street-scenes"}, "street-scenes"),
    ],
)
def test_versions_are_pushed_under_the_served_name(compiled, tmp_path, settings, folder):
    ir = compiled(built_in("segnet_tutorial") if "task" in settings else None, **settings)
    nodes = {node.pipeline_node.node_info.id: node.pipeline_node for node in ir.nodes}

    destination = nodes["Pusher"].parameters.parameters["push_destination"].field_value.string_value

    assert json.loads(destination)["filesystem"]["base_directory"] == f"{tmp_path}/work/serving/{folder}"


def test_a_project_only_finds_its_own_models(compiled):
    ir = compiled(project={"name": "streets"}, training={"warm_start": True})

    nodes = {node.pipeline_node.node_info.id: node.pipeline_node for node in ir.nodes}
    asked = {
        query.name.field_value.string_value
        for resolver in RESOLVERS
        for inputs in nodes[resolver].inputs.inputs.values()
        for channel in inputs.channels
        for query in channel.context_queries
        if query.type.name == "pipeline"
    }
    assert asked == {ir.pipeline_info.id} == {"streets"}


@pytest.mark.parametrize("node_id", ["Transform", "Trainer"])
def test_transform_and_the_model_s_metadata_have_the_exposure_setting(compiled, node_id):
    nodes = {node.pipeline_node.node_info.id: node.pipeline_node for node in compiled(normalize_exposure=True).nodes}

    config = nodes[node_id].parameters.parameters["custom_config"].field_value.string_value

    assert json.loads(config)["normalize_exposure"] is True


@pytest.mark.parametrize("image_range", [None, (0, 4095)])
def test_transform_has_the_range_of_16_bit_images(compiled, image_range):
    described = built_in("segnet_tutorial").model_copy(update={"image_range": image_range})
    nodes = {node.pipeline_node.node_info.id: node.pipeline_node for node in compiled(description=described).nodes}

    config = nodes["Transform"].parameters.parameters["custom_config"].field_value.string_value

    assert json.loads(config)["image_range"] == (image_range and list(image_range))


def _trainer_config(ir):
    (trainer,) = (node.pipeline_node for node in ir.nodes if node.pipeline_node.node_info.id == "Trainer")
    return trainer.parameters.parameters["custom_config"].field_value.string_value


def test_other_weights_in_the_same_file_are_another_training(compiled, tmp_path):
    path = tmp_path / "vgg16.weights.h5"
    settings = {"model": {"encoder_weights": str(path)}}
    configs = [_trainer_config(compiled(**settings))]
    for content in (b"some", b"some", b"others"):
        path.write_bytes(content)
        configs.append(_trainer_config(compiled(**settings)))

    missing, first, again, other = configs
    assert first == again
    assert len({missing, first, other}) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": (360, 480)}, "size: found 360x480, but fcn8 needs a height that is a multiple of 32"),
        ({"training": {"crop_size": (192, 200)}}, "training.crop_size: found 192x200, but fcn8 needs a width"),
        ({"model": {"name": "segnet", "head_filters": 64}}, "model.head_filters: found 64, but segnet"),
        ({"training": {"augment": False, "crop_size": (32, 32)}}, "crop_size is .*, expected null if augment is false"),
        ({"training": {"frozen_blocks": 1}}, "training.frozen_blocks: found 1 with model.encoder_weights=none"),
        (
            {"model": {"name": "unet"}, "training": {"encoder_lr_multiplier": 0.5}},
            "training.encoder_lr_multiplier: found 0.5, but unet",
        ),
        ({"model": {"encoder": "resnet50", "encoder_weights": "edges"}}, "found edges, which are weights of vgg16"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_runs(compiled, settings, message):
    with pytest.raises(UsageError, match=message):
        compiled(**settings)


def test_statistics_are_made_of_the_schema_without_images_and_masks(compiled):
    nodes = {node.pipeline_node.node_info.id: node.pipeline_node for node in compiled().nodes}

    options = nodes["StatisticsGen"].parameters.parameters["stats_options_json"].field_value.string_value

    options = tfdv.StatsOptions.from_json(options)
    assert options.experimental_filter_read_paths
    names = {feature.name for feature in options.schema.feature}
    every = {feature.name for feature in schema.raw_schema(built_in("segnet_tutorial").class_map, 8192).feature}
    assert names == every - {features.IMAGE, features.MASK}


def test_the_components_run_in_an_order_in_which_gates_come_first(compiled):
    order = [node.pipeline_node.node_info.id for node in compiled().nodes]

    assert order.index("QuarantineGate") < order.index("StatisticsGen")
    assert order.index("AnomalyGate") < order.index("Transform") < order.index("Trainer")
    assert order.index("Evaluator") < order.index("Pusher") < order.index("Report")


@pytest.mark.parametrize(
    ("gate_split", "evaluated", "selection"), [("test", ["test", "val"], "val"), ("val", ["val"], "")]
)
def test_the_gate_split_judges_and_the_validation_split_chooses(compiled, gate_split, evaluated, selection):
    ir = compiled(data={"gate_split": gate_split}, export={"variants": ["folded"]})
    nodes = {node.pipeline_node.node_info.id: node.pipeline_node for node in ir.nodes}

    def parameter(node_id, name):
        return nodes[node_id].parameters.parameters[name].field_value.string_value

    assert json.loads(parameter("Evaluator", "example_splits")) == evaluated
    metrics = json.loads(parameter("Evaluator", "eval_config"))["metrics_specs"][0]["metrics"]
    assert {json.loads(metric["config"])["selection_split"] for metric in metrics} == {selection}
    assert json.loads(parameter("Trainer", "eval_args"))["splits"] == ["val"]
    assert parameter("Optimizer", "eval_split") == "val"
    assert [parameter("QuarantineGate", name) for name in ("eval_split", "gate_split")] == ["val", gate_split]
    assert [parameter("Report", name) for name in ("selection_split", "gate_split")] == ["val", gate_split]


def test_without_variants_the_trained_model_is_evaluated_and_pushed(compiled):
    nodes = {node.pipeline_node.node_info.id: node.pipeline_node for node in compiled().nodes}

    assert "Optimizer" not in nodes
    assert {_producer(nodes[node], "model") for node in ("Evaluator", "Pusher", "Report")} == {"Trainer"}


def test_with_variants_what_is_evaluated_is_what_is_pushed(compiled):
    ir = compiled(export={"variants": ["folded", "int8"]})
    nodes = {node.pipeline_node.node_info.id: node.pipeline_node for node in ir.nodes}

    assert _producer(nodes["Optimizer"], "model") == "Trainer"
    assert {_producer(nodes[node], "model") for node in ("Evaluator", "Pusher", "Report")} == {"Optimizer"}
    assert nodes["Optimizer"].parameters.parameters["code"].field_value.string_value


def test_the_pusher_gets_the_evaluation_whose_scores_travel_in_the_model(compiled):
    nodes = {node.pipeline_node.node_info.id: node.pipeline_node for node in compiled().nodes}

    assert _producer(nodes["Pusher"], "evaluation") == "Evaluator"


def _producer(node, name):
    (channel,) = node.inputs.inputs[name].channels
    return channel.producer_node_query.id


def test_a_warm_start_resolves_a_model_for_the_trainer_and_is_not_there_unless_asked_for(compiled):
    def trainer_and_order(**training):
        ir = compiled(training=training)
        nodes = {node.pipeline_node.node_info.id: node.pipeline_node for node in ir.nodes}
        return nodes["Trainer"], list(nodes)

    warm, order = trainer_and_order(warm_start=True)
    cold, without = trainer_and_order()

    assert order.index("Transform") < order.index("StartResolver") < order.index("Trainer")
    assert warm.inputs.inputs["base_model"].channels[0].producer_node_query.id == "StartResolver"
    assert "StartResolver" not in without
    assert "base_model" not in cold.inputs.inputs
