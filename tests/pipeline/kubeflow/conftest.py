"""Fixtures for the tests of the compiled pipeline."""

import logging

import pytest


@pytest.fixture(autouse=True)
def loggers_as_they_were():
    """Restores the loggers, because a task adds a handler whose stream closes with the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """Returns a function that compiles the pipeline with settings and default parameters, and returns the path."""

    def compile_with(settings, data="", model="unet", preset="smoke"):
        from pipeline.kubeflow.compile import compile_pipeline
        from pipeline.kubeflow.parameters import configure, defaults

        layers = [("settings", settings)]
        values = defaults(data, model, preset, None, None)
        path = str(tmp_path_factory.mktemp("package") / "pipeline.yaml")
        compile_pipeline(configure({**values, "data": ""}, layers), layers, values, path)
        return path

    return compile_with
