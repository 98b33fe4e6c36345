import itertools

import pytest

from trainer.config import TrainingSettings
from trainer.schedule import learning_rate


def rates(steps_per_epoch: int, **settings: float) -> list[float]:
    recipe = TrainingSettings(**settings)
    schedule = learning_rate(recipe, steps_per_epoch)
    return [float(schedule(step)) for step in range(recipe.epochs * steps_per_epoch + 1)]


def test_the_rate_rises_linearly_and_then_falls_to_zero():
    curve = rates(10, epochs=4, learning_rate=1e-3, warmup_epochs=1)

    climb = [after - before for before, after in itertools.pairwise(curve[:11])]
    assert curve[0] > 0
    assert climb == pytest.approx([climb[0]] * 10, rel=1e-3)
    assert curve[10] == pytest.approx(1e-3) == max(curve)
    assert curve[25] == pytest.approx(0.5e-3)
    assert curve[10:] == sorted(curve[10:], reverse=True)
    assert curve[-1] == pytest.approx(0, abs=1e-9)


def test_without_warm_up_it_starts_at_the_peak():
    assert rates(5, epochs=2, learning_rate=2e-3, warmup_epochs=0)[0] == pytest.approx(2e-3)


def test_a_single_step_and_a_warm_up_longer_than_the_training_still_learn():
    assert rates(1, epochs=1, learning_rate=1e-3, warmup_epochs=0.5)[0] == pytest.approx(1e-3)
    assert all(rate > 0 for rate in rates(3, epochs=1, learning_rate=1e-3, warmup_epochs=9)[:3])


def test_the_rate_grows_with_the_square_root_of_the_number_of_devices():
    recipe = TrainingSettings(epochs=2, learning_rate=1e-3)

    one, four = learning_rate(recipe, 10), learning_rate(recipe, 10, devices=4)

    assert [float(four(step)) for step in range(20)] == pytest.approx([2 * float(one(step)) for step in range(20)])
