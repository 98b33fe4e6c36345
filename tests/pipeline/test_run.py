"""A run prints the names of its files as they are."""

from pipeline import run
from pipeline.config import load_config


def test_brackets_in_the_work_directory_are_printed(street_scenes, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(run, "_run", lambda *_: True)
    out = str(tmp_path / "work[left]" / "[x]")

    assert run.run_pipeline(load_config([("test", {"data": {"dir": street_scenes}})]), out)

    assert f"log {out}/runs/" in capfd.readouterr().out
