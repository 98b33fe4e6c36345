"""What tests of serving share: a server with a toy model, for what talks to servers."""

import pytest
from toy_servicer import ToyModel, serving


@pytest.fixture
def toy():
    """The model behind `server`, where a test sets faults and sees what was asked."""
    return ToyModel()


@pytest.fixture
def server(toy):
    """HOST:PORT of a running server of the model "toy"."""
    with serving(toy) as address:
        yield address
