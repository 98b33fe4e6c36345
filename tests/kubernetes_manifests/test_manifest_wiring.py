"""The manifests fit together: names, ports, paths and labels that refer to each other agree."""

import re

import pytest
from google.protobuf import text_format
from rendered import SERVING, chosen_by, of_kind, pods
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

# gRPC lengthens or shortens the age of each connection by up to a tenth, at random.
_JITTER = 1.1
# Until every node and every name server's cache has forgotten a pod that ends.
_SECONDS_TO_FORGET = 10

# The fields of BatchingParameters in TensorFlow Serving 2.20 (session_bundle_config.proto) that hold one number.
_BATCHING = {"max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads"}


def _server(documents):
    """Returns the pod's labels, spec, container and the container's arguments by name."""
    labels, pod, (container,) = next(pods(documents))
    arguments = dict(word.removeprefix("--").split("=", 1) for word in container["args"])
    return labels, pod, container, arguments


def _mounted(documents, pod, container, path):
    """Returns the text of a file that a pod mounts from a ConfigMap."""
    folder, _, name = path.rpartition("/")
    (volume,) = (one["name"] for one in container["volumeMounts"] if one["mountPath"] == folder)
    (config_map,) = (one["configMap"]["name"] for one in pod["volumes"] if one["name"] == volume)
    return of_kind(documents, "ConfigMap", config_map)["data"][name]


@pytest.fixture(params=SERVING)
def documents(render, request):
    """A serving overlay with what it was set up on."""
    overlay = render(request.param)
    names = {(one["kind"], one["metadata"]["name"]) for one in overlay}
    return overlay + [one for one in render("setup") if (one["kind"], one["metadata"]["name"]) not in names]


@pytest.fixture
def model(documents):
    (config_map,) = (one for one in of_kind(documents, "ConfigMap") if "models.config" in one["data"])
    (model,) = text_format.Parse(config_map["data"]["models.config"], ModelServerConfig()).model_config_list.config
    return model


def test_the_services_reach_the_pods_on_ports_they_open(documents):
    labels, _, container, arguments = _server(documents)
    opened = {port["name"]: port["containerPort"] for port in container["ports"]}

    assert opened == {"grpc": int(arguments["port"]), "rest": int(arguments["rest_api_port"])}
    services = of_kind(documents, "Service")
    assert [one["spec"].get("clusterIP") for one in services] == [None, "None"]
    for service in services:
        assert service["spec"]["selector"].items() <= labels.items()
        assert all(opened[port["targetPort"]] == port["port"] for port in service["spec"]["ports"])


def test_every_probe_asks_for_the_metadata_of_the_model_that_is_served(documents, model):
    _, _, container, _ = _server(documents)

    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": f"/v1/models/{model.name}/metadata", "port": "rest"}


def test_the_files_that_the_server_is_given_are_mounted(documents, model):
    _, pod, container, arguments = _server(documents)

    assert model.name in _mounted(documents, pod, container, arguments["model_config_file"])
    batching = _mounted(documents, pod, container, arguments["batching_parameters_file"])
    assert set(re.findall(r"^(\w+) \{ value: \d+ \}$", batching, flags=re.MULTILINE)) == _BATCHING
    monitoring = _mounted(documents, pod, container, arguments["monitoring_config_file"])
    assert re.search(r"prometheus_config \{\s+enable: true", monitoring)
    # A file mounted by subPath would never change, and with it no release would ever arrive.
    assert not any("subPath" in mount for mount in container["volumeMounts"])
    assert int(arguments["model_config_file_poll_wait_seconds"]) > 0


def test_every_volume_is_mounted_and_there_to_mount(documents):
    _, pod, container, _ = _server(documents)

    assert {one["name"] for one in pod["volumes"]} == {one["name"] for one in container["volumeMounts"]}
    for volume in pod["volumes"]:
        if "configMap" in volume:
            assert of_kind(documents, "ConfigMap", volume["configMap"]["name"])
        if "persistentVolumeClaim" in volume:
            assert of_kind(documents, "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])


@pytest.mark.parametrize("overlay", ["local", "cpu", "gpu"])
def test_the_models_of_a_claim_lie_where_it_is_mounted(render, overlay):
    _, _, container, _ = _server(render(overlay))
    (config_map,) = of_kind(render("setup"), "ConfigMap")

    (mount,) = (one for one in container["volumeMounts"] if one["name"] == "models")
    assert mount["readOnly"] is True
    assert f'base_path: "{mount["mountPath"]}/' in config_map["data"]["models.config"]


def test_the_threads_are_as_many_as_the_processors(documents):
    _, _, container, arguments = _server(documents)

    limit = container["resources"]["limits"]["cpu"]
    assert arguments["tensorflow_intra_op_parallelism"] == limit
    assert arguments["tensorflow_inter_op_parallelism"] == limit


def test_autoscaler_budget_and_spread_are_about_these_pods(documents):
    labels, pod, _, _ = _server(documents)
    (autoscaler,) = of_kind(documents, "HorizontalPodAutoscaler")
    (budget,) = of_kind(documents, "PodDisruptionBudget")
    (deployment,) = of_kind(documents, "Deployment")

    assert autoscaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    # A number here would undo the autoscaler's on every apply.
    assert "replicas" not in deployment["spec"]
    assert chosen_by(budget["spec"]["selector"], labels)
    assert len(pod["topologySpreadConstraints"]) == 2
    for constraint in pod["topologySpreadConstraints"]:
        assert chosen_by(constraint["labelSelector"], labels)


def test_a_pod_serves_until_every_connection_has_come_to_its_end(documents):
    _, pod, container, arguments = _server(documents)
    age, grace = (int(number) for number in re.findall(r"_ms=(\d+)", arguments["grpc_channel_arguments"]))

    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert (_JITTER * age + grace) / 1000 + _SECONDS_TO_FORGET < pause < pod["terminationGracePeriodSeconds"]


def test_only_labelled_clients_and_prometheus_get_in_and_nothing_gets_out(render):
    (policy,) = of_kind(render("cpu"), "NetworkPolicy")
    clients, prometheus = policy["spec"]["ingress"]

    for source in clients["from"]:
        assert source["podSelector"]["matchLabels"] == {"segpipe.io/serving-client": "true"}
    assert {port["port"] for port in clients["ports"]} == {"grpc", "rest"}
    assert [port["port"] for port in prometheus["ports"]] == ["rest"]
    assert policy["spec"].get("egress", []) == []


def test_the_clients_of_kserve_are_those_of_the_other_servers(render):
    (kserve,), (cpu,) = (of_kind(render(folder), "NetworkPolicy") for folder in ("kserve", "cpu"))

    assert [rule["from"] for rule in kserve["spec"]["ingress"]] == [cpu["spec"]["ingress"][0]["from"]]


def test_the_object_store_is_the_only_way_out_besides_names_and_credentials(render):
    (policy,) = of_kind(render("object-store"), "NetworkPolicy")

    ports = [{port["port"] for port in rule["ports"]} for rule in policy["spec"]["egress"]]
    assert ports == [{53}, {443}, {80, 987, 988}]
    assert all("to" in rule for rule in policy["spec"]["egress"])
    assert not any(volume["name"] == "models" for volume in next(pods(render("object-store")))[1]["volumes"])


def test_kserve_runs_the_version_that_the_other_servers_run(render):
    (base,) = {one["image"] for _, _, (one,) in pods(render("base"))}
    (kserve,) = (one for _, _, (one,) in pods(render("kserve")))

    # KServe's own default is 2.6.2.
    assert f"tensorflow/serving:{kserve['runtimeVersion']}" == base


def test_the_gpu_overlay_asks_for_a_gpu_and_an_image_that_uses_it(render):
    _, pod, container, _ = _server(render("gpu"))

    (cpu,) = {one["image"] for _, _, (one,) in pods(render("cpu"))}
    assert container["image"] == f"{cpu}-gpu"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]


def test_the_tools_reach_the_servers_as_a_labelled_client(render):
    labels, _, _ = next(pods(render("release")))
    (policy,) = of_kind(render("cpu"), "NetworkPolicy")

    assert chosen_by(policy["spec"]["ingress"][0]["from"][0]["podSelector"], labels)


def test_applying_an_overlay_again_undoes_no_release(render):
    for overlay in ("base", "cpu", "gpu", "object-store"):
        assert not any("models.config" in one["data"] for one in of_kind(render(overlay), "ConfigMap"))
    (served,) = of_kind(render("setup"), "ConfigMap")
    assert served["metadata"]["name"] == "segpipe-models"


def test_a_change_of_what_is_read_at_start_rolls_the_pods(render):
    names = [
        of_kind(render(overlay), "Deployment")[0]["spec"]["template"]["spec"]["volumes"] for overlay in ("cpu", "gpu")
    ]

    cpu, gpu = (
        next(one["configMap"]["name"] for one in volumes if one["name"] == "server-config") for volumes in names
    )
    assert cpu != gpu
