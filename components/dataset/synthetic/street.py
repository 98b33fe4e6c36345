"""The plan of a street: its light and camera, and what stands and moves along it.

Every 20 metres have their own random stream, so that frames can be drawn in any order by any number of processes.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import numpy as np

Color = tuple[float, float, float]
Range = tuple[float, float]

BLOCK = 20.0  # metres of road planned from one random stream


class Look(NamedTuple):
    """What the frames of one sequence have in common: its light, and lengths in metres."""

    zenith: Color
    horizon: Color  # of the sky, and of haze
    cloud: Color
    clouds: float  # fraction of the sky
    tint: Color  # factors on red, green and blue of everything lit by that sky
    haze: float  # fraction of haze in the colour at a distance of 100 m
    shadow: float  # brightness in the shadow of a house
    sun: int  # the side it stands on, -1 or 1
    above: float  # height of the camera
    lane: float  # distance of the camera from the middle of the road, negative to the left
    focal: float  # focal length as a fraction of the picture's width
    skyline: float  # row of the horizon as a fraction of the picture's height
    road: float  # half its width
    pavement: float  # width of each side walk
    garden: float  # width of the grass between side walk and houses
    asphalt: float  # grey level
    paving: float  # grey level


LIGHTS: tuple[tuple[Color, Color, Color, float, Color, float, float], ...] = (
    ((72, 122, 196), (196, 214, 232), (246, 247, 250), 0.35, (1.0, 0.98, 0.92), 0.3, 0.56),  # clear day
    ((62, 72, 104), (196, 158, 138), (104, 100, 116), 0.55, (0.5, 0.47, 0.52), 0.25, 0.9),  # dusk
    ((158, 166, 174), (222, 224, 226), (204, 208, 212), 0.85, (0.78, 0.8, 0.83), 0.45, 0.9),  # overcast
    ((104, 144, 200), (236, 222, 198), (250, 240, 226), 0.5, (0.94, 0.86, 0.74), 0.42, 0.66),  # low sun
)
# Of the numbers from `above` to `paving`.
RANGES = (
    (1.3, 1.65),
    (-1.8, -1.3),
    (0.82, 0.98),
    (0.47, 0.53),
    (3.7, 4.5),
    (1.9, 2.7),
    (0, 2.5),
    (84, 122),
    (128, 172),
)


@functools.lru_cache(maxsize=8)
def look(seed: int, sequence: int) -> Look:
    """Returns the look of a sequence; four in a row have the four lights."""
    rng = np.random.default_rng([seed, sequence, 1])
    sun, numbers = int(rng.choice((-1, 1))), (float(rng.uniform(*span)) for span in RANGES)
    return Look(*LIGHTS[sequence % 4], sun, *numbers)


@dataclasses.dataclass(frozen=True)
class Thing:
    """One object of a street."""

    kind: str
    x: float  # metres from the middle of the road, right is positive
    z: float  # metres along the road
    speed: float  # metres it moves along the road while the camera moves one
    stroll: float  # metres it moves to the right while the camera moves one
    dice: list[float]  # its own 32 random numbers from 0 to 1, the source of its looks

    def seen_from(self, place: float) -> Thing:
        """Returns the thing where it is when the camera is at `place` metres along the road."""
        ahead = self.z - place
        return dataclasses.replace(self, x=self.x - self.stroll * ahead, z=place + ahead * (1 - self.speed))


class Habit(NamedTuple):
    """How often a kind of thing occurs on a side of a block, and where: at random within each range."""

    kind: str
    chance: float
    along: Range  # metres from the start of the block
    beyond: Range = (0.45, 0.45)  # metres from the kerb, negative on the road
    sides: tuple[int, ...] = (-1, 1)
    speed: Range = (0, 0)
    stroll: Range = (0, 0)


HABITS = (
    Habit("lamp", 0.5, (1, 5)),
    Habit("sign", 0.6, (6, 18)),
    Habit("traffic_light", 0.4, (10, 13)),
    Habit("tree", 0.28, (4, 16), (0.75, 0.75)),
    Habit("railing", 0.3, (12, 13), (0.25, 0.25)),
    Habit("vehicle", 0.3, (3, 5), (-1.1, -0.9)),
    Habit("vehicle", 0.15, (11, 13), (-1.1, -0.9), (1,)),
    Habit("vehicle", 0.42, (8, 8), (-2.9, -2.3), (1,), (-1.0, -1.0)),
    Habit("vehicle", 0.2, (15, 15), (-2.8, -2.4), (-1,), (0.72, 0.72)),
    *[Habit("pedestrian", 0.7, (0, 20), (0.4, 1.8), speed=(-0.12, 0.12))] * 2,
    Habit("pedestrian", 0.12, (3, 3), (-1, -1), stroll=(-0.1, 0.1)),
    Habit("bicyclist", 0.45, (14, 14), (-6, -1), stroll=(-0.1, 0.1)),
)


@functools.lru_cache(maxsize=64)
def block(seed: int, sequence: int, index: int) -> tuple[Thing, ...]:
    """Returns what stands and moves along one block of road, from `index * BLOCK` metres on."""
    street, rng = look(seed, sequence), np.random.default_rng([seed, sequence, 2, index])
    things = []
    for side in (-1, 1):
        edge, planted = street.pavement + street.garden, rng.random() < 0.35
        plot = [Habit("house", 1, (start, start + 0.5), (edge, edge + 0.8)) for start in (0, 10)]
        if planted:
            plot = [Habit("tree", 1, (start, start + 3), (edge + 1.5, edge + 6)) for start in (1, 6, 11, 16)]
        plot.append(Habit("fence", 0.5, (0, 0), (edge - 0.1, edge - 0.1)))
        for habit in (*plot, *HABITS):
            occurs, dice = rng.random() < habit.chance, rng.random(32).tolist()
            spans = (habit.along, habit.beyond, habit.speed, habit.stroll)
            along, beyond, speed, stroll = (float(rng.uniform(*span)) for span in spans)
            if occurs and side in habit.sides:
                x, z = side * (street.road + beyond), index * BLOCK + along
                things.append(Thing(habit.kind, x, z, speed, stroll, dice))
    return tuple(things)
