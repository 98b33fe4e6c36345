"""Frames are scored by an exported model, and the extremes among them are drawn."""

from __future__ import annotations

import base64
import io
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components import drawing, features
from components.class_map import ClassMap
from components.examples import RawExample
from components.report.frames import ScoredFrame, choose_frames, draw, pick, score_pairs
from components.report.pictures import MAX_WIDTH

CLASS_MAP = ClassMap(("road", "sky", "void"), ((128, 64, 128), (70, 130, 180), (0, 0, 0)), ignore_index=2)


def png(pixels: np.ndarray) -> bytes:
    return drawing.png_bytes(pixels.astype(np.uint8))


class RedChannel(tf.Module):
    """A model that returns the image's red channel as the mask, so a test paints the prediction."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def evaluate(self, image):
        def predict(encoded):
            return tf.io.encode_png(tf.io.decode_png(encoded, channels=3)[..., :1])

        return {"mask_png": tf.map_fn(predict, image, fn_output_signature=tf.string)}


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory) -> str:
    directory = str(tmp_path_factory.mktemp("model"))
    module = RedChannel()
    tf.saved_model.save(module, directory, signatures={"evaluation": module.evaluate})
    return directory


def write_examples(path: pathlib.Path, fractions_right: list[float], size: tuple[int, int] = (10, 20)) -> str:
    """Writes one all-road frame for each fraction, predicted right on that fraction of its columns, sky elsewhere."""
    with tf.io.TFRecordWriter(str(path), tf.io.TFRecordOptions(compression_type="GZIP")) as writer:
        for fraction in fractions_right:
            image = np.zeros((*size, 3))
            image[:, round(fraction * size[1]) :, 0] = 1
            values = {
                features.IMAGE: png(image),
                features.MASK: png(np.zeros(size)),
                features.NAME: f"right_{fraction:.2f}".encode(),
                features.SEQUENCE: b"dusk",
            }
            feature = {
                key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for key, value in values.items()
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return str(path)


def names(frames, group: str) -> list[str]:
    return [frame.name for frame in frames if frame.group == group]


def test_extremes_and_random_frames_are_chosen_by_mean_iou(model_dir, tmp_path):
    fractions = [0.5, 0.1, 0.9, 0.3, 1.0, 0.2, 0.6, 0.4, 0.8, 0.7]
    records = [write_examples(tmp_path / "a.gz", fractions[:6]), write_examples(tmp_path / "b.gz", fractions[6:])]

    frames, scored = choose_frames(records, model_dir, CLASS_MAP, per_group=2, batch_size=3)

    assert scored == 10
    assert names(frames, "worst") == ["right_0.10", "right_0.20"]
    assert names(frames, "best") == ["right_1.00", "right_0.90"]
    assert len(names(frames, "random")) == 2
    assert len({frame.name for frame in frames}) == 6


def test_mean_iou_is_over_the_classes_in_the_truth(model_dir, tmp_path):
    frames, _ = choose_frames([write_examples(tmp_path / "a.gz", [0.5])], model_dir, CLASS_MAP)

    # Road is hit on half its pixels; sky is predicted and never true.
    assert frames[0].mean_iou == pytest.approx(0.5)
    assert frames[0].sequence == "dusk"


def test_same_seed_gives_the_same_frames(model_dir, tmp_path):
    records = [write_examples(tmp_path / "a.gz", [i / 20 for i in range(20)])]

    first, _ = choose_frames(records, model_dir, CLASS_MAP, seed=1)
    again, _ = choose_frames(records, model_dir, CLASS_MAP, seed=1)

    assert first == again


def test_no_more_frames_are_predicted_than_allowed(model_dir, tmp_path):
    records = [write_examples(tmp_path / "a.gz", [0.9, 0.8, 0.1])]

    frames, scored = choose_frames(records, model_dir, CLASS_MAP, max_frames=2)

    assert scored == 2
    assert names(frames, "worst") == ["right_0.80"]


def test_no_examples_give_no_frames(model_dir, tmp_path):
    assert choose_frames([write_examples(tmp_path / "a.gz", [])], model_dir, CLASS_MAP) == ((), 0)


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, (0, 0, 0)), (1, (1, 0, 0)), (2, (1, 1, 0)), (4, (2, 2, 0)), (9, (3, 3, 3))]
)
def test_with_few_frames_the_groups_are_smaller_and_disjoint(count, sizes):
    scored = [ScoredFrame(index, b"", index / 10) for index in range(count)]

    picked = pick(scored, 3, seed=0)

    groups = [group for group, _ in picked]
    assert tuple(groups.count(group) for group in ("worst", "best", "random")) == sizes
    assert len({frame.index for _, frame in picked}) == len(picked)


def test_frame_without_a_scored_pixel_is_never_picked():
    scored = [ScoredFrame(0, b"", float("nan")), ScoredFrame(1, b"", 0.4)]

    assert [frame.index for _, frame in pick(scored, 3, seed=0)] == [1]


def decode(address: str, mime: str) -> Image.Image:
    header, content = address.split(",")
    assert header == f"data:{mime};base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_pictures_are_shrunk_and_painted_in_the_class_maps_colours():
    truth = np.zeros((300, 1200))
    truth[:, 600:] = 1
    prediction = np.ones((300, 1200))
    pair = RawExample(png(np.full((300, 1200, 3), 200)), png(truth), "wide", "dusk")

    frame = draw(pair, "best", ScoredFrame(0, png(prediction), 0.25), CLASS_MAP)

    pictures = [
        decode(frame.image, "image/jpeg"),
        decode(frame.truth, "image/png").convert("RGB"),
        decode(frame.prediction, "image/png").convert("RGB"),
        decode(frame.error, "image/jpeg"),
    ]
    assert {picture.size for picture in pictures} == {(MAX_WIDTH, 120)}
    _, painted_truth, painted_prediction, error = pictures
    assert (painted_truth.getpixel((10, 60)), painted_truth.getpixel((470, 60))) == CLASS_MAP.colors[:2]
    assert painted_prediction.getpixel((10, 60)) == CLASS_MAP.colors[1]
    assert error.getpixel((10, 60)) == pytest.approx(drawing.WRONG, abs=12)
    assert np.ptp(error.getpixel((470, 60))) <= 4


def test_small_pictures_keep_their_size():
    pair = RawExample(png(np.zeros((6, 8, 3))), png(np.zeros((6, 8))), "small", "dusk")

    frame = draw(pair, "worst", ScoredFrame(0, png(np.zeros((6, 8))), 1.0), CLASS_MAP)

    assert decode(frame.truth, "image/png").size == (8, 6)


def depth_png(values: np.ndarray) -> bytes:
    return drawing.png_bytes(values.astype(np.uint16))


def test_a_frame_of_a_depth_model_shows_true_and_estimated_depth_and_the_error():
    truth = np.tile(np.linspace(1000, 5000, 40), (30, 1))
    estimate = truth.copy()
    truth[:10] = 0  # unknown
    estimate[20:] *= 2
    pair = RawExample(png(np.full((30, 40, 3), 100)), png(np.zeros((30, 40))), "near", "dusk", depth=depth_png(truth))
    outputs = {features.MASK_PNG: pair.mask, features.DEPTH_PNG: depth_png(estimate)}

    (scored,) = score_pairs([pair], lambda images: [outputs], CLASS_MAP)
    frame = draw(pair, "best", scored, CLASS_MAP)

    true_depth, estimated, error = (
        decode(address, "image/jpeg") for address in (frame.depth_truth, frame.depth_prediction, frame.depth_error)
    )
    violet, yellow = (68, 1, 84), (253, 231, 37)
    assert true_depth.getpixel((1, 15)) == pytest.approx(violet, abs=24)
    assert true_depth.getpixel((38, 15)) == pytest.approx(yellow, abs=24)
    assert estimated.getpixel((38, 5)) == pytest.approx(yellow, abs=24)
    for picture in (true_depth, error):
        assert picture.getpixel((20, 3)) == pytest.approx(drawing.IGNORED, abs=12)
    assert np.ptp(error.getpixel((20, 14))) <= 12
    assert error.getpixel((20, 26)) == pytest.approx(drawing.WRONG, abs=12)


def test_a_frame_without_depth_has_no_pictures_of_it():
    pair = RawExample(png(np.zeros((6, 8, 3))), png(np.zeros((6, 8))), "small", "dusk")

    frame = draw(pair, "worst", ScoredFrame(0, pair.mask, 1.0), CLASS_MAP)

    assert (frame.depth_truth, frame.depth_prediction, frame.depth_error) == ("", "", "")
