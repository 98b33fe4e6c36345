"""Settings of the data, and the data set that they describe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from components.dataset.description import DatasetDescription, HeldOut, detect, load
from components.dataset.pairs import find_pairs
from components.dataset.splitting import HELD_OUT
from components.errors import UsageError
from components.settings import Settings
from pipeline.configuration import spans

if TYPE_CHECKING:
    from pipeline.configuration.config import RunConfig, Task

_AUTO = "auto"  # of gate_split


class DataSettings(Settings):
    """Which data is read, how it is split, and how much of it may be bad."""

    dir: str = Field("", description="folder of images and masks: local, gs:// or s3://")
    span: str = Field("newest", description="span that replaces {span} in data.dir: a name, or newest")
    description: str = Field(
        "auto",
        description="YAML file that describes the folder, or a built-in description; auto detects known layouts",
    )
    train_split: str = Field("train", description="split to train on")
    eval_split: str = Field("val", description="split to validate on; selects the epoch and the variant")
    gate_split: str = Field(
        _AUTO,
        description="split that the gate scores; auto takes held_out or test if the data set has it, else eval_split",
    )
    held_out_fraction: float = Field(
        0, ge=0, lt=1, description="fraction of train_split to move to the split held_out, in whole sequences"
    )
    held_out_sequences: tuple[str, ...] = Field(
        (), description="sequences of train_split to move to the split held_out; replaces held_out_fraction"
    )
    max_quarantined_fraction: float = Field(
        0.01, ge=0, le=1, description="largest fraction of quarantined pairs in a split"
    )
    max_shared_images: int = Field(
        0, ge=0, description="largest number of images that train_split may share with eval_split or gate_split"
    )
    max_similar_images: int | None = Field(
        None,
        ge=0,
        description="largest number of images in eval_split, and in gate_split, that nearly duplicate an image of "
        "train_split; null only warns",
    )
    max_side: int = Field(8192, ge=8, description="largest height or width of an image, in pixels")

    @model_validator(mode="after")
    def _check_splits(self) -> DataSettings:
        if self.train_split == self.eval_split:
            raise ValueError(
                f"train_split and eval_split: found {self.train_split!r} for both, expected two splits, because scores "
                "on training images are too good; name another split in one of them"
            )
        if self.train_split == self.gate_split:
            raise ValueError(
                f"gate_split: found {self.gate_split!r}, which is train_split, expected another split, because scores "
                "on training images are too good; name another split, or auto"
            )
        if self.held_out_fraction and self.held_out_sequences:
            raise ValueError("held_out_fraction and held_out_sequences: found both, expected one; remove the other")
        return self


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
    if data.gate_split == _AUTO:
        unseen = (split for split in (HELD_OUT, "test") if split in splits and split != data.train_split)
        return next(unseen, data.eval_split)
    # ExampleGen rejects a folder without pairs.
    if splits and data.gate_split not in splits:
        raise UsageError(
            f"data.gate_split: found {data.gate_split!r}, expected a split of {data.dir}: {', '.join(splits)}, or auto"
        )
    return data.gate_split
