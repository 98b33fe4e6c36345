"""Measures the mean IoU and latency of a trained network with several kinds of test-time augmentation.

    python -m benchmarks.test_time_augmentation --work work --scales 1 --scales 1,flip --scales 0.5,1,1.5,flip

Takes the network of the newest run of a work directory that trained, and exports it once for each `--scales`. Each
export is scored on the split that the run's gate used, in the same way as the pipeline's evaluation.
"""

from __future__ import annotations

import argparse
import os
import tempfile

import tensorflow as tf

from benchmarks.finished_runs import newest_training
from components.artifact_files import read_model_metadata
from components.class_map import ClassMap
from components.examples import example_files, read_examples
from pipeline.storage.store import NodeExecution
from serving.comparison import Measurement, measure
from serving.export import export
from serving.precision import with_precision
from serving.test_time import TestTimeAugmentation
from trainer import saved_network

_FLIP = "flip"


def parse(text: str) -> tuple[str, TestTimeAugmentation]:
    """Parses scales and an optional `flip`, separated by commas; returns the text and its meaning."""
    *scales, last = text.split(",")
    flip = last == _FLIP
    try:
        return text, TestTimeAugmentation(
            flip, tuple(float(scale) for scale in (scales if flip else [*scales, last])) or (1.0,)
        )
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"found {text}, expected scales and an optional flip, such as 0.5,1,1.5,flip"
        ) from None


def measure_scales(executions: dict[str, NodeExecution], name: str, test_time: TestTimeAugmentation) -> Measurement:
    """Exports a trained network with test-time augmentation, and scores it on the split that the gate used.

    Args:
        executions: the run's executions by node.
        name: label of the row.
        test_time: scales and flips to average over.
    """
    trained = {key: artifacts[0].uri for key, artifacts in executions["Trainer"].outputs.items()}
    metadata = read_model_metadata(os.path.join(trained["model"], "Format-Serving"))
    examples = executions["ImageMaskExampleGen"].outputs["examples"][0].uri
    split = executions["Report"].properties["gate_split"]
    class_map = ClassMap.from_dict(metadata["class_map"])
    with tempfile.TemporaryDirectory() as folder:
        export(
            with_precision(saved_network.load(trained["model_run"]), metadata["export_precision"]),
            executions["Transform"].outputs["transform_graph"][0].uri,
            folder,
            class_map,
            metadata["input_size"],
            metadata,
            test_time,
            metadata["max_pixels"],
        )
        model = tf.saved_model.load(folder)
        pairs = ((each.image, each.mask) for each in read_examples(example_files(examples, split)))
        size = os.path.getsize(os.path.join(folder, "saved_model.pb"))
        signatures = model.signatures
        return measure(name, signatures["serving_default"], signatures["evaluation"], pairs, class_map, size)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", required=True, help="work directory of a run")
    parser.add_argument(
        "--scales",
        action="append",
        type=parse,
        help="scales and an optional flip, such as 0.5,1,1.5,flip; repeatable (default: 1 and 1,flip)",
    )
    arguments = parser.parse_args()
    _, executions = newest_training(arguments.work)
    print(f"{'scales':24}{'mean IoU':>10}{'latency, ms':>13}")
    for name, test_time in arguments.scales or [parse("1"), parse("1,flip")]:
        row = measure_scales(executions, name, test_time)
        print(f"{name:24}{row.mean_iou:10.4f}{row.latency_ms:13.1f}", flush=True)


if __name__ == "__main__":
    main()
