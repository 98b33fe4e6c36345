"""Fixtures for the tests of the manifests."""

from rendered import render  # noqa: F401
