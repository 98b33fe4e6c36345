"""Paints a street and its things: solid houses, fences and vehicles, and flat posts, trees and people."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from components.dataset.synthetic import street
from components.dataset.synthetic.canvas import FARTHEST, NOISE, Canvas, Class, Corner, Frame
from components.dataset.synthetic.street import BLOCK, Color, Thing

Point = tuple[float, float]

STEP = 5.0  # metres the camera moves from frame to frame
SIGHT = 70.0  # metres; things beyond are lost in the haze
BONNET = 1.5  # metres from the camera to the front of its own car

CLOTHES = ((40, 44, 58), (150, 40, 46), (60, 92, 140), (190, 178, 160), (56, 80, 56), (210, 160, 60), (30, 30, 32))
PALETTE: dict[str, tuple[Color, ...]] = {  # the colours to choose from
    "coat": CLOTHES, "trousers": CLOTHES, "skin": ((222, 178, 150), (178, 128, 98), (120, 82, 62)),
    "hair": ((40, 32, 28), (96, 70, 44), (170, 150, 120)), "fence": ((134, 104, 72), (60, 64, 66), (150, 156, 158)),
    "paint": ((170, 26, 30), (32, 58, 120), (200, 202, 204), (34, 36, 40), (118, 122, 126), (30, 90, 66)),
    "wall": ((150, 84, 66), (172, 118, 88), (198, 170, 128), (128, 104, 92), (222, 214, 196), (176, 182, 188)),
    "leaves": ((72, 112, 44), (92, 124, 52), (54, 92, 46), (116, 124, 58)), "glass": ((52, 60, 72), (86, 100, 116)),
    "metal": ((96, 100, 104), (60, 66, 64), (132, 134, 134)), "rubber": ((24, 24, 26),), "wood": ((86, 70, 56),),
    "white": ((236, 236, 232),), "red": ((196, 32, 36),), "green": ((40, 200, 110),), "blue": ((30, 84, 168),),
}  # fmt: skip
DICE = {name: number for number, name in enumerate(PALETTE)}
# A car's side view, as height and metres from the tail: from the tail's lower edge over the roof to the nose.
CAR = ((0.32, 0), (0.88, 0), (1.42, 0.6), (1.46, 2.3), (0.98, 3.0), (0.8, 4.1), (0.32, 4.2))
WINDOW = ((0.95, 0.5), (1.32, 0.75), (1.34, 2.25), (0.95, 2.75))
EDGES = (("paint", 0.75), ("glass", 0.9), ("paint", 1.15), ("glass", 0.9), ("paint", 1.1), ("paint", 0.8))
# Clumps of leaves: x, y, radius and brightness.
CLUMPS = ((0, 4.1, 2.0, 0.75), (-1.1, 3.9, 1.3, 0.85), (1.1, 3.7, 1.2, 0.8), (0.3, 5.1, 1.3, 1.05))
RAGGED = np.random.default_rng(0).uniform(0.8, 1.2, (4, 4, 12)).tolist()  # outlines of these clumps, for four trees


class Part(NamedTuple):
    """A polygon of a flat thing, or a line if it has a width; in metres to the right and above the ground."""

    color: str  # its name in the palette
    points: list[Point]
    width: float = 0
    light: float = 1  # factor on its brightness


def ring(x: float, y: float, half_width: float, half_height: float, ragged: Sequence[float] = (1,) * 12) -> list[Point]:
    """Returns an ellipse around a point, with factors on its radius at 12 corners."""
    turns = [(radius, step * math.pi / 6) for step, radius in enumerate(ragged)]
    return [(x + half_width * r * math.cos(turn), y + half_height * r * math.sin(turn)) for r, turn in turns]


FLAT: dict[str, tuple[Class, list[list[Part]]]] = {  # by kind: its class, and the shapes to choose from
    "lamp": (Class.COLUMN_POLE, [[Part("metal", [(0, 0), (0, 7)], 0.26), Part("metal", [(0, 7), (1.3, 7.3)], 0.2)]]),
    "sign": (Class.TRAFFIC_LIGHT, [[Part("metal", [(0, 0), (0, 2.7)], 0.16), *layers] for layers in (
        [Part("red", ring(0, 2.7, 0.42, 0.42)), Part("white", ring(0, 2.7, 0.27, 0.27))],
        [Part("blue", ring(0, 2.7, 0.42, 0.42)), Part("white", [(-0.25, 2.7), (0.25, 2.7)], 0.14)],
        [Part("red", [(-0.5, 2.3), (0.5, 2.3), (0, 3.2)]), Part("white", [(-0.27, 2.43), (0.27, 2.43), (0, 2.93)])],
        [Part("white", [(-0.65, 2.7), (0.65, 2.7)], 0.66), Part("green", [(-0.58, 2.7), (0.58, 2.7)], 0.52)],
    )]),
    "traffic_light": (Class.TRAFFIC_LIGHT, [[
        Part("metal", [(0, 0), (0, 3)], 0.2), Part("rubber", [(0, 2.5), (0, 3.7)], 0.5),
        *(Part(name, ring(0, y, 0.15, 0.15), 0, 1.3 if name == lit else 0.3)
          for name, y in (("red", 3.46), ("green", 2.74))),
    ] for lit in ("red", "green")]),
    "tree": (Class.VEGETATION, [[
        Part("wood", [(0, 0), (0, 4)], 0.28),
        *(Part("leaves", ring(x, y, r, r, edge), 0, lit) for (x, y, r, lit), edge in zip(CLUMPS, ragged, strict=True)),
    ] for ragged in RAGGED]),
    "pedestrian": (Class.PEDESTRIAN, [[
        *(Part("trousers", [(0, 0.9), (s / 2, 0.45), (s, 0.04)], 0.17, 0.9 + s) for s in (-stride, stride)),
        *(Part("coat", [(s * 0.2, 1.38), (s * 0.27, 0.84)], 0.1, 0.9 + s * 0.1) for s in (-1, 1)),
        Part("coat", [(-0.23, 1.44), (0.23, 1.44), (0.18, 0.78), (-0.18, 0.78)]),
        Part("skin", ring(0, 1.63, 0.11, 0.14)), Part("hair", ring(0, 1.7, 0.12, 0.09)),
    ] for stride in (0.05, 0.16, 0.24)]),
    "bicyclist": (Class.BICYCLIST, [[
        *(Part("rubber", ring(hub, 0.34, 0.34, 0.34)) for hub in (-0.52, 0.52)),
        *(Part("white", ring(hub, 0.34, 0.27, 0.27), 0, 0.5) for hub in (-0.52, 0.52)),
        Part("paint", [(-0.52, 0.34), (-0.12, 0.82), (0.4, 0.84), (0.02, 0.34), (-0.12, 0.82)], 0.05),
        Part("trousers", [(-0.16, 0.94), (0.16, 0.68), (0, 0.3)], 0.15), Part("coat", [(-0.1, 0.9), (0.14, 1.46)], 0.3),
        Part("skin", ring(0.22, 1.62, 0.12, 0.14)), Part("paint", ring(0.2, 1.69, 0.14, 0.09)),
    ]]),
}  # fmt: skip


def color_of(thing: Thing, name: str, light: float = 1) -> Color:
    """Returns a thing's own colour of that name in the palette."""
    red, green, blue = PALETTE[name][int(thing.dice[DICE[name]] * len(PALETTE[name]))]
    return red * light, green * light, blue * light


def paint_flat(canvas: Canvas, thing: Thing, instance: int) -> None:
    """Paints one of the shapes of a flat thing, turned to the road or to where it goes, and its shadow."""
    x, z, sun, (kind, shapes) = thing.x, thing.z, canvas.look.sun, FLAT[thing.kind]
    canvas.shadow([(x - 0.2, 0, z), (x + 0.2, 0, z), (x + 0.2 - sun, 0, z + 0.6), (x - 0.2 - sun, 0, z + 0.6)], 0.7)
    size, thinnest = 0.8 + 0.4 * thing.dice[-1], (z - canvas.place) / canvas.focal
    mirror = size * math.copysign(1, thing.stroll or -x)
    for name, points, width, light in shapes[int(thing.dice[-2] * len(shapes))]:
        outlines, half = [[(x + mirror * across, up * size) for across, up in points]], max(width * size / 2, thinnest)
        if width:
            outlines = [_line(*ends, half) for ends in itertools.pairwise(outlines[0])]
        for outline in outlines:
            label = Class.COLUMN_POLE if name == "metal" else kind  # posts, whatever they carry
            canvas.face([(*place, z) for place in outline], color_of(thing, name, light), label, instance)


def _line(start: Point, end: Point, half: float) -> list[Point]:
    """Returns the outline of a line, twice `half` wide."""
    (x0, y0), (x1, y1) = start, end
    scale = half / math.sqrt((x1 - x0) ** 2 + (y1 - y0) ** 2)
    dx, dy = (y1 - y0) * scale, (x0 - x1) * scale
    return [(x0 - dx, y0 - dy), (x0 + dx, y0 + dy), (x1 + dx, y1 + dy), (x1 - dx, y1 - dy)]


def wall(x: float, z: float, outer: float, end: float, top: float) -> list[Corner]:
    """Returns an upright rectangle between two places."""
    return [(x, 0, z), (outer, 0, end), (outer, top, end), (x, top, z)]


def paint_house(canvas: Canvas, thing: Thing, _: int) -> None:
    """Paints a house: a gable towards the camera, a front with windows, and its shadow."""
    x, z, side, (storeys, width, height, shop) = thing.x, thing.z, math.copysign(1, thing.x), thing.dice[-4:]
    end, bay, half = z + 10 - width / 2, 1.9 + 1.6 * width, 0.2 + 0.1 * height
    top = 6.2 + 3.1 * int(storeys * 4) + height
    bricks, glass, board = (np.array(color_of(thing, name), np.float32) for name in ("wall", "glass", "paint"))

    def front(_: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        across, up = np.abs(np.remainder(z / bay, 1) - 0.5), np.abs(np.remainder(y / 3.1, 1) - 0.5)
        window = np.where((y < 2.4) & (shop > 0.4), across < 0.44, (across < half) & (up < 0.26))
        edge = (y > top - 0.3) | (y > 2.4) & (y < 3) & (shop > 0.4)
        return np.where(edge[:, None], board, np.where(window[:, None], glass, bricks))

    canvas.face(wall(x, z, x + side * 7, z, top), color_of(thing, "wall", 0.7), Class.BUILDING)
    canvas.face(wall(x, z, x, end, top), front, Class.BUILDING)
    if canvas.look.sun == side:
        reach = side * (canvas.look.road - 4 * storeys)
        canvas.shadow([(x, 0, z), (x, 0, end), (reach, 0, end), (reach, 0, z)], canvas.look.shadow)


def paint_fence(canvas: Canvas, thing: Thing, _: int) -> None:
    """Paints a fence of boards or bars along the road, or a short railing at the kerb."""
    length, top = (5, 1.1) if thing.kind == "railing" else (BLOCK, 1.2 + 0.6 * thing.dice[-1])
    color, pitch = np.array(color_of(thing, "fence"), np.float32), np.float32(0.3 + 0.2 * thing.dice[-2])

    def bars(_: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        solid = (np.remainder(z, pitch) < 0.16) | (y > top - 0.12)
        return np.where(solid[:, None], color, color * np.float32(0.5))

    canvas.face(wall(thing.x, thing.z, thing.x, thing.z + length, top), bars, Class.FENCE)


def paint_vehicle(canvas: Canvas, thing: Thing, instance: int) -> None:
    """Paints a car, or a larger van, with its shadow; on the right of the road it shows its nose."""
    nose_first, size, z = thing.x > 0, 1.35 if thing.dice[-1] > 0.75 else 1, thing.z
    left, right, length = thing.x - 0.9, thing.x + 0.9, CAR[-1][1]

    def paint(name: str, light: float, points: Sequence[Corner]) -> None:
        """Paints a face given by x, height, and metres from the tail."""
        corners = [(x, y * size, z + size * (length - d if nose_first else d)) for x, y, d in points]
        canvas.face(corners, color_of(thing, name, light), Class.VEHICLE, instance)

    canvas.shadow([(left, 0, z - 0.2), (right, 0, z - 0.2), (right, 0, z + length), (left, 0, z + length)], 0.4)
    edges = list(zip(CAR, CAR[1:], EDGES, strict=False))
    for one, other, (name, light) in edges if nose_first else edges[::-1]:
        paint(name, light, [(left, *one), (right, *one), (right, *other), (left, *other)])
    end, name = (length, "white") if nose_first else (0, "red")
    for x in (left, right - 0.34):
        paint(name, 1.4, [(x, 0.6, end), (x + 0.34, 0.6, end), (x + 0.34, 0.8, end), (x, 0.8, end)])
    if abs(thing.x - canvas.look.lane) > 0.9:
        x = left if thing.x > canvas.look.lane else right
        wheels = [("rubber", 1.0, ring(0.34, hub, 0.34, 0.34)) for hub in (0.8, 3.4)]
        for name, light, side in (("paint", 0.8, CAR), ("glass", 0.9, WINDOW), *wheels):
            paint(name, light, [(x, *point) for point in side])


PAINTERS: dict[str, Callable[[Canvas, Thing, int], None]] = dict.fromkeys(FLAT, paint_flat) | {
    "house": paint_house, "fence": paint_fence, "railing": paint_fence, "vehicle": paint_vehicle,
}  # fmt: skip
INSTANCES = ("vehicle", "pedestrian", "bicyclist")  # the kinds that are counted


def render(seed: int, sequence: int, index: int, size: tuple[int, int]) -> Frame:
    """Draws a frame, `size` pixels high and wide, of the street `sequence`; the camera moves 5 m a frame."""
    look, rng = street.look(seed, sequence), np.random.default_rng([seed, sequence, 3, index])
    place, heading, pitch = index * STEP + 2 * BLOCK, rng.uniform(-0.03, 0.03), rng.uniform(-0.006, 0.006)
    canvas = Canvas(look, (size[0] * 2, size[1] * 2), place, heading, pitch)
    _paint_backdrop(canvas, np.random.default_rng([seed, sequence, 4]))
    first, last = int(place // BLOCK) - 1, int((place + 1.5 * SIGHT) // BLOCK)
    blocks = (street.block(seed, sequence, number) for number in range(first, last + 1))
    moved = [thing.seen_from(place) for thing in itertools.chain.from_iterable(blocks)]
    # Whatever is ahead on the road keeps its distance.
    nearest = [2 + 8 * thing.speed if thing.speed > 0 or thing.stroll else -BLOCK for thing in moved]
    seen = [thing for thing, least in zip(moved, nearest, strict=True) if least < thing.z - place < SIGHT]
    # Far things first; among those of one block, those far from the road.
    seen.sort(key=lambda thing: (-(thing.z // BLOCK), -max(abs(thing.x), look.road), -thing.z))
    numbers = itertools.count(1)
    for thing in seen:
        PAINTERS[thing.kind](canvas, thing, next(numbers) if thing.kind in INSTANCES else 0)
    # The bonnet of the camera's own car, which nobody labels.
    below = look.above - BONNET * (canvas.height - canvas.horizon) / canvas.focal
    arch = ring(look.lane - heading * BONNET, below - 0.05, 0.6 * BONNET / look.focal, 0.1)
    canvas.face([(x, y, place + BONNET) for x, y in arch], (34, 38, 46), Class.VOID)
    return canvas.develop(rng)


def _paint_backdrop(canvas: Canvas, rng: np.random.Generator) -> None:
    """Paints the sky, far trees and roofs, grass, side walks and the road with its marks."""
    look, near, far = canvas.look, canvas.place, canvas.place + FARTHEST
    zenith, horizon, cloud = (np.array(color, np.float32) for color in (look.zenith, look.horizon, look.cloud))
    paving = np.array((1, 0.95, 0.88), np.float32) * np.float32(look.paving)
    clouds = np.asarray(Image.fromarray(NOISE[:32, :32]).resize((256, 256), Image.Resampling.BICUBIC))

    def sky(x: np.ndarray, y: np.ndarray, _: np.ndarray) -> np.ndarray:
        height = np.clip(y / 90, 0, 1)
        distance = 1 / (height + np.float32(0.15))  # of a level layer of clouds
        density = clouds[(distance * 24).astype(np.int32) & 255, (x * distance / 8 + 128).astype(np.int32) & 255]
        cover = np.clip((density - np.float32(1 - look.clouds)) * 2, 0, 1) * (
            np.float32(0.4) + height * np.float32(0.6)
        )
        height, cover = height[:, None], cover[:, None]
        return (horizon * (1 - height) + zenith * height) * (1 - cover) + cloud * cover

    def slabs(x: np.ndarray, _: np.ndarray, z: np.ndarray) -> np.ndarray:
        kerb, joint = np.abs(x) < look.road + 0.18, np.remainder(z, np.float32(0.8)) < 0.06
        return paving * np.where(kerb, np.float32(1.2), np.where(joint, np.float32(0.86), np.float32(1)))[:, None]

    def marks(x: np.ndarray, _: np.ndarray, z: np.ndarray) -> np.ndarray:
        aside, crossing = np.abs(x), np.abs(np.remainder(z, 80) - 76) < 1.7
        white = (aside < 0.09) & (np.remainder(z, 6) < 3.2) | (np.abs(aside - look.road + 0.35) < 0.07)
        white |= crossing & (np.remainder(x + 50, 1.2) < 0.6)
        worn = np.where(np.abs(aside - look.road * 0.42) < 0.5, np.float32(0.93), np.float32(1))
        return np.where(white, np.float32(205), np.float32(look.asphalt) * worn)[:, None]

    canvas.sky(sky)
    for x in range(-240, 240, 6):
        label, color = ((Class.BUILDING, (120, 96, 84)), (Class.VEGETATION, (70, 92, 50)))[int(rng.random() < 0.6)]
        top = rng.uniform(0, 20)
        canvas.face([(x, -1, far), (x + 6, -1, far), (x + 6, top, far), (x, top, far)], color, label)
    walks = look.road + look.pavement
    strips = ((300, (96, 116, 58), Class.VEGETATION), (walks, slabs, Class.SIDE_WALK), (look.road, marks, Class.ROAD))
    for half, texture, label in strips:
        canvas.face([(-half, 0, near), (half, 0, near), (half, 0, far), (-half, 0, far)], texture, label)
