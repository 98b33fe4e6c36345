"""Commands that measure every published speed figure; see `python -m benchmarks.NAME --help`."""
