import numpy as np
import pytest
from imported_folder import (
    HEIGHT,
    TRIANGLE,
    WIDTH,
    box,
    corners,
    draw_image,
    inside,
    masks_by_name,
    painted,
    run_import,
    write_json,
)

from components.errors import UsageError

CAR, ROAD = 1, 2


def _brush(mask):
    """Returns a mask as Label Studio encodes it: four channels a pixel, one run of up to 65536 values a block."""
    values = np.repeat((mask * 255).ravel(), 4).astype(int).tolist()
    bits = f"{len(values):032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
    start = 0
    for end in range(1, len(values) + 1):
        if end == len(values) or values[end] != values[start]:
            bits += f"111{end - start - 1:016b}{values[start]:08b}"
            start = end
    return [int(bits[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(bits), 8)]


def _percent(points):
    return [[x / WIDTH * 100, y / HEIGHT * 100] for x, y in points]


def _region(kind, value, key="r1", **more):
    return {
        "id": key,
        "type": kind,
        "value": value,
        "origin": "manual",
        "to_name": "image",
        "from_name": "label",
        "image_rotation": 0,
        "original_width": WIDTH,
        "original_height": HEIGHT,
        **more,
    }


def _polygon(label, points, **more):
    return _region("polygonlabels", {"points": _percent(points), "closed": True, "polygonlabels": [label]}, **more)


def _task(number, address, *results, cancelled=()):
    annotations = [{"id": 1, "result": list(results), "was_cancelled": False, "ground_truth": False}]
    annotations += [{"id": 2, "result": list(other), "was_cancelled": True} for other in cancelled]
    return {"id": number, "data": {"image": address}, "annotations": annotations, "predictions": []}


def _source(root, *tasks, files=("3f2a91bc-a.png", "b.png")):
    for name in files:
        draw_image(root / "images" / name)
    write_json(root / "project-1-at-2026-05-04.json", list(tasks))
    return root


def test_polygons_brushes_and_ellipses(tmp_path):
    brush = box(3, 4, 9, 12) & ~box(5, 6, 7, 8)
    results = [
        _polygon("road", corners(0, 0, 20, 20)),
        _polygon("car", TRIANGLE),
        _region("brushlabels", {"format": "rle", "rle": _brush(brush), "brushlabels": ["road"]}),
        _region(
            "ellipselabels",
            {"x": 80, "y": 50, "radiusX": 10, "radiusY": 15, "rotation": 0, "ellipselabels": ["car"]},
        ),
        _region("keypointlabels", {"x": 1, "y": 1, "width": 0.3, "keypointlabels": ["car"]}),
        _region(
            "rectanglelabels", {"x": 1, "y": 1, "width": 5, "height": 5, "rotation": 0, "rectanglelabels": ["car"]}
        ),
        {"id": "c", "type": "choices", "value": {"choices": ["sharp"]}, "from_name": "quality", "to_name": "image"},
    ]
    source = _source(
        tmp_path / "in",
        _task(1, "/data/upload/1/3f2a91bc-a.png", *results, cancelled=[[_polygon("bus", TRIANGLE)]]),
        _task(2, "/data/local-files/?d=scans/b.png"),
    )

    done = run_import("label-studio", source, tmp_path / "out")

    x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    circle = (x - 24) ** 2 + (y - 10) ** 2 < 9
    expected = painted((ROAD, box(0, 0, 20, 20)), (CAR, inside(TRIANGLE)), (ROAD, brush), (CAR, circle))
    assert np.array_equal(masks_by_name(done)["images__3f2a91bc-a"], expected)
    assert not masks_by_name(done)["images__b"].any()
    assert [item.name for item in done.description.classes] == ["background", "car", "road"]
    del done.result.lost["pixels of one class under another"]
    assert done.result.lost == {
        "key points": 1,
        "boxes without a shape": 1,
        "choices, texts and relations": 1,
        "cancelled and earlier annotations of a task": 1,
    }


def test_the_labels_tag_writes_every_region_twice(tmp_path):
    points = _percent(TRIANGLE)
    drawn = _region("polygon", {"points": points}, key="p1")
    labelled = _region("labels", {"points": points, "labels": ["car", "truck"]}, key="p1")
    unlabelled = _region("polygon", {"points": points}, key="p2")
    source = _source(tmp_path / "in", _task(1, "a.png", drawn, labelled, unlabelled), _task(2, "b.png"))
    (source / "images" / "3f2a91bc-a.png").rename(source / "images" / "a.png")

    done = run_import("label-studio", source, tmp_path / "out")

    assert np.array_equal(masks_by_name(done)["images__a"], painted((CAR, inside(TRIANGLE))))
    assert done.result.lost == {"regions without a label": 1, "further labels of a region": 1}


def test_an_uploaded_image_is_found_by_its_original_name(tmp_path):
    source = _source(
        tmp_path / "in",
        _task(1, "/data/upload/1/3f2a91bc-my%20photo.png", _polygon("car", TRIANGLE)),
        _task(2, "s3://bucket/b.png"),
        files=("my photo.png", "b.png"),
    )

    done = run_import("label-studio", source / "project-1-at-2026-05-04.json", tmp_path / "out")

    assert set(masks_by_name(done)) == {"images__my photo", "images__b"}


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (_polygon("car", TRIANGLE[:2]), "polygonlabels: found a polygon of 4 coordinates"),
        (
            _region("brushlabels", {"rle": _brush(np.ones((3, 3))), "brushlabels": ["car"]}),
            "found a brush of 36 values; expected 4 a pixel, 2400",
        ),
        (
            _region("brushlabels", {"rle": _brush(box(1, 1, 9, 9))[:30], "brushlabels": ["car"]}),
            "end before the mask does",
        ),
        (_polygon("car", TRIANGLE, image_rotation=90), "turned by 90 degrees; expected 30x20, not turned"),
        (_region("polygonlabels", {"points": [[1, "x"]], "polygonlabels": ["car"]}), "value.points.0.1: found 'x'"),
        (_region("brushlabels", {"rle": [900], "brushlabels": ["car"]}), "value.rle.0: found 900"),
    ],
)
def test_a_broken_region_leaves_out_its_image(tmp_path, result, message):
    source = _source(
        tmp_path / "in",
        _task(1, "a.png", _polygon("car", TRIANGLE)),
        _task(2, "b.png"),
        _task(3, "bad.png", result),
        files=("a.png", "b.png", "bad.png"),
    )

    done = run_import("label-studio", source, tmp_path / "out", val=0.3)

    assert set(masks_by_name(done)) <= {"images__a", "images__b"}
    assert "project-1-at-2026-05-04.json: task 3" in done.result.problems[0]
    assert message in done.result.problems[0]


def test_missing_and_ambiguous_images_are_named(tmp_path):
    source = _source(
        tmp_path / "in",
        _task(1, "https://example.com/gone.png", _polygon("car", TRIANGLE)),
        _task(2, "b.png", _polygon("car", TRIANGLE)),
        _task(3, "twice.png"),
        _task(4, "c.png"),
        files=("b.png", "c.png", "x/twice.png", "y/twice.png"),
    )

    gone, twice = run_import("label-studio", source, tmp_path / "out").result.problems

    assert "task 1: found no image for https://example.com/gone.png; expected a file of that name" in gone
    assert "task 3: found 2 images called twice.png; expected one" in twice


def test_json_min_is_refused(tmp_path):
    source = _source(tmp_path / "in", {"image": "a.png", "label": []})

    with pytest.raises(UsageError, match="expected Label Studio's export 'JSON', not 'JSON-MIN'"):
        run_import("label-studio", source, tmp_path / "out")


def test_the_last_annotation_that_was_not_cancelled_is_used(tmp_path):
    task = _task(1, "a.png", _polygon("road", corners(0, 0, 9, 9)), cancelled=[[_polygon("bus", TRIANGLE)]])
    task["annotations"].insert(1, {"result": [_polygon("car", TRIANGLE)], "was_cancelled": False})
    source = _source(tmp_path / "in", task, _task(2, "b.png"), files=("a.png", "b.png"))

    done = run_import("label-studio", source, tmp_path / "out")

    assert [item.name for item in done.description.classes] == ["background", "car"]
    assert np.array_equal(masks_by_name(done)["images__a"], painted((CAR, inside(TRIANGLE))))
    assert done.result.lost == {"cancelled and earlier annotations of a task": 2}
