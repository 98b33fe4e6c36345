"""The PyTorch networks of the benchmark have as many parameters as the project's, and are timed."""

import math

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from benchmarks import torch_models  # noqa: E402
from trainer.config import ModelSettings  # noqa: E402
from trainer.models import registry  # noqa: E402


@pytest.mark.parametrize("name", torch_models.MODELS)
def test_both_networks_have_as_many_parameters(name):
    ours = registry.build(ModelSettings(name=name), (64, 96), 12)
    theirs = torch_models.MODELS[name](12).eval()

    with torch.no_grad():
        logits = theirs(torch.zeros(1, 3, 64, 96))

    assert sum(p.numel() for p in theirs.parameters()) == sum(math.prod(w.shape) for w in ours.trainable_weights)
    assert tuple(logits.shape) == (1, 12, 64, 96)


@pytest.mark.parametrize("name", torch_models.MODELS)
def test_a_step_is_timed(name):
    assert torch_models.seconds(name, 32, 64, 2, 3, 1) > 0
