import base64
import io

import numpy as np
import pytest
from imported_folder import (
    HEIGHT,
    SIZE,
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
from PIL import Image


def _shape(label, points, kind="polygon", **more):
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def _file(root, name, shapes, **more):
    draw_image(root / f"{name}.png")
    content = {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": f"{name.rpartition('/')[2]}.png",
        "imageData": None,
        "imageHeight": HEIGHT,
        "imageWidth": WIDTH,
        **more,
    }
    write_json(root / f"{name}.json", content)


def _png(mask):
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _damaged_png():
    """Returns a PNG whose last chunk of pixels has a damaged name."""
    data = base64.b64decode(_png(np.random.default_rng(0).integers(0, 256, (300, 300), dtype=np.uint8)))
    last = data.rindex(b"IDAT")
    return base64.b64encode(data[:last] + b"\xbb" + data[last + 1 :]).decode()


def test_every_shape_with_an_area_is_drawn_in_the_order_of_the_file(tmp_path):
    bitmap = np.array([[1, 0, 1], [1, 1, 0]], dtype=bool)
    shapes = [
        _shape("road", corners(0, 0, 20, 30)),
        _shape("car", TRIANGLE),
        _shape("road", [[12, 4], [8, 9]], "rectangle", flags={"wet": True}),
        _shape("car", [[20, 10], [20, 14]], "circle"),
        _shape("car", [[1, 15], [3, 16]], "mask", mask=_png(bitmap)),
        _shape("car", corners(14, 24, 17, 28), "oriented_rectangle"),
        _shape("car", [[1, 1], [9, 9]], "line"),
        _shape("car", [[1, 1]], "point"),
        _shape("__ignore__", corners(18, 0, 20, 30)),
        _shape("_background_", corners(0, 0, 1, 30)),
    ]
    _file(tmp_path / "in", "a", shapes, flags={"night": True})
    _file(tmp_path / "in", "day/b", [])

    done = run_import("labelme", tmp_path / "in", tmp_path / "out")

    x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    circle = (x - 20) ** 2 + (y - 10) ** 2 < 16
    brush = np.zeros(SIZE, dtype=bool)
    brush[15:17, 1:4] = bitmap
    road, car, void = 2, 1, 3
    assert [item.name for item in done.description.classes] == ["background", "car", "road", "void"]
    assert done.description.ignore == "void"
    expected = painted(
        (road, box(0, 0, 20, 30)),
        (car, inside(TRIANGLE)),
        (road, box(4, 8, 9, 12)),
        (car, circle),
        (car, brush),
        (car, box(14, 24, 17, 28)),
        (void, box(18, 0, 20, 30)),
        (0, box(0, 0, 1, 30)),
    )
    assert np.array_equal(masks_by_name(done)["a"], expected)
    assert not masks_by_name(done)["day__b"].any()
    assert done.result.lost["points and lines"] == 2
    assert done.result.lost["flags of shapes"] == 1
    assert done.result.lost["flags of images"] == 1


def test_labels_txt_gives_the_order_of_classes(tmp_path):
    _file(tmp_path / "in", "a", [_shape("car", TRIANGLE)])
    _file(tmp_path / "in", "b", [_shape("new", TRIANGLE)])
    (tmp_path / "in" / "labels.txt").write_text("__ignore__\n_background_\nroad\ncar\n")

    done = run_import("labelme", tmp_path / "in", tmp_path / "out")

    assert [item.name for item in done.description.classes] == ["background", "road", "car", "new"]


def test_an_image_moved_beside_its_file_is_found(tmp_path):
    _file(tmp_path / "in", "a", [_shape("car", TRIANGLE)], imagePath="..\\elsewhere\\a.png")
    _file(tmp_path / "in", "b", [])

    done = run_import("labelme", tmp_path / "in", tmp_path / "out")

    assert np.array_equal(masks_by_name(done)["a"], painted((1, inside(TRIANGLE))))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (_shape("car", [[1, 1], [2, 2]]), "found a polygon of 4 coordinates; expected at least 3 corners"),
        (_shape("car", [[1, 1]], "rectangle"), "points: found 1; expected 2 for the shape_type rectangle"),
        (_shape("car", [[1, 1], [2, 2]], "mask", mask="AAAA"), "cannot identify image file"),
        (_shape("car", [[1, 1], [2, 2]], "mask", mask=_damaged_png()), "broken PNG file"),
        (
            _shape("car", [[float("inf"), 1], [2, 2]], "mask", mask=_png(np.ones((2, 2), bool))),
            "cannot convert float infinity to integer",
        ),
        (_shape("car", [[1, 1], [2, 2]], "mask"), "mask: missing; expected a PNG in base64"),
        (_shape("car", TRIANGLE, "spiral"), "shape_type: found 'spiral'; expected polygon"),
        ({"points": TRIANGLE}, "label: missing"),
    ],
)
def test_a_broken_shape_leaves_out_its_image(tmp_path, shape, message):
    _file(tmp_path / "in", "bad", [_shape("car", TRIANGLE), shape])
    for name in "ab":
        _file(tmp_path / "in", name, [_shape("car", TRIANGLE)])

    done = run_import("labelme", tmp_path / "in", tmp_path / "out", val=0.5)

    assert set(masks_by_name(done)) <= {"a", "b"}
    assert "bad.json: shapes.1" in done.result.problems[0]
    assert message in done.result.problems[0]


def test_a_broken_file_does_not_stop_the_import(tmp_path):
    for name in "ab":
        _file(tmp_path / "in", name, [_shape("car", TRIANGLE)])
    (tmp_path / "in" / "c.json").write_text('{"shapes": [')
    write_json(tmp_path / "in" / "d.json", {"shapes": []})
    write_json(tmp_path / "in" / "e.json", {"other": 1})

    done = run_import("labelme", tmp_path / "in", tmp_path / "out")

    assert done.result.pairs == {"train": 1, "val": 1}
    assert [message in problem for message, problem in zip(("c.json", "imagePath"), done.result.problems, strict=True)]
    assert done.result.lost == {"JSON files that are not labelme's": 1}
