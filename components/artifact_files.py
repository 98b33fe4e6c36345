"""Names of the files inside artifacts that more than one part of segpipe reads or writes."""

from __future__ import annotations

import json
from typing import Any

from components import files

# In an exported model: name, class map, input size and settings.
MODEL_METADATA = "assets.extra/segpipe.json"
# In the trainer's ModelRun: one entry an epoch.
HISTORY = "history.json"


def read_model_metadata(directory: str) -> dict[str, Any]:
    """Returns what an exported model says of itself.

    Raises:
        OSError: it says nothing.
        ValueError: what it says is no JSON.
    """
    return json.loads(files.read_bytes(files.join(directory, MODEL_METADATA)))
