"""Names and tags of the project's images: a reserved placeholder registry, and the project's version."""

import re

import pytest
import yaml
from project import PROJECT, ROOT
from rendered import pods

_IMAGES = "pipeline-gpu|pipeline|serving-tools"
_REGISTRY = "registry.example.com/segpipe"


def _texts():
    """Yields the path and text of every file that may name an image."""
    paths = [ROOT / "README.md", ROOT / "Makefile"]
    for folder in ("docs", "kubernetes", "pipeline", "components", "serving", "trainer"):
        paths += [path for path in (ROOT / folder).rglob("*") if path.suffix in (".md", ".yaml", ".py", ".Dockerfile")]
    for path in paths:
        yield path.relative_to(ROOT), path.read_text()


@pytest.fixture(scope="module")
def makefile():
    return dict(re.findall(r"^(REGISTRY|TAG) \?= (\S+)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def test_make_images_uses_the_placeholder_registry_and_the_project_s_version(makefile):
    assert makefile == {"REGISTRY": _REGISTRY, "TAG": PROJECT["project"]["version"]}


def test_every_image_name_starts_with_the_placeholder_registry():
    wrong = [
        f"{path}: {found.group()}"
        for path, text in _texts()
        for found in re.finditer(rf"(?<![\w./-])(?:[\w.-]+/)*segpipe/(?:{_IMAGES})\b(?!/)", text)
        if not re.fullmatch(rf"{_REGISTRY}/(?:{_IMAGES})", found.group())
    ]

    assert wrong == []


def test_every_tag_is_the_project_s_version(makefile):
    found = [
        (str(path), tag)
        for path, text in _texts()
        for tag in re.findall(rf"/(?:{_IMAGES}):(\d[\w.]*\w)|\bTAG=(\d[\w.]*\w)", text)
    ]
    tags = {(path, *filter(None, groups)) for path, groups in found}

    assert len(tags) >= 5
    assert [(path, tag) for path, tag in tags if tag != makefile["TAG"]] == []


@pytest.mark.parametrize(
    ("folder", "names"),
    [("release", ["tools"]), ("object-store", ["copy-models", "follow-models"]), ("request-log", ["request-sink"])],
)
def test_our_containers_run_the_serving_tools(render, makefile, folder, names):
    image = f"{makefile['REGISTRY']}/serving-tools:{makefile['TAG']}"
    _, _, containers = next(pods(render(folder)))

    assert [one["name"] for one in containers if one["image"] == image] == names


@pytest.mark.parametrize("folder", ["release", "components/object-store", "components/request-log"])
def test_a_kustomization_sets_the_image_of_its_deployment(folder):
    directory = ROOT / "kubernetes" / "serving" / folder
    (image,) = yaml.safe_load((directory / "kustomization.yaml").read_text())["images"]

    assert f"image: {image['name']}\n" in (directory / "deployment.yaml").read_text()
