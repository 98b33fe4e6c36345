"""`segpipe watch` detects drift of images, logged requests and new data, and starts a run after it."""

import io
import json
import os
import shutil
import subprocess
import sys

import pytest
import tensorflow as tf
import yaml
from obstore.exceptions import BaseError
from obstore.store import MemoryStore
from PIL import Image
from tensorflow_serving.apis import prediction_log_pb2
from typer.testing import CliRunner
from watched_run import RUN_ID, pictures, write_data_set, write_run
from webhook_receiver import receiving

from components import features, object_store
from components.dataset.description import load
from components.errors import EXIT_DRIFTED, EXIT_NOT_BLESSED, SegpipeError, UsageError
from components.stored_folder import Manifest, copy_files, write_manifest
from pipeline.cli import kubeflow_runs
from pipeline.cli.main import app
from pipeline.kubeflow.connection import Connection
from pipeline.storage.store import Store
from pipeline.storage.workdir import CONFIG_FILE, Workdir
from pipeline.watch.check import watch
from pipeline.watch.comparison import Bounds
from pipeline.watch.reference import find_reference

_BOUNDS = Bounds(distribution=0.2, class_share=0.1)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """The work directory of a run that was trained on rather dark pictures."""
    return write_run(str(tmp_path_factory.mktemp("run")), pictures(120, brightness=0.4, seed=1))


@pytest.fixture
def look(work):
    """Returns a function from a source to the verdict on it."""

    def watch_source(source, **options):
        arguments = {"limit": 200, "at_least": 30, **options}
        reference = find_reference(Store(Workdir(work).metadata), RUN_ID, "train")
        return watch(str(source), reference, _BOUNDS, **arguments)

    return watch_source


@pytest.fixture
def work_with(work, tmp_path):
    """Returns a function from settings of the watched run's data to a copy of its work directory."""

    def copy(**data):
        copied = shutil.copytree(work, tmp_path / "work")
        with open(os.path.join(Workdir(str(copied)).run(RUN_ID), CONFIG_FILE), "w") as file:
            yaml.safe_dump({"data": {"dir": "trained_on", **data}}, file)
        return str(copied)

    return copy


@pytest.fixture
def drifted(tmp_path):
    """Images that are brighter than those of the training."""
    return str(_write_images(tmp_path / "drifted", pictures(60, brightness=0.7, seed=2)))


def _write_images(folder, images):
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        (folder / f"{number:03}.png").write_bytes(image)
    return folder


def _large(width, height):
    """Returns an image of more pixels than an exported model takes."""
    data = io.BytesIO()
    Image.new("RGB", (width, height)).save(data, "PNG")
    return data.getvalue()


def _write_log(path, images, compression="", model="fcn8"):
    with tf.io.TFRecordWriter(str(path), tf.io.TFRecordOptions(compression_type=compression)) as writer:
        for image in images:
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.model_spec.name = model
            tensor = log.predict_log.request.inputs[features.IMAGE]
            tensor.CopyFrom(tf.make_tensor_proto([image]))
            writer.write(log.SerializeToString())
        writer.write(prediction_log_pb2.PredictionLog(session_run_log={}).SerializeToString())
    return path


def test_help_imports_no_heavy_package():
    program = (
        "import sys, pipeline.cli.main as m\nsys.argv = ['segpipe', 'watch', '--help']\n"
        "try:\n    m.main()\nexcept SystemExit as e:\n    assert not e.code\n"
        "sys.exit(' '.join({'tensorflow', 'tensorflow_data_validation', 'kfp', 'numpy'} & set(sys.modules)) or 0)\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_images_like_the_training_images_are_not_drift(look, tmp_path):
    verdict = look(_write_images(tmp_path / "asked", pictures(60, brightness=0.4, seed=2)))

    assert (verdict.kind, verdict.images, verdict.run_id) == ("images", 60, RUN_ID)
    assert verdict.drifted == []
    compared = {finding.feature for finding in verdict.findings}
    assert compared == {
        "height",
        "width",
        "brightness",
        "contrast",
        "class_share/dark",
        "class_share/bright",
        "pixels by class",
    }


@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_brighter_requests_drift_in_brightness_and_in_predicted_classes(look, tmp_path, compression):
    name = "requests.tfrecord.gz" if compression else "requests.tfrecord"
    verdict = look(_write_log(tmp_path / name, pictures(60, brightness=0.6, seed=3), compression))

    assert (verdict.kind, verdict.images) == ("requests", 60)
    drifted = {finding.feature: finding for finding in verdict.drifted}
    assert {"brightness", "class_share/bright", "pixels by class"} <= set(drifted)
    assert "height" not in drifted
    assert drifted["brightness"].before == pytest.approx(0.4, abs=0.05)
    assert drifted["brightness"].now == pytest.approx(0.6, abs=0.05)
    share = drifted["class_share/bright"]
    assert drifted["pixels by class"].distance == pytest.approx(share.now - share.before, abs=1e-4)


def test_other_sizes_drift(look, tmp_path):
    folder = tmp_path / "asked"
    _write_images(folder, pictures(60, brightness=0.4, seed=2))
    from PIL import Image

    for path in folder.iterdir():
        Image.open(path).resize((32, 16)).save(path)

    sizes = {finding.feature: finding.distance for finding in look(folder).findings}

    assert sizes["height"] == 0
    assert sizes["width"] == 1


def test_new_data_is_compared_by_its_own_masks(look, tmp_path):
    same = write_data_set(str(tmp_path / "same"), pictures(60, brightness=0.4, seed=4))
    other = write_data_set(str(tmp_path / "other"), pictures(60, brightness=0.6, seed=4))

    assert look(same).drifted == []
    verdict = look(other)
    assert verdict.kind == "data"
    assert "class_share/bright" in {finding.feature for finding in verdict.drifted}


def test_the_newest_requests_are_taken_and_broken_ones_counted(look, tmp_path):
    folder = _write_images(tmp_path / "asked", pictures(40, brightness=0.9, seed=5))
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    sound = pictures(40, brightness=0.4, seed=6)
    _write_images(tmp_path / "asked" / "new", [*sound, b"no image", sound[0][:-12], _large(5000, 4000)])

    verdict = look(folder, limit=43)

    assert (verdict.images, verdict.unreadable) == (40, 3)
    assert verdict.drifted == []


@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_a_log_that_is_still_being_written_is_read_up_to_its_last_whole_record(look, tmp_path, compression):
    log = _write_log(tmp_path / f"log{'.gz' if compression else ''}", pictures(41, brightness=0.4, seed=6), compression)
    # The log ends with a short record without an image: this cuts into the last image.
    log.write_bytes(log.read_bytes()[:-100])

    assert look(log).images == 40


def test_a_log_with_a_wrong_checksum_is_refused(look, tmp_path):
    log = _write_log(tmp_path / "log", pictures(41, brightness=0.4, seed=6))
    log.write_bytes(log.read_bytes()[:-100] + bytes(100))

    with pytest.raises(UsageError, match="expected a TFRecord file of PredictionLog"):
        look(log)


def test_the_newest_logs_are_read_first_until_there_are_enough_images(look, tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "old").write_text("a text that is longer than the header of a record")
    os.utime(folder / "old", (1, 1))
    bright, dark = (pictures(30, brightness=brightness, seed=6) for brightness in (0.9, 0.4))
    _write_log(folder / "new", [*bright, *dark])

    verdict = look(folder, limit=30)

    brightness = next(finding.now for finding in verdict.findings if finding.feature == "brightness")
    assert (verdict.images, brightness) == (30, pytest.approx(0.4, abs=0.05))


def test_requests_for_another_model_of_the_server_do_not_count(tmp_path, look):
    _write_log(tmp_path / "own", pictures(40, brightness=0.4, seed=6))
    _write_log(tmp_path / "other", pictures(40, brightness=0.9, seed=7), model="yard")

    verdict = look(tmp_path)

    assert (verdict.images, verdict.drifted) == (40, [])
    with pytest.raises(UsageError, match="PredictionLog with requests for model fcn8"):
        look(tmp_path / "other")


def test_a_request_in_a_format_that_the_model_does_not_read_is_counted(look, tmp_path):
    tiff = io.BytesIO()
    Image.open(io.BytesIO(pictures(1, brightness=0.4, seed=6)[0])).save(tiff, "TIFF")

    verdict = look(_write_log(tmp_path / "requests.tfrecord", [tiff.getvalue(), *pictures(40, brightness=0.4, seed=6)]))

    assert (verdict.images, verdict.unreadable) == (40, 1)


def test_too_few_images_give_no_verdict(look, tmp_path):
    verdict = look(_write_images(tmp_path / "asked", pictures(5, brightness=0.9, seed=7)))

    assert verdict.findings == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "found no images"),
        ("", "found no images"),
        ("a text that is longer than the header of a record", "expected a TFRecord file of PredictionLog"),
    ],
)
def test_a_source_without_images_is_explained(look, tmp_path, content, message):
    if content is not None:
        (tmp_path / "requests").write_text(content)

    with pytest.raises(UsageError, match=message):
        look(tmp_path / "requests")


def test_requests_for_another_model_are_not_read(look, tmp_path):
    with pytest.raises(UsageError, match="found no images"):
        look(_write_log(tmp_path / "requests.tfrecord", []))


def test_other_classes_are_refused(look, tmp_path):
    folder = write_data_set(str(tmp_path / "data"), pictures(40, brightness=0.4, seed=4))
    description = tmp_path / "data" / "segpipe.yaml"
    description.write_text(description.read_text().replace("dark", "night"))

    with pytest.raises(UsageError, match="night, bright; expected the model's, dark, bright"):
        look(folder)


def test_a_wrong_description_is_refused(look, tmp_path):
    write_data_set(str(tmp_path / "data"), pictures(40, brightness=0.4, seed=4))
    description = tmp_path / "data" / "segpipe.yaml"
    description.write_text(description.read_text().replace("masks:", "mask:"))

    with pytest.raises(UsageError, match=r"data/segpipe.yaml: .*mask"):
        look(tmp_path / "data")


@pytest.fixture
def described_apart(tmp_path):
    """A data set that no built-in description fits, and its description in another folder."""
    folder = write_data_set(str(tmp_path / "data"), pictures(60, brightness=0.4, seed=4))
    return folder, shutil.move(os.path.join(folder, "segpipe.yaml"), tmp_path / "my.yaml")


def test_new_data_is_read_with_the_description_of_the_watched_run(described_apart, work_with):
    folder, description = described_apart

    calm = CliRunner().invoke(app, ["watch", folder, "--out", work_with(description=str(description)), "--json"])

    assert calm.exit_code == 0, calm.output
    assert json.loads(calm.stdout)["kind"] == "data"


def test_new_data_may_have_the_sizes_of_the_watched_run(described_apart, work_with, tmp_path):
    folder, description = described_apart
    (tmp_path / "settings.yaml").write_text("export: {max_pixels: 100}")
    options = ["--out", work_with(description=str(description)), "--config", str(tmp_path / "settings.yaml"), "--json"]

    verdict = json.loads(CliRunner().invoke(app, ["watch", folder, *options]).stdout)

    assert (verdict["kind"], verdict["images"]) == ("data", 0)
    assert verdict["unreadable"] > 0


def test_images_without_masks_are_not_data_despite_a_description(look, described_apart, tmp_path):
    asked = _write_images(tmp_path / "asked", pictures(60, brightness=0.4, seed=2))

    assert look(asked, description=load(str(described_apart[1]))).kind == "images"


def test_the_split_is_that_of_the_watched_run(work_with, drifted, tmp_path):
    work = work_with(train_split="learn")
    (tmp_path / "settings.yaml").write_text("data: {train_split: train}\n")

    missing = CliRunner().invoke(app, ["watch", drifted, "--out", work])
    named = CliRunner().invoke(app, ["watch", drifted, "--out", work, "--config", str(tmp_path / "settings.yaml")])

    assert isinstance(missing.exception, UsageError)
    assert "Split-learn" in str(missing.exception)
    assert "data.train_split" in str(missing.exception)
    assert named.exit_code == EXIT_DRIFTED, named.output


def test_the_exit_code_depends_on_drift(work, tmp_path):
    same = _write_images(tmp_path / "same", pictures(60, brightness=0.4, seed=2))
    other = _write_images(tmp_path / "other", pictures(60, brightness=0.7, seed=2))

    calm = CliRunner().invoke(app, ["watch", str(same), "--out", work])
    drifted = CliRunner().invoke(app, ["watch", str(other), "--out", work, "--json"])

    assert calm.exit_code == 0, calm.output
    assert "No drift" in calm.output
    assert drifted.exit_code == EXIT_DRIFTED
    assert json.loads(drifted.stdout)["drifted"] is True


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """The address of a store that TensorFlow cannot read."""
    store = MemoryStore()
    monkeypatch.setattr(object_store, "_open", lambda address: store)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return "s3://bucket"


def test_root_and_images_may_be_on_an_object_store(bucket, tmp_path):
    def publish(folder):
        address = folder.replace(str(tmp_path), bucket)
        write_manifest(address, Manifest(files=copy_files(folder, address)))
        shutil.rmtree(folder)
        return address

    out = write_run(str(tmp_path), pictures(60, brightness=0.4, seed=1), publish)
    copy_files(str(_write_images(tmp_path / "asked", pictures(60, brightness=0.7, seed=2))), f"{bucket}/asked")

    watched = CliRunner().invoke(app, ["watch", f"{bucket}/asked", "--out", out, "--json"])

    assert watched.exit_code == EXIT_DRIFTED, watched.output
    verdict = json.loads(watched.stdout)
    assert (verdict["kind"], verdict["images"]) == ("images", 60)
    assert "brightness" in {each["feature"] for each in verdict["findings"] if each["drifted"]}


@pytest.mark.parametrize("source", ["logs", "logs/new.gz"])
def test_logged_requests_may_be_on_an_object_store(look, bucket, tmp_path, source):
    for name, brightness in (("old.gz", 0.9), ("new.gz", 0.4)):
        (tmp_path / name).mkdir()
        _write_log(tmp_path / name / name, pictures(40, brightness=brightness, seed=6), "GZIP")
        copy_files(str(tmp_path / name), f"{bucket}/logs")

    verdict = look(f"{bucket}/{source}", limit=40)

    assert (verdict.kind, verdict.images, verdict.drifted) == ("requests", 40, [])
    assert list(tmp_path.glob("segpipe-*")) == []


def test_a_store_that_cannot_be_read_is_named(look, bucket, monkeypatch):
    def fail(address):
        raise BaseError("no credentials")

    monkeypatch.setattr(object_store, "_open", fail)

    with pytest.raises(SegpipeError, match="s3://bucket/asked.*: no credentials"):
        look(f"{bucket}/asked")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--limit", "50"], "--limit 50: found fewer images than --at-least 60"),
        (["--then-run", "--param", "epochs=3"], "--param epochs=3: found it without --host"),
        (["--host", "http://kubeflow"], "--host: found it without --then-run"),
        (["--data", "street"], "--data: found it without --then-run"),
    ],
)
def test_an_option_without_effect_is_refused(work, drifted, options, message):
    refused = CliRunner().invoke(app, ["watch", drifted, "--out", work, *options])

    assert isinstance(refused.exception, UsageError), refused.output
    assert message in str(refused.exception)


def test_the_largest_allowed_number_of_pairs_is_read(look, tmp_path):
    folder = tmp_path / "street"
    write_data_set(str(folder), pictures(41, brightness=0.4, seed=4))

    assert look(folder, limit=40).images == 40


def test_drift_starts_a_run_with_the_settings_of_the_watched_one(work, tmp_path):
    other = _write_images(tmp_path / "other", pictures(60, brightness=0.7, seed=2))

    started = CliRunner().invoke(app, ["watch", str(other), "--out", work, "--then-run"])

    # The started run fails, because the data of the watched run no longer exists.
    assert isinstance(started.exception, UsageError)
    assert "trained_on" in str(started.exception)


def test_drift_is_sent_to_the_webhook(work, drifted, monkeypatch):
    with receiving() as receiver:
        monkeypatch.setenv("SEGPIPE_WEBHOOK_URL", receiver.address)

        assert CliRunner().invoke(app, ["watch", drifted, "--out", work]).exit_code == EXIT_DRIFTED

    (body,) = receiver.bodies
    assert (body["event"], body["run_id"]) == ("drifted", RUN_ID)
    assert "brightness" in body["reason"]
    assert body["links"] == {"source": drifted}


@pytest.fixture
def started(monkeypatch):
    """The configurations of the runs that were started; their model is blessed unless `started.blessed` is False."""

    class Runs(list):
        blessed = True

    runs = Runs()

    def run_pipeline(config, out, wait):
        runs.append(config)
        return runs.blessed

    monkeypatch.setattr("pipeline.running.run.run_pipeline", run_pipeline)
    return runs


@pytest.mark.parametrize(("blessed", "code"), [(True, 0), (False, EXIT_NOT_BLESSED)])
def test_a_run_that_drift_started_takes_the_newest_span(work_with, drifted, started, tmp_path, blessed, code):
    for span in ("2", "10"):
        (tmp_path / f"street-{span}").mkdir()
    started.blessed = blessed
    options = ["--then-run", "--data", str(tmp_path / "street-{span}"), "--out", work_with(span="2", eval_split="test")]

    ended = CliRunner().invoke(app, ["watch", drifted, *options])

    assert ended.exit_code == code, ended.output
    (config,) = started
    assert config.data.dir == str(tmp_path / "street-10")
    assert config.data.eval_split == "test"


@pytest.mark.parametrize(
    ("settings", "found"),
    [("dir: 'street-{span}'", "street-10"), ("{dir: 'street-{span}', span: '2'}", "street-2")],
)
def test_a_file_may_set_the_span(work_with, drifted, started, tmp_path, monkeypatch, settings, found):
    monkeypatch.chdir(tmp_path)
    for span in ("2", "10"):
        (tmp_path / f"street-{span}").mkdir()
    (tmp_path / "settings.yaml").write_text(f"data:\n  {settings}\n")

    CliRunner().invoke(app, ["watch", drifted, "--out", work_with(), "--then-run", "--config", "settings.yaml"])

    assert [config.data.dir for config in started] == [str(tmp_path / found)]


def test_data_on_an_object_store_keeps_its_address(work_with, drifted, started):
    CliRunner().invoke(app, ["watch", drifted, "--out", work_with(), "--then-run", "--data", "gs://bucket/street-2"])

    assert [config.data.dir for config in started] == ["gs://bucket/street-2"]


@pytest.mark.parametrize(
    ("source", "options", "data"),
    [
        ("drifted", [], []),
        ("drifted", ["--data", "/data/street-{span}"], ["data=/data/street-{span}"]),
        ("street", [], ["data={folder}/street"]),
        ("street", ["--param", "data=/data/street-{span}"], ["data=/data/street-{span}"]),
    ],
)
def test_drift_submits_a_run_to_a_server(work, drifted, tmp_path, monkeypatch, source, options, data):
    write_data_set(str(tmp_path / "street"), pictures(60, brightness=0.7, seed=4))
    submitted = []
    monkeypatch.setattr(kubeflow_runs, "start_run", lambda *words, no_overlap: submitted.append((*words, no_overlap)))
    monkeypatch.chdir(tmp_path)
    server = ["--then-run", "--host", "http://kubeflow", "--param", "epochs=3"]

    ended = CliRunner().invoke(app, ["watch", source, "--out", work, *server, *options])

    assert ended.exit_code == 0, ended.output
    assert submitted == [
        (
            Connection("http://kubeflow"),
            "pipeline.yaml",
            ["epochs=3", *(one.format(folder=tmp_path, span="{span}") for one in data)],
            True,
        )
    ]
