"""Fixtures of the serving tests: a server with a toy model."""

import pytest
from toy_servicer import ToyModel, serving


@pytest.fixture
def toy():
    """The model of `server`; tests set its failures and read its requests."""
    return ToyModel()


@pytest.fixture
def server(toy):
    """HOST:PORT of a running server of the model "toy"."""
    with serving(toy) as address:
        yield address
