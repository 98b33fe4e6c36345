"""The data set that the settings describe, and the split of it that the gate scores."""

from __future__ import annotations

from components.dataset.description import DatasetDescription, HeldOut, detect, load
from components.dataset.pairs import find_pairs
from components.dataset.splitting import HELD_OUT
from components.errors import UsageError
from pipeline.configuration import spans
from pipeline.configuration.config import DataSettings, RunConfig, Task


def describe(data: DataSettings, task: Task = "semantic", depth: bool = False) -> DatasetDescription:
    """Returns the description of a data set, with the sequences that the settings hold out.

    It includes instances only for the task `instance`, and depth only if `depth` is set.

    Raises:
        UsageError: the layout is unknown, or the data set lacks the instances or the depth maps.
    """
    description = detect(data.dir) if data.description == "auto" else load(data.description)
    if task == "semantic":
        description = description.without_instances()
    elif not description.things:
        raise UsageError(
            f"task: found instance, and {data.dir} has no instances; expected `things` in the description"
            f" {description.name!r}, and the files of layout.instances if it has them. Add them, or set task: semantic"
        )
    if not depth:
        description = description.without_depth()
    elif not description.layout.depth:
        raise UsageError(
            f"model.depth: found true, and {data.dir} has no depth maps; expected layout.depth in the description"
            f" {description.name!r}, and its files. Add them, or set model.depth: false"
        )
    if not data.held_out_fraction and not data.held_out_sequences:
        return description
    held_out = HeldOut(split=data.train_split, fraction=data.held_out_fraction, sequences=data.held_out_sequences)
    return description.model_copy(update={"held_out": held_out})


def find_data(config: RunConfig) -> tuple[str, DatasetDescription]:
    """Returns the folder of the configured data set, and its description. Raises UsageError."""
    folder = spans.locate(config.data.dir, config.data.span)
    return folder, describe(config.data.model_copy(update={"dir": folder}), config.task, config.model.depth)


def with_gate_split(config: RunConfig, description: DatasetDescription, settled: str = "") -> RunConfig:
    """Returns the configuration with `data.gate_split` set to a split of the data set.

    Args:
        config: every setting; `data.dir` names a folder.
        description: what `describe` returned for it.
        settled: the split that this function chose earlier in the same run; if empty, the folder is listed.

    Raises:
        UsageError: the data set lacks the named split, or cannot be split as described.
    """
    chosen = settled or _choose_gate_split(config.data, description)
    return config.model_copy(update={"data": config.data.model_copy(update={"gate_split": chosen})})


def _choose_gate_split(data: DataSettings, description: DatasetDescription) -> str:
    splits = sorted({pair.split for pair in find_pairs(data.dir, description)[0]})
    if data.gate_split == "auto":
        unseen = (split for split in (HELD_OUT, "test") if split in splits and split != data.train_split)
        return next(unseen, data.eval_split)
    # ExampleGen rejects a folder without pairs.
    if splits and data.gate_split not in splits:
        raise UsageError(
            f"data.gate_split: found {data.gate_split!r}, expected a split of {data.dir}: {', '.join(splits)}, or auto"
        )
    return data.gate_split
