"""The main figure of each component, which the console shows, read from its outputs."""

from __future__ import annotations

import json
from collections.abc import Callable

from components import artifact_files, files
from components.example_gen.quarantine import SIMILAR_FILE, read_counts, read_similar_images
from components.pusher.withdrawn import WITHDRAWN
from pipeline.storage.store import Artifact, NodeExecution


def main_figure(execution: NodeExecution) -> str:
    """Returns the main result of a node's execution in a few words; empty if it has none, or its files were removed."""
    figure = _FIGURES.get(execution.node_id)
    if figure is None or not execution.finished:
        return ""
    try:
        return figure(execution)
    except FileNotFoundError:
        return ""


def _example_gen(execution: NodeExecution) -> str:
    counts = read_counts(_output(execution, "quarantine").uri)
    quarantined = sum(sum(reasons.values()) for reasons in counts["quarantined"].values())
    examples = ", ".join(f"{count:,} {split}" for split, count in sorted(counts["examples"].items()))
    return examples + (f", {quarantined} quarantined" if quarantined else "")


def _quarantine_gate(execution: NodeExecution) -> str:
    """Counts the evaluation images that are near duplicates of training images."""
    (quarantine,) = execution.inputs["quarantine"]
    if not files.exists(files.join(quarantine.uri, SIMILAR_FILE)):  # a run of an older version
        return ""
    names = execution.properties
    evaluated = {names["eval_split"], names["gate_split"]}
    similar = [
        pair
        for pair in read_similar_images(quarantine.uri)
        if pair.split in evaluated and pair.other_split == names["train_split"]
    ]
    return f"warning: {len(similar)} near duplicates of training images" if similar else ""


def _transform(execution: NodeExecution) -> str:
    height, width = json.loads(execution.properties["custom_config"])["input_size"]
    return f"{height} x {width} pixels"


def _trainer(execution: NodeExecution) -> str:
    history = json.loads(files.read_bytes(files.join(_output(execution, "model_run").uri, artifact_files.HISTORY)))
    score, label = ("val_mask_ap50", "mask AP50") if "val_mask_ap50" in history[0] else ("val_mean_iou", "mean IoU")
    best = max(epoch[score] for epoch in history if epoch[score] is not None)
    return f"best {label} {best:.3f}, {len(history)} epoch{'s' if history[1:] else ''}"


def _optimizer(execution: NodeExecution) -> str:
    model = files.join(_output(execution, "optimized_model").uri, "Format-Serving")
    metadata = artifact_files.read_model_metadata(model)
    chosen = next(row for row in metadata["variants"] if row["name"] == metadata["variant"])
    return f"{chosen['name']}: mean IoU {chosen['mean_iou']:.3f}, {chosen['latency_ms']:.0f} ms an image"


def _resolver(execution: NodeExecution) -> str:
    return "found" if execution.outputs.get("model") else "none yet"


def _evaluator(execution: NodeExecution) -> str:
    return "blessed" if _output(execution, "blessing").properties.get("blessed") else "not blessed"


def _pusher(execution: NodeExecution) -> str:
    model = _output(execution, "pushed_model")
    if withdrawn := model.properties.get(WITHDRAWN):
        return f"nothing pushed: the model is version {withdrawn}, which was withdrawn"
    return f"version {model.properties['pushed_version']}" if model.pushed else "nothing pushed"


def _output(execution: NodeExecution, key: str) -> Artifact:
    return execution.outputs[key][0]


_FIGURES: dict[str, Callable[[NodeExecution], str]] = {
    "ImageMaskExampleGen": _example_gen,
    "QuarantineGate": _quarantine_gate,
    "Transform": _transform,
    "Trainer": _trainer,
    "Optimizer": _optimizer,
    "StartResolver": _resolver,
    "BaselineResolver": _resolver,
    "Evaluator": _evaluator,
    "Pusher": _pusher,
}
