"""Measures the memory of a request by image size, number of classes and concurrent requests.

    python -m benchmarks.serving_memory [--model work/serving/fcn8]

The memory of the loaded model is subtracted. Without --model, it measures a network of one convolution with several
numbers of classes, so only decoding, resizing and the argmax remain. Each case runs in a separate process, which reads
its peak memory from the kernel.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import io
import itertools
import multiprocessing
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

INPUT_SIZE = (352, 480)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", help="an exported model, or a folder of versions of one")
    parser.add_argument(
        "--sides", type=int, nargs="+", default=[1024, 2048, 4096], help="sides of the square images, in pixels"
    )
    parser.add_argument(
        "--classes", type=int, nargs="+", default=[12, 40, 150], help="numbers of classes, without --model"
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 4], help="numbers of concurrent requests")
    parser.add_argument("--batch", type=int, default=1, help="images per request")
    parser.add_argument(
        "--tile", type=int, nargs=2, help="height and width of sliding windows in pixels, without --model"
    )
    parser.add_argument(
        "--signature", default="serving_default", help="signature to call: serving_default or evaluation"
    )
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from serving.predictor import find_version

    # A process that has loaded TensorFlow must not fork.
    processes = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as work:
        models = [("given", find_version(arguments.model))] if arguments.model else []
        for count in [] if arguments.model else arguments.classes:
            models.append((f"{count} classes", os.path.join(work, str(count))))
            run(processes, functools.partial(export_small, count, models[-1][1], arguments.tile))
        print(f"{'model':14}{'image':>13}{'threads':>9}{'seconds':>9}{'peak, MB':>10}{'a thread':>10}")
        for (name, model), side, threads in itertools.product(models, arguments.sides, arguments.threads):
            seconds, peak = run(
                processes, functools.partial(measure, model, arguments.signature, side, threads, arguments.batch)
            )
            size = f"{arguments.batch}x{side}x{side}"
            print(
                f"{name:14}{size:>13}{threads:9}{seconds:9.2f}{peak / 1e6:10.0f}{peak / threads / 1e6:10.0f}",
                flush=True,
            )


def run(processes: Any, job: Any) -> Any:
    """Calls a function in a new process and returns its result."""
    with concurrent.futures.ProcessPoolExecutor(1, processes) as pool:
        return pool.submit(job).result()


def measure(model: str, signature: str, side: int, threads: int, batch: int) -> tuple[float, int]:
    """Returns the seconds of `threads` concurrent requests, and their peak memory in bytes above the loaded model."""
    import time

    import tensorflow as tf

    loaded = tf.saved_model.load(model)

    def predict(images: Any) -> list[Any]:
        return [output.numpy() for output in loaded.signatures[signature](image=images).values()]

    for kind in ("PNG", "JPEG"):
        predict(tf.constant([picture(64, kind)]))
    images = tf.constant([picture(side, "JPEG")] * batch)
    # Resets the peak to the current resident size (proc_pid_clear_refs(5)).
    Path("/proc/self/clear_refs").write_text("5")
    before, start = memory("VmRSS"), time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        list(pool.map(predict, [images] * threads))
    return time.perf_counter() - start, memory("VmHWM") - before


def memory(field: str) -> int:
    """Returns a field of /proc/self/status in bytes, such as VmRSS, or VmHWM for its peak."""
    (line,) = [each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith(field)]
    return int(line.split()[1]) * 1024


def picture(side: int, kind: str) -> bytes:
    """Returns an encoded square image of smooth gradients."""
    from PIL import Image

    rows, columns = np.indices((side, side))
    pixels = np.stack([rows * 255 // side, columns * 255 // side, (rows + columns) // 16 % 256], -1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def export_small(num_classes: int, directory: str, tile: list[int] | None) -> None:
    """Exports a network of one convolution behind a real Transform graph."""
    import keras

    from serving.export import export
    from serving.tiling import Tiling

    class_map = classes(num_classes)
    network = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(num_classes, 1)])
    tiling = Tiling((tile[0], tile[1])) if tile else None
    with tempfile.TemporaryDirectory() as work:
        transform = write_transform(class_map, INPUT_SIZE, work)
        export(network, transform, directory, class_map, INPUT_SIZE, {"model": "small"}, tiling=tiling)


def classes(count: int) -> Any:
    """Returns a class map with `count` generated class names."""
    from components.class_map import ClassMap

    return ClassMap(tuple(f"class{index}" for index in range(count)), tuple((index, 0, 0) for index in range(count)))


def write_transform(class_map: Any, input_size: tuple[int, int], work: str) -> str:
    """Runs Transform on one image and returns its output folder, which is in `work`."""
    import tensorflow_transform.beam as tft_beam
    from tensorflow_transform.tf_metadata import dataset_metadata

    from components import features, preprocessing, schema

    example: dict[str, Any] = {features.IMAGE: picture(64, "PNG"), features.MASK: picture(64, "PNG")}
    example |= dict.fromkeys((features.NAME, features.SEQUENCE, features.SPLIT, features.CONTENT_HASH), b"")
    example |= dict.fromkeys((features.HEIGHT, features.WIDTH), 64)
    example |= {features.class_share(name): 0.0 for name in class_map.names}
    config = {"input_size": list(input_size), "normalize_exposure": False}
    directory = os.path.join(work, "transform")
    with tft_beam.Context(temp_dir=os.path.join(work, "beam")):
        metadata = dataset_metadata.DatasetMetadata(schema.raw_schema(class_map, 8192))
        function = functools.partial(preprocessing.preprocessing_fn, custom_config=config)
        _, transform = ([example], metadata) | tft_beam.AnalyzeAndTransformDataset(function)
        _ = transform | tft_beam.WriteTransformFn(directory)
    return directory


if __name__ == "__main__":
    main()
