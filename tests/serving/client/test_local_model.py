"""A model in this process answers as a served one does."""

import os
import zlib

import numpy as np
import pytest
from test_video import make_clip
from tiny_export import export_tiny
from toy_servicer import CLASS_MAP, picture
from typer.testing import CliRunner

from pipeline.cli.main import app
from serving import pictures
from serving.client import Refused
from serving.local import LocalModel
from serving.pictures import write_pictures
from serving.predictor import Predictor
from serving.video import overlay_video


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return LocalModel(Predictor(export_tiny(tmp_path_factory.mktemp("tiny"))))


def test_answers_are_typed_and_a_corrupt_image_does_not_affect_others(model):
    whole = picture(250, (200, 300))
    images = {
        "a": picture(250, (20, 30)),
        "broken": b"no image",
        "cut": whole[: len(whole) // 2],
        "endless": whole[:-12],
        "checksum": whole[:-20] + bytes(4) + whole[-16:],
        # A chunk before the end that is too short for its type.
        "chunk": whole[:33] + b"\0\0\0\1pHYs\0" + zlib.crc32(b"pHYs\0").to_bytes(4, "big") + whole[33:],
        "b": picture(250),
    }

    answers = dict(model.segment_all(images.items()))

    assert list(answers) == list(images)
    assert "a file that starts with b'no image'" in answers["broken"].reason
    assert all(isinstance(answers[name], Refused) for name in ("cut", "endless", "checksum"))
    assert "Truncated pHYs chunk" in answers["chunk"].reason
    assert (answers["a"].class_map.shape, answers["a"].class_map.dtype) == ((20, 30), np.uint8)
    assert answers["b"].class_share == pytest.approx({"sky": 0.5, "road": 0.5, "void": 0.0})
    assert (answers["b"].model, answers["b"].version, answers["b"].legend) == ("tiny", 7, CLASS_MAP)


def test_an_image_over_the_pixel_limit_is_named_and_the_others_are_answered(model):
    images = {
        "small": picture(250, (20, 30)),
        "large": picture(250, (400, 300), "JPEG"),
        "most": picture(9, (400, 250)),
    }

    answers = dict(model.segment_all(images.items()))

    assert answers["large"] == Refused("found 300x400 pixels, expected at most 100000 pixels in all")
    assert [answers[name].class_map.shape for name in ("small", "most")] == [(20, 30), (400, 250)]


def test_the_description_is_the_model_s(model):
    description = model.describe()

    assert (description.model, description.version, description.input_size) == ("tiny", 7, (24, 32))
    assert description.class_map == CLASS_MAP


def test_pictures_that_are_there_are_kept(model, tmp_path):
    (tmp_path / "a.png").write_bytes(picture(250))
    paths = [tmp_path / "a.png", tmp_path / "absent.png"]

    first, second = ({each.path: each for each in write_pictures(model, paths, str(tmp_path))} for _ in range(2))

    assert [first[path].kept for path in paths] == [False, False]
    assert [second[path].kept for path in paths] == [True, False]
    assert "No such file" in first[paths[1]].refused
    assert second[paths[0]].class_share == first[paths[0]].class_share


def test_pictures_that_were_half_replaced_are_made_again(model, tmp_path, monkeypatch):
    image = tmp_path / "a.png"
    image.write_bytes(picture(250))
    (written,) = write_pictures(model, [image], str(tmp_path))
    whole = (tmp_path / "a_color.png").read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pictures, "_kept", lambda *_: None)
    monkeypatch.setattr(pictures.drawing, "png_bytes", lambda _: b"of another version")
    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        list(write_pictures(model, [image], str(tmp_path)))
    monkeypatch.undo()

    (again,) = write_pictures(model, [image], str(tmp_path))
    assert not again.kept
    assert (tmp_path / "a_color.png").read_bytes() == whole
    assert again.mask == written.mask


def test_a_video_goes_through_it(model, tmp_path):
    seen = overlay_video(model, make_clip(tmp_path / "in.mp4"), str(tmp_path / "out.mp4"))

    assert (seen.frames, seen.versions) == (10, [("tiny", 7)])


@pytest.mark.parametrize("folder", ["Models [v2]", "what?*", "back\\slash", "100% #1 für"])
def test_a_model_is_read_from_a_folder_of_any_name(model, tmp_path, folder):
    moved = LocalModel(Predictor(export_tiny(tmp_path / folder)))

    ((_, answer),) = moved.segment_all([("a", picture(250))])
    ((_, expected),) = model.segment_all([("a", picture(250))])
    assert answer.version == 7
    assert np.array_equal(answer.class_map, expected.class_map)


def test_the_command_says_which_version_it_took_and_prints_paths_as_they_are(tmp_path):
    models = export_tiny(tmp_path / "Models [v2]")
    (tmp_path / "a.png").write_bytes(picture(250))
    out = str(tmp_path / "out :smile: [v2]")

    done = CliRunner().invoke(app, ["predict", "--model", models, "--out", out, str(tmp_path / "a.png")])

    assert done.exit_code == 0
    assert f"model {models}/7, the newest version in {models}" in done.stderr
    assert f"1 images written to {out}" in done.stdout
