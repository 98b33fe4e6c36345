"""For tools that need a setup.py; the package is defined in pyproject.toml."""

from setuptools import setup

setup()
