"""The lines of a run's console without a terminal."""

import io
import logging

import pytest

from pipeline.running.console import RunConsole


@pytest.mark.parametrize(
    ("epochs", "validate_every", "printed"),
    [
        (3, 1, [1, 2, 3]),
        (120, 1, [1, 15, 30, 45, 60, 75, 90, 105, 120]),
        # Epoch 15 would be due, but has no validation score.
        (60, 4, [1, 8, 16, 24, 32, 40, 48, 56, 60]),
    ],
)
def test_a_long_training_prints_few_epochs_with_their_validation_scores(epochs, validate_every, printed):
    stream, progress = io.StringIO(), logging.getLogger("segpipe.progress")
    progress.setLevel(logging.INFO)

    with RunConsole(stream):
        for epoch in range(1, epochs + 1):
            score = 0.5 if epoch % validate_every == 0 or epoch == epochs else None
            record = {"epoch": epoch, "epochs": epochs, "step": 5, "steps": 5, "val_mean_iou": score}
            for ended in (False, True):
                progress.info("epoch %d", epoch, extra={"progress": {**record, "epoch_ended": ended}})

    assert stream.getvalue().splitlines() == [f"    epoch {epoch}" for epoch in printed]
