"""What ingest, statistics and Transform cost per 1,000 pairs, from hundreds to tens of thousands.

    python -m benchmarks.scaling --pairs 500 2000 20000

Each size runs in a process of its own, on synthetic pairs, and reports its peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile

_COUNTED = ("ImageMaskExampleGen", "StatisticsGen", "Transform")


def measure(data: str, work: str) -> dict[str, float]:
    """Runs the data components in this process and returns seconds by component and the peak memory in MiB."""
    from components.dataset.description import detect
    from pipeline.config import load_config
    from pipeline.create_pipeline import assemble, data_components
    from pipeline.local_runner import LocalRunner
    from pipeline.workdir import Workdir

    workdir = Workdir(work)
    workdir.create()
    config = load_config([("benchmark", {"data": {"dir": data}, "size": [96, 128]})])
    pipeline = assemble(config, workdir, data_components(config, workdir, detect(data)).all())
    results = LocalRunner().run(pipeline, "benchmark")
    seconds = {result.node_id: result.seconds for result in results if result.node_id in _COUNTED}
    return {**seconds, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    """Prints a line for each number of pairs."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--pairs", type=int, nargs="+", default=[500, 2000, 20000], help="numbers of pairs")
    parser.add_argument("--size", type=int, nargs=2, default=(120, 160), help="height and width of the images")
    parser.add_argument("--measure", nargs=2, metavar=("DATA", "WORK"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure)))
        return
    from components.dataset import synthetic

    print(f"{'pairs':>7}" + "".join(f"{name + ', s/1000':>30}" for name in _COUNTED) + f"{'sum':>8}{'peak, MiB':>11}")
    for pairs in arguments.pairs:
        with tempfile.TemporaryDirectory() as root:
            data = os.path.join(root, "data")
            counts = {"train": pairs - pairs // 5, "val": pairs // 5}
            synthetic.make(data, pairs=counts, size=tuple(arguments.size), workers=os.cpu_count() or 1)
            command = [sys.executable, "-m", "benchmarks.scaling", "--measure", data, os.path.join(root, "work")]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            measured = json.loads(output.splitlines()[-1])
        costs = [measured[name] / pairs * 1000 for name in _COUNTED]
        print(
            f"{pairs:7}" + "".join(f"{cost:30.2f}" for cost in costs) + f"{sum(costs):8.2f}{measured['peak_mib']:11.0f}"
        )


if __name__ == "__main__":
    main()
