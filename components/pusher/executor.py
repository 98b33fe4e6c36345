"""The executor of Pusher: copies a blessed model into a numbered version."""

from __future__ import annotations

import logging
import math
from typing import Any

from tfx import v1 as tfx
from tfx.components.pusher import executor
from tfx.types import artifact_utils
from tfx.utils import io_utils, proto_utils

from components.artifact_files import read_model_metadata, write_model_metadata
from components.class_map import ClassMap
from components.example_gen.artifacts import split_fingerprint
from components.metrics.results import load_evaluation
from components.pusher.push import push
from components.pusher.withdrawn import WITHDRAWN, withdrawn_as

EVALUATION = "evaluation"
EXAMPLES = "examples"
GATE_SPLIT = "gate_split"


class AtomicPusherExecutor(executor.Executor):
    """TFX's Pusher, except for how it writes the model."""

    def Do(
        self, input_dict: dict[str, list[Any]], output_dict: dict[str, list[Any]], exec_properties: dict[str, Any]
    ) -> None:
        """Pushes the model if it is blessed and equals no withdrawn version.

        Args:
            input_dict: `model`, `model_blessing` and, to add scores to the model's metadata, `evaluation` and its
                `examples`.
            output_dict: `pushed_model`, marked with the model's destination, or as not pushed.
            exec_properties: `push_destination`, JSON of a `PushDestination` with a file system, and `gate_split`, the
                split of the scores.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        pushed_model = artifact_utils.get_single_instance(output_dict["pushed_model"])
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(pushed_model)
            return
        destination = tfx.proto.PushDestination()
        proto_utils.json_to_proto(exec_properties["push_destination"], destination)
        base, model_path = destination.filesystem.base_directory, self.GetModelPath(input_dict)
        if (version := withdrawn_as(model_path, base)) is not None:
            logging.getLogger(__name__).warning(
                "%s is not pushed: it is version %d of %s, which was withdrawn. To allow it, run "
                "`segpipe release withdraw %d --undo --versions %s`",
                *(model_path, version, base, version, base),
            )
            self._MarkNotPushed(pushed_model)
            pushed_model.set_int_custom_property(WITHDRAWN, version)
            return
        # The archive is written first, because the last step of the push publishes the version.
        io_utils.copy_dir(model_path, pushed_model.uri)
        if input_dict.get(EVALUATION):
            evaluation = artifact_utils.get_single_instance(input_dict[EVALUATION])
            examples, split = artifact_utils.get_single_instance(input_dict[EXAMPLES]), exec_properties[GATE_SPLIT]
            add_metrics(pushed_model.uri, evaluation.uri, split, split_fingerprint(examples, split))
        directory, number = push(pushed_model.uri, base, again=False)
        self._MarkPushed(pushed_model, pushed_destination=directory, pushed_version=str(number))
        logging.getLogger(__name__).info("pushed %s to %s", model_path, directory)


def add_metrics(model_path: str, evaluation_uri: str, split: str, fingerprint: str) -> None:
    """Adds the evaluation's scores to a model's metadata.

    `metrics` has each score by name, `evaluated_on` the split and the fingerprint of its files. A class that is absent
    from the split has no score.
    """
    metadata = read_model_metadata(model_path)
    scores = load_evaluation(evaluation_uri, ClassMap.from_dict(metadata["class_map"])).candidate.scores
    metrics = {name: value for name, value in scores.items() if not math.isnan(value)}
    evaluated_on = {"split": split, "fingerprint": fingerprint}
    write_model_metadata(model_path, {**metadata, "metrics": metrics, "evaluated_on": evaluated_on})
