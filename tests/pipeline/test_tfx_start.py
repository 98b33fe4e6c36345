"""TFX is imported without the packages that segpipe does not use, which saves time in each task on Kubeflow."""

import json
import subprocess
import sys

_UNUSED = {"google.cloud.aiplatform", "google.cloud.bigquery", "kubernetes", "kfp.client", "kfp.compiler"}


def _run(code):
    """Returns what code prints as JSON in its last line, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


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
