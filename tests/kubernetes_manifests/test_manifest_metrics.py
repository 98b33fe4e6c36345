"""Alerts and dashboard query metrics that TensorFlow Serving exports, with the labels that they have."""

import json
import re

import pytest
from rendered import of_kind

_NAMESPACE = ":tensorflow:serving:"
# Name, whether it is a histogram, and labels, from TensorFlow Serving 2.20's servables/tensorflow/util.cc,
# batching/batching_session.cc and batching/batching_util.h, and TensorFlow's cc/saved_model/loader.cc. The exporter
# replaces every character except letters, digits and underscores with a colon.
_EXPORTED = {
    _NAMESPACE + "request_count": (False, {"model_name", "status"}),
    _NAMESPACE + "request_latency": (True, {"model_name", "API", "entrypoint"}),
    _NAMESPACE + "runtime_latency": (True, {"model_name", "API", "runtime"}),
    _NAMESPACE + "batching_session:queuing_latency": (True, {"thread_pool_name"}),
    _NAMESPACE + "batching_session:processed_batch_size": (True, set()),
    ":tensorflow:cc:saved_model:load_attempt_count": (False, {"model_path", "status"}),
    "up": (False, set()),
    # kube-state-metrics, docs/metrics/workload/deployment-metrics.md of 06d1481 and job-metrics.md of 076987a.
    "kube_deployment_status_replicas_available": (False, {"deployment"}),
    "kube_job_status_failed": (False, {"job_name", "reason"}),
}
# Labels that Prometheus adds to the series of a ServiceMonitor.
_ADDED = {"namespace", "job", "pod", "instance", "service", "endpoint", "container", "le"}
_STATUSES = {
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "fail",
    "success",
}


@pytest.fixture(scope="module")
def expressions(render):
    """Every query of the alerts and the dashboard, by alert or panel."""
    documents = render("cpu")
    (rules,) = of_kind(documents, "PrometheusRule")
    found = {rule["alert"]: rule["expr"] for group in rules["spec"]["groups"] for rule in group["rules"]}
    dashboard = json.loads(of_kind(documents, "ConfigMap", "segpipe-serving-dashboard")["data"]["segpipe-serving.json"])
    for panel in dashboard["panels"]:
        found |= {f"{panel['title']} {target['refId']}": target["expr"] for target in panel["targets"]}
    (model,) = (one for one in dashboard["templating"]["list"] if one["name"] == "model")
    return found | {"variable model": model["query"]}


def _selectors(expression):
    """Yields the metric and the label matchers of every selector."""
    for name, matchers in re.findall(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}", expression):
        yield name, re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', matchers)


def _exported(name):
    """Returns the metric that a series belongs to."""
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    if base in _EXPORTED and _EXPORTED[base][0]:
        return base
    assert name in _EXPORTED, f"{name} is exported by nobody"
    assert not _EXPORTED[name][0], f"{name} is a histogram; ask for its _bucket, _sum or _count"
    return name


def test_every_queried_metric_is_exported_with_the_queried_labels(expressions):
    for where, expression in expressions.items():
        selectors = list(_selectors(expression))
        assert selectors, where
        labels = set(_ADDED)
        for name, matchers in selectors:
            known = _EXPORTED[_exported(name)][1] | _ADDED
            assert {label for label, _ in matchers} <= known, where
            labels |= known
        for grouped in re.findall(r"\bby \(([^)]*)\)", expression):
            assert set(re.split(r",\s*", grouped)) <= labels, where


def test_the_failure_alert_works_before_any_request_has_succeeded(expressions):
    successes = r"\(sum by \(model_name\) \(rate\(:tensorflow:serving:request_latency_count\{[^}]*\}\[5m\]\)\)"

    assert re.search(
        rf"/ \({successes} or 0 \* sum by \(model_name\) \(rate\(:tensorflow:serving:request_count\{{",
        expressions["SegpipeServingFailures"],
    )


def test_every_query_selects_a_namespace_and_is_well_formed(expressions):
    for where, expression in expressions.items():
        for name, matchers in _selectors(expression):
            assert "namespace" in dict(matchers), f"{where}: {name}"
        for opening, closing in ("()", "{}", "[]"):
            assert expression.count(opening) == expression.count(closing), where


def test_every_status_is_one_that_the_server_writes(expressions):
    for where, expression in expressions.items():
        for _, matchers in _selectors(expression):
            for label, value in matchers:
                if label == "status":
                    assert set(value.split("|")) <= _STATUSES, where


def test_prometheus_scrapes_the_server_s_metrics_path_through_one_service(render):
    documents = render("cpu")
    (monitor,) = of_kind(documents, "ServiceMonitor")
    (endpoint,) = monitor["spec"]["endpoints"]
    chosen = [
        one
        for one in of_kind(documents, "Service")
        if monitor["spec"]["selector"]["matchLabels"].items() <= one["metadata"]["labels"].items()
    ]

    assert [one["metadata"]["name"] for one in chosen] == ["segpipe-serving"]
    assert endpoint["port"] in {port["name"] for port in chosen[0]["spec"]["ports"]}
    (configured,) = (one["data"] for one in of_kind(documents, "ConfigMap") if "monitoring.config" in one["data"])
    assert f'path: "{endpoint["path"]}"' in configured["monitoring.config"]
