"""Runs a pipeline, and reports its progress and outcome."""
