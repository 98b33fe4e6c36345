"""Manifests of a multi-worker training: valid for Kubernetes, with consistent worker addresses."""

import copy
import json
import shlex

import kubernetes_validate
import pytest
import yaml

from components.errors import UsageError
from pipeline.configuration.loading import load_config
from pipeline.kubeflow import training_job
from pipeline.kubeflow.parameters import defaults
from pipeline.kubeflow.training_worker import TF_CONFIG, set_tf_config

_SETTINGS = {
    "image": "example.com/segpipe:1",
    "root": "/mnt/work",
    "memory": "8Gi",
    "service_account": "trainer",
    "components": {"Trainer": {"cpu": "8", "gpus": 2, "timeout": 7200, "node_selector": {"gpu": "a100"}}},
    "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "volumes": {"segpipe-work": "/mnt/work"},
    "secret_env": {"store": {"access": "AWS_ACCESS_KEY_ID"}},
    "secret_volumes": {"bucket-key": "/secrets/bucket"},
    "env": {"S3_ENDPOINT": "minio:9000"},
}
_KINDS = ("job", "tfjob", "trainjob")


@pytest.fixture
def render():
    """Returns a function that renders the manifests of a job kind, by their kind."""

    def render_manifests(kind, workers=3, epochs=5, **settings):
        config = load_config([("test", {"kubeflow": {**_SETTINGS, **settings}})])
        values = defaults("/data/{span}", "fcn8", "cpu", "96x128", epochs)
        text = training_job.render(kind, "night-1", workers, config.kubeflow, [("test", {})], values)
        return {document["kind"]: document for document in yaml.safe_load_all(text)}

    return render_manifests


def _pods(manifests):
    if "TFJob" in manifests:
        specs = manifests["TFJob"]["spec"]["tfReplicaSpecs"].values()
        return [spec["template"]["spec"] for spec in specs]
    if "Job" in manifests:
        return [manifests["Job"]["spec"]["template"]["spec"]]
    jobs = manifests["TrainingRuntime"]["spec"]["template"]["spec"]["replicatedJobs"]
    return [job["template"]["spec"]["template"]["spec"] for job in jobs]


@pytest.mark.parametrize("kind", _KINDS)
def test_the_pods_are_valid_and_restricted(render, kind):
    for pod in _pods(render(kind)):
        document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": copy.deepcopy(pod)}
        kubernetes_validate.validate(document, "1.37", strict=True)
        (container,) = pod["containers"]
        assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }


@pytest.mark.parametrize("kind", _KINDS)
def test_the_pods_have_what_the_configuration_gives_the_trainer(render, kind):
    for pod in _pods(render(kind)):
        (container,) = pod["containers"]
        assert container["image"] == "example.com/segpipe:1"
        assert container["resources"]["limits"] == {"cpu": "8", "memory": "8Gi", "nvidia.com/gpu": 2}
        assert pod["nodeSelector"] == {"gpu": "a100"}
        assert pod["serviceAccountName"] == "trainer"
        assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounted.pop("segpipe-dev-shm") == "/dev/shm"
        assert mounted == {"segpipe-work": "/mnt/work", "bucket-key": "/secrets/bucket"}
        assert {volume["name"] for volume in pod["volumes"]} == {*mounted, "segpipe-dev-shm"}
        assert {variable["name"] for variable in container["env"]} == {"S3_ENDPOINT", "AWS_ACCESS_KEY_ID"}


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("settings", [{}, {"volumes": {}, "secret_volumes": {}, "components": {}}])
def test_the_pods_have_more_shared_memory_than_the_default(render, kind, settings):
    for pod in _pods(render(kind, **settings)):
        (container,) = pod["containers"]
        (mount,) = [mount for mount in container["volumeMounts"] if mount["mountPath"] == "/dev/shm"]
        (volume,) = [volume for volume in pod["volumes"] if volume["name"] == mount["name"]]
        assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Gi"}


@pytest.mark.parametrize("kind", _KINDS)
def test_the_pods_get_the_run_id_and_its_parameters(render, kind):
    for pod in _pods(render(kind)):
        (container,) = pod["containers"]
        arguments = dict(zip(container["args"][::2], container["args"][1::2], strict=True))
        assert shlex.join(container["command"]) == "python -m pipeline.kubeflow.training_worker"
        assert arguments["--run-id"].startswith("night-1-")
        parameters = json.loads(arguments["--parameters"])
        assert (parameters["data"], parameters["size"], parameters["epochs"]) == ("/data/{span}", "96x128", 5)


def test_another_training_has_another_run_id(render):
    def run_id(**settings):
        (pod, *_) = _pods(render("tfjob", **settings))
        return pod["containers"][0]["args"][1]

    # A restarted pod must find its run, which resumes after the finished nodes.
    assert run_id() == run_id(workers=2)
    assert run_id() != run_id(epochs=6)


def test_a_tfjob_has_one_chief_and_the_other_workers(render):
    spec = render("tfjob", workers=3)["TFJob"]["spec"]

    assert {role: item["replicas"] for role, item in spec["tfReplicaSpecs"].items()} == {"Chief": 1, "Worker": 2}
    assert spec["runPolicy"]["activeDeadlineSeconds"] == 7200
    for role in spec["tfReplicaSpecs"].values():
        (container,) = role["template"]["spec"]["containers"]
        # The operator finds the container and the port by these names, and sets TF_CONFIG.
        assert container["name"] == "tensorflow"
        assert container["ports"] == [{"name": "tfjob-port", "containerPort": 2222}]
        assert "--workers" not in container["args"]


def test_a_job_and_its_service_are_valid(render):
    for document in render("job").values():
        kubernetes_validate.validate(document, "1.33", strict=True)
        kubernetes_validate.validate(document, "1.37", strict=True)


def test_a_job_s_pods_have_stable_names(render):
    manifests = render("job", workers=3)
    job, service = manifests["Job"], manifests["Service"]
    (pod,) = _pods(manifests)
    arguments = pod["containers"][0]["args"]
    environment = {"JOB_COMPLETION_INDEX": "2"}

    set_tf_config(environment, arguments[arguments.index("--workers") + 1])

    config = json.loads(environment[TF_CONFIG])
    assert config["task"] == {"type": "worker", "index": 2}
    # The host name of an indexed Job's pod is JOB-INDEX, in the subdomain of the Service.
    assert config["cluster"]["worker"] == [f"night-1-{index}.night-1:2222" for index in range(3)]
    assert (job["metadata"]["name"], pod["subdomain"]) == ("night-1", service["metadata"]["name"])
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": job["metadata"]["name"]}
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"]


def test_a_job_restarts_lost_workers_and_fails_as_a_whole(render):
    spec = render("job", workers=3, retries=4)["Job"]["spec"]

    assert spec["completionMode"] == "Indexed"
    assert (spec["completions"], spec["parallelism"]) == (3, 3)
    assert (spec["backoffLimitPerIndex"], spec["maxFailedIndexes"]) == (4, 0)
    # Kubernetes allows a backoff limit per index only with this policy.
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert spec["activeDeadlineSeconds"] == 7200


def test_an_unknown_kind_is_refused(render):
    with pytest.raises(UsageError, match="--kind pod: expected one of job, tfjob, trainjob"):
        render("pod")


def test_a_trainjob_s_pods_make_tf_config_from_addresses_and_index(render):
    manifests = render("trainjob", workers=3)
    job, runtime = manifests["TrainJob"], manifests["TrainingRuntime"]
    (pod,) = _pods(manifests)
    arguments = pod["containers"][0]["args"]
    environment = {"JOB_COMPLETION_INDEX": "2"}

    set_tf_config(environment, arguments[arguments.index("--workers") + 1])

    assert job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    assert job["spec"]["trainer"]["numNodes"] == runtime["spec"]["mlPolicy"]["numNodes"] == 3
    config = json.loads(environment[TF_CONFIG])
    assert config["task"] == {"type": "worker", "index": 2}
    # The host name of a JobSet's pod is JOBSET-JOB-0-INDEX, in the subdomain of a Service named after the JobSet.
    assert config["cluster"]["worker"] == [f"night-1-node-0-{index}.night-1:2222" for index in range(3)]


def test_missing_settings_of_a_cluster_are_named(render):
    with pytest.raises(UsageError, match=r"kubeflow.root"):
        render("tfjob", root="")
    with pytest.raises(UsageError, match=r"kubeflow.root: found 'work'"):
        render("tfjob", root="work")
