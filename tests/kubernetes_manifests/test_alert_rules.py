"""Prometheus accepts the alert rules, and the rules on the pipeline query metrics that exist."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from go_programs import build
from rendered import ROOT, of_kind

_PIPELINE = ROOT / "kubernetes" / "kubeflow" / "alerts.yaml"
# kube-state-metrics, docs/metrics/workload/job-metrics.md of 076987a; Argo, util/telemetry/builder/values.yaml of
# 0286385, `TotalCount`, whose label `namespace` is left out, because Prometheus may call it `exported_namespace`.
_METRICS = {"kube_job_status_failed": {"namespace", "job_name", "reason"}, "argo_workflows_total_count": {"phase"}}


@pytest.fixture
def rules(render):
    """The alert rules for servers and for the pipeline, by name."""
    (serving,) = of_kind(render("cpu"), "PrometheusRule")
    return {"serving": serving, "pipeline": yaml.safe_load(_PIPELINE.read_text())}


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    """Returns a function that checks a rule file with Prometheus' parser, which is built once."""
    source = Path(__file__).parent / "rule_check"
    (version,) = re.findall(r"prometheus/prometheus (\S+)", (source / "go.mod").read_text())
    folder = shutil.copytree(source, tmp_path_factory.mktemp("go") / "rule_check")
    binary = build(f"rule_check-{version}", folder, ".")

    def run(path):
        done = subprocess.run([binary, str(path)], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    return run


def test_prometheus_accepts_the_rules(rules, check, tmp_path):
    for rule in rules.values():
        # The operator writes the resource's `spec` to a rule file.
        path = tmp_path / "rules.yaml"
        path.write_text(yaml.safe_dump(rule["spec"]))
        assert check(path) == (0, "")
        path.write_text(yaml.safe_dump(rule["spec"]).replace("[15m]", "[15m"))
        assert check(path)[0] == 1


def test_the_pipeline_rules_query_metrics_that_exist():
    (group,) = yaml.safe_load(_PIPELINE.read_text())["spec"]["groups"]

    for rule in group["rules"]:
        ((name, matchers),) = re.findall(r"([a-z_]+)\{([^}]*)\}", rule["expr"])
        assert set(re.findall(r'(\w+)=~?"', matchers)) <= _METRICS[name], rule["alert"]
        for grouped in re.findall(r"by \(([^)]*)\)", rule["expr"]):
            assert set(grouped.split(", ")) <= _METRICS[name], rule["alert"]
        assert rule["labels"]["severity"] == "warning"
        assert {"summary", "description"} == set(rule["annotations"])


def test_the_submission_alert_selects_the_cron_job():
    cron_job = yaml.safe_load((_PIPELINE.parent / "retrain-cronjob.yaml").read_text())
    rules = {rule["alert"]: rule for rule in yaml.safe_load(_PIPELINE.read_text())["spec"]["groups"][0]["rules"]}

    # Kubernetes names a Job after its CronJob and the scheduled time.
    (pattern,) = re.findall(r'job_name=~"([^"]*)"', rules["SegpipeRetrainNotSubmitted"]["expr"])
    assert re.fullmatch(pattern, f"{cron_job['metadata']['name']}-29068597")
