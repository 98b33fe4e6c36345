"""Reads pyproject.toml and the lock of the current stack, which the images install."""

from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def requirements(*extras):
    """Returns the project's requirements with some extras and the extras that these include, for every stack."""
    found = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
    for extra in extras:
        for text in PROJECT["project"]["optional-dependencies"][extra]:
            requirement = Requirement(text)
            found += requirements(*requirement.extras) if requirement.name == "segpipe" else [requirement]
    return found


def removed():
    """Returns the packages that an override removes with a marker that is never true."""
    overrides = map(Requirement, PROJECT["tool"]["uv"]["override-dependencies"])
    return {canonicalize_name(one.name) for one in overrides if str(one.marker) == 'python_version < "3"'}


def pins():
    """Returns the current stack's pinned version of each package, for this Python."""
    lines = (ROOT / "requirements" / "current.txt").read_text().splitlines()
    pinned = [Requirement(line.rstrip("\\ ")) for line in lines if line and line[0] not in " #"]
    return {
        canonicalize_name(one.name): str(one.specifier).removeprefix("==")
        for one in pinned
        if one.marker is None or one.marker.evaluate()
    }
