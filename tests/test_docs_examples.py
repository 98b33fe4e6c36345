"""The scripts in docs/examples/ run as they are."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

_EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"

pytestmark = pytest.mark.slow


def test_a_script_trains_and_predicts_from_python(tmp_path):
    command = [sys.executable, str(_EXAMPLES / "train_and_predict.py"), str(tmp_path)]

    done = subprocess.run(command, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr[-5000:]
    summary = json.loads((tmp_path / "work" / "latest" / "summary.json").read_text())
    score, prediction = done.stdout.splitlines()[-2:]
    assert score == f"mean IoU {summary['metrics']['mean_iou']:.3f} blessed"
    assert "48x64 pixels of " in prediction
    assert Path(summary["pushed"], "saved_model.pb").is_file()
