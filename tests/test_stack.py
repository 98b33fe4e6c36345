"""The overrides of the locks: the stack works without the removed and replaced packages."""

import importlib
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent
_STACK = (_ROOT / ".venv" / ".ready").read_text().split()[0]


def _pins(stack: str) -> dict[str, set[str]]:
    """Returns the versions of each package in a lock."""
    pins: dict[str, set[str]] = {}
    for name, version in re.findall(
        r"^([\w.-]+)==([\w.]+)", (_ROOT / "requirements" / f"{stack}.txt").read_text(), re.M
    ):
        pins.setdefault(name, set()).add(version)
    return pins


def test_the_installed_versions_are_those_of_the_lock():
    pins = _pins(_STACK)
    for name in (
        "tfx",
        "tensorflow",
        "keras",
        "apache-beam",
        "kfp",
        "protobuf",
        "pyarrow",
        "urllib3",
        "starlette",
        "h11",
    ):
        assert importlib.metadata.version(name) in pins[name]


@pytest.mark.parametrize("stack", ["current", "older"])
def test_every_pin_has_a_hash_and_removed_packages_are_not_pinned(stack):
    text = (_ROOT / "requirements" / f"{stack}.txt").read_text()
    blocks = re.split(r"\n(?=\S)", text.strip())
    left_out = {"notebook", "jupyterlab", "jupyter-server", "crcmod", "tensorflow-hub", "google-cloud-vision"}

    assert all("--hash=sha256:" in block for block in blocks)
    assert not left_out & set(_pins(stack))
    # An index's address would make the lock depend on one network.
    assert "://" not in text


@pytest.mark.parametrize(
    ("package", "safe"),
    [("pyarrow", "14.0.1"), ("h11", "0.16"), ("urllib3", "2.6"), ("starlette", "0.49.1"), ("protobuf", "4.25.8")],
)
@pytest.mark.parametrize("stack", ["current", "older"])
def test_pins_are_newer_than_the_vulnerable_versions_that_tfx_pins(stack, package, safe):
    def numbers(version):
        return [int(part) for part in version.split(".")]

    assert all(numbers(version) >= numbers(safe) for version in _pins(stack)[package])


def test_tfma_is_complete():
    # TFMA's __init__ catches an ImportError of a part, prints it, and continues without the part.
    import tensorflow_model_analysis as tfma

    for part in ("evaluators", "extractors", "metrics", "slicer", "view", "load_eval_result"):
        assert hasattr(tfma, part), part


def test_beam_reads_records_and_cloud_storage_with_the_replaced_requirements(tmp_path):
    import apache_beam as beam
    from apache_beam.io.gcp.gcsfilesystem import GCSFileSystem

    path = str(tmp_path / "records")
    with beam.Pipeline() as pipeline:
        _ = pipeline | beam.Create([b"one", b"two"]) | beam.io.WriteToTFRecord(path, shard_name_template="")
    with beam.Pipeline() as pipeline:
        read = pipeline | beam.io.ReadFromTFRecord(path) | beam.combiners.ToList()
        _ = read | beam.Map(lambda records: _expect(sorted(records) == [b"one", b"two"]))

    assert GCSFileSystem.scheme() == "gs"


def _expect(condition: bool) -> None:
    assert condition


def test_tfdv_imports_a_farmhash_module():
    assert importlib.import_module("farmhash")
    assert importlib.import_module("tensorflow_data_validation").generate_statistics_from_dataframe


def test_google_clients_print_no_warning_about_the_versions_of_the_older_stack():
    code = "from components.older_stack import hide_google_warnings as hide; hide(); import google.cloud.bigquery"
    done = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, check=True)

    assert "FutureWarning" not in done.stderr
