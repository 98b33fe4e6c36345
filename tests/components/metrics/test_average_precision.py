"""Average precision against pycocotools, on random truths and detections with ties, crowds and absent classes."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from random_instances import INDICES, SIZE, THINGS, Scene, scenes, to_detections

from components.instances import Instances, boxes
from components.metrics.average_precision import (
    AREAS,
    KINDS,
    SCORES,
    AveragePrecision,
    ImageMatches,
    box_iou,
    mask_iou,
    match,
)
from components.metrics.bootstrap import RESAMPLES, poisson_weights
from components.metrics.detections import Detections

NO_CROWD = np.zeros(1, bool)


def matches(images: list[Scene]) -> list[ImageMatches]:
    return [match(truth, found, INDICES, name) for name, truth, found in images]


def flat(images: list[Scene]) -> dict[str, float]:
    return AveragePrecision(matches(images), THINGS).flat()


def coco_scores(images: list[Scene]) -> dict[str, float]:
    """What pycocotools makes of the same images, in the order in which ours are ordered."""
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed: no wheel for this Python")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    images = sorted(images, key=lambda scene: match(scene[1], scene[2], INDICES, scene[0]).image)
    truth, found = {kind: [] for kind in KINDS}, {kind: [] for kind in KINDS}
    for image_id, (_, instances, detections) in enumerate(images, start=1):
        for rows in truth.values():
            for mask, box, label, crowd in zip(
                instances.masks, boxes(instances.masks), instances.classes, instances.crowd, strict=True
            ):
                shape = {"bbox": to_xywh(box), "segmentation": encode(mask)}
                own = {"id": len(rows) + 1, "image_id": image_id, "category_id": int(label), "iscrowd": int(crowd)}
                rows.append({**own, **shape, "area": int(mask.sum())})
        for mask, box, label, score in zip(
            detections.masks, detections.boxes, detections.classes, detections.scores, strict=True
        ):
            own = {"image_id": image_id, "category_id": int(label), "score": float(score)}
            found["mask"].append({**own, "segmentation": encode(mask)})
            found["box"].append({**own, "bbox": to_xywh(box)})
    values: dict[str, float] = {}
    for kind, iou_type in zip(KINDS, ("segm", "bbox"), strict=True):
        with contextlib.redirect_stdout(io.StringIO()):
            data = coco.COCO()
            data.dataset = {
                "images": [{"id": n, "height": SIZE[0], "width": SIZE[1]} for n in range(1, len(images) + 1)],
                "annotations": truth[kind],
                "categories": [{"id": index, "name": name} for index, name in zip(INDICES, THINGS, strict=True)],
                "info": {},
            }
            data.createIndex()
            evaluation = cocoeval.COCOeval(data, data.loadRes(found[kind]), iou_type)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        means = dict(zip(("", "50", "75", "_small", "_medium", "_large"), evaluation.stats[:6], strict=True))
        values |= {f"{kind}_ap{variant}": defined(value) for variant, value in means.items()}
        precision = evaluation.eval["precision"][..., -1]  # [thresholds, recalls, classes, areas]
        for place, name in enumerate(THINGS):
            for area, variant in enumerate(("", "_small", "_medium", "_large")):
                values[f"class_{kind}_ap{variant}/{name}"] = defined(precision[:, :, place, area].mean())
            values[f"class_{kind}_ap50/{name}"] = defined(precision[0, :, place, 0].mean())
            values[f"class_{kind}_ap75/{name}"] = defined(precision[5, :, place, 0].mean())
    return values


def defined(value: float) -> float:
    return float("nan") if value == -1 else float(value)


def to_xywh(box: np.ndarray) -> list[float]:
    y_min, x_min, y_max, x_max = box.tolist()
    return [x_min, y_min, x_max - x_min, y_max - y_min]


def encode(mask: np.ndarray) -> dict:
    from pycocotools import mask as coco_mask

    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


@pytest.mark.parametrize("seed", range(4))
def test_every_score_equals_pycocotools(seed):
    images = scenes(seed)
    expected = coco_scores(images)
    assert 0 < expected["mask_ap"] < 1
    assert expected["mask_ap_small"] != expected["mask_ap_large"]
    assert np.isnan(expected["class_mask_ap/tram"])
    assert np.isnan(expected["class_mask_ap/bicycle"])
    assert flat(images) == pytest.approx(expected, abs=1e-9, nan_ok=True)


def stripes(*columns: tuple[int, int]) -> np.ndarray:
    masks = np.zeros((len(columns), *SIZE), bool)
    for mask, (left, right) in zip(masks, columns, strict=True):
        mask[:20, left:right] = True
    return masks


def scene(truth: np.ndarray, found: np.ndarray, scores: list[float]) -> list[Scene]:
    cars = Instances(truth, np.full(len(truth), INDICES[0]), np.zeros(len(truth), bool))
    return [(b"", cars, to_detections(found, np.full(len(found), INDICES[0]), scores))]


def test_of_two_instances_with_the_same_iou_the_last_is_taken():
    images = scene(stripes((0, 20), (4, 24)), stripes((2, 22), (6, 26)), [0.9, 0.8])
    # The second detection overlaps the last instance most, but that instance is already matched.
    assert flat(images)["mask_ap75"] < 1
    assert flat(images) == pytest.approx(coco_scores(images), abs=1e-9, nan_ok=True)


def test_only_the_best_hundred_detections_of_a_class_count():
    found = stripes(*[(50, 60)] * 100, (0, 20))
    images = scene(stripes((0, 20)), found, np.linspace(0.9, 0.1, 101).tolist())
    assert flat(images)["mask_ap"] == 0
    assert flat(images) == pytest.approx(coco_scores(images), abs=1e-9, nan_ok=True)
    assert flat(scene(stripes((0, 20)), found[1:], np.linspace(0.9, 0.1, 100).tolist()))["mask_ap"] > 0


def test_images_without_instances_and_detections_have_no_score():
    nothing = Detections(np.zeros((0, *SIZE), bool), np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0))
    images = [(b"a", Instances.stack([], SIZE), nothing)]
    assert all(np.isnan(value) for value in flat(images).values())
    assert set(SCORES) < set(flat(images))
    assert all(np.isnan(value) for value in AveragePrecision([], THINGS).flat().values())


def test_the_order_of_images_does_not_matter():
    images = scenes(5)
    assert flat(images[::-1]) == pytest.approx(flat(images), abs=0, nan_ok=True)


def test_a_resample_scores_each_image_as_often_as_its_weight():
    """A resample counts an image as often as its weight says."""
    images = [(name, truth, distinct(found, index)) for index, (name, truth, found) in enumerate(scenes(6, count=4))]
    ours = matches(images)
    resampled = AveragePrecision(ours, THINGS).resampled()
    weights = np.array([poisson_weights(image.image) for image in ours])
    assert resampled["mask_ap"].shape == (RESAMPLES,)
    for column in (0, 1, 2, RESAMPLES - 1):
        copies = [image for image, weight in zip(ours, weights[:, column], strict=True) for _ in range(weight)]
        expected = AveragePrecision(copies, THINGS).flat()
        for name in ("mask_ap", "class_mask_ap/car"):
            assert resampled[name][column] == pytest.approx(expected[name], abs=1e-12, nan_ok=True)


def distinct(found: Detections, index: int) -> Detections:
    scores = np.linspace(0.01, 0.99, len(found.scores)) + index / 1000
    return to_detections(found.masks, found.classes, np.random.default_rng(index).permutation(scores))


def test_masks_of_another_size_are_rejected():
    (name, truth, found), *_ = scenes(0, count=1)
    small = Detections(found.masks[:, :10], found.boxes, found.classes, found.scores)
    with pytest.raises(ValueError, match=r"detected masks have shape \(10, 150\), true ones \(140, 150\)"):
        match(truth, small, INDICES, name)


def test_iou_with_a_crowd_is_the_fraction_of_the_detection_inside():
    truth, found = np.zeros((1, 4, 4), bool), np.zeros((1, 4, 4), bool)
    truth[0, :2], found[0, 1:] = True, True
    assert mask_iou(found, truth, NO_CROWD) == 4 / 16
    assert mask_iou(found, truth, ~NO_CROWD) == 4 / 12
    assert box_iou(boxes(found), boxes(truth), ~NO_CROWD) == 4 / 12


def test_areas_equal_pycocotools():
    params = pytest.importorskip("pycocotools.cocoeval").Params(iouType="segm")
    assert [list(area) for area in AREAS.values()] == params.areaRng
    assert list(AREAS) == params.areaRngLbl
