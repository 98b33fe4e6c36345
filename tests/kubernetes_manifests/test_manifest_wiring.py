"""The manifests fit together: names, ports, paths and labels that refer to each other agree."""

import re

import pytest
from google.protobuf import text_format
from rendered import SERVING, chosen_by, container, of_kind, pods
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig
from typer.testing import CliRunner

from pipeline.cli.main import app

# Time until every node and DNS cache has removed a terminating pod.
_SECONDS_TO_FORGET = 10

# The fields of BatchingParameters in TensorFlow Serving 2.20 (session_bundle_config.proto) that hold one number.
_BATCHING = {"max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads"}


def _server(documents):
    """Returns the pod's labels and spec, TensorFlow Serving's container, and its arguments by name."""
    labels, pod, _ = next(pods(documents))
    server = container(documents, "tensorflow-serving")
    return labels, pod, server, dict(word.removeprefix("--").split("=", 1) for word in server["args"])


def _nginx(documents):
    """Returns the proxy's configuration."""
    _, pod, _ = next(pods(documents))
    proxy = container(documents, "proxy")
    return _mounted(documents, pod, proxy, proxy["args"][-1])


def _opened(*containers):
    return {port["name"]: port["containerPort"] for one in containers for port in one["ports"]}


def _mounted(documents, pod, mounting, path):
    """Returns the text of a file that a pod mounts from a ConfigMap."""
    folder, _, name = path.rpartition("/")
    (volume,) = (mount["name"] for mount in mounting["volumeMounts"] if mount["mountPath"] == folder)
    (config_map,) = (one["configMap"]["name"] for one in pod["volumes"] if one["name"] == volume)
    return of_kind(documents, "ConfigMap", config_map)["data"][name]


@pytest.fixture(params=SERVING)
def documents(render, request):
    """A serving overlay and the objects of `setup`."""
    overlay = render(request.param)
    names = {(one["kind"], one["metadata"]["name"]) for one in overlay}
    return overlay + [one for one in render("setup") if (one["kind"], one["metadata"]["name"]) not in names]


@pytest.fixture
def model(documents):
    (config_map,) = (one for one in of_kind(documents, "ConfigMap") if "models.config" in one["data"])
    (model,) = text_format.Parse(config_map["data"]["models.config"], ModelServerConfig()).model_config_list.config
    return model


def test_the_services_reach_only_the_proxy(documents):
    labels, _, _, _ = _server(documents)
    opened = _opened(container(documents, "proxy"))

    assert opened == {"grpc": 8500, "rest": 8501, "metrics": 8503}
    services = of_kind(documents, "Service")
    assert [one["spec"].get("clusterIP") for one in services] == [None, "None"]
    for service in services:
        assert service["spec"]["selector"].items() <= labels.items()
        assert all(opened[port["targetPort"]] == port["port"] for port in service["spec"]["ports"])


def test_the_ports_of_the_proxy_and_the_server_agree(documents):
    _, _, server, arguments = _server(documents)
    nginx = _nginx(documents)

    listened = re.findall(r"^\s+listen (\d+);$", nginx, flags=re.MULTILINE)
    assert sorted(map(int, listened)) == sorted(_opened(container(documents, "proxy")).values())
    assert arguments["port"] == "0"
    assert f"server unix:{arguments['grpc_socket_path']};" in nginx
    assert set(re.findall(r"proxy_pass (.*?);", nginx)) == {f"http://127.0.0.1:{arguments['rest_api_port']}"}
    assert _opened(server) == {"server-rest": int(arguments["rest_api_port"])}
    socket_folder = {"name": "socket", "mountPath": arguments["grpc_socket_path"].rpartition("/")[0]}
    for one in (server, container(documents, "proxy")):
        assert socket_folder in one["volumeMounts"]


def test_the_probes_request_the_metadata_of_the_served_model(documents, model):
    _, _, server, _ = _server(documents)
    proxy = container(documents, "proxy")

    asked = {"path": f"/v1/models/{model.name}/metadata", "port": "server-rest"}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert server[probe]["httpGet"] == asked
    assert proxy["readinessProbe"]["httpGet"] == asked | {"port": "rest"}
    path = proxy["livenessProbe"]["httpGet"]["path"]
    assert f"location = {path} {{ return 200; }}" in _nginx(documents)


def test_the_files_in_the_server_s_arguments_are_mounted(documents, model):
    _, pod, server, arguments = _server(documents)

    assert model.name in _mounted(documents, pod, server, arguments["model_config_file"])
    batching = _mounted(documents, pod, server, arguments["batching_parameters_file"])
    assert set(re.findall(r"^(\w+) \{ value: \d+ \}$", batching, flags=re.MULTILINE)) == _BATCHING
    monitoring = _mounted(documents, pod, server, arguments["monitoring_config_file"])
    assert re.search(r"prometheus_config \{\s+enable: true", monitoring)
    # Kubernetes never updates a file mounted by subPath, so the server would not see a release.
    assert not any("subPath" in mount for mount in server["volumeMounts"])
    assert int(arguments["model_config_file_poll_wait_seconds"]) > 0


def test_every_volume_exists_and_is_mounted(documents):
    _, pod, containers = next(pods(documents))

    assert {one["name"] for one in pod["volumes"]} == {
        mount["name"] for one in containers for mount in one["volumeMounts"]
    }
    for volume in pod["volumes"]:
        if "configMap" in volume:
            assert of_kind(documents, "ConfigMap", volume["configMap"]["name"])
        if "persistentVolumeClaim" in volume:
            assert of_kind(documents, "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])


@pytest.mark.parametrize("overlay", ["local", "cpu", "gpu"])
def test_the_model_path_is_in_the_mounted_claim(render, overlay):
    _, _, server, _ = _server(render(overlay))
    (config_map,) = of_kind(render("setup"), "ConfigMap")

    (mount,) = (one for one in server["volumeMounts"] if one["name"] == "models")
    assert mount["readOnly"] is True
    assert f'base_path: "{mount["mountPath"]}/' in config_map["data"]["models.config"]


def test_the_numbers_of_threads_equal_the_cpu_limit(documents):
    _, _, server, arguments = _server(documents)

    limit = server["resources"]["limits"]["cpu"]
    assert arguments["tensorflow_intra_op_parallelism"] == limit
    assert arguments["tensorflow_inter_op_parallelism"] == limit


def test_autoscaler_disruption_budget_and_topology_spread_select_the_pods(documents):
    labels, pod, _, _ = _server(documents)
    (autoscaler,) = of_kind(documents, "HorizontalPodAutoscaler")
    (budget,) = of_kind(documents, "PodDisruptionBudget")
    (deployment,) = of_kind(documents, "Deployment")

    assert autoscaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    # A number of replicas would override the autoscaler's on every apply.
    assert "replicas" not in deployment["spec"]
    assert chosen_by(budget["spec"]["selector"], labels)
    assert len(pod["topologySpreadConstraints"]) == 2
    for constraint in pod["topologySpreadConstraints"]:
        assert chosen_by(constraint["labelSelector"], labels)


def test_a_pod_serves_until_the_requests_in_progress_are_answered(documents):
    _, pod, containers = next(pods(documents))
    proxy = container(documents, "proxy")
    pause = int(proxy["lifecycle"]["preStop"]["exec"]["command"][1])
    (drain,) = re.findall(r"worker_shutdown_timeout (\d+)s;", _nginx(documents))

    assert pause > _SECONDS_TO_FORGET
    assert pause + int(drain) < pod["terminationGracePeriodSeconds"]
    # Kubernetes starts sidecars before the other containers and stops them after.
    assert pod["containers"] == [proxy]
    sidecars = [one["name"] for one in containers if one.get("restartPolicy") == "Always"]
    assert sidecars[-1] == "tensorflow-serving"


def test_the_network_policy_admits_clients_and_prometheus_and_no_egress(render):
    (policy,) = of_kind(render("cpu"), "NetworkPolicy")
    clients, prometheus = policy["spec"]["ingress"]

    for source in clients["from"]:
        assert source["podSelector"]["matchLabels"] == {"segpipe.io/serving-client": "true"}
    assert {port["port"] for port in clients["ports"]} == {"grpc", "rest"}
    assert [port["port"] for port in prometheus["ports"]] == ["metrics"]
    assert policy["spec"].get("egress", []) == []


def test_kserve_admits_the_same_clients_as_the_other_servers(render):
    (kserve,), (cpu,) = (of_kind(render(folder), "NetworkPolicy") for folder in ("kserve", "cpu"))

    assert [rule["from"] for rule in kserve["spec"]["ingress"]] == [cpu["spec"]["ingress"][0]["from"]]


def test_egress_is_limited_to_dns_the_object_store_and_credentials(render):
    (policy,) = of_kind(render("object-store"), "NetworkPolicy")

    ports = [{port["port"] for port in rule["ports"]} for rule in policy["spec"]["egress"]]
    assert ports == [{53}, {443}, {80, 987, 988}]
    assert all("to" in rule for rule in policy["spec"]["egress"])


def test_models_of_an_object_store_are_copied_before_and_while_they_are_served(render):
    documents = render("object-store")
    _, pod, containers = next(pods(documents))
    names = [one["name"] for one in containers]
    once, always = container(documents, "copy-models"), container(documents, "follow-models")
    (config_map,) = of_kind(render("setup"), "ConfigMap")

    assert names == ["copy-models", "follow-models", "tensorflow-serving", "proxy"]
    assert "restartPolicy" not in once
    assert always["restartPolicy"] == "Always"
    assert always["args"][: len(once["args"])] == once["args"]
    assert f'base_path: "{once["args"][3]}"' in config_map["data"]["models.config"]
    (models,) = (one for one in pod["volumes"] if one["name"] == "models")
    assert set(models) == {"name", "emptyDir"}


@pytest.mark.parametrize("name", ["copy-models", "follow-models"])
def test_the_commands_of_the_copy_containers_exist(render, name):
    arguments = [*container(render("object-store"), name)["args"], "--help"]

    assert CliRunner().invoke(app, arguments).exit_code == 0


def test_the_proxy_mirrors_to_the_sink(render):
    documents = render("request-log")
    (config_map,) = (one["data"] for one in of_kind(documents, "ConfigMap") if "nginx.conf" in one["data"])
    sink = container(documents, "request-sink")
    (port,) = (word.partition("=")[2] for word in sink["args"] if word.startswith("--port="))

    assert f"server 127.0.0.1:{port} " in config_map["http-request-log.conf"]
    for name in ("http", "grpc"):
        assert f"{name}-request-log.conf" in config_map
        assert f"include /config/serving/{name}-*.conf;" in config_map["nginx.conf"]
    (folder,) = (word.partition("=")[2] for word in sink["args"] if word.startswith("--directory="))
    assert folder.rpartition("/")[0] in {mount["mountPath"] for mount in sink["volumeMounts"]}


def test_kserve_has_the_version_of_the_other_servers(render):
    base = container(render("base"), "tensorflow-serving")["image"]
    (kserve,) = (one for _, _, (one,) in pods(render("kserve")))

    # KServe's own default is 2.6.2.
    assert f"tensorflow/serving:{kserve['runtimeVersion']}" == base


def test_the_gpu_overlay_requests_a_gpu_and_the_gpu_image(render):
    _, pod, server, _ = _server(render("gpu"))

    cpu = container(render("cpu"), "tensorflow-serving")["image"]
    assert server["image"] == f"{cpu}-gpu"
    assert server["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]


def test_the_tools_reach_the_servers_as_a_labelled_client(render):
    labels, _, _ = next(pods(render("release")))
    (policy,) = of_kind(render("cpu"), "NetworkPolicy")

    assert chosen_by(policy["spec"]["ingress"][0]["from"][0]["podSelector"], labels)


def test_reapplying_an_overlay_does_not_undo_a_release(render):
    for overlay in ("base", "cpu", "gpu", "object-store", "request-log"):
        assert not any("models.config" in one["data"] for one in of_kind(render(overlay), "ConfigMap"))
    (served,) = of_kind(render("setup"), "ConfigMap")
    assert served["metadata"]["name"] == "segpipe-models"


def test_a_changed_server_configuration_rolls_the_pods(render):
    names = [
        of_kind(render(overlay), "Deployment")[0]["spec"]["template"]["spec"]["volumes"] for overlay in ("cpu", "gpu")
    ]

    cpu, gpu = (
        next(one["configMap"]["name"] for one in volumes if one["name"] == "server-config") for volumes in names
    )
    assert cpu != gpu
