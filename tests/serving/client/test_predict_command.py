"""`segpipe predict --server` on images and folders: files, messages, exit codes, and resuming."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from toy_servicer import CLASS_MAP, picture


def _predict(*words):
    command = [sys.executable, "-m", "pipeline.cli.main", "predict", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def images(tmp_path):
    """A folder of three images."""
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(3):
        (folder / f"{index}.png").write_bytes(picture(200 + index, (20, 30 + index)))
    return folder


def test_a_folder_becomes_pictures_and_a_table(server, images, tmp_path):
    out = tmp_path / "out"

    done = _predict("--server", server, "--model-name", "toy", "--out", out, images)

    assert done.returncode == 0, done.stderr
    kinds = ("mask", "color", "overlay")
    assert {path.name for path in out.iterdir()} == {f"{index}_{kind}.png" for index in range(3) for kind in kinds}
    mask = np.asarray(Image.open(out / "1_mask.png"))
    assert (mask.shape, mask.dtype, set(np.unique(mask))) == ((20, 31), np.uint8, {0, 1})
    assert np.asarray(Image.open(out / "1_color.png"))[0, 0].tolist() == list(CLASS_MAP.colors[1])
    assert "3 images written" in done.stdout
    assert "toy version 3, mean confidence 0.750" in done.stdout
    row = next(line.split() for line in done.stdout.splitlines() if line.strip().startswith("void"))
    assert row == ["void", "0.00%", "0"]


def test_boxes_are_drawn_and_written_for_chosen_classes(server, images, tmp_path):
    out = tmp_path / "out"
    words = ("--server", server, "--model-name", "toy", "--out", out, images)
    _predict(*words)

    done = _predict(*words, "--boxes", "road", "--boxes", "void", "--json")

    assert done.returncode == 0, done.stderr
    mask = np.asarray(Image.open(out / "1_mask.png")) == CLASS_MAP.index("road")
    (rows,), (columns,) = mask.any(axis=1).nonzero(), mask.any(axis=0).nonzero()
    box = [int(edge) for edge in (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1)]
    expected = [{"class": "road", "box": box, "pixels": int(mask.sum()), "fill": 1.0}]
    assert json.loads((out / "1_boxes.json").read_text()) == expected
    assert json.loads(done.stdout)["images"][1]["boxes"] == expected
    drawn = np.asarray(Image.open(out / "1_boxes.png"))
    assert drawn.shape == (20, 31, 3)
    assert drawn[box[2] - 1, box[3] - 1].tolist() == list(CLASS_MAP.colors[CLASS_MAP.index("road")])


def test_tiff_bmp_and_webp_images_are_sent_as_png_and_what_cannot_be_converted_is_refused(server, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    image = Image.open(io.BytesIO(picture(200, (20, 30))))
    for name in ("a.tif", "b.bmp", "c.WEBP"):
        image.save(folder / name)
    image.convert("CMYK").save(folder / "cmyk.tiff")

    done = _predict("--server", server, "--model-name", "toy", "--out", tmp_path / "out", folder)

    assert done.returncode == 1
    assert "3 images written" in done.stdout
    assert {path.name[0] for path in (tmp_path / "out").iterdir()} == {"a", "b", "c"}
    assert np.asarray(Image.open(tmp_path / "out" / "a_mask.png")).shape == (20, 30)
    assert "cmyk.tiff: found a CMYK TIFF, expected" in done.stdout + done.stderr
    assert "Convert it to RGB" in done.stdout + done.stderr


def test_a_second_run_asks_only_for_what_is_new_or_changed(server, toy, images, tmp_path):
    words = ("--server", server, "--model-name", "toy", "--out", tmp_path / "out", images)
    first = _predict(*words)
    (images / "0.png").write_bytes(picture(90))
    (images / "new.png").write_bytes(picture(90))
    (tmp_path / "out" / "1_color.png").unlink()
    second = _predict(*words)
    toy.versions[4] = CLASS_MAP
    third = _predict(*words)

    assert [done.returncode for done in (first, second, third)] == [0, 0, 0]
    assert toy.batches == [3, 3, 4]
    assert "4 images written" in second.stdout
    assert "1 of them there already" in second.stdout
    assert "toy version 4," in third.stdout


def test_a_corrupt_image_is_named_and_the_others_are_written(server, images, tmp_path):
    (images / "bad.png").write_bytes(b"no image")

    done = _predict("--server", server, "--model-name", "toy", "--out", tmp_path / "out", images, "--json")

    assert done.returncode == 1
    report = {each["path"].rsplit("/", 1)[1]: each for each in json.loads(done.stdout)["images"]}
    assert list(report) == ["0.png", "1.png", "2.png", "bad.png"]
    assert "truncated" in report["bad.png"]["refused"]
    assert report["2.png"]["class_share"] == pytest.approx({"sky": 0.5, "road": 0.5, "void": 0.0})
    assert report["2.png"]["version"] == 3


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 2, "found neither, expected one of them"),
        (("--model", "m", "--server", "localhost:1"), 2, "found both, expected one of them"),
        (("--server", "localhost:1"), 1, "server localhost:1: found UNAVAILABLE"),
        (("--server", "SERVER", "--model-name", "fcn8"), 2, "expected model fcn8"),
        (("--server", "SERVER"), 2, "TensorFlow Serving has no call for that. Expected --model-name NAME"),
        (("--server", "SERVER", "--model-name", "toy", "--boxes", "tram"), 2, "--boxes: found tram, expected a class"),
        (("--server", "SERVER", "--version", "1", "--label", "stable"), 2, "found version 1 and label stable"),
        (("--server", "SERVER", "--tls-ca", "absent.pem"), 2, "TLS: absent.pem: found No such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_has_a_message_and_an_exit_code(server, images, tmp_path, words, code, message):
    words = [server if word == "SERVER" else word for word in words]

    done = _predict(*words, "--out", tmp_path / "out", images)

    assert done.returncode == code
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_inputs_of_the_same_name_do_not_overwrite_each_other(server, tmp_path):
    from test_video import make_clip  # imports PyAV

    for day, light in (("day1", 90), ("day2", 250)):
        folder = tmp_path / day / "front"
        folder.mkdir(parents=True)
        (folder / "0001.png").write_bytes(picture(light))
        make_clip(folder / "drive.mp4", frames=2)
    make_clip(tmp_path / "day2" / "front" / "drive.mov", frames=2)
    folders = [tmp_path / day / "front" for day in ("day1", "day2")]
    clips = [folders[0] / "drive.mp4", folders[1] / "drive.mp4", folders[1] / "drive.mov"]

    done = _predict("--server", server, "--model-name", "toy", "--out", tmp_path / "out", *folders, *clips)

    assert done.returncode == 0, done.stderr
    images = [f"{day}_front_0001_png_{kind}.png" for day in ("day1", "day2") for kind in ("mask", "color", "overlay")]
    names = ["day1_front_drive_mp4", "day2_front_drive_mp4", "front_drive_mov"]
    videos = [f"{name}_{kind}" for name in names for kind in ("overlay.mp4", "legend.png")]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*images, *videos}
    masks = [np.asarray(Image.open(tmp_path / "out" / f"{day}_front_0001_png_mask.png")) for day in ("day1", "day2")]
    assert [mask[0, -1] for mask in masks] == [1, 0]


def test_a_clip_becomes_a_clip(server, tmp_path):
    from test_video import make_clip  # imports PyAV

    clip = make_clip(tmp_path / "drive{1}[red].mp4", frames=5)

    done = _predict("--server", server, "--model-name", "toy", "--out", tmp_path / "out", clip)

    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "drive{1}[red]_overlay.mp4",
        "drive{1}[red]_legend.png",
    }
    assert "5 frames at" in done.stdout
    assert "toy version 3" in done.stdout
