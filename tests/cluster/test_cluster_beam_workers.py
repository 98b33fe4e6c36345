"""A run whose data components run on Beam workers of the image `beam-worker`, with Prism as the job server.

All are containers of one pod, because Prism, like other job servers without Docker, gives the workers a localhost
address to connect to.
"""

import json
import subprocess
from pathlib import Path

import pytest
from go_programs import BEAM, program
from real_cluster import CLAIM, MOUNT, until

pytestmark = pytest.mark.slow

_LOCK = Path(__file__).parents[2] / "requirements" / "current.txt"
_POD, _JOB_PORT, _POOL_PORT = "run", 8073, 50000
_START_PRISM = f"""
until test -x /tmp/prism; do sleep 1; done
exec /tmp/prism --serve_http=false --job_port={_JOB_PORT}
"""
_COPY_PRISM = "cat > /tmp/copied && chmod +x /tmp/copied && mv /tmp/copied /tmp/prism"
_BEAM = [
    "--runner=PortableRunner",
    f"--job_endpoint=localhost:{_JOB_PORT}",
    "--environment_type=EXTERNAL",
    f"--environment_config=localhost:{_POOL_PORT}",
]
_RUN = f"""
import json
from pathlib import Path
from components.dataset import synthetic
from pipeline.cli.main import app

synthetic.make("{MOUNT}/data", pairs={{"train": 12, "val": 4}}, size=(48, 64))
words = ["run", "--model", "unet", "--preset", "smoke", "--size", "32x48", "--set", "model.base_filters=4"]
words += ["--data", "{MOUNT}/data", "--out", "{MOUNT}/runs", "--set", {f"beam.args={json.dumps(_BEAM)}"!r}]
app(words, standalone_mode=False)
print("RESULT", (Path("{MOUNT}") / "runs" / "latest" / "summary.json").read_text().replace("\\n", ""))
"""


def _pod(pipeline_image, beam_worker_image):
    mounts = [{"name": "work", "mountPath": MOUNT}]
    # As sidecars, both listen before the run starts, and stop when it ends.
    job_server = _sidecar("job-server", pipeline_image, _JOB_PORT) | {"command": ["sh", "-c", _START_PRISM]}
    pool = _sidecar("pool", beam_worker_image, _POOL_PORT) | {"args": ["-worker_pool"], "volumeMounts": mounts}
    run = {"name": "run", "image": pipeline_image, "command": ["python", "-c", _RUN], "volumeMounts": mounts}
    spec = {
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": True},
        "initContainers": [job_server, pool],
        "containers": [run],
        "volumes": [{"name": "work", "persistentVolumeClaim": {"claimName": CLAIM}}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": _POD}, "spec": spec}


def _sidecar(name, image, port):
    # An exec probe, because Prism listens on localhost only.
    connect = ["python", "-c", f"import socket; socket.create_connection(('localhost', {port}))"]
    probe = {"exec": {"command": connect}, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 120}
    return {"name": name, "image": image, "restartPolicy": "Always", "startupProbe": probe}


def test_the_beam_workers_run_the_data_components(cluster, volume, pipeline_image, beam_worker_image):
    (version,) = (
        line.split()[0].partition("==")[2]
        for line in _LOCK.read_text().splitlines()
        if line.startswith("apache-beam==")
    )
    prism = program("prism", "SEGPIPE_PRISM", BEAM, "go/cmd/prism", version)
    cluster.apply(_pod(pipeline_image, beam_worker_image))
    into = ["exec", _POD, "--container=job-server"]
    until(lambda: cluster.kubectl(*into, "--", "echo", "started", check=False), 120)
    with open(prism, "rb") as file:
        command = ["kubectl", "--namespace", cluster.namespace, *into, "--stdin", "--", "sh", "-c", _COPY_PRISM]
        subprocess.run(command, stdin=file, check=True)

    printed = cluster.finish(_POD, 420)

    (line,) = (line for line in printed.splitlines() if line.startswith("RESULT "))
    assert json.loads(line.removeprefix("RESULT "))["metrics"]["mean_iou"] > 0
    # ExampleGen, StatisticsGen, Transform and Evaluator each ran a job on a worker that Beam's entry point started.
    assert cluster.kubectl("logs", _POD, "--container=job-server").count("pipeline done") >= 4
    assert cluster.kubectl("logs", _POD, "--container=pool").count("Provision info") >= 4
