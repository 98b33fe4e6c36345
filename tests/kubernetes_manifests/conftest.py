"""What the tests of the manifests share."""

from rendered import render  # noqa: F401
