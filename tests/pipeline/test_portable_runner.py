"""The pipeline on Beam's portable runner: the job server is Prism, and the workers are other processes.

Flink's and Spark's job servers take the same jobs by the same protocol, but need Java and are not tested.
"""

import json
import os
import socket
import subprocess
import sys
import time
import venv
from pathlib import Path

import apache_beam
import pytest
import yaml
from go_programs import BEAM, program

from components.dataset import synthetic

_VERSION = tuple(map(int, apache_beam.__version__.split(".")[:2]))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(_VERSION < (2, 77), reason="Prism 2.61 has no coder of tuples (beam:coder:tuple:v1)"),
]

_PROJECT = Path(__file__).parents[2]
# Beam's processes start `python`, which must be the environment's.
_ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "PYTHONPATH": str(_PROJECT),
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
_SETTINGS = {
    "model": {"base_filters": 4},
    "training": {"epochs": 2, "learning_rate": 5e-3},
    "gate": {"min_mean_iou": 0.01, "min_class_iou": {}},
}


def _free_port():
    with socket.create_server(("localhost", 0)) as one:
        return one.getsockname()[1]


@pytest.fixture
def start(tmp_path):
    """Returns a function that starts a server in the background and waits for its port, and ends all with the test."""
    processes = []

    def start_one(name, port, *command, **environment):
        log = tmp_path / f"{name}.log"
        with log.open("w") as file:
            process = subprocess.Popen(
                command, env={**_ENVIRONMENT, **environment}, cwd=tmp_path, stdout=file, stderr=file
            )
        processes.append(process)
        for _ in range(600):
            assert process.poll() is None, log.read_text()[-3000:]
            with socket.socket() as one:
                if one.connect_ex(("localhost", port)) == 0:
                    return log
            time.sleep(0.1)
        raise AssertionError(f"{name} does not listen at port {port}: {log.read_text()[-3000:]}")

    yield start_one
    for process in processes:
        process.terminate()
        process.wait(30)


@pytest.fixture
def prism(start):
    """Starts Prism; returns its address and its log."""
    port = _free_port()
    binary = program("prism", "SEGPIPE_PRISM", BEAM, "go/cmd/prism", apache_beam.__version__)
    log = start("prism", port, binary, "--serve_http=false", f"--job_port={port}")
    return f"localhost:{port}", log


@pytest.fixture
def run(tmp_path):
    """Returns a function that runs the pipeline with Beam options, and returns its summary and its raw examples."""
    data = str(tmp_path / "data")
    synthetic.make(data, pairs={"train": 12, "val": 4}, size=(48, 64))

    def run_one(name, *beam_args):
        work, settings = tmp_path / name, tmp_path / f"{name}.yaml"
        settings.write_text(yaml.safe_dump({**_SETTINGS, **({"beam": {"args": beam_args}} if beam_args else {})}))
        words = ["--model", "unet", "--preset", "smoke", "--size", "32x48", "--config", str(settings)]
        command = [sys.executable, "-m", "pipeline.cli.main", "run", *words, "--data", data, "--out", str(work)]
        done = subprocess.run(command, env=_ENVIRONMENT, cwd=_PROJECT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        return json.loads((work / "latest" / "summary.json").read_text()), _examples(work)

    return run_one


def _examples(work):
    """Returns the records that ExampleGen wrote, sorted, by split."""
    import tensorflow as tf

    (examples,) = Path(work).glob("artifacts/ImageMaskExampleGen/examples/*")
    folders = sorted(examples.glob("Split-*"))
    return {
        folder.name: sorted(
            bytes(record.numpy())
            for file in folder.glob("*.gz")
            for record in tf.data.TFRecordDataset(str(file), compression_type="GZIP")
        )
        for folder in folders
    }


@pytest.fixture
def portable(prism, start):
    """Returns a function that starts a pool of workers and returns the options that lead to it."""

    def options(*pool_options, **environment):
        port = _free_port()
        pool = [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={port}"]
        start("pool", port, *pool, *pool_options, **environment)
        address, _ = prism
        job = ["--runner=PortableRunner", f"--job_endpoint={address}"]
        return [*job, "--environment_type=EXTERNAL", f"--environment_config=localhost:{port}"]

    return options


def test_the_portable_runner_gives_the_results_of_the_local_runner(prism, portable, run):
    expected, expected_examples = run("local")
    found, examples = run("portable", *portable())

    assert {split: len(records) for split, records in examples.items()} == {"Split-train": 12, "Split-val": 4}
    assert examples == expected_examples
    assert found["metrics"] == expected["metrics"]
    assert found["data"] == expected["data"]
    # ExampleGen, StatisticsGen, Transform and Evaluator each ran a job there.
    _, log = prism
    assert log.read_text().count("pipeline done") >= 4


def test_beam_s_entry_point_starts_a_worker_with_the_pipeline_s_packages(portable, tmp_path):
    boot = program("boot", "SEGPIPE_BEAM_BOOT", BEAM, "python/container", apache_beam.__version__)
    worker = tmp_path / "worker"
    # As in the image: the entry point asks pip whether Beam is installed, in the environment of `python`.
    venv.create(worker, symlinks=True, with_pip=True)
    (site,) = worker.glob("lib/python*/site-packages")
    (site / "packages.pth").write_text(str(Path(apache_beam.__file__).parents[1]))
    # The entry point's own mode `--worker_pool` starts the pool so (Beam 2.77, sdks/python/container/boot.go).
    arguments = portable(
        f"--container_executable={boot}",
        PATH=f"{worker / 'bin'}:{os.environ['PATH']}",
        RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT="1",
    )
    out, job = tmp_path / "out", tmp_path / "job.py"
    job.write_text(_JOB)

    command = [sys.executable, str(job), str(out), *arguments]
    done = subprocess.run(command, env=_ENVIRONMENT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr[-3000:]
    (found,) = (json.loads(line) for line in out.read_text().splitlines())
    assert found["prefix"] == str(worker)
    assert "sdk_worker_main" in found["command"]
    assert found["features"] == ["IMAGE", "MASK"]


_JOB = """
import json, sys
import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions


def look(_):
    import sys
    from pathlib import Path
    from components import features
    command = Path("/proc/self/cmdline").read_bytes().decode()
    names = [name for name in ("IMAGE", "MASK") if hasattr(features, name)]
    return json.dumps({"prefix": sys.prefix, "command": command, "features": names})


with beam.Pipeline(options=PipelineOptions(sys.argv[2:])) as pipeline:
    found = pipeline | beam.Create([None]) | beam.Map(look)
    found | beam.io.WriteToText(sys.argv[1], shard_name_template="", num_shards=1)
"""
