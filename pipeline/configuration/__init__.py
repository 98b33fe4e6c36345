"""The configuration of a run: settings, presets and spans of data."""
