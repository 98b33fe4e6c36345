"""Trains a model on synthetic data, prints its scores and verdict, and predicts an image, all from Python."""

import json
import sys
from pathlib import Path

from components.dataset import synthetic
from pipeline.configuration.loading import build_config
from pipeline.running.run import run_pipeline
from serving.predictor import Predictor


def main(folder: Path) -> None:
    """Writes the data to `folder/data`, and everything that the run produces to `folder/work`."""
    data, work = folder / "data", folder / "work"
    synthetic.make(str(data), pairs={"train": 24, "val": 8}, size=(48, 64))

    # Any setting of docs/settings.md; everything else is as in the preset.
    settings = {
        "data": {"dir": str(data)},
        "size": "48x64",
        "training": {"epochs": 2},
        "gate": {"min_mean_iou": 0.01, "min_class_iou": {}},
    }
    config = build_config("smoke", "unet", [("settings", settings)])
    blessed = run_pipeline(config, str(work))

    summary = json.loads((work / "latest" / "summary.json").read_text())
    print(f"mean IoU {summary['metrics']['mean_iou']:.3f}", "blessed" if blessed else summary["failures"])
    if blessed:
        image = next((data / "val").glob("*.png"))
        predictor = Predictor(summary["pushed"])
        prediction = predictor.predict([image.read_bytes()])[0]
        names = [predictor.class_map.names[index] for index in sorted(set(prediction.mask.flat))]
        print(f"{image.name}: {prediction.mask.shape[0]}x{prediction.mask.shape[1]} pixels of {', '.join(names)}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "work/example"))
