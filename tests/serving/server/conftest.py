"""Fixtures of the server's tests."""

import pytest
from toy_models import export_toy


@pytest.fixture(scope="session")
def toys(tmp_path_factory):
    """A folder with the toy as versions 1, 2 and 3, to copy from."""
    folder = tmp_path_factory.mktemp("toys")
    for number in (1, 2, 3):
        export_toy(folder / str(number), number)
    return folder
