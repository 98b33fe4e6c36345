"""Plans a street: its light, its camera, and the things along it.

Each block of 20 metres has its own random stream, so frames can be drawn in any order.
"""

from __future__ import annotations

import functools
import types
from pathlib import Path
from typing import NamedTuple

import numpy as np

from components import yaml_loading

Color = tuple[float, float, float]
Range = tuple[float, float]
Style = types.SimpleNamespace

BLOCK = 20.0  # metres
NUMBERS = yaml_loading.load(Path(__file__).with_name("street.yaml").read_text(encoding="utf-8"))


@functools.lru_cache(maxsize=8)
def style(seed: int, sequence: int) -> Style:
    """Returns light, camera and road of a sequence: the lights and ranges of `street.yaml`, and the side of the sun."""
    rng = np.random.default_rng([seed, sequence, 1])
    light, ranges = NUMBERS["lights"][sequence % len(NUMBERS["lights"])], NUMBERS["ranges"]
    sun = int(rng.choice((-1, 1)))  # on the left or right side of the road
    return Style(**light, sun=sun, **{name: rng.uniform(*span) for name, span in ranges.items()})


class Thing(NamedTuple):
    """One object of a street."""

    kind: str
    x: float  # metres from the middle of the road, positive to the right
    z: float  # metres along the road
    speed: float  # metres that it moves along the road for each metre that the camera moves
    sideways: float  # metres that it moves to the right for each metre that the camera moves
    traits: list[float]  # 32 random numbers from 0 to 1 that decide its appearance

    def seen_from(self, place: float) -> Thing:
        """Returns the thing at its position when the camera is `place` metres along the road."""
        ahead = self.z - place
        return self._replace(x=self.x - self.sideways * ahead, z=place + ahead * (1 - self.speed))


class Placement(NamedTuple):
    """Probability of a kind of thing on one side of a block, and the ranges of its position and motion."""

    kind: str
    probability: float
    along: Range  # metres from the start of the block
    beyond: Range = (0.45, 0.45)  # metres from the kerb, negative on the road
    sides: tuple[int, ...] = (-1, 1)
    speed: Range = (0, 0)
    sideways: Range = (0, 0)


@functools.lru_cache(maxsize=64)
def block(seed: int, sequence: int, index: int) -> tuple[Thing, ...]:
    """Returns the things along one block of road, which begins at `index * BLOCK` metres."""
    street, rng = style(seed, sequence), np.random.default_rng([seed, sequence, 2, index])
    placements = [Placement(**entry) for entry in NUMBERS["placements"]]
    things = []
    for side in (-1, 1):
        edge, planted = street.pavement + street.garden, rng.random() < 0.35
        plot = [Placement("house", 1, (start, start + 0.5), (edge, edge + 0.8)) for start in (0, 10)]
        if planted:
            plot = [Placement("tree", 1, (start, start + 3), (edge + 1.5, edge + 6)) for start in (1, 6, 11, 16)]
        plot.append(Placement("fence", 0.5, (0, 0), (edge - 0.1, edge - 0.1)))
        for placement in (*plot, *placements):
            occurs, traits = rng.random() < placement.probability, rng.random(32).tolist()
            spans = (placement.along, placement.beyond, placement.speed, placement.sideways)
            along, beyond, speed, sideways = (rng.uniform(*span) for span in spans)
            if occurs and side in placement.sides:
                x, z = side * (street.road + beyond), index * BLOCK + along
                things.append(Thing(placement.kind, x, z, speed, sideways, traits))
    return tuple(things)
