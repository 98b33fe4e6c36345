"""The Poisson bootstrap against a direct one, and what the gate counts of a change."""

from __future__ import annotations

import math

import numpy as np
import pytest

from components.class_map import ClassMap
from components.metrics import bootstrap, scores
from components.metrics.tally import MAX_SEQUENCES, Tally

CLASS_MAP = ClassMap(tuple(f"class {i}" for i in range(4)), ((0, 0, 0),) * 4, ignore_index=3)
IMAGES = 200


def matrices(seed: int, accuracy: float) -> np.ndarray:
    """Returns the confusion matrices of random images, int64 [IMAGES, 4, 4]; classes and images vary in difficulty."""
    random = np.random.default_rng(seed)
    found = np.zeros((IMAGES, 4, 4), np.int64)
    for image in range(IMAGES):
        right = np.clip(random.normal(accuracy, 0.15), 0.05, 0.95)
        for truth, pixels in enumerate(random.poisson([400, 100, 20, 30])):
            found[image, truth] = random.multinomial(
                pixels, [right if c == truth else (1 - right) / 3 for c in range(4)]
            )
    return found


def tally_of(found: np.ndarray) -> Tally:
    tally = Tally.empty(CLASS_MAP)
    for index, matrix in enumerate(found):
        tally.add(matrix, b"image %d" % index)
    return tally


def direct_scores(found: np.ndarray) -> np.ndarray:
    """Returns mean IoU and mean Dice of resamples drawn with replacement, float64 [4000, 2]; one seed, so paired."""
    random = np.random.default_rng(1)
    drawn = (random.integers(0, len(found), len(found)) for _ in range(4000))
    resampled = (found[chosen].sum(axis=0) for chosen in drawn)
    found = [scores.scores(total, CLASS_MAP) for total in resampled]
    return np.array([(one["mean_iou"], one["mean_dice"]) for one in found])


@pytest.fixture(scope="module")
def models() -> tuple[np.ndarray, np.ndarray]:
    """Two models of about the same accuracy on images that are as hard for both."""
    candidate = matrices(seed=0, accuracy=0.6)
    baseline = candidate.copy()
    baseline[:, 0, 0] += 5
    return candidate, baseline


def test_intervals_equal_a_direct_bootstrap(models):
    candidate, _ = models

    found = bootstrap.score_intervals(tally_of(candidate).resampled())

    expected = np.quantile(direct_scores(candidate), (0.025, 0.975), axis=0)
    for column, name in enumerate(("mean_iou", "mean_dice")):
        width = expected[1, column] - expected[0, column]
        assert found[name] == pytest.approx(expected[:, column], abs=0.12 * width)


def test_changes_are_paired_by_image(models):
    candidate, baseline = models
    changes = bootstrap.change_intervals(tally_of(candidate).resampled(), tally_of(baseline).resampled())

    expected = np.quantile(direct_scores(candidate) - direct_scores(baseline), (0.025, 0.975), axis=0)[:, 0]
    low, high = changes["mean_iou"]
    assert (low, high) == pytest.approx(expected, abs=0.15 * (expected[1] - expected[0]))
    alone = bootstrap.score_intervals(tally_of(candidate).resampled())["mean_iou"]
    assert high - low < 0.2 * (alone[1] - alone[0])
    assert high < 0


def test_intervals_of_all_classes_together_are_wider(models):
    sides = [tally_of(model).resampled() for model in models]
    alone = bootstrap.change_intervals(*sides)
    together = bootstrap.change_intervals(*sides, jointly=True)

    differences = np.subtract(*(side["class_iou/class 0"] for side in sides))
    assert together["mean_iou"] == alone["mean_iou"]
    assert together["class_iou/class 0"] == pytest.approx(np.quantile(differences, (0.025 / 3, 1 - 0.025 / 3)))
    assert together["class_iou/class 0"][0] < alone["class_iou/class 0"][0]


def test_weights_are_poisson_and_depend_on_the_image():
    weights = np.stack([bootstrap.poisson_weights(b"%d" % image) for image in range(300)])

    np.testing.assert_array_equal(weights[7], bootstrap.poisson_weights(b"7"))
    assert weights.mean() == pytest.approx(1, abs=0.01)
    assert weights.var() == pytest.approx(1, abs=0.02)
    correlations = np.corrcoef(weights)[np.triu_indices(300, 1)]
    assert np.abs(correlations).max() < 0.2


def test_tallies_add_up(models):
    candidate, _ = models
    whole, parts = tally_of(candidate), [Tally.empty(CLASS_MAP) for _ in range(3)]
    for index, matrix in enumerate(candidate):
        parts[index % 3].add(matrix, b"image %d" % index)

    parts[0].merge(parts[1])
    parts[0].merge(parts[2])

    np.testing.assert_array_equal(parts[0].matrix, whole.matrix)
    np.testing.assert_array_equal(parts[0].resamples, whole.resamples)
    np.testing.assert_array_equal(parts[0].sequences[""], whole.sequences[""])


def test_the_size_of_a_tally_does_not_depend_on_the_number_of_images():
    tally = tally_of(matrices(seed=2, accuracy=0.5))

    assert tally.resamples.shape == (bootstrap.RESAMPLES, 3, 3)
    assert tally.resamples.nbytes == bootstrap.RESAMPLES * 3 * 3 * 8


def test_too_many_sequences_are_dropped_in_any_order():
    matrix = np.eye(4, dtype=np.int64)
    tallies = [Tally.empty(CLASS_MAP) for _ in range(2)]
    for index in range(MAX_SEQUENCES):
        tallies[index % 2].add(matrix, b"", f"{index:05}")
    before = [dict(tally.sequences) for tally in tallies]

    tallies[0].merge(tallies[1])
    assert len(tallies[0].sequences) == MAX_SEQUENCES == len(before[0]) + len(before[1])

    tallies[0].add(matrix, b"", "one more")
    assert tallies[0].sequences is None
    tallies[0].add(matrix, b"", "00000")
    tallies[1].merge(tallies[0])
    assert tallies[1].sequences is None
    assert tallies[0].matrix[0, 0] == MAX_SEQUENCES + 2


def test_a_class_without_a_true_pixel_has_no_interval():
    tally = Tally.empty(CLASS_MAP)
    tally.add(np.diag([5, 5, 0, 5]), b"image")

    found = bootstrap.score_intervals(tally.resampled())

    assert all(math.isnan(bound) for bound in found["class_iou/class 2"])
    assert found["mean_iou"] == (1.0, 1.0)


@pytest.mark.parametrize(
    ("change", "bounds", "significant_only", "expected"),
    [
        (-0.03, (-0.05, -0.01), True, -0.03),
        (-0.03, (-0.07, 0.01), True, 0.0),
        (-0.03, (-0.07, 0.0), True, 0.0),
        (-0.03, (-0.07, 0.01), False, -0.03),
        (0.03, (-0.01, 0.07), True, 0.03),
        (math.nan, (math.nan, math.nan), True, 0.0),
        (math.nan, (math.nan, math.nan), False, 0.0),
    ],
)
def test_only_significant_drops_count(change, bounds, significant_only, expected):
    assert bootstrap.counted_change(change, bounds, significant_only) == expected
