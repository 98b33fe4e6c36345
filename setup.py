"""Installs segpipe's packages and the `segpipe` command.

What they need is pinned in `requirements/`; `make setup` installs it. The folder `kubernetes/` is
data, never a package: a package of that name would hide the Kubernetes client that kfp imports.
"""

from setuptools import find_packages, setup

setup(
    name="segpipe",
    version="0.1.0",
    description="Production pipeline for semantic segmentation on TensorFlow Extended and Kubeflow",
    python_requires=">=3.10,<3.13",
    packages=find_packages(
        include=["pipeline", "pipeline.*", "components", "components.*", "trainer", "trainer.*", "serving", "serving.*"]
    ),
    package_data={"": ["*.yaml", "*.html", "*.css", "*.js", "*.json", "*.gz", "*.txt", "static/*"]},
    entry_points={"console_scripts": ["segpipe=pipeline.cli.main:main"]},
)
