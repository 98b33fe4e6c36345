"""Makes object stores known to TensorFlow and Beam, through which TFX reads and writes them.

Both bring `gs://` along; `s3://` needs a package for each. The newest TensorFlow IO, 0.37.1, is for TensorFlow 2.16, so
`s3://` works on the older stack only.
"""

from __future__ import annotations

import importlib

from components.errors import UsageError

# Modules to import, with the packages that bring them; TensorFlow IO registers its file systems when imported.
_S3 = {"boto3": "apache-beam[aws]", "tensorflow_io": "tensorflow-io"}


def prepare(*paths: str) -> None:
    """Prepares for whatever schemes the paths have. Raises UsageError where a package is missing."""
    if not any(path.startswith("s3://") for path in paths):
        return
    for module, package in _S3.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UsageError(
                f"s3://: found no {module} ({error}), expected the package {package} in the image. "
                "Add it to the image (tensorflow-io exists for the older stack only), or use gs:// or a volume"
            ) from None
