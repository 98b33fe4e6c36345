"""Workarounds for the older stack (TFX 1.16 on Python 3.10); delete this file with that stack."""

from __future__ import annotations

import warnings


def hide_google_warnings() -> None:
    """Hides the warnings of google-api-core 2.44 and google-auth 2.6 about the end of Python 3.10 and grpcio 1.65."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"google\.")
