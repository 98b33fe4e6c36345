"""The configuration of a run: every setting with its type, its description and its checks.

Nothing here imports TensorFlow.
"""

from __future__ import annotations

import re
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from components.errors import UsageError
from components.metrics.settings import GateSettings
from components.settings import Settings
from pipeline.configuration.kubeflow import KubeflowSettings
from serving.settings import ExportSettings
from trainer.config import ModelSettings, TrainingSettings

Task = Literal["semantic", "instance"]
Event = Literal["not_blessed", "data_rejected", "failed", "drifted"]

_AGE = r"^\d+[hd]$"


class ProjectSettings(Settings):
    """The project of a run. Runs of one project share the served model, baselines, warm starts and the cache."""

    # A label of RFC 1123, because it also names objects of Kubernetes, kfp (kfp/dsl/utils.py, `validate_pipeline_name`,
    # 2.5), TFX's compiler for Vertex AI (tfx/orchestration/kubeflow/v2/pipeline_builder.py, 1.16), and folders.
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
        "auto",
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


class BeamSettings(Settings):
    """The Beam runner of the data components and the evaluation."""

    args: tuple[str, ...] = Field(
        ("--runner=DirectRunner", "--direct_num_workers=1", "--direct_running_mode=in_memory"),
        description="Beam options of every component",
    )
    component_args: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="extra Beam options by component name"
    )


class ReportSettings(Settings):
    """What the report shows."""

    max_frames: int = Field(120, ge=1, description="number of frames to score one by one, to find the best and worst")


class RetentionSettings(Settings):
    """Which runs, versions and files `segpipe gc` keeps."""

    keep_runs: int = Field(20, ge=1, description="number of newest runs of each project to keep")
    keep_versions: int = Field(
        5,
        ge=1,
        description="number of newest versions of each served model to keep, and of newest blessed models (at least "
        "gate.best_of), with their runs",
    )
    older_than: str = Field(
        "0d", pattern=_AGE, description="remove only what is older, in hours or days, such as 12h or 30d"
    )
    stopped_after: str = Field(
        "7d",
        pattern=_AGE,
        description="time without writes after which an unfinished run on Kubeflow counts as stopped, such as 12h",
    )
    served_by: tuple[str, ...] = Field(
        (), description="--model_config_file files of model servers; the versions that they name are kept"
    )
    after_run: bool = Field(False, description="free disk space at the end of each `segpipe run`")


class TrackingSettings(Settings):
    """Where finished runs are logged."""

    mlflow_uri: str = Field(
        "", description="MLflow server to log finished runs to, such as https://mlflow.example.com; empty to log none"
    )
    experiment: str = Field("", description="MLflow experiment; if empty, project.name")
    log_model: bool = Field(False, description="upload the model to MLflow, instead of only its location")

    @field_validator("mlflow_uri")
    @classmethod
    def _check_address(cls, value: str) -> str:
        if not value:
            return value
        try:
            parts = urlsplit(value)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected the address of an MLflow server, such as https://mlflow.example.com")
        if parts.username or parts.password:
            raise ValueError(
                "expected an address without user and password, because settings are saved in files; set the "
                "environment variables MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        return value


class NotifySettings(Settings):
    """The webhook, and which events are posted to it."""

    webhook_url_env: str = Field(
        "SEGPIPE_WEBHOOK_URL",
        description="environment variable with the address of the webhook, a secret; if it is not set, nothing is sent",
    )
    events: tuple[Event, ...] = Field(
        ("not_blessed", "data_rejected", "failed", "drifted"), description="events to send"
    )
    timeout: float = Field(30, gt=0, le=600, description="longest time to send an event, with all retries, in seconds")


class RunConfig(Settings):
    """Every setting of a run."""

    project: ProjectSettings = Field(default_factory=ProjectSettings)
    task: Task = Field(
        "semantic", description="semantic predicts a class for each pixel, instance a mask for each object"
    )
    data: DataSettings = Field(default_factory=DataSettings)
    size: tuple[int, int] = Field((224, 224), description="height and width of the network's input, in pixels")
    normalize_exposure: bool = Field(
        False, description="scale every image to about the same brightness, in the exported model too"
    )
    seed: int = Field(7, ge=0, lt=2**32, description="random seed; the same seed gives the same weights")
    model: ModelSettings = Field(default_factory=ModelSettings)
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    export: ExportSettings = Field(default_factory=ExportSettings)
    gate: GateSettings = Field(default_factory=GateSettings)
    beam: BeamSettings = Field(default_factory=BeamSettings)
    report: ReportSettings = Field(default_factory=ReportSettings)
    retention: RetentionSettings = Field(default_factory=RetentionSettings)
    serving_dir: str = Field("", description="folder that model versions are pushed to; if empty, WORKDIR/serving")
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
        """The name that clients use. It differs between tasks, because their models have different outputs."""
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
    def _check_sizes(self) -> RunConfig:
        if min(self.size) < 1:
            raise ValueError("size: height and width must be at least 1 pixel")
        crop = self.training.crop_size
        if crop and (crop[0] > self.size[0] or crop[1] > self.size[1]):
            raise ValueError(
                f"training.crop_size: found {crop[0]}x{crop[1]}, expected at most size, "
                f"{self.size[0]}x{self.size[1]}; make it smaller, set null for whole frames, or raise size"
            )
        return self

    @model_validator(mode="after")
    def _check_task(self) -> RunConfig:
        if self.task != self.model.task:
            raise ValueError(
                f"task: found {self.task}, but model.name is {self.model.name}, a network of the task "
                f"{self.model.task}; set task to {self.model.task}, or choose another model"
            )
        export = self.export
        if self.task == "instance" and (export.precision != "float32" or export.tile_size or export.variants):
            raise ValueError(
                "export: found a precision, tile_size or variants, which the task instance does not support; set "
                "export.precision to float32, export.tile_size to null and export.variants to []"
            )
        if self.model.depth and (export.tile_size or export.variants or self.model.test_time_scales != (1.0,)):
            raise ValueError(
                "model.depth: found it with export.tile_size, export.variants or model.test_time_scales, which it does "
                "not support, because enlarged objects look nearer. Set export.tile_size to null, export.variants to "
                "[] and model.test_time_scales to [1.0]"
            )
        return self


def parse_size(text: str) -> tuple[int, int]:
    """Reads `192x256` as height and width in pixels. Raises UsageError for anything else."""
    parts = text.lower().split("x")
    if len(parts) == 2 and all(part.isdecimal() and int(part) > 0 for part in parts):
        return int(parts[0]), int(parts[1])
    raise UsageError(f"expected HEIGHTxWIDTH in pixels, such as 192x256, found {text!r}")
