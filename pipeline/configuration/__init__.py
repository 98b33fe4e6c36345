"""What decides what a run does: settings, presets, spans of data."""
