"""A summary never names a version that is no longer there."""

import pytest

from components.errors import SegpipeError
from pipeline.summary import check_served


def test_a_version_that_was_removed_is_named_with_the_way_back(tmp_path):
    version = tmp_path / "serving" / "12"

    with pytest.raises(SegpipeError, match=f"{version}.*gone.*cp -r kept {version}"):
        check_served(str(version), "kept")


def test_a_version_that_is_there_passes(tmp_path):
    (tmp_path / "saved_model.pb").touch()

    assert check_served(str(tmp_path), "kept") is None
