"""The compiled pipeline: the TFX pipeline's graph, its parameters, and pods with the configured options."""

import json
from pathlib import Path
from typing import get_args

import pytest
import yaml
from google.protobuf import json_format
from tfx.dsl.compiler import compiler

from components import gpu
from components.dataset.description import BUILT_IN_FOLDER, built_in
from components.errors import UsageError
from pipeline.configuration.kubeflow import Node
from pipeline.configuration.loading import load_config
from pipeline.kubeflow.compile import graph
from pipeline.kubeflow.parameters import PARAMETERS, configure, defaults
from pipeline.kubeflow.tasks import TASKS, tasks_of
from pipeline.storage.workdir import Workdir
from pipeline.wiring.create_pipeline import create_pipeline

_KUBEFLOW = {
    "image": "registry.example/segpipe:1",
    "root": "/mnt/work",
    "cpu": "2",
    "memory": "4Gi",
    "components": {
        "Trainer": {"gpus": 2, "memory": "16Gi", "node_selector": {"gpu": "a100"}, "timeout": 7200},
    },
    "node_selector": {"pool": "batch"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "volumes": {"work": "/mnt/work"},
    "env": {"AWS_REGION": "eu-west-1"},
    "secret_env": {"store": {"access": "AWS_ACCESS_KEY_ID", "secret": "AWS_SECRET_ACCESS_KEY"}},
    "secret_volumes": {"gcp": "/secrets/gcp"},
    "retries": 3,
    "retry_wait": 30,
    "timeout": 3600,
    "metadata": {"kind": "grpc", "host": "metadata-grpc-service"},
}


@pytest.fixture(scope="module")
def package(compiled):
    return compiled({"kubeflow": _KUBEFLOW}, data="/mnt/data")


@pytest.fixture(scope="module")
def documents(package):
    return list(yaml.safe_load_all(Path(package).read_text()))


def _executor(documents, name):
    return documents[0]["deploymentSpec"]["executors"][f"exec-{name}"]["container"]


def _pod(documents, name):
    return documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"][f"exec-{name}"]


def _constant(parameter):
    return parameter["runtimeValue"]["constant"]


def _graph(tasks):
    return {
        task["taskInfo"]["name"]: {tasks[other]["taskInfo"]["name"] for other in task.get("dependentTasks", [])}
        for task in tasks.values()
    }


def test_the_kfp_sdk_reads_the_package(package, documents):
    from kfp import components

    component = components.load_component_from_file(package)

    assert component.component_spec.name == "segpipe"
    assert set(component.component_spec.inputs) == {parameter.name for parameter in PARAMETERS}
    assert set(component.pipeline_spec.root.dag.tasks) == set(documents[0]["root"]["dag"]["tasks"])


def test_the_same_settings_give_the_same_bytes(package, compiled):
    again = compiled({"kubeflow": _KUBEFLOW}, data="/mnt/data")

    assert Path(again).read_bytes() == Path(package).read_bytes()


def test_the_graph_equals_that_of_the_tfx_pipeline(documents, tmp_path):
    run = graph(load_config([("test", {"data": {"dir": str(tmp_path)}})]))
    tasks_of_nodes = {node: name for name, task in TASKS.items() for node in task.nodes}
    expected = {tasks_of_nodes[node]: set() for node in run.node_ids}
    for node in run.node_ids:
        expected[tasks_of_nodes[node]] |= {tasks_of_nodes[other] for other in run.upstream(node)}

    found = _graph(documents[0]["root"]["dag"]["tasks"])

    assert found == {name: upstream - {name} for name, upstream in expected.items()}
    assert list(expected) == ["ExampleGen", "StatisticsGen", "Transform", "Trainer", "Evaluator", "Pusher and Report"]


def test_every_task_runs_its_nodes_through_one_entry_point(documents):
    for name, task in documents[0]["root"]["dag"]["tasks"].items():
        container = _executor(documents, name)
        words = dict(zip(container["args"][::2], container["args"][1::2], strict=True))
        assert container["command"] == ["python", "-m", "pipeline.kubeflow.node"]
        assert container["image"] == "registry.example/segpipe:1"
        assert words["--task"] == task["taskInfo"]["name"]
        assert json.loads(words["--configuration"]) == [["settings", {"kubeflow": _KUBEFLOW}]]
        assert set(json.loads(words["--defaults"])) | set(task["inputs"]["parameters"]) - {"run_id"} == {
            parameter.name for parameter in PARAMETERS
        }
        assert words["--executor-input"] == "{{$}}"


def test_parameters_have_defaults_types_and_descriptions_and_reach_the_tasks_that_use_them(documents):
    declared = documents[0]["root"]["inputDefinitions"]["parameters"]

    assert list(declared) == sorted(parameter.name for parameter in PARAMETERS)
    assert all(item["description"] and "defaultValue" in item for item in declared.values())
    assert declared["data"]["defaultValue"] == "/mnt/data"
    assert (declared["epochs"]["parameterType"], declared["epochs"]["defaultValue"]) == ("NUMBER_INTEGER", 0)
    assert (declared["min_mean_iou"]["parameterType"], declared["min_class_iou"]["parameterType"]) == (
        "NUMBER_DOUBLE",
        "STRUCT",
    )
    for task in documents[0]["root"]["dag"]["tasks"].values():
        given = dict(task["inputs"]["parameters"])
        assert given.pop("run_id") == {"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}}
        assert given == {name: {"componentInputParameter": name} for name in TASKS[task["taskInfo"]["name"]].parameters}


def test_the_first_task_checks_all_parameters():
    assert set(TASKS["ExampleGen"].parameters) == {parameter.name for parameter in PARAMETERS}


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("span", "3"),
        ("model", "fcn8"),
        ("preset", "cpu"),
        ("size", "64x64"),
        ("epochs", 3),
        ("min_mean_iou", 0.9),
        ("min_class_iou", {"road": 0.5}),
        ("max_mean_drop", 0.5),
        ("max_class_drop", 0.5),
        ("push_destination", "/mnt/served"),
    ],
)
def test_a_parameter_changes_only_the_tasks_that_take_it(parameter, value, tmp_path):
    def nodes(**changed):
        values = {**defaults("", "unet", "smoke", None, None), "data": "", **changed}
        config = configure(values, [("test", {"kubeflow": {"root": "/mnt/work"}})])
        ir = compiler.Compiler().compile(create_pipeline(config, Workdir(str(tmp_path)), built_in("prepped")))
        return {
            wrapper.pipeline_node.node_info.id: wrapper.SerializeToString(deterministic=True) for wrapper in ir.nodes
        }

    before, after = nodes(), nodes(**{parameter: value})

    changed = {name for name, task in TASKS.items() for node in task.nodes if before.get(node) != after.get(node)}
    takers = {name for name, task in TASKS.items() if parameter in task.parameters}
    assert changed <= takers
    # A span changes only the data folder, which this test does not resolve.
    assert changed or parameter == "span"


def test_artifacts_connect_the_tasks(documents):
    tasks = documents[0]["root"]["dag"]["tasks"]

    def sources(name):
        artifacts = tasks[name]["inputs"].get("artifacts", {})
        return {key: item["taskOutputArtifact"]["producerTask"] for key, item in artifacts.items()}

    assert sources("examplegen") == {}
    assert sources("statisticsgen") == {"examples": "examplegen"}
    assert sources("trainer") == {"transformed_examples": "transform"}
    assert sources("evaluator") == {"examples": "examplegen", "trained_model": "trainer"}
    assert sources("pusher-and-report") == {
        "examples": "examplegen",
        "statistics": "statisticsgen",
        "trained_model": "trainer",
        "evaluation": "evaluator",
        "blessing": "evaluator",
    }


def test_the_optimizer_has_a_task_of_its_own_because_the_trainer_may_hold_gpus(compiled):
    settings = {"kubeflow": _KUBEFLOW, "export": {"variants": ["folded"]}}
    spec, _ = yaml.safe_load_all(Path(compiled(settings)).read_text())

    tasks = spec["root"]["dag"]["tasks"]
    assert _graph(tasks)["Optimizer"] == {"ExampleGen", "Transform", "Trainer"}
    assert tasks["evaluator"]["inputs"]["artifacts"]["optimized_model"]["taskOutputArtifact"] == {
        "producerTask": "optimizer",
        "outputArtifactKey": "optimized_model",
    }


def test_data_without_a_default_is_required(compiled):
    spec, _ = yaml.safe_load_all(Path(compiled({"kubeflow": {"root": "/mnt/work"}})).read_text())

    data = spec["root"]["inputDefinitions"]["parameters"]["data"]
    assert "defaultValue" not in data
    assert not data.get("isOptional")


def test_kubeflow_s_own_cache_is_off(documents):
    for task in documents[0]["root"]["dag"]["tasks"].values():
        assert not task["cachingOptions"].get("enableCache")


def test_failed_tasks_are_retried_with_backoff(documents):
    for task in documents[0]["root"]["dag"]["tasks"].values():
        assert task["retryPolicy"] == {
            "maxRetryCount": 3,
            "backoffDuration": "30s",
            "backoffFactor": 2.0,
            "backoffMaxDuration": "3600s",
        }


def test_components_get_their_resources(documents):
    trainer, pusher = (_executor(documents, name)["resources"] for name in ("trainer", "pusher-and-report"))

    # Servers before 2.4 read the fields in the first line, later servers those in the second.
    assert trainer["accelerator"].items() >= {"type": "nvidia.com/gpu", "count": "2"}.items()
    assert trainer["accelerator"].items() >= {"resourceType": "nvidia.com/gpu", "resourceCount": "2"}.items()
    assert (trainer["cpuLimit"], trainer["memoryLimit"]) == (2.0, pytest.approx(16 * 1.073741824))
    assert (trainer["resourceCpuLimit"], trainer["resourceMemoryLimit"]) == ("2", "16Gi")
    assert "accelerator" not in pusher
    assert (pusher["cpuRequest"], pusher["memoryRequest"]) == (2.0, pytest.approx(4 * 1.073741824))
    assert (pusher["resourceCpuRequest"], pusher["resourceMemoryRequest"]) == ("2", "4Gi")


def test_pods_get_nodes_volumes_secrets_and_a_deadline(documents):
    trainer, pusher = _pod(documents, "trainer"), _pod(documents, "pusher-and-report")

    assert trainer["nodeSelector"]["labels"] == {"pool": "batch", "gpu": "a100"}
    assert pusher["nodeSelector"]["labels"] == {"pool": "batch"}
    assert (trainer["activeDeadlineSeconds"], pusher["activeDeadlineSeconds"]) == ("7200", "3600")
    for pod in (trainer, pusher):
        assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
        (volume,) = pod["pvcMount"]
        assert (volume["constant"], volume["mountPath"]) == ("work", "/mnt/work")
        assert pod["imagePullPolicy"] == "IfNotPresent"
        (mounted,) = pod["secretAsVolume"]
        assert (mounted["secretName"], mounted["mountPath"]) == ("gcp", "/secrets/gcp")
        (secret,) = pod["secretAsEnv"]
        assert secret["secretName"] == "store"
        assert {item["secretKey"]: item["envVar"] for item in secret["keyToEnv"]} == _KUBEFLOW["secret_env"]["store"]
    assert _executor(documents, "pusher-and-report")["env"] == [{"name": "AWS_REGION", "value": "eu-west-1"}]


def test_a_pod_with_gpus_has_more_shared_memory_than_the_default(documents):
    (volume,) = _pod(documents, "trainer")["emptyDirMounts"]

    assert volume == {
        "volumeName": "segpipe-dev-shm",
        "mountPath": "/dev/shm",
        "medium": "Memory",
        "sizeLimit": "1Gi",
    }
    assert "emptyDirMounts" not in _pod(documents, "pusher-and-report")


def test_the_preset_for_gpus_is_compiled_without_a_gpu(compiled, monkeypatch):
    monkeypatch.setattr(gpu, "inspect", lambda: pytest.fail("looked for a GPU on the machine that compiles"))

    spec, _ = yaml.safe_load_all(Path(compiled({"kubeflow": _KUBEFLOW}, preset="gpu")).read_text())

    assert spec["root"]["inputDefinitions"]["parameters"]["preset"]["defaultValue"] == "gpu"


def test_scores_confusion_matrix_and_report_are_kubeflow_s_artifacts(documents):
    components = documents[0]["components"]

    def outputs(name):
        artifacts = components[f"comp-{name}"]["outputDefinitions"]["artifacts"]
        return {key: item["artifactType"]["schemaTitle"] for key, item in artifacts.items()}

    assert outputs("evaluator") == {
        "evaluation": "system.Artifact",
        "blessing": "system.Artifact",
        "scores": "system.Metrics",
        "confusion_matrix": "system.ClassificationMetrics",
    }
    assert outputs("pusher-and-report") == {"pushed_model": "system.Model", "page": "system.HTML"}
    assert outputs("trainer") == {"trained_model": "system.Model"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "kubeflow.root: found nothing"),
        ({"kubeflow": {"root": "/w"}, "serving_dir": "served"}, "serving_dir: found"),
    ],
)
def test_settings_that_cannot_work_are_not_compiled(compiled, settings, message):
    with pytest.raises(UsageError, match=message):
        compiled(settings)


def test_a_component_s_time_limit_reaches_its_task(compiled):
    limits = {"ImageMaskExampleGen": 1800, "Trainer": 7200, "Evaluator": 3600}
    components = {name: {"timeout": seconds} for name, seconds in limits.items()}
    package = compiled({"kubeflow": {"root": "/mnt/work", "components": components}})

    pods = list(yaml.safe_load_all(Path(package).read_text()))[1]["platforms"]["kubernetes"]["deploymentSpec"][
        "executors"
    ]
    found = {name: pod["activeDeadlineSeconds"] for name, pod in pods.items() if "activeDeadlineSeconds" in pod}

    assert found == {"exec-examplegen": "1800", "exec-trainer": "7200", "exec-evaluator": "3600"}


def test_resources_can_be_given_to_every_node():
    config = load_config([("test", {"training": {"warm_start": True}, "export": {"variants": ["folded"]}})])

    assert set(graph(config).node_ids) == set(get_args(Node))
    assert {name: set(nodes) for name, nodes in tasks_of(graph(config).node_ids).items()} == {
        name: set(task.nodes) for name, task in TASKS.items()
    }


@pytest.fixture
def vertex(tmp_path):
    """Returns a function that compiles the pipeline for Vertex AI with some Kubeflow settings."""
    from pipeline.kubeflow.vertex import compile_vertex

    def compile_with(name="vertex.yaml", **kubeflow):
        layout = str(BUILT_IN_FOLDER / "prepped.yaml")
        settings = {
            "data": {"dir": f"file://{tmp_path}/data/camvid", "description": layout},
            "kubeflow": {"root": f"file://{tmp_path}/work", "image": "registry.example/segpipe:1", **kubeflow},
        }
        path = str(tmp_path / name)
        compile_vertex(load_config([("test", settings)]), path)
        return path

    return compile_with


def test_vertex_keeps_the_defaults_of_runtime_parameters(vertex):
    from kfp import components

    path = vertex()

    spec = yaml.safe_load(Path(path).read_text())
    declared = spec["root"]["inputDefinitions"]["parameters"]
    assert declared["data"]["defaultValue"] == f"file://{Path(path).parent}/data/camvid"
    assert declared["max_quarantined_fraction"]["defaultValue"] == 0.01
    assert json.loads(declared["trainer"]["defaultValue"])["model"]["name"] == "fcn8"
    assert all(item["description"] for item in declared.values())
    assert set(components.load_component_from_file(path).component_spec.inputs) == set(declared)


def test_vertex_s_pipeline_is_complete_and_the_same_each_time(vertex, tmp_path):
    path, again = vertex("one.yaml"), vertex("two.yaml")

    assert Path(path).read_bytes() == Path(again).read_bytes()
    spec = yaml.safe_load(Path(path).read_text())
    assert {"Trainer", "Evaluator", "Pusher", "Report"} < set(spec["root"]["dag"]["tasks"])
    schema = spec["root"]["dag"]["tasks"]["ImportSchemaGen"]["inputs"]["parameters"]["schema_file"]
    assert Path(schema["runtimeValue"]["constant"].removeprefix("file://")).is_file()
    job = json.loads(Path(vertex("job.json")).read_text())
    assert job["pipelineSpec"]["root"]["dag"]["tasks"].keys() == spec["root"]["dag"]["tasks"].keys()


def test_vertex_s_resources_have_its_own_names_and_units(vertex):
    trainer = {"cpu": "8", "memory": "30G", "gpus": 1, "gpu_kind": "NVIDIA_TESLA_T4"}
    spec = yaml.safe_load(Path(vertex(cpu="500m", components={"Trainer": trainer})).read_text())

    executors = spec["deploymentSpec"]["executors"]
    assert executors["Trainer_executor"]["container"]["resources"] == {
        "cpuLimit": 8.0,
        "memoryLimit": 30.0,
        "accelerator": {"type": "NVIDIA_TESLA_T4", "count": "1"},
    }
    assert executors["ImageMaskExampleGen_executor"]["container"]["resources"] == {"cpuLimit": 0.5}


def test_vertex_retries_tasks(vertex):
    from kfp.pipeline_spec import pipeline_spec_pb2

    spec = yaml.safe_load(Path(vertex(retries=3, retry_wait=30)).read_text())
    without = yaml.safe_load(Path(vertex(retries=0)).read_text())

    tasks = json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec()).root.dag.tasks
    retried = {name for name, task in tasks.items() if task.retry_policy.max_retry_count == 3}
    assert {name.partition("-")[0] for name in set(tasks) - retried} == {"BaselineResolver"}
    assert tasks["Trainer"].retry_policy.backoff_duration.seconds == 30
    assert not any("retryPolicy" in task for task in without["root"]["dag"]["tasks"].values())


def test_vertex_does_not_push_to_a_folder_of_a_container():
    from pipeline.kubeflow.vertex import compile_vertex

    settings = {"serving_dir": "/mnt/served", "data": {"dir": "gs://b/d"}, "kubeflow": {"root": "gs://b/w"}}
    with pytest.raises(UsageError, match=r"serving_dir: found '/mnt/served', expected gs://"):
        compile_vertex(load_config([("test", settings)]), "vertex.yaml")


@pytest.mark.parametrize(
    ("kubeflow", "message"),
    [
        ({"root": "/mnt/work"}, "expected gs://"),
        ({"components": {"Trainer": {"gpus": 1}}}, r"gpu_kind: found 'nvidia\.com/gpu'.*NVIDIA_TESLA_T4"),
    ],
)
def test_vertex_names_unsupported_settings(vertex, kubeflow, message):
    with pytest.raises(UsageError, match=message):
        vertex(**kubeflow)


def test_vertex_s_driver_finds_the_splits_and_the_content_s_hash(vertex, street_scenes, tmp_path):
    from components.dataset.description import detect
    from pipeline.kubeflow import vertex_driver

    spec = yaml.safe_load(Path(vertex()).read_text())
    hook = spec["deploymentSpec"]["executors"]["ImageMaskExampleGen_executor"]["container"]["lifecycle"][
        "preCacheCheck"
    ]
    words = {"--json_serialized_inputs_spec_args": hook["args"][3]}
    inputs = spec["components"]["ImageMaskExampleGen"]["inputDefinitions"]["parameters"]
    constants = spec["root"]["dag"]["tasks"]["ImageMaskExampleGen"]["inputs"]["parameters"]
    values = {name: constants[name].get("runtimeValue", {}).get("constant") for name in inputs}
    values |= {
        "input_base": street_scenes,
        "description": detect(street_scenes).to_json(),
        "index": str(tmp_path / "index"),
    }
    artifact = {"type": {"schemaTitle": "tfx.Examples"}, "uri": str(tmp_path / "examples"), "metadata": {}}
    schema = spec["components"]["ImageMaskExampleGen"]["outputDefinitions"]["artifacts"]["examples"]["artifactType"]
    executor_input = {
        "inputs": {"parameterValues": values},
        "outputs": {
            "artifacts": {"examples": {"artifacts": [{**artifact, "type": schema, "name": "1/examples"}]}},
            "outputFile": str(tmp_path / "output.json"),
        },
    }

    assert hook["command"] == ["python", "-m", "pipeline.kubeflow.vertex_driver"]
    arguments = {"--json_serialized_invocation_args": json.dumps(executor_input), **words}
    vertex_driver.main([word for pair in arguments.items() for word in pair])

    output = json.loads((tmp_path / "output.json").read_text())
    found = output["parameterValues"]
    assert [split["name"] for split in json.loads(found["input_config"])["splits"]] == ["train", "val"]
    assert found["input_fingerprint"]
    pairs = [line for line in Path(found["listing"]).read_text().splitlines() if '"pair"' in line]
    assert len(pairs) == 16
    (examples,) = output["artifacts"]["examples"]["artifacts"]
    assert examples["metadata"]["input_fingerprint"] == found["input_fingerprint"]
