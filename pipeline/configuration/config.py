"""The configuration of a run: every setting typed, described and validated in one place.

Values come from, in rising order: the defaults, a preset, a configuration file, the command line.
Nothing here imports TensorFlow.
"""

from __future__ import annotations

import datetime
import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_origin

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from components import yaml_loading
from components.dataset.description import DatasetDescription, HeldOut, detect, load
from components.dataset.pairs import find_pairs
from components.dataset.splitting import HELD_OUT
from components.errors import UsageError
from components.metrics.settings import GateSettings
from components.settings import Settings
from pipeline.configuration import presets, spans
from pipeline.configuration.kubeflow import KubeflowSettings
from pipeline.configuration.notifications import NotifySettings
from pipeline.configuration.renamed import with_new_names
from pipeline.configuration.retention import RetentionSettings
from pipeline.configuration.tracking import TrackingSettings
from serving.settings import ExportSettings
from trainer.config import ModelSettings, TrainingSettings

Task = Literal["semantic", "instance"]
AUTO = "auto"
_TEST = "test"


class ProjectSettings(Settings):
    """What a run belongs to: runs of one project share the served model, baselines, warm starts and the cache."""

    # A label of RFC 1123: also a name for Kubernetes, for kfp (kfp/dsl/utils.py, `validate_pipeline_name`, 2.5) and for
    # TFX's compiler for Vertex AI (tfx/orchestration/kubeflow/v2/pipeline_builder.py, 1.16), and any folder's.
    name: str = Field(
        "segpipe",
        description="name of the project and of its pipeline: lower-case letters, digits and hyphens, at most 63",
    )

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if not re.fullmatch("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", value):
            raise ValueError(
                "expected at most 63 lower-case letters, digits and hyphens, with no hyphen at either end, such as "
                "street-scenes"
            )
        return value


class DataSettings(Settings):
    """Which data is read, and how much of it may be bad."""

    dir: str = Field("", description="folder of images and masks, local or gs:// or s3://")
    span: str = Field("newest", description="what {span} in data.dir stands for: the newest there is, or a name")
    description: str = Field(
        "auto",
        description="YAML that describes the folder, or the name of a built-in description; auto recognises the known"
        " layouts",
    )
    train_split: str = Field("train", description="split to train on")
    eval_split: str = Field("val", description="split to validate on, which chooses the epoch and the variant")
    gate_split: str = Field(
        AUTO,
        description="split that the gate judges; auto takes held_out or test if the data set has it, else eval_split",
    )
    held_out_fraction: float = Field(
        0,
        ge=0,
        lt=1,
        description="fraction of train_split, in whole sequences, that becomes the split held_out instead",
    )
    held_out_sequences: tuple[str, ...] = Field(
        (),
        description="sequences of train_split that become the split held_out, by name, in place of held_out_fraction",
    )
    max_quarantined_fraction: float = Field(0.01, ge=0, le=1, description="largest fraction of bad pairs in a split")
    max_shared_images: int = Field(
        0,
        ge=0,
        description="largest number of images that train_split may have in common with eval_split or gate_split",
    )
    max_similar_images: int | None = Field(
        None,
        ge=0,
        description="largest number of images of eval_split, and of gate_split, that are near duplicates of an image of"
        " train_split; without it, near duplicates are a warning",
    )
    max_side: int = Field(8192, ge=8, description="largest height or width of an image, in pixels")

    @model_validator(mode="after")
    def _different_splits(self) -> DataSettings:
        if self.train_split == self.eval_split:
            raise ValueError(
                f"train_split and eval_split: found {self.train_split!r} for both, expected two splits, because scores "
                "on images that were trained on are too good; name another split in one of them"
            )
        if self.train_split == self.gate_split:
            raise ValueError(
                f"gate_split: found {self.gate_split!r}, which is train_split, expected another, because scores on "
                "images that were trained on are too good; name another split, or auto"
            )
        if self.held_out_fraction and self.held_out_sequences:
            raise ValueError("held_out_fraction and held_out_sequences: found both, expected one; leave the other out")
        return self


class BeamSettings(Settings):
    """On which Beam runner the data components and the evaluation run."""

    args: tuple[str, ...] = Field(
        ("--runner=DirectRunner", "--direct_num_workers=1", "--direct_running_mode=in_memory"),
        description="Beam options of every component",
    )
    component_args: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Beam options added for one component, by its name"
    )


class ReportSettings(Settings):
    """What the report shows."""

    max_frames: int = Field(120, ge=1, description="frames scored one by one to find the best and the worst")


class RunConfig(Settings):
    """Everything that decides what a run does."""

    project: ProjectSettings = Field(default_factory=ProjectSettings)
    task: Task = Field(
        "semantic",
        description="what the network finds: `semantic` a class for each pixel, `instance` a mask for each object",
    )
    data: DataSettings = Field(default_factory=DataSettings)
    size: tuple[int, int] = Field((224, 224), description="height and width of the network's input, in pixels")
    normalize_exposure: bool = Field(
        False, description="bring every image to about the same lightness, in what is exported too"
    )
    seed: int = Field(7, ge=0, lt=2**32, description="seed of everything random; the same seed gives the same weights")
    model: ModelSettings = Field(default_factory=ModelSettings)
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    export: ExportSettings = Field(default_factory=ExportSettings)
    gate: GateSettings = Field(default_factory=GateSettings)
    beam: BeamSettings = Field(default_factory=BeamSettings)
    report: ReportSettings = Field(default_factory=ReportSettings)
    retention: RetentionSettings = Field(default_factory=RetentionSettings)
    serving_dir: str = Field("", description="where versions are pushed; WORKDIR/serving if empty")
    serving_name: str = Field(
        "",
        description="name of the served model and of its folder in serving_dir; if empty, project.name, with -instance"
        " appended for the task instance",
    )
    tracking: TrackingSettings = Field(default_factory=TrackingSettings)
    notify: NotifySettings = Field(default_factory=NotifySettings)
    kubeflow: KubeflowSettings = Field(default_factory=KubeflowSettings)

    @property
    def served_name(self) -> str:
        """The name of the served model, which clients ask for; models of another task answer with other outputs."""
        suffix = "" if self.task == "semantic" else f"-{self.task}"
        return self.serving_name or self.project.name + suffix

    @field_validator("size", mode="before")
    @classmethod
    def _read_size(cls, value: Any) -> Any:
        """Accepts `192x256` besides a pair."""
        if isinstance(value, str):
            try:
                return parse_size(value)
            except UsageError:
                raise ValueError("expected HEIGHTxWIDTH in pixels, such as 192x256") from None
        return value

    @field_validator("serving_name")
    @classmethod
    def _check_serving_name(cls, value: str) -> str:
        if value and not re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]*", value):
            raise ValueError("expected letters, digits, dots, hyphens and underscores, such as street-scenes")
        return value

    @model_validator(mode="after")
    def _positive_size(self) -> RunConfig:
        if min(self.size) < 1:
            raise ValueError("size: height and width must be at least 1 pixel")
        return self

    @model_validator(mode="after")
    def _settings_fit_task(self) -> RunConfig:
        if self.task != self.model.task:
            raise ValueError(
                f"task: found {self.task}, but model.name is {self.model.name}, a network of the task "
                f"{self.model.task}; set task to {self.model.task}, or choose another model"
            )
        export = self.export
        if self.task == "instance" and (export.precision != "float32" or export.tile_size or export.variants):
            raise ValueError(
                "export: found a precision, tile_size or variants, which the task instance has no place for; leave "
                "export.precision at float32, export.tile_size at null and export.variants empty"
            )
        if self.model.depth and (export.tile_size or export.variants or self.model.test_time_scales != (1.0,)):
            raise ValueError(
                "model.depth: found it with export.tile_size, export.variants or model.test_time_scales, which it has "
                "no place for: what is enlarged looks nearer. Leave export.tile_size at null, export.variants empty "
                "and model.test_time_scales at [1.0]"
            )
        return self

    @model_validator(mode="after")
    def _crop_within_size(self) -> RunConfig:
        crop = self.training.crop_size
        if crop and (crop[0] > self.size[0] or crop[1] > self.size[1]):
            raise ValueError(
                f"training.crop_size: found {crop[0]}x{crop[1]}, expected at most size, "
                f"{self.size[0]}x{self.size[1]}; make it smaller, set null for whole frames, or raise size"
            )
        return self


def describe(data: DataSettings, task: Task = "semantic", depth: bool = False) -> DatasetDescription:
    """Returns the description of a configured data set, with the sequences that the settings hold out.

    It has instances only for a task that needs them, and depth only for a network that estimates it.

    Raises:
        UsageError: its layout is not known, or instances or depth are needed and it has none.
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


def with_gate_split(config: RunConfig, description: DatasetDescription, settled: str = "") -> RunConfig:
    """Returns a configuration whose `data.gate_split` is a split of its data set.

    Args:
        config: every setting; `data.dir` names a folder.
        description: what `describe` returned for it.
        settled: the split that this function chose earlier in the same run; without it, the folder is listed.

    Raises:
        UsageError: the data set lacks the split that is named, or cannot be split as described.
    """
    chosen = settled or _gate_split(config.data, description)
    return config.model_copy(update={"data": config.data.model_copy(update={"gate_split": chosen})})


def _gate_split(data: DataSettings, description: DatasetDescription) -> str:
    """Returns the split that the gate judges, by the pairs that are in the data folder."""
    splits = sorted({pair.split for pair in find_pairs(data.dir, description)[0]})
    chosen = data.gate_split
    if chosen == AUTO:
        unseen = [split for split in (HELD_OUT, _TEST) if split in splits and split != data.train_split]
        chosen = unseen[0] if unseen else data.eval_split
    # A folder without a pair is ExampleGen's to reject.
    elif splits and chosen not in splits:
        raise UsageError(
            f"data.gate_split: found {chosen!r}, expected a split of {data.dir}: {', '.join(splits)}, or auto"
        )
    return chosen


def find_data(config: RunConfig) -> tuple[str, DatasetDescription]:
    """Returns the folder of the data set that a configuration names, and its description. Raises UsageError."""
    folder = spans.locate(config.data.dir, config.data.span)
    return folder, describe(config.data.model_copy(update={"dir": folder}), config.task, config.model.depth)


def build_config(
    preset: str,
    model: str,
    layers: Sequence[tuple[str, Mapping[str, Any]]],
    find: Callable[[RunConfig], tuple[str, DatasetDescription]] = find_data,
) -> RunConfig:
    """Lays settings over a preset and fits the result to its data set.

    Args:
        preset: name of the preset.
        model: architecture.
        layers: (where it comes from, nested settings) pairs, later over earlier.
        find: returns the folder of the data set that a configuration names, and its description.

    Raises:
        UsageError: a wrong setting, or no data set where one is named.
    """
    settings, source = presets.preset(preset, model), f"preset {preset}"
    result = load_config([(source, settings), *layers])
    if not result.data.dir:
        return result
    folder, description = find(result)
    settings = presets.for_classes(settings, description.class_map.scored_names)
    return load_config([(source, settings), *layers, ("data", {"data": {"dir": folder}})])


def choose_model(model: str | None, layers: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Returns the architecture whose preset is taken.

    Args:
        model: the one that was asked for by name, if any.
        layers: (where it comes from, nested settings) pairs; the last that names one decides otherwise.

    Raises:
        UsageError: a layer names another than was asked for.
    """
    for source, settings in reversed(layers):
        group = settings.get("model")
        named = str(group.get("name")) if isinstance(group, Mapping) else ""
        # A name that is none is for the settings' own check to refuse.
        if named not in presets.MODELS:
            continue
        if model is not None and model != named:
            raise UsageError(f"--model {model}: found model.name {named} in {source}, expected the same; remove one")
        return named
    return model or presets.DEFAULT_MODEL


def parse_size(text: str) -> tuple[int, int]:
    """Reads `192x256` as height and width in pixels. Raises UsageError for anything else."""
    parts = text.lower().split("x")
    if len(parts) == 2 and all(part.isdecimal() and int(part) > 0 for part in parts):
        return int(parts[0]), int(parts[1])
    raise UsageError(f"expected HEIGHTxWIDTH in pixels, such as 192x256, found {text!r}")


def load_config(layers: Iterable[tuple[str, Mapping[str, Any]]]) -> RunConfig:
    """Merges layers of settings, later over earlier, and validates the result.

    Args:
        layers: (where it comes from, nested settings) pairs.

    Raises:
        UsageError: an unknown key, with the nearest valid name, or a value of the wrong kind.
    """
    merged: dict[str, Any] = {}
    for source, given in layers:
        values = with_new_names(given, source)
        _check_keys(values, source)
        _merge(merged, values)
    try:
        return RunConfig.model_validate(merged)
    except ValidationError as error:
        raise UsageError("\n".join(_explain(item) for item in error.errors())) from None


def read_config_file(path: str) -> dict[str, Any]:
    """Reads a YAML file of nested settings. Raises UsageError where it cannot be read."""
    try:
        content = yaml_loading.load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); expected a YAML file of settings") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: found a file that is no text, expected a YAML file of settings") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: is not YAML ({error})") from None
    if not isinstance(content, dict):
        raise UsageError(
            f"{path}: found {type(content).__name__}, expected settings by name, such as\ntraining:\n  epochs: 20"
        )
    return content


def _is_text(key: str) -> bool:
    """Tells whether a setting, such as `data.span`, is a text."""
    annotation: Any = RunConfig
    for name in key.split("."):
        fields = getattr(annotation, "model_fields", {})
        annotation = fields[name].annotation if name in fields else None
    return annotation is str


def read_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Turns `training.epochs=20` and the like into nested settings.

    Values are read as YAML, so numbers, lists and `{pedestrian: 0.1}` work. Where the setting is a text, `007` and
    `2024-05-01` stay as they are written.
    """
    nested: dict[str, Any] = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator or not key:
            raise UsageError(f"--set {assignment}: expected key=value, such as training.epochs=20")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        if isinstance(value, bool | int | float | datetime.date) and _is_text(key):
            value = text
        target = nested
        *groups, last = key.split(".")
        for group in groups:
            target = target.setdefault(group, {})
            if not isinstance(target, dict):
                raise UsageError(
                    f"--set {assignment}: another --set gives {group} the value {target!r}, expected settings in it; "
                    "remove one of the two"
                )
        target[last] = value
    return nested


def field_names() -> Iterator[tuple[str, str, Any]]:
    """Yields (dotted name, description, default) of every setting, in order."""
    yield from _fields(RunConfig, "")


def _fields(model: Any, prefix: str) -> Iterator[tuple[str, str, Any]]:
    for name, field in model.model_fields.items():
        if _is_settings(field.annotation):
            yield from _fields(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field.description or "", field.get_default(call_default_factory=True)


def _is_settings(annotation: Any) -> bool:
    # In Python 3.10 `tuple[int, int]` passes for a type, yet not for a class.
    return get_origin(annotation) is None and isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _check_keys(values: Mapping[str, Any], source: str, prefix: str = "") -> None:
    """Refuses unknown keys, naming the nearest valid one."""
    valid = {name for name, _, _ in field_names()}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if name in valid and "." in str(key):
            nested = ":\n".join(f"{'  ' * level}{part}" for level, part in enumerate(name.split(".")))
            raise UsageError(f"{source}: found {name} as one key, expected it inside its group:\n{nested}: {value}")
        inner = sorted(other for other in valid if other.startswith(name + "."))
        if isinstance(value, Mapping) and name not in valid:
            _check_keys(value, source, name + ".")
        elif inner:
            raise UsageError(f"{source}: {name} is a group; set one of {', '.join(inner)}")
        else:
            _check_key(name, valid, source)


def _check_key(key: str, valid: set[str], source: str) -> None:
    if key in valid:
        return
    by_last = {name.split(".")[-1]: name for name in valid}
    near = difflib.get_close_matches(key, valid, n=1, cutoff=0.6)
    near = near or [by_last[last] for last in difflib.get_close_matches(key.split(".")[-1], by_last, n=1)]
    hint = f"did you mean {near[0]}?" if near else "`segpipe config` lists every setting."
    raise UsageError(f"{source}: unknown setting {key}; {hint}")


def _merge(target: dict[str, Any], values: Mapping[str, Any], model: Any = RunConfig) -> None:
    """Lays settings over others; groups are merged, a setting that is a mapping is replaced whole."""
    for key, value in values.items():
        field = model.model_fields.get(key)
        if isinstance(value, Mapping) and field is not None and _is_settings(field.annotation):
            target[key] = dict(target.get(key, {}))
            _merge(target[key], value, field.annotation)
        else:
            target[key] = dict(value) if isinstance(value, Mapping) else value


def _explain(item: Any) -> str:
    """Says of a validation error: the setting, what was found, what was expected."""
    # Pydantic marks the name of an entry, where that is wrong and not its value.
    where = ".".join(str(part) for part in item["loc"] if part != "[key]") or "configuration"
    expected = item["msg"].removeprefix("Value error, ")
    if item["type"] == "literal_error":
        near = difflib.get_close_matches(str(item["input"]), _choices(item), n=1)
        expected += f"; did you mean {near[0]}?" if near else ""
    found = "" if isinstance(item["input"], dict) else f"found {item['input']!r}, "
    return f"{where}: {found}{expected[0].lower() + expected[1:]}"


def _choices(item: Any) -> list[str]:
    """Returns the values that a literal takes, as pydantic quotes them."""
    return re.findall(r"'([^']+)'", item["ctx"]["expected"])
