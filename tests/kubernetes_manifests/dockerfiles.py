"""Reads Dockerfiles: stages, instructions, and the files that a COPY takes from the repository."""

import dataclasses
import re
import shlex
import shutil
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Instruction:
    name: str
    text: str

    @property
    def words(self):
        return shlex.split(self.text)


@dataclasses.dataclass(frozen=True)
class Stage:
    name: str
    base: str
    instructions: tuple

    def all(self, name):
        return [one for one in self.instructions if one.name == name]


def read(path):
    """Returns a Dockerfile's stages in order."""
    lines = [line for line in Path(path).read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    stages, current = [], None
    for line in filter(None, map(str.strip, joined.splitlines())):
        name, _, text = line.partition(" ")
        if name == "FROM":
            base, _, stage = text.partition(" AS ")
            current = []
            stages.append((stage, base, current))
        else:
            current.append(Instruction(name, text))
    return [Stage(name, base, tuple(instructions)) for name, base, instructions in stages]


def chain(stages, name):
    """Returns a stage's own instructions after those of the stages it is built from."""
    (stage,) = (one for one in stages if one.name == name)
    named = {one.name for one in stages}
    before = chain(stages, stage.base) if stage.base in named else []
    return [*before, *stage.instructions]


def copied(instruction):
    """Returns the sources and the destination of a COPY; no sources if it copies from a stage."""
    words = instruction.words
    if words[0].startswith("--from="):
        return [], words[-1]
    return words[:-1], words[-1]


def copy_into(root, instructions, repository):
    """Copies the files of the COPY instructions from the repository into a folder, except bytecode."""
    for instruction in (one for one in instructions if one.name == "COPY"):
        sources, destination = copied(instruction)
        for source in sources:
            target = root / destination.lstrip("/")
            if (repository / source).is_dir():
                shutil.copytree(repository / source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
            else:
                target = target / Path(source).name if destination.endswith("/") else target
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(repository / source, target)
