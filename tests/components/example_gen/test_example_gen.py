"""ExampleGen and the gates behind it, run by TFX on small folders with issues made on purpose."""

import errno
import glob
import io
import json
import os
import shutil
import time

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tfx import v1 as tfx
from tfx.proto import example_gen_pb2
from tfx.types import standard_artifacts
from tfx.utils import proto_utils

import components.files
from components import features
from components.dataset import fingerprint
from components.dataset.data_files import listed_once
from components.dataset.description import built_in, detect
from components.dataset.pairs import DataIssue, Pair
from components.errors import DataRejectedError, SegpipeError
from components.example_gen import listing
from components.example_gen.artifacts import Quarantine
from components.example_gen.component import ImageMaskExampleGen
from components.example_gen.executor import Executor
from components.example_gen.quarantine import (
    ISSUES_FILE,
    read_counts,
    read_issues,
    read_shared_images,
    read_similar_images,
)
from components.gates import QuarantineGate
from components.schema import raw_schema
from pipeline.history.figures import main_figure
from pipeline.running.nodes import run_nodes
from pipeline.storage.store import Store
from pipeline.wiring.beam_workers import without_tfx_package


class _Pipeline:
    """ExampleGen and its gate in a work directory of their own."""

    def __init__(
        self, root, max_fraction=0.01, max_shared_images=0, max_similar_images=None, beam_args=(), gate_split="val"
    ):
        self._root = str(root)
        self._beam_args = ["--runner=DirectRunner", *without_tfx_package(()), *beam_args]
        self._max_fraction = max_fraction
        self._gate_split = gate_split
        self._max_shared_images = max_shared_images
        self._max_similar_images = max_similar_images
        self._metadata = os.path.join(self._root, "metadata.sqlite")
        self._runs = 0

    def run(self, data):
        """Returns the states by node; the store then holds the run's artifacts."""
        self._runs += 1
        example_gen = ImageMaskExampleGen(
            input_base=data,
            description=detect(data),
            max_side=4096,
            max_pixels=2**20,
            code="1",
            index=os.path.join(self._root, "index"),
        )
        gate = QuarantineGate(
            quarantine=example_gen.outputs["quarantine"],
            max_fraction=self._max_fraction,
            max_shared_images=self._max_shared_images,
            max_similar_images=self._max_similar_images,
            train_split="train",
            eval_split="val",
            gate_split=self._gate_split,
            code="1",
        )
        pipeline = tfx.dsl.Pipeline(
            pipeline_name="example_gen",
            pipeline_root=self._root,
            components=[example_gen, gate],
            enable_cache=True,
            metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(self._metadata),
            beam_pipeline_args=self._beam_args,
        )
        return {result.node_id: result.state for result in run_nodes(pipeline, str(self._runs))}

    def output(self, key):
        """Returns an artifact of the last run's ExampleGen."""
        return self.execution("ImageMaskExampleGen").outputs[key][0]

    def execution(self, node_id):
        """Returns a node's execution in the last run."""
        executions = Store(self._metadata).executions(str(self._runs))
        return next(execution for execution in executions if execution.node_id == node_id)

    def examples(self, split):
        """Returns the examples of a split, by name."""
        files = tf.io.gfile.glob(os.path.join(self.output("examples").uri, f"Split-{split}", "*"))
        records = tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator()
        examples = [tf.train.Example.FromString(record) for record in records]
        return {example.features.feature[features.NAME].bytes_list.value[0].decode(): example for example in examples}


@pytest.fixture
def pipeline(tmp_path):
    return _Pipeline(tmp_path / "root")


def _files(folder):
    return sorted(os.path.join(folder, name) for name in os.listdir(folder))


def test_every_pair_becomes_an_example_that_holds_its_pixels(pipeline, street_scenes):
    pipeline.run(street_scenes)

    examples = pipeline.examples("train")
    names = {os.path.splitext(os.path.basename(path))[0] for path in _files(f"{street_scenes}/train")}
    assert set(examples) == names
    name = min(names)
    feature = examples[name].features.feature
    with open(f"{street_scenes}/train/{name}.png", "rb") as file:
        assert feature[features.IMAGE].bytes_list.value[0] == file.read()
    mask = np.asarray(Image.open(io.BytesIO(feature[features.MASK].bytes_list.value[0])))
    np.testing.assert_array_equal(mask, np.asarray(Image.open(f"{street_scenes}/trainannot/{name}.png")))
    assert (feature[features.HEIGHT].int64_list.value[0], feature[features.WIDTH].int64_list.value[0]) == mask.shape
    road = feature[features.class_share("road")].float_list.value[0]
    assert road == pytest.approx((mask == 3).mean())
    assert feature[features.SEQUENCE].bytes_list.value[0].decode() == name.split("_")[0]
    assert feature[features.SPLIT].bytes_list.value[0] == b"train"


def test_the_cache_key_is_the_content_not_the_time(tmp_path, street_scenes):
    pipeline = _Pipeline(tmp_path / "root", max_fraction=0.5)
    first = pipeline.run(street_scenes)
    for path in _files(f"{street_scenes}/train"):
        os.utime(path, (1, 1))
    touched = pipeline.run(street_scenes)
    image = _files(f"{street_scenes}/val")[0]
    stat = os.stat(image)
    with open(image, "r+b") as file:
        content = bytearray(file.read())
        content[-20] ^= 1  # the same size, other bytes
        file.seek(0)
        file.write(content)
    os.utime(image, (stat.st_atime, stat.st_mtime))
    changed = pipeline.run(street_scenes)

    states = [run["ImageMaskExampleGen"] for run in (first, touched)]
    assert states == ["ran", "cached"]
    assert changed["ImageMaskExampleGen"] == "ran"


def test_each_split_has_its_own_fingerprint(pipeline, street_scenes):
    fingerprints = []
    for _ in range(2):
        pipeline.run(street_scenes)
        fingerprints.append(json.loads(pipeline.output("examples").properties["split_fingerprints"]))
        for folder in glob.glob(f"{street_scenes}/val*"):
            shutil.copy(_files(folder)[0], f"{folder}/more.png")

    before, after = fingerprints
    assert before["train"] == after["train"]
    assert len({*before.values(), *after.values()}) == 3


def test_bad_pairs_are_quarantined_and_their_neighbours_kept(tmp_path, street_scenes):
    pipeline = _Pipeline(tmp_path / "root", max_fraction=0.5)
    images, masks = _files(f"{street_scenes}/train"), _files(f"{street_scenes}/trainannot")
    with open(images[0], "r+b") as file:
        file.truncate(200)
    os.remove(masks[1])
    Image.fromarray(np.full((48, 64), 40, np.uint8)).save(masks[2])
    os.remove(images[3])
    os.symlink("gone.png", images[3])

    pipeline.run(street_scenes)

    uri = pipeline.output("quarantine").uri
    counts, issues = read_counts(uri), read_issues(uri)
    assert counts["examples"] == {"train": 8, "val": 4}
    assert {(os.path.basename(issue.file), issue.reason) for issue in issues} == {
        (os.path.basename(images[0]), "truncated"),
        (os.path.basename(images[1]), "mask_missing"),
        (os.path.basename(masks[2]), "label_outside_map"),
        (os.path.basename(images[3]), "unreadable"),
    }
    assert sum(counts["quarantined"]["train"].values()) == 4
    assert len(pipeline.examples("train")) == 8


def test_a_run_from_the_cache_opens_no_image_and_lists_the_folder_once(pipeline, street_scenes, monkeypatch):
    listings = []
    original = components.files._walk
    monkeypatch.setattr(components.files, "_walk", lambda root: (listings.append(root), original(root))[1])
    now = time.time_ns()
    # Files that were modified in the last two seconds would be read again.
    monkeypatch.setattr(fingerprint.time, "time_ns", lambda: now + 3600 * 10**9)
    with listed_once():
        # `detect` needs the list as well as the driver.
        pipeline.run(street_scenes)
    assert listings == [street_scenes]

    def refuse(name, mode):
        assert not name.endswith(".png"), f"{name} was opened"
        return open(name, mode)

    monkeypatch.setattr(components.files, "open", refuse, raising=False)

    assert pipeline.run(street_scenes) == {"ImageMaskExampleGen": "cached", "QuarantineGate": "cached"}
    os.utime(_files(f"{street_scenes}/train")[0])
    with pytest.raises(AssertionError, match="was opened"):
        pipeline.run(street_scenes)


def _graph(tmp_path, monkeypatch, pairs):
    """Returns the job's graph for a number of pairs, as a runner gets it."""
    graphs = []

    class Runner(beam.runners.PipelineRunner):
        def run_pipeline(self, pipeline, options):
            graphs.append(pipeline.to_runner_api())
            raise InterruptedError

    listed = [Pair(f"{i:06d}", ("train", "val")[i % 2], "s", f"i/{i:06d}.png", f"m/{i:06d}.png") for i in range(pairs)]
    issues = [DataIssue("train", pair.name, pair.mask, "empty", "-", "-", "-") for pair in listed]
    outputs = {"examples": [standard_artifacts.Examples()], "quarantine": [Quarantine()]}
    for name, (artifact,) in outputs.items():
        artifact.uri = str(tmp_path / name)
    splits = [example_gen_pb2.Input.Split(name=name, pattern="*") for name in ("train", "val")]
    properties = {
        "input_base": str(tmp_path),
        "input_config": proto_utils.proto_to_json(example_gen_pb2.Input(splits=splits)),
        "description": built_in("segnet_tutorial").to_json(),
        "max_side": 1,
        "max_pixels": 1,
        "split_fingerprints": "{}",
        "listing": listing.write(str(tmp_path / "index"), listed, issues),
    }
    monkeypatch.setattr(Executor, "_make_beam_pipeline", lambda self: beam.Pipeline(runner=Runner()))
    with pytest.raises(InterruptedError):
        Executor().Do({}, outputs, properties)
    return graphs[0].SerializeToString()


def test_the_graph_of_the_job_has_the_same_size_for_every_number_of_pairs(tmp_path, monkeypatch):
    few, many = (_graph(tmp_path, monkeypatch, pairs) for pairs in (10, 10_000))

    assert len(few) > 10_000
    assert abs(len(many) - len(few)) < 100


def test_every_feature_that_is_written_is_in_the_schema(pipeline, street_scenes):
    pipeline.run(street_scenes)

    written = next(iter(pipeline.examples("train").values())).features.feature
    expected = raw_schema(detect(street_scenes).class_map, 4096, has_instances=True, has_depth=True).feature
    assert set(written) == {feature.name for feature in expected}


@pytest.fixture
def fail(monkeypatch):
    """Makes reads of one file fail: the first `after` succeed, the next `times` do not."""

    def _fail(path, after, times):
        reads = []

        def failing(name, mode):
            if name == path:
                reads.append(name)
                if after < len(reads) <= after + times:
                    raise TimeoutError(errno.ETIMEDOUT, "Connection timed out", name)
            return open(name, mode)

        monkeypatch.setattr(components.files, "open", failing, raising=False)
        monkeypatch.setattr(components.files.read_bytes.retry, "sleep", lambda seconds: None)

    return _fail


def test_a_temporary_read_error_loses_no_pair(pipeline, street_scenes, fail):
    # The driver's fingerprint reads every file once before ExampleGen does.
    fail(_files(f"{street_scenes}/train")[0], after=1, times=1)

    pipeline.run(street_scenes)

    assert len(pipeline.examples("train")) == 12
    assert read_issues(pipeline.output("quarantine").uri) == []


def test_a_lasting_read_error_stops_the_run_and_is_not_cached(tmp_path, street_scenes, fail):
    pipeline = _Pipeline(tmp_path / "root", max_fraction=0.5)
    image = _files(f"{street_scenes}/train")[0]
    fail(image, after=1, times=5)

    with pytest.raises(SegpipeError, match=rf"{image}: cannot be read \(TimeoutError: Connection timed out\)"):
        pipeline.run(street_scenes)
    states = pipeline.run(street_scenes)

    assert states["ImageMaskExampleGen"] == "ran"
    assert len(pipeline.examples("train")) == 12


def test_a_pair_of_several_files_is_one_bad_pair(tmp_path, street_scenes):
    image = _files(f"{street_scenes}/train")[0]
    Image.open(image).save(image.removesuffix(".png") + ".jpg")

    # One of twelve: two, its files, would be too many.
    states = _Pipeline(tmp_path / "root", max_fraction=1 / 12).run(street_scenes)

    assert states["QuarantineGate"] == "ran"


def test_a_pair_that_the_model_will_not_accept_is_quarantined(tmp_path, street_scenes):
    pipeline = _Pipeline(tmp_path / "root", max_fraction=0.5)
    image, mask = (_files(f"{street_scenes}/{folder}")[0] for folder in ("val", "valannot"))
    for path, mode in ((image, "RGB"), (mask, "L")):
        Image.new(mode, (2049, 512)).save(path)

    pipeline.run(street_scenes)

    (issue,) = read_issues(pipeline.output("quarantine").uri)
    assert (issue.reason, issue.found, issue.expected) == (
        "absurd_size", "2049x512 pixels", "at most 1048576 pixels in all",
    )  # fmt: skip


def test_too_many_bad_pairs_stop_the_run_and_are_listed(pipeline, street_scenes):
    broken = _files(f"{street_scenes}/train")[0]
    with open(broken, "wb"):
        pass

    with pytest.raises(
        DataRejectedError, match=r"1 of 12 pairs of split 'train' \(8\.3%\), expected at most 1\.0%"
    ) as error:
        pipeline.run(street_scenes)

    assert os.path.basename(broken) in str(error.value)
    assert "max_quarantined_fraction" in str(error.value)


def test_the_bound_on_bad_pairs_holds_for_each_split(tmp_path, street_scenes):
    broken = _files(f"{street_scenes}/val")[0]
    with open(broken, "wb"):
        pass

    # One of sixteen pairs, but one of four in val.
    with pytest.raises(DataRejectedError) as error:
        _Pipeline(tmp_path / "root", max_fraction=0.1).run(street_scenes)

    assert str(error.value).startswith(
        "bad pairs: found 1 of 4 pairs of split 'val' (25.0%), expected at most 10.0% of"
    )
    assert os.path.basename(broken) in str(error.value)


def _copy_pixels(source, destination):
    """Writes an image's pixels into another file that shares no byte of its data with it."""
    Image.open(source).save(destination, compress_level=1)
    with open(source, "rb") as one, open(destination, "rb") as other:
        assert one.read() != other.read()


def test_evaluation_images_in_the_training_split_stop_the_run(pipeline, street_scenes):
    train, val = (_files(f"{street_scenes}/{split}") for split in ("train", "val"))
    shutil.copy(train[0], val[0])
    _copy_pixels(train[1], val[1])

    with pytest.raises(DataRejectedError, match="2 images of split 'val' are in split 'train' too") as error:
        pipeline.run(street_scenes)

    message = str(error.value)
    for one, other in zip(train[:2], val[:2], strict=True):
        names = (os.path.splitext(os.path.basename(path))[0] for path in (one, other))
        assert "train/{} = val/{}".format(*names) in message
    listed = message.partition("All of them: ")[2].splitlines()[0]
    with open(listed) as file:
        assert len(file.readlines()) == 2


def test_the_split_of_the_gate_is_checked_too(tmp_path, street_scenes):
    judged = _Pipeline(tmp_path / "root", gate_split="test")
    with pytest.raises(DataRejectedError, match="split 'test' has no usable example"):
        judged.run(street_scenes)

    for folder in ("train", "trainannot", "traininst", "traindepth"):
        os.makedirs(f"{street_scenes}/{folder.replace('train', 'test')}")
        shutil.copy(_files(f"{street_scenes}/{folder}")[0], f"{street_scenes}/{folder.replace('train', 'test')}")

    with pytest.raises(DataRejectedError, match="1 images of split 'test' are in split 'train' too"):
        judged.run(street_scenes)
    # It was no split of the run before.
    assert _Pipeline(tmp_path / "other").run(street_scenes)["QuarantineGate"] == "ran"


def test_images_in_both_splits_are_accepted_up_to_the_setting(tmp_path, street_scenes):
    shutil.copy(_files(f"{street_scenes}/train")[0], _files(f"{street_scenes}/val")[0])
    pipeline = _Pipeline(tmp_path / "root", max_shared_images=1)

    assert pipeline.run(street_scenes)["QuarantineGate"] == "ran"
    (names,) = read_shared_images(pipeline.output("quarantine").uri)
    assert sorted(names) == ["train", "val"]


def test_more_near_duplicates_of_training_images_than_allowed_stop_the_run(tmp_path, street_scenes):
    train, val = (_files(f"{street_scenes}/{split}") for split in ("train", "val"))
    pixels = np.asarray(Image.open(train[2]).convert("RGB")).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(val[1])
    shutil.copy(train[0], val[0])  # the same pixels are counted as shared, not as similar
    pipeline = _Pipeline(tmp_path / "root", max_shared_images=1)

    assert pipeline.run(street_scenes)["QuarantineGate"] == "ran"
    similar = read_similar_images(pipeline.output("quarantine").uri)
    one, other = (os.path.splitext(os.path.basename(path))[0] for path in (train[2], val[1]))
    assert [(pair.split, pair.name, pair.other_split, pair.other_name) for pair in similar] == [
        ("train", one, "val", other),
        ("val", other, "train", one),
    ]
    assert main_figure(pipeline.execution("QuarantineGate")) == "warning: 1 near duplicates of training images"
    with pytest.raises(DataRejectedError, match="1 images of split 'val' are nearly the same") as error:
        _Pipeline(tmp_path / "strict", max_shared_images=1, max_similar_images=0).run(street_scenes)
    assert f"train/{one} ~ val/{other}" in str(error.value)
    accepting = _Pipeline(tmp_path / "other", max_shared_images=1, max_similar_images=1)
    assert accepting.run(street_scenes)["QuarantineGate"] == "ran"


def test_an_image_twice_in_one_split_does_not_stop_the_run(pipeline, street_scenes):
    images = _files(f"{street_scenes}/train")
    shutil.copy(images[0], images[1])

    assert pipeline.run(street_scenes)["QuarantineGate"] == "ran"


def test_examples_with_missing_records_are_written_again(pipeline, street_scenes):
    pipeline.run(street_scenes)
    for split in ("train", "val"):
        for path in _files(os.path.join(pipeline.output("examples").uri, f"Split-{split}")):
            os.remove(path)

    states = [pipeline.run(street_scenes), pipeline.run(street_scenes)]

    assert [run["ImageMaskExampleGen"] for run in states] == ["ran", "cached"]
    assert len(pipeline.examples("train")) == 12


def test_a_split_without_a_usable_example_stops_the_run(tmp_path, street_scenes):
    pipeline = _Pipeline(tmp_path / "root", max_fraction=1.0)
    for path in _files(f"{street_scenes}/val"):
        with open(path, "wb"):
            pass

    with pytest.raises(DataRejectedError, match="split 'val' has no usable example"):
        pipeline.run(street_scenes)


def test_a_folder_without_pairs_is_rejected_before_anything_runs(pipeline, street_scenes):
    for folder in ("trainannot", "valannot"):
        shutil.rmtree(f"{street_scenes}/{folder}")
        os.mkdir(f"{street_scenes}/{folder}")
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(f"{street_scenes}/{folder}/unrelated.png")

    with pytest.raises(DataRejectedError, match="no image with a mask"):
        pipeline.run(street_scenes)


def test_the_order_of_examples_is_the_same_in_every_run(tmp_path, street_scenes):
    orders = []
    for name in ("one", "two"):
        pipeline = _Pipeline(tmp_path / name)
        pipeline.run(street_scenes)
        orders.append(list(pipeline.examples("train")))

    assert orders[0] == orders[1]
    assert orders[0] != sorted(orders[0])


def test_issues_are_sorted_by_split_and_name(tmp_path):
    files = [("val", "a", "1"), ("train", "b", "2"), ("train", "a", "2"), ("train", "b", "1")]
    issues = [DataIssue(*place, "empty", "found", "expected", "action") for place in files]
    (tmp_path / ISSUES_FILE).write_text("".join(json.dumps(issue.to_dict()) + "\n" for issue in issues))

    assert [(issue.split, issue.name, issue.file) for issue in read_issues(str(tmp_path))] == sorted(files)


@pytest.mark.slow
def test_workers_in_several_processes_write_the_same_examples(tmp_path, street_scenes):
    with open(_files(f"{street_scenes}/train")[0], "wb"):
        pass
    alone = _Pipeline(tmp_path / "alone", max_fraction=0.5)
    apart = _Pipeline(
        tmp_path / "apart",
        max_fraction=0.5,
        beam_args=("--direct_running_mode=multi_processing", "--direct_num_workers=2"),
    )
    alone.run(street_scenes)
    apart.run(street_scenes)

    for split in ("train", "val"):
        assert apart.examples(split) == alone.examples(split)
    for read in (read_counts, read_issues, read_shared_images):
        assert read(apart.output("quarantine").uri) == read(alone.output("quarantine").uri)
