"""Every rendered manifest is valid for the supported Kubernetes versions and for the operators."""

import copy

import kubernetes_validate
import pytest
from rendered import FOLDERS, ROOT, of_kind

_KUBERNETES = ("1.33", "1.34", "1.35", "1.36", "1.37")
# Required and permitted fields of the custom resources, from the Prometheus Operator's API reference and KServe 0.20's.
_CUSTOM = {
    "ServiceMonitor": ("monitoring.coreos.com/v1", {"selector", "endpoints"}, {"namespaceSelector", "jobLabel"}),
    "PrometheusRule": ("monitoring.coreos.com/v1", {"groups"}, set()),
    "InferenceService": ("serving.kserve.io/v1beta1", {"predictor"}, {"transformer", "explainer"}),
}


def _errors(document, version):
    """Returns the validation errors of a manifest."""
    if document["kind"] in _CUSTOM:
        api, required, permitted = _CUSTOM[document["kind"]]
        fields = set(document["spec"])
        ok = document["apiVersion"] == api and required <= fields <= required | permitted
        return [] if ok else [f"{document['apiVersion']} with {fields}"]
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


def test_a_misspelt_field_and_a_wrong_type_would_be_found(render):
    deployment = of_kind(render("cpu"), "Deployment", "segpipe-serving")
    misspelt, wrong = copy.deepcopy(deployment), copy.deepcopy(deployment)
    misspelt["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    wrong["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = "soon"

    assert _errors(misspelt, _KUBERNETES[-1])
    assert _errors(wrong, _KUBERNETES[-1])


def test_manifest_names_are_unique_within_a_folder(render):
    for folder in FOLDERS:
        names = [(one["kind"], one["metadata"]["name"]) for one in render(folder)]
        assert len(names) == len(set(names))


def test_every_object_is_in_the_project_s_namespace(render):
    for folder in FOLDERS:
        for document in render(folder):
            if document["kind"] not in ("Namespace", "PersistentVolume"):
                assert document["metadata"].get("namespace") == "segpipe", document


def test_alert_rules_have_the_fields_that_the_operator_requires(render):
    for folder in ("cpu", "gpu"):
        (rules,) = of_kind(render(folder), "PrometheusRule")
        for group in rules["spec"]["groups"]:
            for rule in group["rules"]:
                assert (
                    {"alert", "expr", "labels", "annotations"}
                    <= set(rule)
                    <= {
                        "alert",
                        "expr",
                        "for",
                        "labels",
                        "annotations",
                    }
                )
                assert rule["labels"]["severity"] in ("critical", "warning")


def test_the_kubernetes_folder_is_not_a_package():
    # A package named `kubernetes` would hide the client that kfp imports.
    assert not list((ROOT / "kubernetes").rglob("__init__.py"))
