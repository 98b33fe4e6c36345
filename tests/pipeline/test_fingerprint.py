"""The source hash changes only with the code that a module imports."""

import sys
from pathlib import Path

import pytest

from pipeline.wiring import fingerprint


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A first-party package of its own: top imports middle imports bottom; other stands apart."""
    root = tmp_path / "sourcehash_probe"
    (root / "inner").mkdir(parents=True)
    for name, text in {
        "__init__.py": "",
        "top.py": "from sourcehash_probe import middle\n",
        "middle.py": "def late():\n    from sourcehash_probe.inner.bottom import value\n",
        "other.py": "x = 1\n",
        "inner/__init__.py": "",
        "inner/bottom.py": "value = 1\n",
        "inner/page.html": "<p>",
    }.items():
        (root / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(fingerprint, "FIRST_PARTY", ("sourcehash_probe",))
    fingerprint.source_hash.cache_clear()
    yield root
    fingerprint.source_hash.cache_clear()
    for name in [name for name in sys.modules if name.startswith("sourcehash_probe")]:
        del sys.modules[name]


def _hash():
    fingerprint.source_hash.cache_clear()
    return fingerprint.source_hash("sourcehash_probe.top")


@pytest.mark.parametrize("name", ["top.py", "middle.py", "inner/bottom.py", "inner/page.html"])
def test_a_change_in_an_imported_module_changes_the_hash(package, name):
    before = _hash()

    (package / name).write_text((package / name).read_text() + "\n# changed\n")

    assert _hash() != before


@pytest.mark.parametrize(
    "statement",
    [
        "if x:\n    pass\nelse:\n    {}",
        "try:\n    pass\nexcept OSError:\n    {}",
        "try:\n    pass\nfinally:\n    {}",
        "match x:\n    case 1:\n        {}",
        "class C:\n    async def f(self):\n        with x:\n            {}",
    ],
)
def test_imports_in_every_kind_of_block_count(package, statement):
    (package / "top.py").write_text(statement.format("import sourcehash_probe.other"))
    before = _hash()

    (package / "other.py").write_text("x = 2\n")

    assert _hash() != before


def test_a_change_in_another_module_does_not_change_the_hash(package):
    before = _hash()

    (package / "other.py").write_text("x = 2\n")

    assert _hash() == before


@pytest.mark.parametrize("name", ["inner/.bottom.py.swp", "inner/page.html~"])
def test_backup_files_do_not_change_the_hash(package, name):
    before = _hash()

    (package / name).write_text("half a line")

    assert _hash() == before


def test_a_broken_link_does_not_change_the_hash(package):
    before = _hash()

    (package / "inner" / "link.html").symlink_to("missing")

    assert _hash() == before


def test_the_trainer_does_not_depend_on_the_report(monkeypatch):
    def hash_of_trainer():
        fingerprint.source_hash.cache_clear()
        return fingerprint.source_hash("trainer.run_fn")

    before = hash_of_trainer()
    read = Path.read_bytes
    changed = {"components/report/data.py", "components/report/page.py"}

    def read_changed(path):
        in_project = path.relative_to(Path(fingerprint.__file__).parents[2]).as_posix()
        return read(path) + (b"\n# changed\n" if in_project in changed else b"")

    monkeypatch.setattr(Path, "read_bytes", read_changed)
    assert hash_of_trainer() == before
    changed.add("trainer/config.py")
    assert hash_of_trainer() != before
