"""How a street looks: its light, its camera, its materials and its bends, the same in every frame of a sequence."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np

from components.dataset.synthetic.canvas import Color, Light
from components.dataset.synthetic.texture import Grain

LIGHTS = (
    Light((72, 122, 196), (196, 214, 232), (1.0, 0.98, 0.92), 0.30, 0.56, 0.35, (246, 247, 250), False, 4.0),
    Light((62, 72, 104), (196, 158, 138), (0.50, 0.47, 0.52), 0.25, 1.0, 0.55, (104, 100, 116), True, 6.0),
    Light((158, 166, 174), (222, 224, 226), (0.78, 0.80, 0.83), 0.45, 1.0, 0.85, (204, 208, 212), False, 5.0),
    Light((104, 144, 200), (236, 222, 198), (0.94, 0.86, 0.74), 0.42, 0.66, 0.5, (250, 240, 226), False, 4.5),
)  # clear day, dusk, overcast, low sun

BRICK: tuple[Color, ...] = ((150, 84, 66), (172, 118, 88), (198, 170, 128), (128, 104, 92), (186, 152, 112))
RENDER: tuple[Color, ...] = ((222, 214, 196), (200, 196, 188), (176, 182, 188), (214, 188, 150), (148, 140, 132))


@dataclasses.dataclass(frozen=True)
class Style:
    """What the frames of one sequence have in common.

    Attributes:
        light: time of day and weather.
        sun: side the sun stands on, -1 or 1; shadows fall from there.
        above: height of the camera in metres.
        horizon: row of the horizon as a share of the height.
        focal: focal length as a share of the width.
        road: half the road's width in metres.
        pavement: width of each side walk in metres.
        verge: width of the grass between side walk and building line, 0 in a town centre.
        storeys: least and greatest number of storeys.
        materials: wall colours of the neighbourhood.
        greenery: how often a plot is planted rather than built on, 0 to 1.
        bonnet: height of the camera car's bonnet as a share of the frame.
        asphalt, paving: base colours of road and side walk.
        bends: amplitude in metres, wavelength in metres and phase of each bend of the road.
        lane: the camera's distance from the middle of the road, negative to the left.
        grain: noise tiles.
    """

    light: Light
    sun: int
    above: float
    horizon: float
    focal: float
    road: float
    pavement: float
    verge: float
    storeys: tuple[int, int]
    materials: tuple[Color, ...]
    greenery: float
    bonnet: float
    asphalt: Color
    paving: Color
    bends: tuple[tuple[float, float, float], ...]
    lane: float
    grain: Grain

    @property
    def building_line(self) -> float:
        """Distance in metres from the middle of the road to the fronts."""
        return self.road + self.pavement + self.verge

    def middle(self, z: float) -> tuple[float, float]:
        """Returns the sideways position of the road's middle in metres and its slope, at `z` metres along it."""
        position = slope = 0.0
        for amplitude, wavelength, phase in self.bends:
            turn = 2 * math.pi / wavelength
            position += amplitude * math.sin(turn * z + phase)
            slope += amplitude * turn * math.cos(turn * z + phase)
        return position, slope


@functools.lru_cache(maxsize=8)
def style(seed: int, sequence: int) -> Style:
    """Returns the style of a sequence; the light goes round day, dusk, overcast and low sun."""
    rng = np.random.default_rng([seed, sequence, 1])
    town = (sequence + int(rng.integers(2))) % 2 == 0
    grey = float(rng.uniform(84, 122))
    pave = float(rng.uniform(128, 172))
    return Style(
        light=LIGHTS[sequence % len(LIGHTS)],
        sun=int(rng.choice((-1, 1))),
        above=float(rng.uniform(1.3, 1.65)),
        horizon=float(rng.uniform(0.47, 0.53)),
        focal=float(rng.uniform(0.82, 0.98)),
        road=float(rng.uniform(3.7, 4.5)),
        pavement=float(rng.uniform(1.9, 2.7)),
        verge=0.0 if town else float(rng.uniform(1.2, 2.6)),
        storeys=(2, 5) if town else (2, 3),
        materials=(BRICK + RENDER)[:: int(rng.integers(1, 3))] if town else BRICK,
        greenery=0.25 if town else 0.42,
        bonnet=float(rng.uniform(0.025, 0.05)),
        asphalt=(int(grey), int(grey * 0.99), int(grey * rng.uniform(0.97, 1.05))),
        paving=(int(pave), int(pave * rng.uniform(0.93, 0.98)), int(pave * rng.uniform(0.84, 0.94))),
        bends=(
            (float(rng.uniform(1.5, 5.0)), float(rng.uniform(150, 260)), float(rng.uniform(0, 6.28))),
            (float(rng.uniform(0.3, 0.9)), float(rng.uniform(70, 110)), float(rng.uniform(0, 6.28))),
        ),
        lane=-float(rng.uniform(1.3, 1.8)),
        grain=Grain.make(rng),
    )
