"""TFX is imported without the packages that segpipe does not use, which shortens the start of a run and of a task."""

import json
import os
import re
import subprocess
import sys

import pytest

from pipeline.running import tfx_start

_UNUSED = {
    "IPython",
    "google.cloud.aiplatform",
    "google.cloud.bigquery",
    "ipywidgets",
    "keras_tuner",
    "kfp.client",
    "kfp.compiler",
    "kubernetes",
    "matplotlib",
    "mlflow",
    "nltk",
    "sacrebleu",
    "scipy.linalg",
    "scipy.ndimage",
    "scipy.sparse",
    "scipy.stats",
    "sklearn",
}


def _run(code, **environment):
    """Returns what code prints as JSON in its last line, in a process of its own."""
    # TFX sets TF_USE_LEGACY_KERAS in the process of other tests; with it, TensorFlow imports the packages.
    inherited = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=inherited | environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # TFDV and Beam complain about packages that are hidden.
    assert not {"IPython", "bson"} & set(re.findall(r"\w+", done.stderr))
    return json.loads(done.stdout.splitlines()[-1])


def test_a_local_run_begins_its_first_component_without_unused_packages(street_scenes, tmp_path):
    code = f"""
import json, os, sys
from pipeline.cli.main import main
from pipeline.running.console import RunConsole
console = os.dup(1)  # The run's own output goes to its log.

def start(self, node):
    if node == "ImageMaskExampleGen":
        os.write(console, json.dumps(sorted({_UNUSED!r} & set(sys.modules))).encode())
        os._exit(0)

RunConsole.start = start
sys.argv = ["segpipe", "run", "--data", {street_scenes!r}, "--out", {str(tmp_path / "work")!r}]
main()
"""
    assert _run(code) == []


def test_a_task_s_process_does_not_import_unused_packages():
    code = f"""
import contextlib, json, runpy, sys
sys.argv = ["node", "--help"]
with contextlib.suppress(SystemExit):
    runpy.run_module("pipeline.kubeflow.node", run_name="__main__")
from pipeline.running.tfx_start import import_tfx
import_tfx()
import pipeline.wiring.create_pipeline, pipeline.kubeflow.outputs
import tensorflow_model_analysis as tfma
tfma.run_model_analysis
print(json.dumps(sorted({_UNUSED!r} & set(sys.modules))))
"""
    assert _run(code) == []


def test_the_packages_can_be_imported_afterwards():
    code = """
import gc, json, os, sys
from pipeline.running.tfx_start import import_tfx
import_tfx()
import google.cloud.bigquery, IPython, scipy.ndimage, scipy.sparse
from scipy import stats
from tensorflow_model_analysis.utils import math_util
from tensorflow_model_analysis.api.types import ValueWithTDistribution
interval = math_util.calculate_confidence_interval(ValueWithTDistribution(5.0, 1.0, 9, 5.0))
again = import_tfx()
print(json.dumps([*interval, 5 + stats.t.ppf(0.975, 9), gc.isenabled(), None in sys.modules.values()]))
"""
    mean, low, high, expected, collects, hidden = _run(code)

    assert mean == 5
    assert high == pytest.approx(expected)
    assert low == pytest.approx(10 - expected)
    assert collects
    assert not hidden


def test_beam_reads_buckets_and_runs_on_dataflow():
    code = """
import json
from pipeline.running.tfx_start import import_tfx
import_tfx()
from apache_beam.io.filesystems import FileSystems
from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner
print(json.dumps([type(FileSystems.get_filesystem("gs://bucket/file")).__name__, DataflowRunner.__name__]))
"""
    assert _run(code) == ["GCSFileSystem", "DataflowRunner"]


def test_a_module_that_reads_a_stand_in_during_the_import_gets_an_import_error():
    with (
        tfx_start._replaced({"late_probe": tfx_start._late("late_probe")}),
        pytest.raises(ImportError, match="cannot import name 'value'"),
    ):
        from late_probe import value  # noqa: F401
