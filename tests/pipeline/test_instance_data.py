"""The data components of a run with `task: instance`: from the synthetic set to what the trainer reads."""

from __future__ import annotations

import io
import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components import features
from components.dataset import synthetic
from components.dataset.description import built_in
from components.errors import UsageError
from components.examples import example_files, read_examples
from components.instances import encode_runs
from components.preprocessing import resize_mask
from pipeline.configuration.data import describe
from pipeline.configuration.loading import load_config
from pipeline.running.nodes import run_nodes
from pipeline.storage.store import Store
from pipeline.storage.workdir import Workdir
from pipeline.wiring.create_pipeline import assemble, data_components

_SIZE = (40, 56)


def _config(data, task="instance"):
    model = "mask_rcnn" if task == "instance" else "unet"
    settings = {"task": task, "size": list(_SIZE), "model": {"name": model}}
    return load_config([("test", {**settings, "data": {"dir": data, "gate_split": "val"}})])


def _run(config, root):
    """Runs the data components; returns the raw examples of the training split and the transformed ones' features."""
    workdir = Workdir(str(root))
    workdir.create()
    description = describe(config.data, config.task)
    pipeline = assemble(config, workdir, data_components(config, workdir, description).all())
    run_nodes(pipeline, "one")
    outputs = {execution.node_id: execution.outputs for execution in Store(workdir.connection).executions("one")}
    raw = list(read_examples(example_files(outputs["ImageMaskExampleGen"]["examples"][0].uri, "train")))
    folder = os.path.join(outputs["Transform"]["transformed_examples"][0].uri, "Split-train")
    files = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    records = tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator()
    return description, raw, [tf.train.Example.FromString(record).features.feature for record in records]


@pytest.mark.parametrize("layout", ["ids", "coco"])
def test_the_instances_of_a_folder_reach_the_trainer(tmp_path, layout):
    data = tmp_path / "streets"
    synthetic.make(str(data), pairs={"train": 6, "val": 2}, size=(48, 64))
    # An image without an instance is valid.
    empty = sorted((data / "traininst").iterdir())[0]
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(empty)
    drawn = {path.stem: _read_ids(data, path) for path in (data / "traininst").iterdir()}
    if layout == "coco":
        _convert_to_coco(data)

    description, raw, transformed = _run(_config(str(data)), tmp_path / "run")

    assert description.name == "synthetic"
    assert description.layout.has_coco == (layout == "coco")
    for example in raw:
        found = zip(example.instances.masks, example.instances.classes, strict=True)
        assert _comparable(found) == _comparable(drawn[example.name])
    assert drawn[empty.stem] == []
    assert sum(map(len, drawn.values())) > 10
    written = [feature[features.TRANSFORMED_INSTANCES].bytes_list.value[0] for feature in transformed]
    expected = [_stack(example.instances, description) for example in raw]
    assert sorted(map(_pixels, written)) == sorted(stack.tobytes() for stack in expected)
    assert b"" in written


def _read_ids(data, path):
    """Returns the mask and the class index of each instance."""
    ids = np.asarray(Image.open(path))
    classes = np.asarray(Image.open(data / path.parent.name.replace("inst", "annot") / path.name))
    return [(ids == value, np.bincount(classes[ids == value]).argmax()) for value in np.unique(ids[ids > 0])]


def _convert_to_coco(data):
    """Replaces masks and instance ids by COCO's annotations, polygons and run-length encodings by turns."""
    names = built_in("synthetic").class_map.names
    for split in ("train", "val"):
        annotations, images = [], []
        for path in sorted((data / f"{split}inst").iterdir()):
            images.append({"id": len(images), "file_name": path.name, "height": 48, "width": 64})
            for mask, index in _read_ids(data, path):
                segmentation = {"size": [48, 64], "counts": encode_runs(mask[None])[1].tolist()}
                if len(annotations) % 2:
                    pixels = np.argwhere(mask).tolist()
                    segmentation = [[x, y, x + 1, y, x + 1, y + 1, x, y + 1] for y, x in pixels]
                shape = {"image_id": images[-1]["id"], "category_id": int(index), "segmentation": segmentation}
                annotations.append(shape)
        categories = [{"id": index, "name": name} for index, name in enumerate(names)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (data / f"{split}.json").write_text(json.dumps(content))
        shutil.rmtree(data / f"{split}inst")
        shutil.rmtree(data / f"{split}annot")
    layout = 'layout: {images: "{split}/{name}", instances: "{split}.json"}\n'
    (data / "segpipe.yaml").write_text(f"name: synthetic\nlike: synthetic\n{layout}")


def _comparable(instances):
    return sorted((mask.tobytes(), int(index)) for mask, index in instances)


def _pixels(data):
    return np.asarray(Image.open(io.BytesIO(data))).tobytes() if data else b""


def _stack(instances, description):
    """Returns the masks as the trainer is to see them, uint8 [M, height, width], made by other means."""
    stack = []
    for mask, index in zip(instances.masks[~instances.crowd], instances.classes[~instances.crowd], strict=True):
        label = 1 + description.things.index(description.classes[index].name)
        png = tf.io.encode_png((mask * label)[..., None].astype(np.uint8))
        resized = tf.io.decode_png(resize_mask(png, *_SIZE)).numpy()[..., 0]
        stack += [resized] if resized.any() else []
    return np.array(stack, np.uint8)


def test_a_semantic_run_of_the_same_folder_has_no_instances(street_scenes):
    described = describe(_config(street_scenes, "semantic").data)

    assert described.name == "synthetic"
    assert described.things == ()
    assert described.layout.instances is None


def test_a_data_set_without_instances_is_refused(street_scenes):
    config = _config(street_scenes)
    data = config.data.model_copy(update={"description": "kitti_semantic"})

    with pytest.raises(
        UsageError, match=rf"task: found instance, and {street_scenes} has no instances; .*kitti_semanti"
    ):
        describe(data, "instance")
    assert built_in("kitti_semantic").things == ()
