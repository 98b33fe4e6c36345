"""Oxford-IIIT Pets from its archives to a trained network: a made-up folder of the real layout and file names."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from components.dataset.downloads import DATASETS, fetch
from components.example_gen.quarantine import COUNTS_FILE
from pipeline.configuration.data import describe
from pipeline.configuration.loading import build_config
from pipeline.running.nodes import run_nodes
from pipeline.storage.store import Store
from pipeline.storage.workdir import Workdir
from pipeline.wiring.create_pipeline import assemble, data_components
from trainer.checkpoints import Checkpoints
from trainer.training import TrainingJob, train

_LISTS = {
    "trainval": ["Abyssinian_100", "american_bulldog_100", "Bengal_1", "pug_12"],
    "test": ["Abyssinian_201", "pug_101"],
}


def _archives(root):
    """Writes the two archives as they are published, with what macOS and MATLAB left in them; returns their SHA-256."""
    images, trimaps = root / "images", root / "annotations" / "trimaps"
    images.mkdir(parents=True)
    trimaps.mkdir(parents=True)
    for split, names in _LISTS.items():
        (trimaps.parent / f"{split}.txt").write_text("".join(f"{name} 1 1 1\n" for name in names))
        for name in names:
            trimap = np.full((40, 48), 2, np.uint8)
            trimap[8:32, 8:40] = 3
            trimap[12:28, 12:36] = 1
            noise = np.random.default_rng(list(name.encode())).integers(0, 50, (40, 48, 3))
            Image.fromarray(np.uint8(60 * trimap[..., None] + noise)).save(images / f"{name}.jpg")
            Image.fromarray(trimap).save(trimaps / f"{name}.png")
            (trimaps / f"._{name}.png").write_bytes(b"-")
    (images / "Abyssinian_100.mat").write_bytes(b"-")
    for name in ("images", "annotations"):
        with tarfile.open(root / f"{name}.tar.gz", "w:gz") as archive:
            archive.add(root / name, name)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in root.glob("*.tar.gz")}


def test_pets_are_fetched_read_and_trained_on_by_the_preset(tmp_path):
    digests = _archives(tmp_path / "mirror")
    assert digests.keys() == DATASETS["pets"].sha256.keys()
    pets = dataclasses.replace(DATASETS["pets"], sha256=digests)
    fetch(pets, tmp_path / "pets", (tmp_path / "mirror").as_uri())
    smaller = {
        "data": {"dir": str(tmp_path / "pets"), "gate_split": "val"},
        "size": [32, 32],
        "model": {"base_filters": 4},
        "training": {"epochs": 1, "batch_size": 4},
    }
    config = build_config("pets", "unet", [("test", smaller)])
    description = describe(config.data)
    workdir = Workdir(str(tmp_path / "run"))
    workdir.create()

    run_nodes(assemble(config, workdir, data_components(config, workdir, description).all()), "one")
    outputs = {execution.node_id: execution.outputs for execution in Store(workdir.connection).executions("one")}
    splits = Path(outputs["Transform"]["transformed_examples"][0].uri)
    trained = train(
        TrainingJob(
            model=config.model,
            training=config.training,
            class_map=description.class_map,
            input_size=config.size,
            train_files=[str(path) for path in splits.glob("Split-train/*")],
            eval_files=[str(path) for path in splits.glob("Split-val/*")],
            seed=1,
            log_dir=str(tmp_path / "logs"),
        ),
        Checkpoints(str(tmp_path / "checkpoints")),
    )

    assert description.class_map.scored_names == ("background", "pet", "outline")
    assert set(config.gate.min_class_iou) == {"pet", "outline"}
    counts = json.loads(Path(outputs["ImageMaskExampleGen"]["quarantine"][0].uri, COUNTS_FILE).read_text())
    assert counts == {"examples": {"train": 4, "val": 2}, "quarantined": {}}
    assert trained.model.output_shape[-1] == 3
    assert np.isfinite(trained.history[0]["loss"])
