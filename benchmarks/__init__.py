"""The commands behind every figure on speed; `python -m benchmarks.NAME --help` explains each."""
