"""The rules of a release: the labels after each step, and impossible steps."""

import pytest

from components.errors import ReleaseError
from serving.release.labels import Release, from_labels, promote, rollback, start_canary, withdraw_canary


def test_the_first_version_named_becomes_stable_and_answers_to_canary_too():
    assert promote(None, 12).labels() == {"stable": 12, "canary": 12}


def test_a_canary_is_served_besides_the_stable_version_until_promoted():
    trial = start_canary(Release(12, 12), 13)

    assert trial.labels() == {"stable": 12, "canary": 13}
    assert promote(trial, None).labels() == {"stable": 13, "canary": 13, "previous": 12}


def test_after_a_withdrawal_canary_points_to_the_stable_version():
    assert withdraw_canary(Release(12, 13, 11)) == Release(12, 12, 11)


def test_a_rollback_undoes_a_promotion_once():
    back = rollback(promote(Release(12, 13), None))

    assert back == Release(12, 12)
    with pytest.raises(ReleaseError, match="no version labelled previous"):
        rollback(back)


def test_a_rollback_keeps_the_canary():
    assert rollback(Release(13, 14, 12)) == Release(12, 14)


def test_labels_and_release_are_the_same_thing():
    release = Release(13, 14, 12)

    assert from_labels({**release.labels(), "shadow": 9}) == release
    assert from_labels({"canary": 3}) is None


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda: start_canary(None, 13), "no stable version"),
        (lambda: start_canary(Release(12, 12), 12), "already the stable version"),
        (lambda: withdraw_canary(Release(12, 12)), "no canary on trial"),
        (lambda: promote(Release(12, 12), None), "no canary on trial"),
        (lambda: promote(None, None), "no canary on trial"),
        (lambda: promote(Release(12, 13), 12), "already the stable version"),
        (lambda: rollback(None), "no version labelled previous"),
    ],
)
def test_an_impossible_step_says_what_to_do(step, message):
    with pytest.raises(ReleaseError, match=message):
        step()
