"""Every rendered manifest is valid for the supported Kubernetes versions and for the operators."""

import copy

import custom_kinds
import kubernetes_validate
import pytest
import yaml
from rendered import FOLDERS, ROOT, of_kind

_KUBERNETES = ("1.33", "1.34", "1.35", "1.36", "1.37")


def _errors(document, version):
    """Returns the validation errors of a manifest."""
    if document["kind"] in custom_kinds.KINDS:
        return custom_kinds.errors(document)
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
        return [error.message]
    return []


@pytest.mark.parametrize("version", _KUBERNETES)
@pytest.mark.parametrize("folder", FOLDERS)
def test_every_manifest_is_valid_on_every_supported_version(render, folder, version):
    documents = render(folder)

    assert documents
    assert [error for document in documents for error in _errors(document, version)] == []


@pytest.mark.parametrize("version", _KUBERNETES)
def test_the_pipeline_s_manifests_are_valid(version):
    for file in (ROOT / "kubernetes" / "kubeflow").glob("*.yaml"):
        assert _errors(yaml.safe_load(file.read_text()), version) == [], file


def test_a_misspelt_field_and_a_wrong_type_would_be_found(render):
    deployment = of_kind(render("cpu"), "Deployment", "segpipe-serving")
    misspelt, wrong = copy.deepcopy(deployment), copy.deepcopy(deployment)
    misspelt["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    wrong["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = "soon"

    assert _errors(misspelt, _KUBERNETES[-1])
    assert _errors(wrong, _KUBERNETES[-1])


@pytest.mark.parametrize(
    ("folder", "kind", "path", "wrong"),
    [
        ("cpu", "ServiceMonitor", ("spec", "selector"), {"matchLabelz": {"app": "segpipe"}}),
        ("cpu", "ServiceMonitor", ("spec", "endpoints", 0), {"prot": "rest"}),
        ("cpu", "ServiceMonitor", ("spec", "endpoints", 0), {"interval": "often"}),
        ("cpu", "PrometheusRule", ("spec", "groups", 0, "rules", 0), {"for": 5}),
        ("cpu", "PrometheusRule", ("metadata",), {"lables": {}}),
        ("kserve", "InferenceService", ("spec", "predictor"), {"minReplica": 2}),
        ("kserve", "InferenceService", ("spec", "predictor", "model"), {"storageURI": "pvc://models"}),
        ("kserve", "InferenceService", ("spec", "predictor", "model", "readinessProbe"), {"periodSecond": 5}),
    ],
)
def test_a_wrong_field_of_a_custom_kind_would_be_found(render, folder, kind, path, wrong):
    (document,) = copy.deepcopy(of_kind(render(folder), kind))
    changed = document
    for step in path:
        changed = changed[step]
    changed.update(wrong)

    assert _errors(document, _KUBERNETES[-1])


def test_manifest_names_are_unique_within_a_folder(render):
    for folder in FOLDERS:
        names = [(one["kind"], one["metadata"]["name"]) for one in render(folder)]
        assert len(names) == len(set(names))


def test_every_object_is_in_the_project_s_namespace(render):
    for folder in FOLDERS:
        for document in render(folder):
            if document["kind"] not in ("Namespace", "PersistentVolume"):
                assert document["metadata"].get("namespace") == "segpipe", document


def test_every_alert_has_a_name_a_severity_and_a_description(render):
    for folder in ("cpu", "gpu"):
        (rules,) = of_kind(render(folder), "PrometheusRule")
        for group in rules["spec"]["groups"]:
            for rule in group["rules"]:
                assert {"alert", "annotations"} <= set(rule)
                assert rule["labels"]["severity"] in ("critical", "warning")


def test_the_kubernetes_folder_is_not_a_package():
    # A package named `kubernetes` would hide the client that kfp imports.
    assert not list((ROOT / "kubernetes").rglob("__init__.py"))
