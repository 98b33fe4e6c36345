import json
import os
import pathlib
import types
from collections.abc import Iterator

import numpy as np
import pytest
import run_fn_toy
import tensorflow as tf
import training_toy as toy
from tensorflow.core.protobuf import saved_model_pb2

from components.errors import SegpipeError
from trainer import attempts, saved_network
from trainer.checkpoints import execution_of
from trainer.run_fn import run_fn


@pytest.fixture(scope="module")
def transform_output(tmp_path_factory) -> str:
    return run_fn_toy.write_transform(tmp_path_factory.mktemp("transform"))


@pytest.fixture
def fn_args(tmp_path, transform_output) -> types.SimpleNamespace:
    arguments = run_fn_toy.arguments(tmp_path, transform_output, epochs=1, batch_size=4)
    return types.SimpleNamespace(**arguments)


def test_run_fn_exports_a_model_for_encoded_images_and_writes_its_history(fn_args, monkeypatch):
    # Set first, so that pytest restores the variable.
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "")
    monkeypatch.delenv("TF_FORCE_GPU_ALLOW_GROWTH")
    fn_args.custom_config["model"] |= {"test_time_flip": True, "test_time_scales": [0.5, 1.0]}
    fn_args.custom_config |= {"normalize_exposure": True, "tile_size": [32, 64], "tile_overlap": 0.5}

    run_fn(fn_args)

    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    serve = tf.saved_model.load(fn_args.serving_model_dir).signatures["serving_default"]
    image, _ = toy.pair(np.random.default_rng(1))
    answer = serve(image=tf.constant([toy.png(image)]))
    assert answer["class_map"].shape == (1, *toy.SIZE)
    history = json.loads((pathlib.Path(fn_args.model_run_dir) / "history.json").read_text())
    assert [entry["epoch"] for entry in history] == [1]
    metadata = json.loads((pathlib.Path(fn_args.serving_model_dir) / "assets" / "segpipe.json").read_text())
    assert (metadata["model"], metadata["seed"], metadata["code"]) == ("unet", 3, "abc")
    assert metadata["pixels"] == "minus_one_to_one"
    assert (metadata["test_time_flip"], metadata["test_time_scales"]) == (True, [0.5, 1.0])
    assert metadata["normalize_exposure"] is True
    assert metadata["tiling"] == {"window": [32, 64], "overlap": 0.5}
    assert metadata["val_mean_iou"] == history[0]["val_mean_iou"]
    assert list((pathlib.Path(fn_args.custom_config["checkpoint_root"])).iterdir()) == []


@pytest.mark.parametrize("exported", ["float32", "bfloat16"])
def test_a_training_in_mixed_precision_is_exported_in_the_precision_of_the_setting(fn_args, exported):
    fn_args.custom_config["training"]["precision"] = "mixed_bfloat16"
    fn_args.custom_config |= {"export_precision": exported}

    run_fn(fn_args)

    assert set(_convolution_types(fn_args.serving_model_dir)) == {tf.as_dtype(exported)}
    metadata = json.loads((pathlib.Path(fn_args.serving_model_dir) / "assets" / "segpipe.json").read_text())
    assert (metadata["precision"], metadata["export_precision"]) == ("mixed_bfloat16", exported)
    served = tf.saved_model.load(fn_args.serving_model_dir)
    image, _ = toy.pair(np.random.default_rng(1))
    found = served.signatures["probabilities"](image=tf.constant([toy.png(image)]))["probabilities"]
    network = saved_network.load(fn_args.model_run_dir)
    # In a graph, because TensorFlow fuses operations there and rounds less often.
    predict = tf.function(lambda pixels: tf.nn.softmax(network(pixels, training=False)))
    expected = predict(tf.constant(image[np.newaxis], tf.float32)).numpy()
    assert network.get_layer("encoder1_conv1").compute_dtype == "bfloat16"
    assert {weight.dtype for weight in network.weights} == {"float32"}
    # bfloat16 has 8 significant bits, so every layer of the network as trained rounds its features by up to 1/256. A
    # bfloat16 export rounds scores too.
    assert 1e-6 < np.abs(found - expected).max() < 2 / 256


def _convolution_types(directory: str) -> Iterator[tf.DType]:
    """Yields the data type of every 2D convolution in a SavedModel's graphs."""
    model = saved_model_pb2.SavedModel.FromString((pathlib.Path(directory) / "saved_model.pb").read_bytes())
    for function in model.meta_graphs[0].graph_def.library.function:
        for node in function.node_def:
            if node.op in ("Conv2D", "Conv2DBackpropInput"):
                yield tf.as_dtype(node.attr["T"].type)


def test_an_export_that_fails_leaves_the_checkpoint(fn_args):
    fn_args.transform_output = "/nonexistent"

    with pytest.raises(OSError, match="nonexistent"):
        run_fn(fn_args)

    (folder,) = pathlib.Path(fn_args.custom_config["checkpoint_root"]).iterdir()
    assert (folder / "state.json").exists()
    # TFX names the folder after the execution.
    assert execution_of(str(folder)) == pathlib.Path(fn_args.model_run_dir).name


def test_with_shared_checkpoints_another_execution_resumes_a_stopped_training(fn_args, monkeypatch):
    monkeypatch.setattr(attempts, "WATCH_SECONDS", 0.2)
    fn_args.custom_config["checkpoints_shared"] = True
    root, transform_output = pathlib.Path(fn_args.custom_config["checkpoint_root"]), fn_args.transform_output
    fn_args.transform_output = "/nonexistent"
    with pytest.raises(OSError, match="nonexistent"):
        run_fn(fn_args)
    (state,) = (json.loads(path.read_text()) for path in root.glob("*/state.json"))

    fn_args.transform_output, fn_args.model_run_dir = transform_output, fn_args.model_run_dir + "_of_another_execution"
    run_fn(fn_args)

    # Including the seconds of the epochs.
    assert json.loads((pathlib.Path(fn_args.model_run_dir) / "history.json").read_text()) == state["history"]
    assert list(root.iterdir()) == []


@pytest.fixture
def checkpoints_of(fn_args, monkeypatch):
    """Returns a function that runs `run_fn` on several workers for each model run, and returns their checkpoints."""

    def run(workers, shared, *names):
        cluster = {"cluster": {"worker": ["a:1", "b:1"][:workers]}, "task": {"type": "worker", "index": 0}}
        monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
        fn_args.custom_config["checkpoints_shared"] = shared
        kept = []
        monkeypatch.setattr("trainer.run_fn.train", lambda job, checkpoints: kept.append(checkpoints))
        for name in names:
            fn_args.model_run_dir = f"/model_run/{name}"
            run_fn(fn_args)
        return kept

    return run


@pytest.mark.parametrize(
    ("shared", "workers", "same"), [(False, 1, True), (False, 2, True), (True, 1, True), (True, 2, False)]
)
def test_with_shared_checkpoints_only_the_same_execution_resumes_several_workers(checkpoints_of, shared, workers, same):
    kept = checkpoints_of(workers, shared, "7", "8")

    assert [each.execution for each in kept] == ["7", "8"]
    trainings = {pathlib.Path(each.folder).name.partition("-")[0] for each in kept}
    assert (len(trainings) == 1) == same
    own = [pathlib.Path(each.folder).name for each in kept if "-" in pathlib.Path(each.folder).name]
    assert len(set(own)) == (2 if shared and workers == 1 else 0)


def test_a_later_attempt_at_an_execution_resumes_several_workers(checkpoints_of):
    first, second = checkpoints_of(2, True, "7", "7-2")

    assert (first.folder, first.execution) == (second.folder, second.execution)


def test_missing_files_are_an_error(fn_args):
    fn_args.train_files = [fn_args.train_files[0] + ".absent"]

    with pytest.raises(SegpipeError, match="no file matches"):
        run_fn(fn_args)
