"""The pipeline: one paragraph for each component. Runners only choose where it runs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from importlib import metadata
from typing import Any

import tensorflow_data_validation as tfdv
from tfx import v1 as tfx

from components import schema
from components.class_map import ClassMap
from components.dataset.description import DatasetDescription
from components.errors import UsageError
from components.example_gen.component import ImageMaskExampleGen
from components.gates import AnomalyGate, QuarantineGate
from components.metrics.gate import eval_config
from components.pusher.component import AtomicPusher
from components.report.component import Report
from pipeline.configuration.config import RunConfig
from pipeline.storage.workdir import Workdir
from pipeline.wiring import resolvers
from pipeline.wiring.beam_workers import without_tfx_package
from pipeline.wiring.fingerprint import source_hash
from trainer.models import encoder_weights, registry
from trainer.variants.component import Optimizer

_PACKAGES = ("tfx", "tensorflow", "keras", "tensorflow-transform", "tensorflow-model-analysis", "apache-beam")


@dataclasses.dataclass(frozen=True)
class Platform:
    """Differences between orchestrators. The defaults are for TFX's launcher, which runs locally and on Kubeflow.

    Attributes:
        parameter: wraps a parameter's name and value so that the orchestrator can replace it at run time.
        own_resolver: whether the orchestrator runs our resolver strategies.
    """

    parameter: Callable[[str, Any], Any] = lambda name, value: value
    own_resolver: bool = True


TFX_LAUNCHER = Platform()


@dataclasses.dataclass(frozen=True)
class DataComponents:
    """The components from the data folder to the transformed examples, in order."""

    example_gen: ImageMaskExampleGen
    quarantine_gate: Any
    schema_gen: tfx.components.ImportSchemaGen
    statistics_gen: tfx.components.StatisticsGen
    example_validator: tfx.components.ExampleValidator
    anomaly_gate: Any
    transform: tfx.components.Transform

    def all(self) -> list[Any]:
        """Returns the components in order."""
        return [getattr(self, field.name) for field in dataclasses.fields(self)]


def create_pipeline(
    config: RunConfig, workdir: Workdir, description: DatasetDescription, platform: Platform = TFX_LAUNCHER
) -> tfx.dsl.Pipeline:
    """Wires the components from a folder of images and masks to a pushed model and a report.

    Raises:
        UsageError: settings of model and training contradict each other, or Beam options name an unknown component.
    """
    registry.check(config.model, config.size, config.training)
    data = data_components(config, workdir, description, platform)
    return assemble(config, workdir, [*data.all(), *model_components(config, workdir, description, data, platform)])


def assemble(config: RunConfig, workdir: Workdir, nodes: list[Any]) -> tfx.dsl.Pipeline:
    """Creates a pipeline of components, with the configured Beam options and metadata store.

    Raises:
        UsageError: Beam options name a component that does not exist or does not run on Beam.
    """
    beam_nodes = {node.id: node for node in nodes if isinstance(node, tfx.types.BaseBeamComponent)}
    for name in config.beam.component_args:
        if name not in beam_nodes:
            raise UsageError(
                f"beam.component_args: found {name!r}, expected a component that runs on Beam: {', '.join(beam_nodes)}"
            )
    for name, node in beam_nodes.items():
        own = config.beam.component_args.get(name, ())
        # The last of repeated Beam options counts, and the pipeline's come first.
        node.with_beam_pipeline_args([*own, *without_tfx_package([*config.beam.args, *own])])
    return tfx.dsl.Pipeline(
        pipeline_name=config.project.name,
        pipeline_root=workdir.artifacts,
        components=nodes,
        enable_cache=True,
        metadata_connection_config=workdir.connection,
        beam_pipeline_args=list(config.beam.args),
    )


def data_components(
    config: RunConfig, workdir: Workdir, description: DatasetDescription, platform: Platform = TFX_LAUNCHER
) -> DataComponents:
    """Returns the components that turn the data folder into validated, resized examples."""
    class_map, has_instances = description.class_map, bool(description.things)
    has_depth = description.layout.depth is not None

    # Converts images and masks to TFRecords, and quarantines bad pairs.
    example_gen = ImageMaskExampleGen(
        input_base=platform.parameter("data", config.data.dir),
        description=description,
        max_side=config.data.max_side,
        max_pixels=config.export.max_pixels,
        code=source_hash("components.example_gen.executor"),
        index=workdir.index,
    )
    examples = example_gen.outputs["examples"]

    # Stops the run if too many pairs are quarantined, a split is empty, or splits share images.
    quarantine_gate = QuarantineGate(
        quarantine=example_gen.outputs["quarantine"],
        max_fraction=platform.parameter("max_quarantined_fraction", config.data.max_quarantined_fraction),
        max_shared_images=config.data.max_shared_images,
        max_similar_images=config.data.max_similar_images,
        train_split=config.data.train_split,
        eval_split=config.data.eval_split,
        gate_split=config.data.gate_split,
        code=source_hash("components.gates"),
    )

    # Imports the schema, which ExampleValidator, Transform and Evaluator use.
    schema_gen = tfx.components.ImportSchemaGen(
        schema_file=schema.write_raw_schema(class_map, config.data.max_side, workdir.schemas, has_instances, has_depth)
    )
    raw_schema = schema_gen.outputs["schema"]

    # Computes statistics by split of all features except images and masks. Instances are not decoded for it.
    statistics_gen = tfx.components.StatisticsGen(
        examples=examples,
        stats_options=tfdv.StatsOptions(
            schema=schema.statistics_schema(class_map, config.data.max_side, has_instances),
            experimental_filter_read_paths=True,
        ),
    )
    statistics_gen.add_upstream_node(quarantine_gate)

    # Compares the statistics with the schema; AnomalyGate stops the run on anomalies.
    example_validator = tfx.components.ExampleValidator(
        statistics=statistics_gen.outputs["statistics"], schema=raw_schema
    )
    anomaly_gate = AnomalyGate(anomalies=example_validator.outputs["anomalies"], code=source_hash("components.gates"))

    # Decodes and resizes images; the graph is exported with the model.
    transform = _transform(config, description, examples, raw_schema)
    transform.add_upstream_node(anomaly_gate)
    return DataComponents(
        example_gen, quarantine_gate, schema_gen, statistics_gen, example_validator, anomaly_gate, transform
    )


def model_components(
    config: RunConfig,
    workdir: Workdir,
    description: DatasetDescription,
    data: DataComponents,
    platform: Platform = TFX_LAUNCHER,
) -> list[Any]:
    """Returns the components that train, evaluate and publish a model, in order."""
    class_map = description.class_map
    examples = data.example_gen.outputs["examples"]

    # Finds the model that a warm start takes its weights from.
    transformed = data.transform.outputs["transformed_examples"]
    start = [resolvers.start(config, class_map, transformed)] if config.training.warm_start else []

    # Trains and exports the model.
    trainer = tfx.components.Trainer(
        run_fn="trainer.run_fn.run_fn",
        examples=transformed,
        transform_graph=data.transform.outputs["transform_graph"],
        train_args=tfx.proto.TrainArgs(splits=[config.data.train_split]),
        eval_args=tfx.proto.EvalArgs(splits=[config.data.eval_split]),
        custom_config=platform.parameter("trainer", _trainer_config(config, workdir, description)),
        base_model=start[0].outputs["model"] if start else None,
    )
    model = trainer.outputs["model"]

    # Builds faster variants of the model, and selects the first whose scores drop little.
    optimizers = [_optimizer(config, data, trainer)] if config.export.variants else []
    for optimizer in optimizers:
        model = optimizer.outputs["optimized_model"]

    # Finds the baseline: the served model, which the new model must not fall behind.
    baseline = resolvers.baseline(config, model, examples, platform.own_resolver)

    # Scores the model and its baseline on the raw examples, with their serving signatures, and blesses the model or
    # not. Only the gate split counts; the scores on the split that selected the epoch are reported too.
    evaluator = _evaluator(config, description, data, model, baseline)

    # Pushes a blessed model to the folder that TensorFlow Serving watches.
    pusher = AtomicPusher(
        model=model,
        model_blessing=evaluator.outputs["blessing"],
        evaluation=evaluator.outputs["evaluation"],
        examples=examples,
        gate_split=config.data.gate_split,
        base_directory=f"{workdir.serving(config.serving_dir)}/{config.served_name}",
    )

    # Writes the HTML report.
    report = _report(config, class_map, data, trainer, model, evaluator, pusher)
    return [*start, trainer, *optimizers, baseline, evaluator, pusher, report]


def _transform(config: RunConfig, description: DatasetDescription, examples: Any, raw_schema: Any) -> Any:
    train, evaluate = config.data.train_split, config.data.eval_split
    return tfx.components.Transform(
        examples=examples,
        schema=raw_schema,
        preprocessing_fn="components.preprocessing.preprocessing_fn",
        splits_config=tfx.proto.SplitsConfig(analyze=[train], transform=sorted({train, evaluate})),
        disable_statistics=True,
        custom_config={
            "input_size": list(config.size),
            "normalize_exposure": config.normalize_exposure,
            "image_range": description.image_range and list(description.image_range),
            "things": list(description.thing_indices),
            "depth": description.layout.depth is not None,
            "code": source_hash("components.preprocessing"),
        },
    )


def _evaluator(
    config: RunConfig, description: DatasetDescription, data: DataComponents, model: Any, baseline: Any
) -> Any:
    selection_split, gate_split = config.data.eval_split, config.data.gate_split
    return tfx.components.Evaluator(
        examples=data.example_gen.outputs["examples"],
        example_splits=sorted({selection_split, gate_split}),
        model=model,
        baseline_model=baseline.outputs["model"],
        schema=data.schema_gen.outputs["schema"],
        eval_config=eval_config(
            description.class_map,
            config.gate,
            code_hash=source_hash("components.metrics.gate"),
            selection_split=selection_split if selection_split != gate_split else "",
            things=description.things,
            depth_scale=description.depth_scale if config.model.depth else None,
        ),
    )


def _optimizer(config: RunConfig, data: DataComponents, trainer: tfx.components.Trainer) -> Any:
    return Optimizer(
        model=trainer.outputs["model"],
        model_run=trainer.outputs["model_run"],
        transform_graph=data.transform.outputs["transform_graph"],
        examples=data.example_gen.outputs["examples"],
        settings=config.export.model_dump_json(),
        train_split=config.data.train_split,
        eval_split=config.data.eval_split,
        code=source_hash("trainer.variants.component"),
    )


def _report(
    config: RunConfig, class_map: ClassMap, data: DataComponents, trainer: Any, model: Any, evaluator: Any, pusher: Any
) -> Any:
    versions = {name: metadata.version(name) for name in _PACKAGES}
    return Report(
        examples=data.example_gen.outputs["examples"],
        statistics=data.statistics_gen.outputs["statistics"],
        quarantine=data.example_gen.outputs["quarantine"],
        model=model,
        model_run=trainer.outputs["model_run"],
        evaluation=evaluator.outputs["evaluation"],
        blessing=evaluator.outputs["blessing"],
        pushed_model=pusher.outputs["pushed_model"],
        class_map=class_map.to_json(),
        configuration=_reported(config),
        lineage=json.dumps({"code_hash": source_hash(__name__), "packages": versions}, sort_keys=True),
        gate_split=config.data.gate_split,
        selection_split=config.data.eval_split,
        max_frames=config.report.max_frames,
        code=source_hash("components.report.component"),
    )


def _trainer_config(config: RunConfig, workdir: Workdir, description: DatasetDescription) -> dict[str, Any]:
    """Returns the custom_config of `trainer.run_fn`, in JSON types."""
    return {
        "model": config.model.model_dump(),
        "training": config.training.model_dump(),
        "input_size": list(config.size),
        "normalize_exposure": config.normalize_exposure,
        "class_map": description.class_map.to_json(),
        "things": list(description.thing_indices),
        "depth_scale": description.depth_scale,
        "seed": config.seed,
        "max_pixels": config.export.max_pixels,
        "tile_size": config.export.tile_size,
        "tile_overlap": config.export.tile_overlap,
        "export_precision": config.export.precision,
        "checkpoint_root": workdir.checkpoints,
        "checkpoints_shared": workdir.shared,
        "encoder_weights": encoder_weights.fingerprint(config.model.encoder_weights),
        "code": source_hash("trainer.run_fn"),
    }


def _reported(config: RunConfig) -> str:
    """Returns the settings that affect the results, as JSON. `data.dir` already names the span."""
    excluded: Any = {"kubeflow": True, "tracking": True, "notify": True, "retention": True, "data": {"span"}}
    return json.dumps(config.model_dump(mode="json", exclude=excluded), sort_keys=True)
