import numpy as np
import pytest
from imported_folder import HEIGHT, TRIANGLE, WIDTH, box, draw_image, inside, masks_by_name, painted, run_import

from components.errors import UsageError

# The elements and attributes that `dump_as_cvat_annotation` writes (cvat/apps/dataset_manager/formats/cvat.py, commit
# a01a8a8).
DOCUMENT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <{owner}><id>5</id><name>street</name><labels>
      <label><name>road</name><color>#800040</color><type>any</type><attributes></attributes></label>
      <label><name>car</name><color>#fa3253</color><type>any</type><attributes></attributes></label>
      <label><name>background</name><color>#000000</color><type>any</type><attributes></attributes></label>
      <label><name>wheel</name><color>#aaaaaa</color><type>points</type><parent>bicycle</parent></label>
    </labels></{owner}>
    <dumped>2026-05-04 10:11:12.000000+00:00</dumped>
  </meta>
  {images}
</annotations>
"""
ROAD, CAR = 1, 2
COMMON = 'source="manual" occluded="0"'
POLYGON = (
    f'<polygon label="car" {COMMON} points="' + ";".join(f"{x:.2f},{y:.2f}" for x, y in TRIANGLE) + '" z_order="0">'
    '<attribute name="parked">yes</attribute></polygon>'
)


def _image(number, name, content="", subset=""):
    return f'<image id="{number}" name="{name}" {subset} width="{WIDTH}" height="{HEIGHT}">{content}</image>'


def _source(root, *images, owner="task", files=("a.png", "b.png")):
    for name in files:
        draw_image(root / "images" / name)
    (root / "annotations.xml").write_text(DOCUMENT.format(owner=owner, images="\n".join(images)))
    return root


def test_every_shape_with_an_area_is_drawn_by_z_order(tmp_path):
    content = (
        f'<box label="road" {COMMON} xtl="4.00" ytl="3.00" xbr="9.00" ybr="7.00" z_order="2"></box>'
        + POLYGON
        + f'<box label="road" {COMMON} xtl="20.00" ytl="12.00" xbr="28.00" ybr="14.00" rotation="90.00" z_order="1"/>'
        f'<ellipse label="road" {COMMON} cx="15.00" cy="10.00" rx="4.00" ry="4.00" z_order="0"></ellipse>'
        # 3 columns and 2 rows, along the rows: 0 1 1, 1 0 0.
        f'<mask label="car" {COMMON} rle="1, 3, 2" left="1" top="16" width="3" height="2" z_order="0"></mask>'
        f'<polyline label="road" {COMMON} points="1.00,1.00;2.00,2.00" z_order="0"></polyline>'
        f'<points label="road" {COMMON} points="1.00,1.00" z_order="0"></points>'
        '<tag label="road" source="manual"></tag>'
    )
    track = '<track id="0" label="car"></track>'
    source = _source(tmp_path / "in", _image(0, "a.png", content), _image(1, "b.png"), track)

    done = run_import("cvat", source, tmp_path / "out")

    x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    circle = (x - 15) ** 2 + (y - 10) ** 2 < 16
    mask = box(16, 2, 17, 4) | box(17, 1, 18, 2)
    expected = painted(
        (CAR, inside(TRIANGLE)), (ROAD, circle), (CAR, mask), (ROAD, box(9, 23, 17, 25)), (ROAD, box(3, 4, 7, 9))
    )
    assert np.array_equal(masks_by_name(done)["a"], expected)
    assert [(item.name, item.color) for item in done.description.classes] == [
        ("background", (0, 0, 0)),
        ("road", (128, 0, 64)),
        ("car", (250, 50, 83)),
    ]
    lost = done.result.lost
    assert (lost["points and lines"], lost["tags of images"], lost["attributes"], lost["tracks"]) == (2, 1, 1, 1)


def test_subsets_of_a_project_are_splits(tmp_path):
    images = [
        _image(0, "a.png", POLYGON, 'subset="Train" task_id="1"'),
        _image(0, "b.png", "", 'subset="Validation" task_id="2"'),
    ]
    source = _source(tmp_path / "in", *images, owner="project", files=("Train/a.png", "Validation/b.png"))

    done = run_import("cvat", source / "annotations.xml", tmp_path / "out")

    assert set(done.masks) == {("train", "a"), ("val", "b")}
    assert np.array_equal(done.masks["train", "a"], painted((CAR, inside(TRIANGLE))))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('<polygon label="car" points="1,1;2,2"/>', "polygon 0: found a polygon of 4 coordinates"),
        ('<polygon label="car" points="1,1;2,x;3,1"/>', "points.3: found 'x'"),
        ('<polygon label="bus" points="1,1;2,2;3,1"/>', "found the label 'bus'; expected one of background, car, road"),
        ('<box label="car" xtl="1" ytl="2" xbr="3"/>', "ybr: missing"),
        (
            '<mask label="car" rle="1, 3" left="1" top="1" width="3" height="2"/>',
            "found runs of 4 pixels; expected 6, of a mask of 3x2",
        ),
    ],
)
def test_a_broken_shape_leaves_out_its_image(tmp_path, content, message):
    files = ("a.png", "b.png", "bad.png")
    source = _source(
        tmp_path / "in", _image(0, "a.png"), _image(1, "bad.png", content), _image(2, "b.png"), files=files
    )

    done = run_import("cvat", source, tmp_path / "out", val=0.3)

    assert set(masks_by_name(done)) <= {"a", "b"}
    assert "annotations.xml: image bad.png" in done.result.problems[0]
    assert message in done.result.problems[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotations><image", "expected XML in CVAT's format for images 1.1"),
        ('<annotations><track id="0" label="car"/></annotations>', "found tracks of a video; expected images"),
        ("<annotation/>", "found the element annotation; expected images"),
    ],
)
def test_another_file_is_refused(tmp_path, text, message):
    (tmp_path / "annotations.xml").write_text(text)

    with pytest.raises(UsageError, match=message):
        run_import("cvat", tmp_path / "annotations.xml", tmp_path / "out")
