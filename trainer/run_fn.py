"""Entry point of TFX's Trainer, by its path `trainer.run_fn.run_fn`: trains, and writes history and export."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import tensorflow as tf

from components import artifact_files, files, tensorflow_start
from components.class_map import ClassMap
from serving.export import export
from serving.test_time import TestTimeAugmentation
from serving.tiling import Tiling
from trainer import attempts, checkpoints, cluster, input_pipeline, saved_network, warm_start
from trainer.config import ModelSettings, TrainingSettings
from trainer.models import registry
from trainer.training import TrainedModel, TrainingJob, train


def run_fn(fn_args: Any) -> None:
    """Trains a network on Transform's output, exports it and writes its history.

    Args:
        fn_args: TFX's `FnArgs`. Its `custom_config` holds plain JSON types:
            model: `ModelSettings` as a dict.
            training: `TrainingSettings` as a dict.
            input_size: height and width in pixels, as Transform stored the images.
            normalize_exposure: whether Transform normalised the exposure of the images.
            class_map: `ClassMap.to_json()`.
            things: class indices of the classes with instances, for instance segmentation.
            depth_scale: value of a depth map at a distance of 1 metre.
            seed: an integer, or None.
            max_pixels: height times width of the largest image that the model accepts.
            tile_size: height and width of sliding windows in pixels, or None.
            tile_overlap: least fraction of a sliding window that its neighbour covers too.
            export_precision: arithmetic of the exported network: float32, bfloat16 or float16.
            checkpoint_root: folder for the checkpoints of unfinished trainings.
            checkpoints_shared: whether several trainings may keep their checkpoints there at the same time.
            encoder_weights: hash of the file with the encoder's weights, or None. Part of the training's identity.
            code: hash of the source, so that changed code never resumes these checkpoints.

    Raises:
        SegpipeError: see `trainer.training.train`.
    """
    # On Vertex AI and under TFX's own launcher, no segpipe command prepared this process.
    tensorflow_start.prepare()
    config = fn_args.custom_config
    job = TrainingJob(
        model=ModelSettings(**config["model"]),
        training=TrainingSettings(**config["training"]),
        class_map=ClassMap.from_json(config["class_map"]),
        input_size=(config["input_size"][0], config["input_size"][1]),
        train_files=input_pipeline.find_files(fn_args.train_files),
        eval_files=input_pipeline.find_files(fn_args.eval_files),
        seed=config["seed"],
        log_dir=fn_args.model_run_dir,
        base_model=getattr(fn_args, "base_model", None),
        things=tuple(config["things"]),
        depth_scale=config["depth_scale"],
    )
    with _checkpoints(config, job, fn_args.model_run_dir) as kept:
        trained = train(job, kept)
        if trained is None:
            return  # only the chief writes
        _write_history(fn_args.model_run_dir, trained)
        saved_network.save(trained.model, fn_args.model_run_dir)
        export(
            job.task.exported(trained.model, config["export_precision"]),
            fn_args.transform_output,
            fn_args.serving_model_dir,
            job.class_map,
            job.input_size,
            _metadata(config, job, trained),
            TestTimeAugmentation(job.model.test_time_flip, job.model.test_time_scales),
            config["max_pixels"],
            Tiling(tuple(config["tile_size"]), config["tile_overlap"]) if config["tile_size"] else None,
            job.things,
            job.depth_scale if job.model.depth else None,
        )
        warm_start.save(trained.model, fn_args.serving_model_dir)
        # Not before the export is complete: a kill must not cost the training.
        kept.remove()


def _checkpoints(
    config: dict[str, Any], job: TrainingJob, model_run_dir: str
) -> AbstractContextManager[checkpoints.Checkpoints]:
    """Returns the checkpoints of the training, including those of an interrupted run."""
    places = ("checkpoint_root", "checkpoints_shared")
    identity = {name: value for name, value in config.items() if name not in places}
    shared = config["checkpoints_shared"]
    # The folder's name is that of the execution, and of the attempt after a dash (pipeline/running/staging.py).
    parent, _, name = model_run_dir.rstrip("/").rpartition("/")
    execution = name.partition("-")[0]
    # All workers and attempts of a training must use the same folder, and another run of the same training must not.
    owner = files.join(parent, execution) if shared and cluster.this_worker().workers > 1 else None
    identity["base_model"] = job.base_model
    folder = checkpoints.directory(config["checkpoint_root"], identity, job.train_files, job.eval_files, owner)
    if shared and not owner:
        return attempts.begin(folder, execution)
    return nullcontext(checkpoints.Checkpoints(folder, execution))


def _write_history(directory: str, trained: TrainedModel) -> None:
    tf.io.gfile.makedirs(directory)
    with tf.io.gfile.GFile(files.join(directory, artifact_files.HISTORY), "w") as file:
        file.write(json.dumps(trained.history, indent=2))


def _metadata(config: dict[str, Any], job: TrainingJob, trained: TrainedModel) -> dict[str, Any]:
    return {
        "model": job.model.name,
        "model_settings": job.model.model_dump(),
        "pixels": registry.pixels(job.model),
        "training_settings": job.training.model_dump(),
        "precision": trained.policy,
        "seed": trained.seed,
        "epoch": trained.epoch,
        f"val_{trained.score}": trained.history[trained.epoch - 1][f"val_{trained.score}"],
        **{name: config[name] for name in ("code", "normalize_exposure", "export_precision")},
    }
