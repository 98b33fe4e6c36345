"""Schemas of the custom kinds, with only the fields that the manifests use.

The fields, their types and patterns are those of the operators' CustomResourceDefinitions: Prometheus Operator 0.93,
example/prometheus-operator-crd, and KServe 0.20, config/crd/full/serving.kserve.io_inferenceservices.yaml. Compare with
them before you add a field.
"""

import jsonschema
from kubernetes_validate import utils

_TYPES = utils.schema_contents("kubernetes-json-schema/v1.37.0-local-strict/_definitions.json", "1.37")["$defs"]
_TEXT = {"type": "string"}
_INTEGER = {"type": "integer"}
_TEXTS = {"type": "object", "additionalProperties": _TEXT}
_DURATION = {"type": "string", "pattern": "^([0-9]+(y|w|d|h|m|s|ms))+$"}


def _fields(*required, **fields):
    return {"type": "object", "properties": fields, "required": required, "additionalProperties": False}


def _list(item):
    return {"type": "array", "items": item}


def _type(name):
    return {"$ref": f"#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.{name}"}


_RULE = {"alert": _TEXT, "expr": _TEXT, "for": _DURATION, "labels": _TEXTS, "annotations": _TEXTS}
# KServe adds its fields to those of a container and of a pod.
_MODEL = _fields(
    modelFormat=_fields("name", name=_TEXT, version=_TEXT),
    protocolVersion=_TEXT,
    runtime=_TEXT,
    runtimeVersion=_TEXT,
    storageUri=_TEXT,
    **_TYPES["io.k8s.api.core.v1.Container"]["properties"],
)
_PREDICTOR = _fields(
    model=_MODEL,
    minReplicas=_INTEGER,
    maxReplicas=_INTEGER,
    scaleMetric={"enum": ["cpu", "memory", "concurrency", "rps"]},
    scaleTarget=_INTEGER,
    **_TYPES["io.k8s.api.core.v1.PodSpec"]["properties"],
)
_SPECS = {
    ("monitoring.coreos.com/v1", "ServiceMonitor"): _fields(
        "selector",
        "endpoints",
        selector=_type("LabelSelector"),
        endpoints=_list(_fields(port=_TEXT, path=_TEXT, interval=_DURATION)),
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): _fields(
        groups=_list(_fields("name", name=_TEXT, rules=_list(_fields("expr", **_RULE)))),
    ),
    ("serving.kserve.io/v1beta1", "InferenceService"): _fields("predictor", predictor=_PREDICTOR),
}
KINDS = {kind for _, kind in _SPECS}


def errors(document):
    """Returns what is wrong with an object of a custom kind."""
    spec = _SPECS.get((document["apiVersion"], document["kind"]))
    if spec is None:
        return [f"{document['apiVersion']} has no {document['kind']}"]
    schema = _fields("metadata", "spec", apiVersion=_TEXT, kind=_TEXT, metadata=_type("ObjectMeta"), spec=spec)
    found = jsonschema.Draft202012Validator(schema | {"$defs": _TYPES}).iter_errors(document)
    return [f"{one.json_path}: {one.message}" for one in found]
