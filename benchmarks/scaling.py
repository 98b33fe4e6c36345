"""Measures the seconds per 1,000 pairs and the peak memory of ingestion, statistics and Transform.

    python -m benchmarks.scaling --pairs 500 5000 50000

Each number of pairs runs in a separate process. Beam's workers are also processes, because the in-memory DirectRunner
ignores `--direct_num_workers`. Peak memory is the sum over all processes, sampled every second; shared pages count
once. The pairs are synthetic: 200 frames are drawn, saved as JPEG, and hard-linked under as many names as needed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

import psutil
from PIL import Image

_COUNTED = ("ImageMaskExampleGen", "StatisticsGen", "Transform")


def main() -> None:
    """Prints a line for each number of pairs."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--pairs", type=int, nargs="+", default=[500, 5000, 50000], help="numbers of pairs to measure")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(360, 480), help="height and width of the images, in pixels"
    )
    parser.add_argument("--workers", type=int, default=2, help="worker processes of Beam's DirectRunner")
    parser.add_argument("--measure", nargs=2, metavar=("DATA", "WORK"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        data, work = arguments.measure
        print(json.dumps(measure(data, work, arguments.workers)))
        return
    from components.dataset import synthetic

    print(f"{'pairs':>7}" + "".join(f"{name + ', s/1000':>30}" for name in _COUNTED) + f"{'sum':>8}{'peak, MiB':>11}")
    with tempfile.TemporaryDirectory() as root:
        frames = os.path.join(root, "frames")
        synthetic.make(frames, pairs={"train": 160, "val": 40}, size=tuple(arguments.size))
        save_as_jpeg(frames)
        for pairs in arguments.pairs:
            data = os.path.join(root, f"data-{pairs}")
            link_pairs(frames, data, pairs)
            measured = measure_apart(data, os.path.join(root, f"work-{pairs}"), arguments.workers)
            # Examples and data of 50,000 pairs take 5 GB.
            shutil.rmtree(os.path.join(root, f"work-{pairs}"))
            shutil.rmtree(data)
            costs = [measured[name] / pairs * 1000 for name in _COUNTED]
            columns = "".join(f"{cost:30.2f}" for cost in costs)
            print(f"{pairs:7}{columns}{sum(costs):8.2f}{measured['peak_mib']:11.0f}", flush=True)


def save_as_jpeg(frames: str) -> None:
    """Converts the PNG images of a data set to JPEG, a tenth of the size, as cameras write them."""
    for split in ("train", "val"):
        for name in os.listdir(os.path.join(frames, split)):
            path = os.path.join(frames, split, name)
            with Image.open(path) as image:
                image.save(path.replace(".png", ".jpg"), quality=90)
            os.remove(path)


def link_pairs(frames: str, destination: str, pairs: int) -> None:
    """Makes a data set of `pairs` pairs by hard links to the frames of another one; a fifth is for validation."""
    for split, count in (("train", pairs - pairs // 5), ("val", pairs // 5)):
        names = sorted(os.listdir(os.path.join(frames, split)))
        for folder in (split, f"{split}annot"):
            os.makedirs(os.path.join(destination, folder))
            for index in range(count):
                name = names[index % len(names)]
                file = name if folder == split else f"{os.path.splitext(name)[0]}.png"
                link = f"{name.split('_')[0]}_{index:06d}{os.path.splitext(file)[1]}"
                os.link(os.path.join(frames, folder, file), os.path.join(destination, folder, link))


def measure_apart(data: str, work: str, workers: int = 1) -> dict[str, float]:
    """Runs `measure` in a separate process and adds `peak_mib`, the peak memory of the process and its workers."""
    command = [sys.executable, "-m", "benchmarks.scaling", "--workers", str(workers), "--measure", data, work]
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        while process.poll() is None:
            peak = max(peak, memory_of(process.pid))
            time.sleep(1)
        output = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return {**json.loads(output.splitlines()[-1]), "peak_mib": peak / 2**20}


def memory_of(pid: int) -> int:
    """Returns the memory of a process and its descendants in bytes; shared memory counts once (PSS)."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_full_info().pss
    return total


def measure(data: str, work: str, workers: int = 1) -> dict[str, float]:
    """Runs the data components in this process and returns the seconds of each.

    Args:
        data: folder of images and masks.
        work: folder for the results.
        workers: worker processes of Beam's DirectRunner; 1 means a thread of this process.
    """
    from pipeline.configuration.data import describe
    from pipeline.configuration.loading import load_config
    from pipeline.running.nodes import run_nodes
    from pipeline.storage.workdir import Workdir
    from pipeline.wiring.create_pipeline import assemble, data_components

    workdir = Workdir(work)
    workdir.create()
    beam_args = ["--direct_running_mode=multi_processing", f"--direct_num_workers={workers}"] if workers > 1 else []
    settings = {"data": {"dir": data, "gate_split": "val"}, "size": [96, 128], "beam": {"args": beam_args}}
    config = load_config([("benchmark", settings)])
    pipeline = assemble(config, workdir, data_components(config, workdir, describe(config.data)).all())
    results = run_nodes(pipeline, "benchmark")
    return {result.node_id: result.seconds for result in results if result.node_id in _COUNTED}


if __name__ == "__main__":
    main()
