"""The plan of a street: what stands and moves along every 20 metres of it.

Every block of road is drawn from its own random stream, so a frame far down a long street costs no more than
the first, and frames can be drawn in any order by any number of processes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from components.dataset.synthetic.canvas import Color
from components.dataset.synthetic.style import Style, style
from components.dataset.synthetic.texture import Facade

T = TypeVar("T")

BLOCK = 20.0  # metres of road planned from one random stream
STEP = 5.0  # metres the camera moves from frame to frame

LEAVES: tuple[Color, ...] = ((72, 112, 44), (92, 124, 52), (54, 92, 46), (116, 124, 58), (84, 104, 66))
BRIGHT: tuple[Color, ...] = ((176, 40, 44), (38, 92, 60), (36, 66, 130), (196, 150, 44), (92, 52, 44), (52, 52, 58))


@dataclasses.dataclass(frozen=True)
class Thing:
    """One object of a street.

    Attributes:
        kind: name of its painter.
        s: distance from the middle of the road in metres, right is positive.
        z: distance along the road in metres.
        size: length along the road (walls), height or scale, in metres.
        speed: metres it moves along the road while the camera moves one.
        stroll: metres it moves across the road while the camera moves one.
        variant: random number, the source of its looks.
        facade: looks of a building.
    """

    kind: str
    s: float
    z: float
    size: float = 1.0
    speed: float = 0.0
    stroll: float = 0.0
    variant: int = 0
    facade: Facade | None = None

    def pick(self, choices: Sequence[T]) -> T:
        """Returns one of the choices, always the same one for this thing."""
        return choices[self.variant % len(choices)]

    def share(self, index: int) -> float:
        """Returns the thing's own random number of that index, from 0 to 1, in steps of 1/63."""
        return (self.variant >> (5 * index) & 63) / 63


@functools.lru_cache(maxsize=64)
def block(seed: int, sequence: int, index: int) -> tuple[Thing, ...]:
    """Returns what stands and moves along one block of road, from `index * BLOCK` metres on."""
    look = style(seed, sequence)
    rng = np.random.default_rng([seed, sequence, 2, index])
    things: list[Thing] = []
    for side in (-1, 1):
        things += _plot(rng, look, index, side, has_side_road(seed, sequence, index) == side)
        things += _furniture(rng, look, index, side)
    return tuple(things + _traffic(rng, look, index) + _people(rng, look, index))


def has_side_road(seed: int, sequence: int, index: int) -> int:
    """Returns the side on which a block opens into a side road, -1 or 1, or 0 for neither."""
    rng = np.random.default_rng([seed, sequence, 3, index])
    return int(rng.choice((-1, 1))) if rng.random() < 0.16 else 0


def _plot(rng: np.random.Generator, look: Style, index: int, side: int, side_road: bool) -> list[Thing]:
    """Plans what lies behind one side walk: houses, or a garden with a fence."""
    start, line = index * BLOCK, look.building_line
    variant = int(rng.integers(1 << 30))
    if rng.random() < look.greenery and not side_road:
        things = [
            Thing("tree", side * (line + rng.uniform(1.5, 6)), start + z, rng.uniform(4.5, 10), variant=variant + z)
            for z in (2, 7, 13, 18)
        ]
        kind = ("fence", "fence", "hedge")[int(rng.integers(3))]
        things.append(Thing(kind, side * (line + 0.2), start, BLOCK, variant=variant))
        return things
    things = []
    lots = ((0.0, BLOCK),) if rng.random() < 0.35 else ((0.0, 9.0), (9.0, 11.0))
    for offset, width in ((0.0, 6.0), (14.0, 6.0)) if side_road else lots:
        setback = line + (rng.uniform(0, 0.8) if look.verge == 0 else rng.uniform(0.3, 2.5))
        things.append(
            Thing(
                "building",
                side * setback,
                start + offset,
                width,
                variant=variant + int(offset),
                facade=_facade(rng, look),
            )
        )
    if look.verge > 0 and not side_road and rng.random() < 0.75:
        kind = "fence" if rng.random() < 0.6 else "hedge"
        things.append(Thing(kind, side * (line - 0.1), start + 1, BLOCK - 3, variant=variant))
    return things


def _facade(rng: np.random.Generator, look: Style) -> Facade:
    """Draws the looks of one building."""
    lit = 0.4 if look.light.lamps else 0.04
    wall = look.materials[int(rng.integers(len(look.materials)))]
    glass = ((52, 60, 72), (86, 100, 116), (38, 40, 44))[int(rng.integers(3))]
    return Facade(
        wall=tuple(int(min(c * rng.uniform(0.85, 1.12), 255)) for c in wall),  # type: ignore[arg-type]
        trim=((226, 222, 212), (120, 112, 104), (70, 66, 64))[int(rng.integers(3))],
        glass=glass,
        accent=BRIGHT[int(rng.integers(len(BRIGHT)))],
        storey=float(rng.uniform(2.7, 3.5)),
        bay=float(rng.uniform(1.9, 3.6)),
        opening=(float(rng.uniform(0.35, 0.7)), float(rng.uniform(0.42, 0.62))),
        shop=bool(look.verge == 0 and rng.random() < 0.7),
        bricks=float(rng.uniform(0.12, 0.45)),
        lit=lit,
        offset=int(rng.integers(100)),
    )


def _furniture(rng: np.random.Generator, look: Style, index: int, side: int) -> list[Thing]:
    """Plans the poles, signs, lights, bollards, trees and bins along one kerb."""
    start, kerb = index * BLOCK, look.road + 0.45

    def stand(kind: str, z: float, size: float, offset: float = 0.0) -> Thing:
        return Thing(kind, side * (kerb + offset), start + z, size, variant=int(rng.integers(1 << 30)))

    things = []
    if (index + (side > 0)) % 2 == 0:
        things.append(stand("lamp_post", float(rng.uniform(1, 5)), float(rng.uniform(6, 8.5))))
    if rng.random() < 0.55:
        things.append(stand("sign", float(rng.uniform(6, 18)), float(rng.uniform(2.3, 3.1))))
    if (index + (side > 0)) % 3 == 0:
        things.append(stand("traffic_light", float(rng.uniform(10, 13)), float(rng.uniform(3.0, 3.8))))
    if rng.random() < 0.3:
        things += [stand("bollard", float(z), 1.0) for z in (14, 15.5, 17)]
    if rng.random() < 0.28:
        things.append(stand("tree", float(rng.uniform(4, 16)), float(rng.uniform(4.5, 7)), 0.3))
    if rng.random() < 0.3:
        things.append(stand("railing", 12.5, 5.0, -0.2))
    if rng.random() < 0.5:
        things.append(stand("clutter", float(rng.uniform(2, 18)), float(rng.uniform(0.9, 1.5)), look.pavement - 1.1))
    return things


def _traffic(rng: np.random.Generator, look: Style, index: int) -> list[Thing]:
    """Plans parked, oncoming and leading vehicles, and those that wait in a side road."""
    start = index * BLOCK

    def vehicle(s: float, z: float, speed: float) -> Thing:
        return Thing("vehicle", s, start + z, speed=speed, variant=int(rng.integers(1 << 30)))

    things = []
    for side in (-1, 1):
        for place in (4.0, 11.0):
            # The camera's own lane is kept clear near the kerb, or nothing else would be seen.
            if rng.random() < (0.28 if side > 0 else 0.12):
                s = side * (look.road - (0.95 if side > 0 else 0.35))
                things.append(vehicle(s, place, 0.0))
    if rng.random() < 0.42:
        things.append(vehicle(look.road * 0.36, 8.0, -1.0))
    if index % 5 == 1:
        things.append(vehicle(look.lane + 0.1, 15.0, 0.72))
    return things


def _people(rng: np.random.Generator, look: Style, index: int) -> list[Thing]:
    """Plans pedestrians on the side walks, some who cross, and bicyclists at the kerb."""
    start = index * BLOCK
    things = []
    for _ in range(int(rng.integers(2, 5))):
        side = int(rng.choice((-1, 1)))
        things.append(
            Thing(
                "pedestrian",
                side * (look.road + float(rng.uniform(0.4, look.pavement - 0.3))),
                start + float(rng.uniform(0, BLOCK)),
                float(rng.uniform(1.5, 1.9)),
                speed=float(rng.uniform(-0.12, 0.12)),
                variant=int(rng.integers(1 << 30)),
            )
        )
    if index % 4 == 2:
        stroll = float(rng.choice((-0.1, 0.1)))
        things.append(
            Thing("pedestrian", -20 * stroll, start + 3, 1.75, stroll=stroll, variant=int(rng.integers(1 << 30)))
        )
    if index % 2 == 0:
        side, speed = ((-1, 0.35), (1, -0.45))[int(rng.integers(2))]
        s = side * (look.road - float(rng.uniform(0.5, 0.9)))
        things.append(Thing("bicyclist", s, start + 6, 1.75, speed=speed, variant=int(rng.integers(1 << 30))))
    if rng.random() < 0.25:
        s = float(rng.uniform(-1, 1)) * look.road
        stroll = float(rng.choice((-0.2, 0.2)))
        things.append(
            Thing("crossing_bicyclist", s, start + 14, 1.75, stroll=stroll, variant=int(rng.integers(1 << 30)))
        )
    return things
