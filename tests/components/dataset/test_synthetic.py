"""The synthetic data set: reproducible, written atomically, and hard enough to learn from."""

from __future__ import annotations

import hashlib
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from components.dataset.synthetic import CLASS_NAMES, MANIFEST, Class, make, render
from components.dataset.synthetic.street import Thing
from components.errors import UsageError

SIZE = (48, 64)
SMALL = {"train": 6, "val": 3}


def digests(root: pathlib.Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_layout_has_a_mask_for_every_image_and_nothing_else(tmp_path):
    root = tmp_path / "set"

    written = make(str(root), SMALL, SIZE)

    assert written
    assert sorted(path.name for path in root.iterdir()) == sorted(
        [split + kind for split in SMALL for kind in ("", "annot", "inst", "depth")] + [MANIFEST]
    )
    for split, count in SMALL.items():
        images = sorted(path.name for path in (root / split).iterdir())
        for kind in ("annot", "inst", "depth"):
            assert images == sorted(path.name for path in (root / f"{split}{kind}").iterdir())
        assert len(images) == count


def test_images_are_rgb_and_labels_grey_of_the_requested_size(tmp_path):
    root = tmp_path / "set"

    make(str(root), {"train": 2}, (40, 72))

    for path in (root / "train").iterdir():
        image, *labels = (Image.open(root / f"train{kind}" / path.name) for kind in ("", "annot", "inst", "depth"))
        assert [image.mode, *(each.mode for each in labels)] == ["RGB", "L", "L", "I;16"]
        assert {image.size, *(each.size for each in labels)} == {(72, 40)}
        assert np.asarray(labels[0]).max() < len(CLASS_NAMES)


def test_splits_share_no_sequence(tmp_path):
    root = tmp_path / "set"

    make(str(root), SMALL, SIZE)

    sequences = {split: {path.name.split("_")[0] for path in (root / split).iterdir()} for split in SMALL}
    assert sequences == {"train": {"Synth1", "Synth2", "Synth3"}, "val": {"Synth4"}}


def test_every_class_occurs_in_every_split(tmp_path):
    root = tmp_path / "set"

    make(str(root), {"train": 6, "val": 2}, (120, 160))

    for split in ("train", "val"):
        masks = [np.asarray(Image.open(path)) for path in (root / f"{split}annot").iterdir()]
        assert set(np.unique(masks)) == set(range(12))


def test_class_fractions_resemble_a_street():
    masks = np.stack([render(7, sequence, frame, (120, 160))[1] for sequence in range(4) for frame in range(0, 20, 4)])
    fraction = np.bincount(masks.ravel(), minlength=12) / masks.size
    expected = {
        Class.SKY: (0.12, 0.24),
        Class.BUILDING: (0.18, 0.32),
        Class.ROAD: (0.22, 0.34),
        Class.SIDE_WALK: (0.03, 0.08),
        Class.VEGETATION: (0.06, 0.14),
        Class.VEHICLE: (0.03, 0.09),
        Class.VOID: (0.02, 0.06),
    }

    for label, (low, high) in expected.items():
        assert low < fraction[label] < high, label.name
    for label in set(Class) - set(expected):
        assert 0.003 < fraction[label] < 0.04, label.name


def test_same_seed_gives_the_same_files_and_another_seed_others(tmp_path):
    for name, seed in (("first", 7), ("again", 7), ("other", 8)):
        make(str(tmp_path / name), SMALL, SIZE, seed=seed)

    first, again, other = (digests(tmp_path / name) for name in ("first", "again", "other"))
    assert first == again
    assert first.keys() == other.keys()
    assert not set(first.values()) & set(other.values())


def test_frames_do_not_depend_on_earlier_frames():
    first = render(7, 1, 4, SIZE)
    render(9, 0, 2, SIZE)
    render(7, 1, 5, SIZE)

    for before, again in zip(first, render(7, 1, 4, SIZE), strict=True):
        np.testing.assert_array_equal(before, again)


def test_every_pixel_of_a_vehicle_or_a_person_belongs_to_one_instance_of_its_class():
    _, mask, instances, _ = render(7, 0, 3, (120, 160))

    things = np.isin(mask, (Class.VEHICLE, Class.PEDESTRIAN, Class.BICYCLIST))
    np.testing.assert_array_equal(instances > 0, things)
    classes = [set(mask[instances == number].tolist()) for number in np.unique(instances[things])]
    assert all(len(found) == 1 for found in classes)
    assert len(classes) > 5


def test_two_neighbours_are_two_instances():
    """Connected components would merge them."""
    _, mask, instances, _ = render(7, 0, 3, (120, 160))

    sides = [(instances[:, 1:], instances[:, :-1], mask[:, 1:], mask[:, :-1])]
    sides += [(instances[1:], instances[:-1], mask[1:], mask[:-1])]
    assert any(((one != other) & (one > 0) & (other > 0) & (a == b)).any() for one, other, a, b in sides)


def test_depth_is_that_of_a_pinhole_camera_over_a_plane():
    """On the ground the distance is f * h / (row - horizon), so its inverse grows evenly from row to row."""
    _, mask, _, depth = render(7, 0, 3, (120, 160))

    rows = np.arange(68, 112)
    metres = np.array([np.median(depth[row][mask[row] == Class.ROAD]) / 256 for row in rows])
    slope, horizon = np.polyfit(rows, 1 / metres, 1)
    np.testing.assert_allclose(1 / metres, slope * rows + horizon, rtol=0.02)
    focal, above = 0.9 * 160, 1.5  # of the middle of what a street's camera may be
    assert 1 / slope == pytest.approx(focal * above, rel=0.2)


def test_depth_is_unknown_in_the_sky_and_nowhere_else():
    _, mask, _, depth = render(7, 2, 5, (120, 160))

    np.testing.assert_array_equal(depth == 0, mask == Class.SKY)


def test_people_shrink_with_distance():
    """A person is 1.4 to 2.1 m tall; one that is cut off or partly hidden, less."""
    heights = []
    for index in range(0, 60, 5):
        _, mask, instances, depth = render(7, 0, index, (120, 160))
        for number in np.unique(instances[mask == Class.PEDESTRIAN]):
            rows = np.flatnonzero((instances == number).any(axis=1))
            distance = np.median(depth[instances == number]) / 256
            heights.append((len(rows) * distance / (0.9 * 160), distance, len(rows)))

    tall = np.array([height for height, distance, rows in heights if rows >= 8])
    assert len(tall) > 10
    assert 1.2 < np.quantile(tall, 0.75) < 2.3
    assert tall.max() < 2.6
    assert min(distance for _, distance, _ in heights) < 15 < 40 < max(distance for _, distance, _ in heights)


@pytest.mark.parametrize(
    ("speed", "sideways", "distance", "x"),
    [(0, 0, 15, 2), (-1, 0, 30, 2), (0.72, 0, 4.2, 2), (0, 0.1, 15, 0.5)],
    ids=["parked", "oncoming", "ahead", "crossing"],
)
def test_things_move_while_the_camera_does(speed, sideways, distance, x):
    seen = Thing("vehicle", 2, 20, speed, sideways, []).seen_from(5)

    assert (seen.z - 5, seen.x) == pytest.approx((distance, x))


def test_neighbouring_frames_look_more_alike_than_other_streets():
    def difference(one: np.ndarray, other: np.ndarray) -> float:
        return float((one != other).mean())

    first = render(7, 0, 10, SIZE)[1]
    neighbour = render(7, 0, 11, SIZE)[1]
    elsewhere = [render(7, sequence, 10, SIZE)[1] for sequence in (1, 2, 3)]

    assert difference(first, neighbour) < min(difference(first, mask) for mask in elsewhere)


def test_far_frames_of_a_long_street_are_drawn_too():
    image, mask, *_ = render(7, 0, 20_000, SIZE)

    assert image.std() > 20
    assert {Class.SKY, Class.ROAD} <= set(mask.ravel().tolist())


def table_accuracy(
    train: list[tuple[np.ndarray, np.ndarray]], val: list[tuple[np.ndarray, np.ndarray]], rows: int
) -> float:
    """Accuracy of the likeliest class by coarse colour and by which of `rows` bands of the picture a pixel is in."""

    def keys(image: np.ndarray) -> np.ndarray:
        color = (image // 32).astype(int) @ np.array([64, 8, 1])
        return (np.arange(len(image)) * rows // len(image))[:, None] * 512 + color

    counts = np.zeros((rows * 512, 12))
    for image, mask in train:
        np.add.at(counts, (keys(image), mask), 1)
    return float(np.mean([(counts.argmax(axis=1)[keys(image)] == mask).mean() for image, mask in val]))


def test_colour_alone_does_not_give_the_class_away_and_place_helps():
    train = [render(7, sequence, frame, (60, 80))[:2] for sequence in range(3) for frame in range(8)]
    val = [render(7, 3, frame, (60, 80))[:2] for frame in range(8)]

    by_color, by_color_and_row = table_accuracy(train, val, 1), table_accuracy(train, val, 6)

    assert 0.25 < by_color < 0.75
    assert by_color_and_row > by_color + 0.05


def test_same_arguments_again_rewrite_nothing(tmp_path):
    root = tmp_path / "set"
    make(str(root), SMALL, SIZE)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}

    written = make(str(root), SMALL, SIZE)

    assert not written
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_an_empty_folder_is_filled(tmp_path):
    assert make(str(tmp_path), {"train": 1}, SIZE)
    assert (tmp_path / "train" / "Synth1_000000.png").is_file()


def test_a_folder_with_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")

    with pytest.raises(UsageError, match=r"not empty.*name a new folder"):
        make(str(tmp_path), SMALL, SIZE)

    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_another_synthetic_set_is_refused_with_both_manifests(tmp_path):
    root = tmp_path / "set"
    make(str(root), {"train": 1}, SIZE, seed=7)

    with pytest.raises(UsageError, match=r'"seed": 7.*"seed": 8'):
        make(str(root), {"train": 1}, SIZE, seed=8)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "set").write_text("")

    with pytest.raises(UsageError, match="expected a folder"):
        make(str(tmp_path / "set"), SMALL, SIZE)


def test_the_set_is_written_to_the_target_of_a_symlink(tmp_path):
    (tmp_path / "large").mkdir()
    (tmp_path / "set").symlink_to(tmp_path / "large")

    assert make(str(tmp_path / "set"), SMALL, SIZE)

    assert (tmp_path / "large" / MANIFEST).is_file()
    assert (tmp_path / "set").is_symlink()


def test_a_mount_point_is_refused_before_anything_is_drawn(tmp_path, monkeypatch):
    # Stands in for a volume, which takes a privilege to mount.
    monkeypatch.setattr("os.path.ismount", lambda path: path == str(tmp_path / "set"))
    (tmp_path / "set").mkdir()

    with pytest.raises(UsageError, match="found a mount point"):
        make(str(tmp_path / "set"), SMALL, SIZE, on_progress=lambda done, total: pytest.fail("it draws"))


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(UsageError, match=r"cannot make a temporary folder beside it \(Not a directory\)"):
        make(str(tmp_path / "file" / "set"), SMALL, SIZE)


def test_an_interrupted_run_leaves_nothing_behind(tmp_path):
    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(str(tmp_path / "set"), SMALL, SIZE, on_progress=interrupt)

    assert list(tmp_path.iterdir()) == []


def test_progress_counts_every_pair(tmp_path):
    calls: list[tuple[int, int]] = []

    make(str(tmp_path / "set"), SMALL, SIZE, on_progress=lambda done, total: calls.append((done, total)))

    assert calls == [(count, 9) for count in range(1, 10)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pairs": {}}, "no split"),
        ({"pairs": {"train": 0}}, "at least 1"),
        ({"pairs": {"a/b": 1}}, "folder name"),
        ({"pairs": {"train": 1, "trainannot": 1}}, "Rename"),
        ({"size": (8, 64)}, "8x64"),
        ({"seed": -1}, "negative"),
    ],
)
def test_arguments_out_of_range_are_explained(tmp_path, arguments, message):
    with pytest.raises(UsageError, match=message):
        make(str(tmp_path / "set"), **{"pairs": SMALL, "size": SIZE, **arguments})

    assert list(tmp_path.iterdir()) == []


def test_manifest_holds_the_arguments(tmp_path):
    make(str(tmp_path / "set"), {"train": 2, "val": 1}, SIZE, seed=5)

    manifest = json.loads((tmp_path / "set" / MANIFEST).read_text())

    assert manifest["seed"] == 5
    assert manifest["size"] == [48, 64]
    assert manifest["pairs"] == [["train", 2], ["val", 1]]
