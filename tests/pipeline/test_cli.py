"""The commands that need no TensorFlow: help, messages, exit codes, data commands."""

import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from pipeline.cli.run import build_config
from pipeline.configuration.loading import load_config
from pipeline.configuration.presets import PRESETS, preset


def _segpipe(*words, cwd=None):
    command = [sys.executable, "-m", "pipeline.cli.main", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("run",),
        ("config",),
        ("evaluate",),
        ("predict",),
        ("runs",),
        ("show",),
        ("compare",),
        ("doctor",),
        ("data",),
        ("data", "make"),
        ("data", "import"),
        ("release", "canary"),
    ],
    ids=lambda words: " ".join(words) or "top",
)
def test_help_imports_no_heavy_package(words):
    program = (
        "import sys, pipeline.cli.main as m\n"
        f"sys.argv = ['segpipe', *{words!r}, '--help']\n"
        "try:\n    m.main()\nexcept SystemExit as e:\n    assert not e.code\n"
        "heavy = {'tensorflow', 'tfx', 'apache_beam', 'keras', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_help_wraps_paragraphs_at_the_terminals_width():
    printed = subprocess.run(
        [sys.executable, "-m", "pipeline.cli.main", "release", "withdraw", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "400"},
    ).stdout

    (line,) = (line for line in printed.splitlines() if "Its files stay." in line)
    assert line.rstrip().endswith("from the record of releases beside the versions.")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "--data", "absent"), "--data absent: found nothing"),
        (("run", "--data", ".", "--set", "training.epoch=1"), "did you mean training.epochs?"),
        (("run", "--data", ".", "--preset", "quick"), "smoke, cpu, cpu-long, gpu, source, pets"),
        (("run", "--data", ".", "--preset", "pets"), "expected one of unet with --preset pets. Add --model unet"),
        (
            ("run", "--data", ".", "--preset", "cpu-long", "--model", "mask_rcnn"),
            "with --preset cpu-long. Add --model fcn8, or choose a preset with mask_rcnn: smoke, cpu, gpu",
        ),
        (("run", "--data", ".", "--size", "10"), "HEIGHTxWIDTH"),
        (("serve", "--model_base_path", "models [v2]"), "--model_base_path: found"),
        (("evaluate", "--model", "absent", "--data", "."), "expected an exported model"),
        (("predict", "--model", "absent", "nothing.png"), "nothing.png: found nothing"),
        (("runs", "--out", "absent"), "segpipe run --data DIR"),
        (("data", "check", "absent"), "absent"),
        (("data", "check", "absent", "--report", "."), "--report: found the folder ."),
        (("data", "make", "out", "--size", "abc"), "--size: expected HEIGHTxWIDTH"),
        (("predict", "image.png", "--server", "h:1", "--out", "image.png"), "--out: found image.png (file exists)"),
        (("kubeflow", "compile", "--out", "image.png/p.yaml"), "image.png (file exists)"),
        (("kubeflow", "training-job", "--data", "d", "--out", "image.png/p.yaml"), "image.png (file exists)"),
        (("kubeflow", "training-job", "--data", "d", "--out", "."), "--out: found the folder ."),
        (("kubeflow", "compile", "--out", "gs://b/p.yaml"), "--out: found gs://b/p.yaml, expected a local file"),
        (("data", "fetch", "out", "--address", "mirror.example/CamVid"), "begins with https or http or file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_usage_error_is_explained_without_a_traceback(words, message, tmp_path):
    (tmp_path / "image.png").touch()

    done = _segpipe(*words, cwd=tmp_path)

    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("content", [b"", b"half a database"])
def test_metadata_of_a_run_that_was_killed_at_once_is_named(tmp_path, content):
    (tmp_path / "metadata.sqlite").write_bytes(content)

    done = _segpipe("runs", "--out", str(tmp_path))

    assert done.returncode == 1
    assert f"{tmp_path}/metadata.sqlite: the metadata store is damaged or incomplete" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_data_make_writes_a_data_set_without_issues(tmp_path):
    folder = str(tmp_path / "scenes")
    made = _segpipe("data", "make", folder, "--train", "4", "--val", "2", "--size", "48x64")
    checked = _segpipe("data", "check", folder, "--json")

    assert made.returncode == 0, made.stderr
    assert checked.returncode == 0, checked.stderr
    report = json.loads(checked.stdout)
    assert {name: split["pairs"] for name, split in report["splits"].items()} == {"train": 4, "val": 2}


def test_data_check_lists_every_issue_and_exits_with_4(street_scenes):
    broken = os.path.join(street_scenes, "train", min(os.listdir(f"{street_scenes}/train")))
    with open(broken, "wb"):
        pass

    done = _segpipe("data", "check", street_scenes)

    assert done.returncode == 4
    assert os.path.basename(broken) in done.stdout
    assert "empty" in done.stdout


def test_data_check_writes_a_page_of_data_with_issues_beside_the_json(street_scenes, tmp_path):
    broken = os.path.join(street_scenes, "train", min(os.listdir(f"{street_scenes}/train")))
    with open(broken, "wb"):
        pass
    page = tmp_path / "new folder" / "page.html"

    done = _segpipe("data", "check", street_scenes, "--json", "--report", str(page))

    assert done.returncode == 4, done.stderr
    assert [issue["reason"] for issue in json.loads(done.stdout)["issues"]] == ["empty"]
    assert f"report in {page}" in done.stderr
    assert os.path.basename(broken) in page.read_text(encoding="utf-8")


def test_data_check_has_the_limits_of_a_run(street_scenes):
    small, allowed = (_segpipe("data", "check", street_scenes, *limit) for limit in (("--max-pixels", "100"), ()))

    assert (small.returncode, allowed.returncode) == (4, 0)
    assert "raise data.max_side or export.max_pixels" in small.stdout


@pytest.fixture
def labelled_frames(tmp_path):
    """Three images with labelme's files, one of them broken, in a folder whose name has a space."""
    source = tmp_path / "my frames"
    source.mkdir()
    square = {"label": "car", "points": [[1, 1], [9, 9]], "shape_type": "rectangle"}
    for name in "abc":
        Image.new("RGB", (16, 16)).save(source / f"{name}.png")
        (source / f"{name}.json").write_text(json.dumps({"shapes": [square], "imagePath": f"{name}.png"}))
    (source / "c.json").write_text("{")
    return source


def test_data_import_writes_valid_pairs_and_lists_the_others(labelled_frames, tmp_path):
    folder = str(tmp_path / "out [1]")
    words = ("data", "import", "--format", "labelme", str(labelled_frames), folder)
    broken = _segpipe(*words)

    assert broken.returncode == 4, broken.stderr
    assert f"2 pairs in {folder}: 1 train, 1 val; 2 classes" in broken.stdout
    assert f"left out {labelled_frames}/c.json: found invalid JSON" in broken.stdout
    assert "note val was chosen image by image" in broken.stdout

    # The advice that the next call gives: delete the folder.
    again = _segpipe(*words)
    assert again.returncode == 2
    assert "found files; expected a new or empty folder. Delete it" in " ".join(again.stderr.split())
    shutil.rmtree(folder)
    (labelled_frames / "c.json").unlink()
    assert "--class: found 'bus'; expected one of car" in " ".join(_segpipe(*words, "--class", "bus").stderr.split())
    done = _segpipe(*words, "--link", "--sequence", "(.)")
    assert done.returncode == 0, done.stderr
    assert "note" not in done.stdout
    assert all(image.is_symlink() for image in pathlib.Path(folder).rglob("images/*"))
    assert "sequence: (.)" in pathlib.Path(folder, "segpipe.yaml").read_text()

    # The advice at the end: check the folder.
    (advice,) = [line for line in broken.stdout.splitlines() if line.startswith("Check it with: ")]
    checked = _segpipe(*shlex.split(advice.removeprefix("Check it with: segpipe ")), "--json")
    assert checked.returncode == 0, checked.stderr
    assert {name: split["pairs"] for name, split in json.loads(checked.stdout)["splits"].items()} == {
        "train": 1,
        "val": 1,
    }


def test_data_import_names_the_formats_it_knows(tmp_path):
    done = _segpipe("data", "import", "--format", "COCO", str(tmp_path), "out")

    assert done.returncode == 2
    assert "--format: found 'COCO'; expected one of coco, voc, yolo" in " ".join(done.stderr.split())


def test_data_check_prints_names_and_bytes_with_brackets_as_they_are(tmp_path):
    folder = tmp_path / "street[1]"
    for kind in ("frames[left]", "masks"):
        (folder / "train" / kind).mkdir(parents=True)
        (folder / "train" / kind / "001.png").write_bytes(b"[/x] is no image")
    (folder / "segpipe.yaml").write_text(
        "name: 'scenes [old]'\n"
        "classes: [{name: 'road[wet]', color: [1, 1, 1]}, {name: other, color: [2, 2, 2]}]\n"
        "layout: {images: '{split}/frames[left]/{name}', masks: '{split}/masks/{name}.png'}\n"
        "splits: {train: train}\n"
    )

    done = _segpipe("data", "check", str(folder))

    assert done.returncode == 4, done.stderr
    assert f"{folder}: layout scenes [old]" in done.stdout
    assert "undecodable train/frames[left]/001.png: found a file that starts with b'[/x] is " in done.stdout
    assert "road[wet]" in done.stdout


def test_data_check_prints_long_names_of_sequences_whole(street_scenes, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    names = [f"{city}-by-night" for city in ("hamburg", "bremen", "stuttgart", "cologne")]
    for folder in pathlib.Path(street_scenes).glob("train*"):
        for index, file in enumerate(sorted(folder.iterdir())):
            file.rename(file.with_name(f"{names[index % len(names)]}_{index}.png"))

    done = _segpipe("data", "check", street_scenes)

    assert done.returncode == 0, done.stderr
    assert all(f"{name} (3)" in done.stdout for name in names), done.stdout


def test_a_preset_s_bounds_on_absent_classes_are_dropped(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    (tmp_path / "segpipe.yaml").write_text(
        "classes: [{name: cat, color: [1, 1, 1]}, {name: pedestrian, color: [2, 2, 2]}]\n"
        "layout: {images: 'images/{name}', masks: 'masks/{name}.png'}\n"
        "split_by_sequence: {val: 0.5}\n"
    )

    config = build_config(str(tmp_path), "fcn8", "cpu", None, None, None, [])
    explicit = build_config(str(tmp_path), "fcn8", "cpu", None, None, None, ["gate.min_class_iou={dog: 0.5}"])

    assert set(config.gate.min_class_iou) == {"pedestrian"}
    assert explicit.gate.min_class_iou == {"dog": 0.5}


@pytest.mark.parametrize(("name", "model"), [("cpu", "unet"), *(("source", model) for model in PRESETS["source"])])
def test_config_lists_every_setting_as_json_that_run_accepts(name, model):
    done = _segpipe("config", "--preset", name, "--model", model, "--json")

    settings = json.loads(done.stdout)
    assert load_config([("config", settings)]) == load_config([("preset", preset(name, model))])


def test_config_lists_the_settings_of_a_file_and_of_options(tmp_path):
    (tmp_path / "own.yaml").write_text("model: {name: unet}\ntraining: {epochs: 7, batch_size: 3}\n")

    done = _segpipe("config", "--config", str(tmp_path / "own.yaml"), "--set", "training.batch_size=5", "--json")

    settings = json.loads(done.stdout)
    assert settings["model"]["name"] == "unet"
    assert (settings["training"]["epochs"], settings["training"]["batch_size"]) == (7, 5)
