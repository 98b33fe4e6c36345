import base64
import io
import zlib

import numpy as np
import pytest
from imported_folder import HEIGHT, SIZE, WIDTH, box, draw_image, masks_by_name, painted, run_import, write_json
from PIL import Image

from components.errors import UsageError

ROAD, CAR = 1, 2
META = {
    "classes": [
        {"title": "road", "shape": "any", "color": "#800040", "geometry_config": {}, "id": 1},
        {"title": "car", "shape": "bitmap", "color": "#fa3253", "geometry_config": {}, "id": 2},
    ],
    "tags": [],
    "projectType": "images",
}


def _bitmap(pixels, origin):
    """Returns a bitmap as `Bitmap.data_2_base64` of SDK 6.9.2 writes it: a PNG with a palette, in zlib."""
    image = Image.fromarray(pixels.astype(np.uint8))
    image.putpalette([0, 0, 0, 255, 255, 255])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=0)
    return {"data": base64.b64encode(zlib.compress(buffer.getvalue())).decode(), "origin": list(origin)}


def _uncompressed(pixels, origin):
    buffer = io.BytesIO()
    Image.fromarray(np.repeat(pixels[..., None], 4, axis=-1).astype(np.uint8) * 255).save(buffer, "PNG")
    return {"data": base64.b64encode(buffer.getvalue()).decode(), "origin": list(origin)}


def _object(title, kind, **more):
    return {"id": 5, "classTitle": title, "geometryType": kind, "labelerLogin": "me", "tags": [], **more}


def _points(exterior, interior=()):
    return {"exterior": exterior, "interior": list(interior)}


def _item(root, dataset, name, objects):
    draw_image(root / dataset / "img" / name)
    content = {"description": "", "tags": [], "size": {"height": HEIGHT, "width": WIDTH}, "objects": objects}
    write_json(root / dataset / "ann" / f"{name}.json", content)


def _source(root, *items):
    write_json(root / "meta.json", META)
    for item in items:
        _item(root, *item)
    return root


def test_polygons_with_holes_bitmaps_and_rectangles(tmp_path):
    pixels = np.array([[1, 0, 1], [1, 1, 0]], dtype=bool)
    hole = [[5, 4], [9, 4], [9, 8], [5, 8]]
    objects = [
        _object("road", "polygon", points=_points([[2, 1], [20.7, 1], [20, 15], [2, 15]], [hole])),
        _object("car", "rectangle", points=_points([[22, 3], [25, 9]])),
        _object("car", "bitmap", bitmap=_bitmap(pixels, (12, 10)), tags=[{"name": "wet"}]),
        _object("car", "bitmap", bitmap=_uncompressed(pixels, (26, 17))),
        _object("car", "line", points=_points([[1, 1], [2, 2]])),
    ]
    source = _source(tmp_path / "in", ("train", "a.png", objects), ("val", "b.png", []))

    done = run_import("supervisely", source, tmp_path / "out")

    # The border belongs to a polygon, and that of a hole to the hole.
    road = box(1, 2, 16, 21) & ~box(4, 5, 9, 10)
    brushes = np.zeros(SIZE, dtype=bool)
    brushes[10:12, 12:15] = brushes[17:19, 26:29] = pixels
    expected = painted((ROAD, road), (CAR, box(3, 22, 10, 26)), (CAR, brushes))
    assert np.array_equal(done.masks["train", "train__a"], expected)
    assert not done.masks["val", "val__b"].any()
    assert [(item.name, item.color) for item in done.description.classes][1:] == [
        ("road", (128, 0, 64)),
        ("car", (250, 50, 83)),
    ]
    assert done.result.lost == {
        "tags of objects": 1,
        "shapes of the type line": 1,
        "pixels of one class under another": 4,
    }


def test_nested_data_sets_are_read(tmp_path):
    square = _object("car", "rectangle", points=_points([[1, 1], [3, 3]]))
    source = _source(
        tmp_path / "in", ("north", "a.png", [square]), ("north/datasets/day", "a.png", []), ("south", "b.png", [])
    )

    done = run_import("supervisely", source, tmp_path / "out")

    masks = masks_by_name(done)
    assert set(masks) == {"north__a", "north__day__a", "south__b"}
    assert np.array_equal(masks["north__a"], painted((CAR, box(1, 1, 4, 4))))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            _object("bus", "rectangle", points=_points([[1, 1], [3, 3]])),
            "classTitle: found 'bus'; expected a class of meta",
        ),
        (_object("car", "polygon", points=_points([[1, 1], [3, 3]])), "found 2 points; expected at least 3"),
        (
            _object("car", "polygon", points=_points([[1, 1], [3, 3], [1e999, 1]])),
            "cannot convert float infinity to integer",
        ),
        (_object("car", "bitmap", bitmap={"data": "AAAA", "origin": [1, 1]}), "cannot identify image file"),
        (_object("car", "bitmap"), "bitmap: missing; expected data and origin"),
        ({"geometryType": "polygon"}, "classTitle: missing"),
    ],
)
def test_a_broken_object_leaves_out_its_image(tmp_path, broken, message):
    source = _source(tmp_path / "in", ("train", "a.png", []), ("val", "b.png", []), ("train", "bad.png", [broken]))

    done = run_import("supervisely", source, tmp_path / "out")

    assert set(done.masks) == {("train", "train__a"), ("val", "val__b")}
    assert "ann/bad.png.json: objects.0" in done.result.problems[0]
    assert message in done.result.problems[0]


def test_a_folder_without_a_project_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"meta.json: cannot be read: No such file"):
        run_import("supervisely", tmp_path, tmp_path.parent / "out")
