"""What the tests of the compiled pipeline share."""

import pytest


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """Returns a function that compiles the pipeline with settings and parameters' defaults; it returns the path."""

    def compile_with(settings, data="", model="unet", preset="smoke"):
        from pipeline.kubeflow.compile import compile_pipeline
        from pipeline.kubeflow.parameters import configure, defaults

        layers = [("settings", settings)]
        values = defaults(data, model, preset, None, None)
        path = str(tmp_path_factory.mktemp("package") / "pipeline.yaml")
        compile_pipeline(configure({**values, "data": ""}, layers), layers, values, path)
        return path

    return compile_with
