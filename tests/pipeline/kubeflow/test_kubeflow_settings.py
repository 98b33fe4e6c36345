"""Kubeflow's settings and parameters are merged into one configuration, and spans are found."""

import pytest
from kfp import dsl

from components.errors import SegpipeError, UsageError
from pipeline.configuration import spans
from pipeline.configuration.kubeflow import KubeflowSettings
from pipeline.configuration.loading import load_config, read_assignments
from pipeline.kubeflow import kubernetes_options
from pipeline.kubeflow.parameters import configure, defaults
from pipeline.storage.settings import MetadataSettings
from pipeline.storage.store import Store
from pipeline.storage.workdir import Workdir


def _values(**chosen):
    return {**defaults("", "unet", "smoke", None, None), "data": "", **chosen}


def test_unset_parameters_keep_preset_and_compiled_settings():
    config = configure(_values(), [("file", {"training": {"epochs": 5}, "gate": {"max_mean_drop": 0.5}})])

    assert (config.model.name, config.training.epochs) == ("unet", 5)
    assert (config.gate.min_mean_iou, config.gate.max_mean_drop) == (0.30, 0.5)


def test_a_run_s_parameters_override_all_settings():
    values = _values(epochs=3.0, size="64x96", min_mean_iou=0, max_class_drop=0.5, push_destination="/served")

    config = configure(values, [("file", {"training": {"epochs": 5}, "size": [32, 32]})])

    assert (config.training.epochs, config.size, config.serving_dir) == (3, (64, 96), "/served")
    assert (config.gate.min_mean_iou, config.gate.max_class_drop) == (0, 0.5)


def test_the_compiled_span_is_a_run_s_default():
    layers = [("--set", {"data": {"span": "street7"}})]

    assert configure(_values(), layers).data.span == "street7"
    assert configure(_values(span="newest"), layers).data.span == "newest"


def test_a_span_without_a_placeholder_is_refused():
    with pytest.raises(UsageError, match=r"span: found '2' with data '/data/street-1', expected \{span\} in data"):
        configure(_values(data="/data/street-1", span="2"), [])


def test_a_folder_without_a_placeholder_has_no_spans(street_scenes):
    assert configure(_values(data=street_scenes, span="newest"), []).data.dir == street_scenes


def test_another_preset_and_model_bring_their_own_settings():
    config = configure(_values(preset="cpu-long", model="fcn8"), [])

    assert (config.model.name, config.size, config.training.epochs) == ("fcn8", (352, 480), 120)


@pytest.mark.parametrize(
    "settings", [{"kubeflow": {"components": {"Trainer": {"gpus": 1}}}}, {"training": {"require_gpu": False}}], ids=str
)
def test_a_required_gpu_must_be_requested_for_the_trainer(settings):
    values = _values(preset="gpu")

    with pytest.raises(
        UsageError, match=r"require_gpu: found true with kubeflow\.components\.Trainer\.gpus=0.*Trainer\.gpus=1"
    ):
        configure(values, [("file", {"kubeflow": {"components": {"Evaluator": {"gpus": 1}}}})])

    assert configure(values, [("file", settings)]).training.epochs == 40


def test_a_wrong_parameter_is_explained():
    with pytest.raises(UsageError, match=r"pipeline parameters|size: found '64'"):
        configure(_values(size="64"), [])


def test_a_component_s_resources_override_those_of_all():
    settings = KubeflowSettings.model_validate(
        {"cpu": "1", "timeout": 60, "node_selector": {"a": "1"}, "components": {"Trainer": {"cpu": "8", "timeout": 0}}}
    )

    trainer, other = settings.of_component("Trainer"), settings.of_component("Pusher")

    assert (trainer.cpu, trainer.timeout, trainer.node_selector) == ("8", 0, {"a": "1"})
    assert (other.cpu, other.timeout) == ("1", 60)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("kubeflow.imag=x", r"unknown setting kubeflow\.imag; did you mean kubeflow\.image\?"),
        ("kubeflow.metadata.hst=x", r"did you mean kubeflow\.metadata\.host\?"),
        ("kubeflow.metadata=x", r"kubeflow\.metadata is a group; set one of kubeflow\.metadata\.database"),
        ("kubeflow.metadata.kind=mysqll", r"kubeflow\.metadata\.kind: found 'mysqll'.*did you mean mysql\?"),
        ("kubeflow.memory=lots", r"kubeflow\.memory: found 'lots'"),
        # Kubernetes accepts these quantities for any resource; kfp does not.
        ("kubeflow.memory=1.5Gi", r"kubeflow\.memory: found '1\.5Gi'"),
        ("kubeflow.cpu=4Gi", r"kubeflow\.cpu: found '4Gi'"),
        ("kubeflow.metadata.kind=mysql", r"kubeflow\.metadata: found kind=mysql without a host.*metadata\.host"),
        ("kubeflow.tolerations=[{operator: Exist}]", r"operator: found 'Exist'.*did you mean Exists\?"),
        ("kubeflow.components.Trainer.gpu=1", r"kubeflow\.components\.Trainer\.gpu"),
        ("kubeflow.components.Trainr.gpus=1", r"kubeflow\.components\.Trainr: found 'Trainr'.*did you mean Trainer\?"),
    ],
)
def test_a_wrong_setting_for_kubeflow_is_named(assignment, message):
    with pytest.raises(UsageError, match=message):
        load_config([("--set", read_assignments([assignment]))])


def test_nested_settings_are_merged_layer_by_layer():
    config = load_config(
        [
            ("file", {"kubeflow": {"image": "a", "metadata": {"kind": "mysql", "host": "db"}}}),
            ("--set", {"kubeflow": {"metadata": {"host": "other"}}}),
        ]
    )

    assert (config.kubeflow.image, config.kubeflow.metadata.kind, config.kubeflow.metadata.host) == (
        "a",
        "mysql",
        "other",
    )


def test_each_kind_of_store_has_its_connection(monkeypatch):
    monkeypatch.setenv("DB_PASSWORD", "secret")

    def connect(**settings):
        settings = MetadataSettings(password_env="DB_PASSWORD", **settings)
        return Workdir("/w", settings).connection

    mysql = connect(kind="mysql", host="db", user="me").mysql
    postgresql = connect(kind="postgresql", host="db", database="lineage").postgresql
    grpc = connect(kind="grpc", host="service")
    assert connect().sqlite.filename_uri == "/w/metadata.sqlite"
    assert connect(path="/x").sqlite.filename_uri == "/x"
    assert (mysql.host, mysql.port, mysql.user, mysql.password, mysql.database) == (
        "db",
        3306,
        "me",
        "secret",
        "segpipe",
    )
    assert (postgresql.port, postgresql.dbname, postgresql.password) == ("5432", "lineage", "secret")
    assert (grpc.host, grpc.port) == ("service", 8080)


@pytest.mark.parametrize("memory", ["", "512", "512Ki", "16Gi", "2T"])
@pytest.mark.parametrize("cpu", ["", "4", "0.5", "500m"])
def test_kfp_accepts_the_amounts_that_validation_accepts(cpu, memory):
    settings = KubeflowSettings(cpu=cpu, memory=memory)

    @dsl.container_component
    def component():
        return dsl.ContainerSpec(image="i")

    @dsl.pipeline
    def pipeline():
        kubernetes_options.apply(component(), settings.of_task(["Trainer"]), settings)

    container = pipeline.pipeline_spec.deployment_spec["executors"]["exec-component"]["container"]
    assert ("resources" in container) == bool(cpu or memory)


@pytest.mark.parametrize(
    ("settings", "serving_dir", "message"),
    [
        ({}, "", r"kubeflow\.root: found nothing.*--set kubeflow\.root"),
        ({"root": "work"}, "", r"kubeflow\.root: found 'work', which is a different folder in each container"),
        ({"root": "/w"}, "served", r"serving_dir: found 'served', which is a different folder"),
        ({"root": "/w", "metadata": {"path": "m.sqlite"}}, "", r"kubeflow\.metadata\.path: found 'm\.sqlite'"),
        ({"root": "gs://b/w"}, "", r"kubeflow\.metadata: found an sqlite file on gs://b/w.*kind=mysql"),
    ],
)
def test_settings_that_tasks_cannot_share_are_refused(settings, serving_dir, message):
    with pytest.raises(UsageError, match=message):
        KubeflowSettings.model_validate(settings).check_shared(serving_dir)


@pytest.mark.parametrize(
    "settings",
    [
        {"root": "/mnt/work"},
        {"root": "gs://b/w", "metadata": {"kind": "grpc", "host": "h"}},
        {"root": "gs://b/w", "metadata": {"path": "/mnt/metadata.sqlite"}},
    ],
)
def test_settings_that_tasks_can_share_are_accepted(settings):
    KubeflowSettings.model_validate(settings).check_shared("s3://bucket/served")


@pytest.mark.parametrize(
    ("folders", "pattern", "newest"),
    [
        (["span-2", "span-10", "span-9"], "span-{span}", "span-10"),
        (["2024-05-01", "2024-11-30", "2023-12-31"], "{span}", "2024-11-30"),
        (["day-3-camvid", "day-4-other"], "day-{span}-camvid", "day-3-camvid"),
        (["week-1/images", "week-2/images"], "week-{span}/images", "week-2/images"),
        (["2024-05-01", ".2024-05-02", "lost+found"], "{span}", "2024-05-01"),
    ],
)
def test_the_newest_span_is_found(tmp_path, folders, pattern, newest):
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)

    assert spans.locate(f"{tmp_path}/{pattern}") == f"{tmp_path}/{newest}"


def test_an_object_beside_the_spans_of_a_store_is_not_a_span(tmp_path):
    folder = tmp_path.as_uri()
    (tmp_path / "2024-05-01").mkdir()
    (tmp_path / "2024-05-01" / "a.png").touch()
    (tmp_path / "2024-05-02").touch()

    assert spans.locate(f"{folder}/{{span}}") == f"{folder}/2024-05-01"


def test_a_named_span_is_used_and_a_path_without_a_placeholder_unchanged(tmp_path):
    assert spans.locate("gs://bucket/span-{span}", "7") == "gs://bucket/span-7"
    assert spans.locate(str(tmp_path)) == str(tmp_path)


def test_a_pattern_without_any_span_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="at least one span"):
        spans.locate(f"{tmp_path}/span-{{span}}")


def test_a_missing_store_is_named(tmp_path):
    missing = Workdir("/w", MetadataSettings(path=str(tmp_path / "no_folder" / "metadata.sqlite")))

    with pytest.raises(SegpipeError, match=r"cannot be opened.*kubeflow\.metadata"):
        Store(missing.connection)


def test_a_task_gets_the_largest_resources_of_its_nodes():
    settings = KubeflowSettings(
        cpu="500m",
        memory="2Gi",
        timeout=600,
        node_selector={"pool": "batch"},
        components={
            "Evaluator": {"cpu": "2", "gpus": 1, "gpu_kind": "amd.com/gpu", "node_selector": {"disk": "ssd"}},
            "BaselineResolver": {"memory": "3G", "timeout": 60},
        },
    )

    resources = settings.of_task(["BaselineResolver", "Evaluator"])

    assert (resources.cpu, resources.memory, resources.timeout) == ("2", "3G", 600)
    assert (resources.gpus, resources.gpu_kind) == (1, "amd.com/gpu")
    assert resources.node_selector == {"pool": "batch", "disk": "ssd"}


def test_a_task_has_no_time_limit_if_one_of_its_nodes_has_none():
    settings = KubeflowSettings(timeout=600, components={"Evaluator": {"timeout": 0}})

    assert settings.of_task(["BaselineResolver", "Evaluator"]).timeout == 0


@pytest.mark.parametrize(
    ("components", "message"),
    [
        (
            {"Pusher": {"node_selector": {"disk": "ssd"}}, "Report": {"node_selector": {"disk": "hdd"}}},
            r"kubeflow\.components\.Report\.node_selector: found disk=hdd, expected disk=ssd, because Pusher, Report",
        ),
        (
            {"Pusher": {"gpus": 1}, "Report": {"gpus": 1, "gpu_kind": "amd.com/gpu"}},
            r"kubeflow\.components\.Report\.gpu_kind: found amd.com/gpu, expected nvidia.com/gpu",
        ),
    ],
)
def test_nodes_of_a_task_must_agree_on_where_it_runs(components, message):
    with pytest.raises(UsageError, match=message):
        KubeflowSettings(components=components).of_task(["Pusher", "Report"])
