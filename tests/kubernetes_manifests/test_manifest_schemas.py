"""Every rendered manifest is one that the supported Kubernetes versions, and the operators, take."""

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


def _faults(document, version):
    """Returns what is wrong with a manifest, in words."""
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
    assert [fault for document in documents for fault in _faults(document, version)] == []


def test_a_misspelt_field_and_a_wrong_type_would_be_found(render):
    deployment = of_kind(render("cpu"), "Deployment", "segpipe-serving")
    misspelt, wrong = copy.deepcopy(deployment), copy.deepcopy(deployment)
    misspelt["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    wrong["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = "soon"

    assert _faults(misspelt, _KUBERNETES[-1])
    assert _faults(wrong, _KUBERNETES[-1])


def test_no_two_manifests_of_a_folder_have_one_name(render):
    for folder in FOLDERS:
        names = [(one["kind"], one["metadata"]["name"]) for one in render(folder)]
        assert len(names) == len(set(names))


def test_everything_lies_in_the_project_s_namespace(render):
    for folder in FOLDERS:
        for document in render(folder):
            if document["kind"] not in ("Namespace", "PersistentVolume"):
                assert document["metadata"].get("namespace") == "segpipe", document


def test_the_rules_for_alerts_have_what_the_operator_asks_for(render):
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


def test_the_folder_is_no_package():
    # A package of this name would hide the Kubernetes client that kfp imports.
    assert not list((ROOT / "kubernetes").rglob("__init__.py"))
