"""Watches for drift: what the served model is asked, or new data, against what it was trained on."""
