"""Measures the overhead of the model server: latency, throughput and response size.

    python -m benchmarks.serving --model work/serving/fcn8 --images FOLDER

The server is a separate process that receives gRPC requests on this machine. It is compared with in-process calls of
the same SavedModel. Both run in turns, so changes of the machine's speed affect both.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from benchmarks.local_server import LocalServer

_SUFFIXES = {".png", ".jpg", ".jpeg"}
_MODEL_NAME = "benchmark"
_ROUNDS = 5
_DEADLINE = 600.0  # seconds


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", required=True, help="folder of versions; the newest is measured")
    parser.add_argument("--images", required=True, help="folder of PNG or JPEG images")
    parser.add_argument("--count", type=int, default=32, help="maximum number of images to read")
    parser.add_argument("--calls", type=int, default=20, help="calls in each of the five rounds that measure latency")
    parser.add_argument("--clients", type=int, default=16, help="concurrent clients of the throughput measurement")
    parser.add_argument("--seconds", type=float, default=30, help="seconds to measure throughput")
    parser.add_argument(
        "--batch-sizes", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="in-process batch sizes to measure"
    )
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from serving.predictor import find_version

    model = SavedModel(find_version(arguments.model))
    images = read_images(arguments.images, arguments.count)
    with server(arguments.model, batch_size=None) as running:
        latency(model, running.predictions, images, arguments.calls)
        answer_bytes(running.predictions, images[0])
    rates = {size: in_process_rate(model, images, size) for size in arguments.batch_sizes}
    best = max(rates, key=lambda size: rates[size])
    with server(arguments.model, best, arguments.clients) as running:
        rate = served_rate(running, images, arguments.clients, arguments.seconds)
    print("in-process images/s by batch size: " + ", ".join(f"{size}: {rates[size]:.2f}" for size in rates))
    print(
        f"{arguments.clients} clients, batching up to {best}: {rate:.2f} images/s, {rate / rates[best]:.2f} of the best"
    )


class SavedModel:
    """Calls a SavedModel's `serving_default` in this process."""

    def __init__(self, directory: str) -> None:
        """Loads the model."""
        import tensorflow as tf

        self._tf = tf
        self._model = tf.saved_model.load(directory)
        self._call = self._model.signatures["serving_default"]

    def __call__(self, images: list[bytes]) -> dict[str, np.ndarray]:
        """Returns the outputs by name, copied to NumPy as a server must do."""
        return {name: value.numpy() for name, value in self._call(image=self._tf.constant(images)).items()}


def read_images(folder: str, count: int) -> list[bytes]:
    """Returns the first `count` encoded images of a folder."""
    paths = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in _SUFFIXES)[:count]
    if not paths:
        sys.exit(f"--images {folder}: found no PNG or JPEG image, expected at least one")
    return [path.read_bytes() for path in paths]


@contextmanager
def server(model: str, batch_size: int | None, clients: int = 1) -> Iterator[LocalServer]:
    """Runs `segpipe serve` and yields the server when it is ready.

    Args:
        model: folder of versions.
        batch_size: maximum batch size; None turns batching off.
        clients: limit of enqueued batches.
    """
    from benchmarks.local_server import LocalServer, model_config, server_config

    with tempfile.TemporaryDirectory() as work:
        flags = []
        if batch_size is not None:
            parameters = Path(work, "batching.txt")
            parameters.write_text(
                f"max_batch_size {{ value: {batch_size} }} batch_timeout_micros {{ value: 5000 }} "
                f"num_batch_threads {{ value: 1 }} max_enqueued_batches {{ value: {clients} }}"
            )
            flags = ["--enable_batching", "--batching_parameters_file", str(parameters)]
        config = server_config(model_config(_MODEL_NAME, Path(os.path.abspath(model))))
        running = LocalServer(Path(work), config, flags)
        try:
            yield running
        finally:
            running.stop()


def request(image: bytes, signature: str = "", outputs: Sequence[str] = ()) -> Any:
    """Returns a PredictRequest for one encoded image, by default for all outputs."""
    from benchmarks.local_server import predict_request

    return predict_request(_MODEL_NAME, [image], signature=signature, outputs=outputs)


def latency(model: SavedModel, stub: Any, images: list[bytes], calls: int) -> None:
    """Prints the latency of in-process calls and of one gRPC client with one image per call, and their ratio."""
    requests = [request(image) for image in images]
    for image, prepared in zip(images[:3], requests[:3], strict=False):
        model([image])
        stub.Predict(prepared)
    inside: list[float] = []
    outside: list[float] = []
    for start in range(_ROUNDS):
        chosen = [(start * calls + index) % len(images) for index in range(calls)]
        inside += [timed(functools.partial(model, [images[index]])) for index in chosen]
        outside += [timed(functools.partial(stub.Predict, requests[index])) for index in chosen]
    print(f"{'one client':24}{'p50, ms':>10}{'p99, ms':>10}")
    for name, seconds in (("in this process", inside), ("gRPC Predict", outside)):
        print(f"{name:24}{np.percentile(seconds, 50) * 1e3:10.1f}{np.percentile(seconds, 99) * 1e3:10.1f}")
    print(f"gRPC p50 over in-process p50: {np.median(outside) / np.median(inside):.3f}")


def timed(call: Callable[[], Any]) -> float:
    """Returns the seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def answer_bytes(stub: Any, image: bytes) -> None:
    """Prints the size of a response compared with the float probabilities of the same image."""
    whole = stub.Predict(request(image)).ByteSize()
    mask = stub.Predict(request(image, outputs=["mask_png_bytes"])).ByteSize()
    softmax = stub.Predict(request(image, "probabilities")).ByteSize()
    for name, size in (("whole answer", whole), ("mask_png_bytes alone", mask)):
        print(f"{name}: {size} bytes, 1/{softmax / size:.0f} of the float softmax ({softmax} bytes)")


def in_process_rate(model: SavedModel, images: list[bytes], size: int) -> float:
    """Returns images per second of in-process calls with one batch size."""
    batch = [images[index % len(images)] for index in range(size)]
    model(batch)
    repeats = max(3, 64 // size)
    seconds = sum(timed(lambda: model(batch)) for _ in range(repeats))
    return repeats * size / seconds


def served_rate(running: LocalServer, images: list[bytes], clients: int, seconds: float) -> float:
    """Returns images per second of concurrent clients that each send one image at a time.

    Raises:
        SystemExit: a request failed.
    """
    from benchmarks.load import answers_of, rate

    requests = [request(image) for image in images]
    for prepared in requests[:2]:
        running.predictions.Predict(prepared)
    answers = answers_of(running, requests, clients, seconds, _DEADLINE)
    failed = [answer.code.name for answer in answers if answer.code.name != "OK"]
    if failed:
        sys.exit(
            f"{len(failed)} of {len(answers)} requests failed ({', '.join(sorted(set(failed)))}), expected an answer "
            "to each. Use fewer --clients"
        )
    return rate(answers)


if __name__ == "__main__":
    main()
