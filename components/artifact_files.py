"""Names of the files inside artifacts that more than one part of segpipe reads or writes."""

from __future__ import annotations

import json
from typing import Any

from components import files

# In an exported model, an asset of its graph: name, class map, input size, settings, scores.
MODEL_METADATA = "assets/segpipe.json"
# In the trainer's ModelRun: one entry an epoch.
HISTORY = "history.json"
# In the Report: everything that the page shows.
REPORT_DATA = "report.json"
# Beside the exported model's folder: the network's weights, for a later training to start from.
WEIGHTS = "network.weights.h5"


def weights_beside(serving_model_dir: str) -> str:
    """Returns the path of a network's weights, which lie next to the folder of its export."""
    return files.join(serving_model_dir.rstrip("/").rpartition("/")[0], WEIGHTS)


def read_model_metadata(directory: str) -> dict[str, Any]:
    """Returns what an exported model says of itself.

    Raises:
        OSError: it says nothing.
        ValueError: what it says is no JSON.
    """
    return json.loads(files.read_bytes(files.join(directory, MODEL_METADATA)))


def write_model_metadata(directory: str, content: dict[str, Any]) -> None:
    """Replaces what an exported model says of itself. Raises OSError where it cannot be written."""
    text = json.dumps(content, indent=2, sort_keys=True)
    files.write_bytes(files.join(directory, MODEL_METADATA), text.encode())
