"""Grain for surfaces: tiles of noise that repeat without a seam, and the facades, fences and leaves made of them.

A tile is looked up by position in metres, so that grain sticks to its surface while the camera moves.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image

from components.dataset.synthetic.canvas import Color, Surface

TILE = 128


@dataclasses.dataclass(frozen=True)
class Grain:
    """Two tiles of noise, float32 [128, 128] between 0 and 1.

    Attributes:
        fine: independent from texel to texel.
        soft: clouds of several sizes.
    """

    fine: np.ndarray
    soft: np.ndarray

    @classmethod
    def make(cls, rng: np.random.Generator) -> Grain:
        """Draws both tiles."""
        fine = rng.random((TILE, TILE), dtype=np.float32)
        total = np.zeros((TILE, TILE), np.float32)
        for cells, weight in ((4, 0.45), (8, 0.25), (16, 0.15), (32, 0.1), (64, 0.05)):
            total += np.float32(weight) * smooth(rng, cells, TILE) / np.float32(255)
        low, high = float(total.min()), float(total.max())
        return cls(fine, (total - np.float32(low)) / np.float32(high - low))

    def at(self, tile: np.ndarray, across: np.ndarray, up: np.ndarray) -> np.ndarray:
        """Looks a tile up at texel positions that broadcast together, wrapping round."""
        return tile[up.astype(np.int32) & (TILE - 1), across.astype(np.int32) & (TILE - 1)]


def smooth(rng: np.random.Generator, cells: int, size: int) -> np.ndarray:
    """Returns seamless noise with `cells` bumps a side, float32 [size, size] from 0 to 255."""
    coarse = np.pad(rng.integers(0, 256, (cells, cells), dtype=np.uint8), 2, mode="wrap")
    step = size // cells
    grown = Image.fromarray(coarse).resize((step * (cells + 4),) * 2, Image.Resampling.BICUBIC)
    return np.asarray(grown, np.float32)[2 * step : 2 * step + size, 2 * step : 2 * step + size]


@dataclasses.dataclass(frozen=True)
class Facade:
    """The looks of one building.

    Attributes:
        wall, trim, glass, accent: colours; accent is for doors, awnings and shop signs.
        storey: height of a storey in metres.
        bay: width from window to window in metres.
        opening: share of bay and storey that a window takes.
        shop: whether the ground floor is a shop front.
        bricks: strength of the wall's grain, 0 to 1.
        lit: share of windows with a light on.
        offset: where in the tiles this building's grain starts.
    """

    wall: Color
    trim: Color
    glass: Color
    accent: Color
    storey: float
    bay: float
    opening: tuple[float, float]
    shop: bool
    bricks: float
    lit: float
    offset: int


LAMP_LIGHT: Color = (255, 214, 140)


def facade(look: Facade, grain: Grain, top: float) -> Surface:
    """Returns the surface of a front with windows, a ground floor and a cornice."""
    palette = np.array([look.wall, look.trim, look.glass, LAMP_LIGHT, look.accent], np.float32)

    def paint(along: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, None]:
        bays, storeys = along / np.float32(look.bay), y / np.float32(look.storey)
        bay, storey = np.floor(bays), np.floor(storeys)
        across, up = np.abs(bays - bay - 0.5), np.abs(storeys - storey - 0.5)
        half_width, half_height = look.opening[0] / 2, look.opening[1] / 2
        ground = storeys < 1
        fits = (storey + 1) * look.storey <= top
        material = np.zeros(y.shape, np.uint8)
        material[(across < half_width + 0.05) & (up < half_height + 0.05) & fits] = 1
        lamp = grain.at(grain.fine, bay + look.offset, storey + look.offset) < look.lit
        window = (across < half_width) & (up < half_height) & fits
        material[window] = np.where(lamp, 3, 2)[window]
        if look.shop:
            material[ground] = np.where(lamp, 3, 2)[ground]
            material[ground & ((across > 0.45) | (storeys < 0.12))] = 1
            material[ground & (storeys > 0.78)] = 4
        else:
            door = ground & (storeys < 0.72) & (across < 0.2) & (np.remainder(bay, 3) == 1)
            material[door] = 4
        material[y > top - 0.35] = 1
        noise = grain.at(grain.fine, along * 10 + look.offset, y * 14)
        stains = grain.at(grain.soft, along * 5 + look.offset, y * 5)
        factor = 1 - look.bricks * (noise - np.float32(0.5)) - np.float32(0.35) * (stains - np.float32(0.5))
        return palette[material] * factor[..., None], None

    return Surface(look.wall, paint)


def fence(kind: str, color: Color, grain: Grain, top: float) -> Surface:
    """Returns the surface of a fence: `boards`, `railing` or `mesh`."""

    def paint(along: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        noise = grain.at(grain.fine, along * 8, y * 3 + along * 0)
        if kind == "boards":
            cell = np.remainder(along, np.float32(0.3))
            gap = np.where(cell < 0.05, np.float32(0.5), np.float32(1.0))
            post = np.where(np.remainder(along, np.float32(2.4)) < 0.18, np.float32(0.75), np.float32(1.0))
            factor = gap * post * (np.float32(0.8) + np.float32(0.35) * noise)
        elif kind == "railing":
            bar = (np.remainder(along, np.float32(0.4)) < 0.14) | (y > top - 0.12) | ((y < 0.3) & (y > 0.18))
            factor = np.where(bar, np.float32(1.0), np.float32(0.42)) * (np.float32(0.9) + np.float32(0.2) * noise)
        else:
            wire = np.remainder(along + y, np.float32(0.5)) < 0.14
            wire |= np.remainder(along - y + 64, np.float32(0.5)) < 0.14
            wire |= (np.remainder(along, np.float32(2.5)) < 0.15) | (y > top - 0.1)
            factor = np.where(wire, np.float32(1.0), np.float32(0.6)) * (np.float32(0.9) + np.float32(0.2) * noise)
        return np.array(color, np.float32) * factor[..., None], None

    return Surface(color, paint)


def hedge(color: Color, grain: Grain, top: float) -> Surface:
    """Returns the surface of a clipped hedge with a ragged upper edge."""

    def paint(along: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        leaves = grain.at(grain.fine, along * 9, y * 9)
        clumps = grain.at(grain.soft, along * 16, y * 16)
        ragged = grain.at(grain.soft, along * 12, np.zeros_like(along))
        factor = (np.float32(0.45) + np.float32(0.5) * leaves + np.float32(0.5) * clumps) * (
            np.float32(0.7) + np.float32(0.3) * y / np.float32(top)
        )
        return np.array(color, np.float32) * factor[..., None], y < top * (np.float32(0.75) + np.float32(0.25) * ragged)

    return Surface(color, paint)


def plain(color: Color, grain: Grain, roughness: float) -> Surface:
    """Returns one colour with grain, for gables, tables and skips."""

    def paint(along: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, None]:
        noise = grain.at(grain.fine, along * 9, y * 9) - np.float32(0.5)
        stains = grain.at(grain.soft, along * 6, y * 6) - np.float32(0.5)
        factor = 1 + np.float32(roughness) * (noise + stains)
        return np.array(color, np.float32) * factor[..., None], None

    return Surface(color, paint)
