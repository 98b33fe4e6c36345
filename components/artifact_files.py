"""Names of the files inside artifacts that several parts of segpipe read or write."""

from __future__ import annotations

import json
from typing import Any

from components import files

# In an exported model, an asset of its graph: name, class map, input size, settings, scores.
MODEL_METADATA = "assets/segpipe.json"
# In the trainer's ModelRun: one entry per epoch.
HISTORY = "history.json"
# In the Report: the data of the page.
REPORT_DATA = "report.json"
# Beside the exported model's folder: the network's weights, for warm starts.
WEIGHTS = "network.weights.h5"


def weights_beside(serving_model_dir: str) -> str:
    """Returns the path of a network's weights, beside the folder of its exported model."""
    return files.join(serving_model_dir.rstrip("/").rpartition("/")[0], WEIGHTS)


def read_model_metadata(directory: str) -> dict[str, Any]:
    """Returns the metadata of an exported model. Raises OSError if it cannot be read, ValueError if not JSON."""
    return json.loads(files.read_bytes(files.join(directory, MODEL_METADATA)))


def write_model_metadata(directory: str, content: dict[str, Any]) -> None:
    """Replaces the metadata of an exported model. Raises OSError."""
    text = json.dumps(content, indent=2, sort_keys=True)
    files.write_bytes(files.join(directory, MODEL_METADATA), text.encode())
