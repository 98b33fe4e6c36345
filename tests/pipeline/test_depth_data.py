"""The data components of a run with `model.depth`: from a folder with depth maps to what the trainer reads."""

from __future__ import annotations

import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pydantic import ValidationError

from components import features
from components.dataset import synthetic
from components.errors import UsageError
from pipeline.configuration.data import describe
from pipeline.configuration.loading import load_config
from pipeline.running.nodes import run_nodes
from pipeline.storage.store import Store
from pipeline.storage.workdir import Workdir
from pipeline.wiring.create_pipeline import assemble, data_components

_SIZE = (48, 64)
_YAML = """\
like: segnet_tutorial
layout: {images: "{split}/{name}", masks: "{split}annot/{name}.png", depth: "{split}depth/{name}.png"}
depth_scale: 100
"""


def _config(data, **settings):
    model = {"name": "unet", "depth": True}
    values = {"size": list(_SIZE), "model": model, "data": {"dir": str(data), "gate_split": "val"}, **settings}
    return load_config([("test", values)])


def test_the_depth_of_a_folder_reaches_the_trainer(tmp_path):
    data = tmp_path / "streets"
    synthetic.make(str(data), pairs={"train": 3, "val": 2}, size=_SIZE)
    (data / "segpipe.yaml").write_text(_YAML)
    rng = np.random.default_rng(0)
    depths = {}
    for split in ("train", "val"):
        (data / f"{split}depth").mkdir(exist_ok=True)
        for image in (data / split).iterdir():
            depth = rng.integers(0, 65536, _SIZE).astype(np.uint16)
            Image.fromarray(depth).save(data / f"{split}depth" / f"{image.stem}.png")
            if split == "train":
                depths[image.stem] = depth
    config = _config(data)
    workdir = Workdir(str(tmp_path / "run"))
    workdir.create()
    description = describe(config.data, config.task, config.model.depth)

    run_nodes(assemble(config, workdir, data_components(config, workdir, description).all()), "one")

    outputs = {execution.node_id: execution.outputs for execution in Store(workdir.connection).executions("one")}
    folder = os.path.join(outputs["Transform"]["transformed_examples"][0].uri, "Split-train")
    files = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    records = tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator()
    written = [
        tf.io.decode_png(
            tf.train.Example.FromString(record).features.feature[features.TRANSFORMED_DEPTH].bytes_list.value[0],
            dtype=tf.uint16,
        ).numpy()
        for record in records
    ]
    assert sorted(each.tobytes() for each in written) == sorted(each.tobytes() for each in depths.values())


def test_a_model_of_depth_needs_depth_maps(tmp_path):
    data = tmp_path / "streets"
    synthetic.make(str(data), pairs={"train": 2, "val": 1}, size=_SIZE)
    (data / "segpipe.yaml").write_text("like: segnet_tutorial\n")
    config = _config(data)

    with pytest.raises(UsageError, match=r"model.depth: found true, and .*streets has no depth maps; .* Add them, or"):
        describe(config.data, config.task, config.model.depth)
    assert describe(config.data).layout.depth is None


@pytest.mark.parametrize(
    "settings",
    [
        {"export": {"tile_size": [64, 64]}},
        {"export": {"variants": ["folded"]}},
        {"model": {"name": "unet", "depth": True, "test_time_scales": [1.0, 1.5]}},
    ],
    ids=["tiles", "variants", "scales"],
)
def test_settings_that_change_apparent_distances_are_refused(tmp_path, settings):
    with pytest.raises((UsageError, ValidationError), match="enlarged objects look nearer"):
        _config(tmp_path, **settings)
