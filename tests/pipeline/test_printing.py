"""What commands show while they work."""

import io

import pytest
from rich.console import Console

from pipeline.cli import printing


@pytest.mark.parametrize(("unit", "shown"), [("images", "images/s"), ("", "50%")])
def test_a_progress_bar_shows_the_steps_done_and_their_speed(monkeypatch, unit, shown):
    screen = io.StringIO()
    monkeypatch.setattr(
        printing, "Console", lambda stderr: Console(file=screen, force_terminal=True, width=120, color_system=None)
    )

    with printing.progress_bar("predicting images", unit) as on_progress:
        for done in range(3):
            on_progress(done, 4)

    text = screen.getvalue()
    assert "predicting images" in text
    assert "2/4" in text
    assert shown in text
    assert ("/s" in text) == bool(unit)
