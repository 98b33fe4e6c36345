"""What ingest, statistics and Transform cost per 1,000 pairs, from hundreds to tens of thousands.

    python -m benchmarks.scaling --pairs 500 2000 20000

Each size runs in a process of its own and reports its peak memory. The pairs are synthetic: some
hundred frames are drawn and linked under as many names as are asked for.
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
    with tempfile.TemporaryDirectory() as root:
        frames = os.path.join(root, "frames")
        synthetic.make(frames, pairs={"train": 400, "val": 100}, size=tuple(arguments.size))
        for pairs in arguments.pairs:
            data = os.path.join(root, f"data-{pairs}")
            link_pairs(frames, data, pairs)
            measured = measure_apart(data, os.path.join(root, f"work-{pairs}"))
            costs = [measured[name] / pairs * 1000 for name in _COUNTED]
            columns = "".join(f"{cost:30.2f}" for cost in costs)
            print(f"{pairs:7}{columns}{sum(costs):8.2f}{measured['peak_mib']:11.0f}", flush=True)


def link_pairs(frames: str, destination: str, pairs: int) -> None:
    """Makes a data set of `pairs` pairs, a fifth of them for validation, out of the frames of another one."""
    for split, count in (("train", pairs - pairs // 5), ("val", pairs // 5)):
        names = sorted(os.listdir(os.path.join(frames, split)))
        for folder in (split, f"{split}annot"):
            os.makedirs(os.path.join(destination, folder))
            for index in range(count):
                name = names[index % len(names)]
                link = f"{name.split('_')[0]}_{index:06d}.png"
                os.link(os.path.join(frames, folder, name), os.path.join(destination, folder, link))


def measure_apart(data: str, work: str) -> dict[str, float]:
    """Runs `measure` in a process of its own, so that the peak memory is this size's."""
    command = [sys.executable, "-m", "benchmarks.scaling", "--measure", data, work]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    return json.loads(output.splitlines()[-1])


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


if __name__ == "__main__":
    main()
