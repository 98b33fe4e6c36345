"""Releases of a served model: which version is stable, which is the canary, and the way back."""
