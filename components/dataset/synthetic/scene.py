"""Paints a street: houses, fences and vehicles as solids; posts, trees and people as flat shapes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from components.dataset.synthetic import street
from components.dataset.synthetic.canvas import FARTHEST, NOISE, Canvas, Class, Corner, Frame
from components.dataset.synthetic.street import BLOCK, Color, Thing

Point = tuple[float, float]

STEP = 5.0  # metres the camera moves from frame to frame
SIGHT = 70.0  # metres; things farther away are not drawn
BONNET = 1.5  # metres from the camera to the front of its own car

PALETTE: dict[str, list[Color]] = street.NUMBERS["palette"]
TRAITS = {name: index for index, name in enumerate(PALETTE)}  # index of the trait that chooses a colour
CAR = street.NUMBERS["car"]
# Clumps of leaves: x, y, radius and brightness.
CLUMPS = ((0, 4.1, 2.0, 0.75), (-1.1, 3.9, 1.3, 0.85), (1.1, 3.7, 1.2, 0.8), (0.3, 5.1, 1.3, 1.05))
RAGGED = np.random.default_rng(0).uniform(0.8, 1.2, (4, 4, 12)).tolist()  # factors on the radius, for four trees


class Part(NamedTuple):
    """A polygon, or a line if it has a width; x is to the right, y above the ground, in metres."""

    color: str  # key of PALETTE
    points: list[Point]
    width: float = 0
    light: float = 1  # factor on the brightness


def ring(x: float, y: float, half_width: float, half_height: float, ragged: Sequence[float] = (1,) * 12) -> list[Point]:
    """Returns a polygon like an ellipse; `ragged` holds the factors on the radius at its 12 corners."""
    turns = [(radius, step * math.pi / 6) for step, radius in enumerate(ragged)]
    return [(x + half_width * r * math.cos(turn), y + half_height * r * math.sin(turn)) for r, turn in turns]


FLAT: dict[str, tuple[Class, list[list[Part]]]] = {  # class and shapes by kind
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
    """Returns the thing's colour for a part."""
    red, green, blue = PALETTE[name][int(thing.traits[TRAITS[name]] * len(PALETTE[name]))]
    return red * light, green * light, blue * light


def paint_flat(canvas: Canvas, thing: Thing, instance: int) -> None:
    """Paints a flat thing, facing the road or the direction in which it moves, and its shadow."""
    x, z, sun, (kind, shapes) = thing.x, thing.z, canvas.style.sun, FLAT[thing.kind]
    canvas.shadow([(x - 0.2, 0, z), (x + 0.2, 0, z), (x + 0.2 - sun, 0, z + 0.6), (x - 0.2 - sun, 0, z + 0.6)], 0.7)
    size, thinnest = 0.8 + 0.4 * thing.traits[-1], (z - canvas.place) / canvas.focal
    mirror = size * math.copysign(1, thing.sideways or -x)
    for name, points, width, light in shapes[int(thing.traits[-2] * len(shapes))]:
        outlines, half = [[(x + mirror * across, up * size) for across, up in points]], max(width * size / 2, thinnest)
        if width:
            outlines = [_line(*ends, half) for ends in itertools.pairwise(outlines[0])]
        for outline in outlines:
            label = Class.COLUMN_POLE if name == "metal" else kind  # posts have a class of their own
            canvas.face([(*place, z) for place in outline], color_of(thing, name, light), label, instance)


def _line(start: Point, end: Point, half: float) -> list[Point]:
    """Returns the outline of a line, twice `half` wide."""
    (x0, y0), (x1, y1) = start, end
    scale = half / math.sqrt((x1 - x0) ** 2 + (y1 - y0) ** 2)
    dx, dy = (y1 - y0) * scale, (x0 - x1) * scale
    return [(x0 - dx, y0 - dy), (x0 + dx, y0 + dy), (x1 + dx, y1 + dy), (x1 - dx, y1 - dy)]


def wall(x: float, z: float, outer: float, end: float, top: float) -> list[Corner]:
    """Returns an upright rectangle between the points (x, z) and (outer, end) on the ground."""
    return [(x, 0, z), (outer, 0, end), (outer, top, end), (x, top, z)]


def paint_house(canvas: Canvas, thing: Thing, _: int) -> None:
    """Paints the gable of a house, which faces the camera, its front with windows, and its shadow."""
    x, z, side, (storeys, width, height, shop) = thing.x, thing.z, math.copysign(1, thing.x), thing.traits[-4:]
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
    if canvas.style.sun == side:
        reach = side * (canvas.style.road - 4 * storeys)
        canvas.shadow([(x, 0, z), (x, 0, end), (reach, 0, end), (reach, 0, z)], canvas.style.shadow)


def paint_fence(canvas: Canvas, thing: Thing, _: int) -> None:
    """Paints a fence of boards or bars along the road, or a short railing at the kerb."""
    length, top = (5, 1.1) if thing.kind == "railing" else (BLOCK, 1.2 + 0.6 * thing.traits[-1])
    color, pitch = np.array(color_of(thing, "fence"), np.float32), np.float32(0.3 + 0.2 * thing.traits[-2])

    def bars(_: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        solid = (np.remainder(z, pitch) < 0.16) | (y > top - 0.12)
        return np.where(solid[:, None], color, color * np.float32(0.5))

    canvas.face(wall(thing.x, thing.z, thing.x, thing.z + length, top), bars, Class.FENCE)


def paint_vehicle(canvas: Canvas, thing: Thing, instance: int) -> None:
    """Paints a car, or a larger van, with its shadow; on the right of the road it shows its nose."""
    nose_first, size, z = thing.x > 0, 1.35 if thing.traits[-1] > 0.75 else 1, thing.z
    left, right, length = thing.x - 0.9, thing.x + 0.9, CAR["outline"][-1][1]

    def paint(name: str, light: float, points: Sequence[Corner]) -> None:  # x, height, distance from the tail
        corners = [(x, y * size, z + size * (length - d if nose_first else d)) for x, y, d in points]
        canvas.face(corners, color_of(thing, name, light), Class.VEHICLE, instance)

    canvas.shadow([(left, 0, z - 0.2), (right, 0, z - 0.2), (right, 0, z + length), (left, 0, z + length)], 0.4)
    edges = list(zip(CAR["outline"], CAR["outline"][1:], CAR["surfaces"], strict=False))
    for one, other, (name, light) in edges if nose_first else edges[::-1]:
        paint(name, light, [(left, *one), (right, *one), (right, *other), (left, *other)])
    end, name = (length, "white") if nose_first else (0, "red")
    for x in (left, right - 0.34):
        paint(name, 1.4, [(x, 0.6, end), (x + 0.34, 0.6, end), (x + 0.34, 0.8, end), (x, 0.8, end)])
    if abs(thing.x - canvas.style.lane) > 0.9:
        x = left if thing.x > canvas.style.lane else right
        wheels = [("rubber", 1.0, ring(0.34, hub, 0.34, 0.34)) for hub in (0.8, 3.4)]
        for name, light, side in (("paint", 0.8, CAR["outline"]), ("glass", 0.9, CAR["window"]), *wheels):
            paint(name, light, [(x, *point) for point in side])


SOLID = {"house": paint_house, "fence": paint_fence, "railing": paint_fence, "vehicle": paint_vehicle}
INSTANCES = ("vehicle", "pedestrian", "bicyclist")  # kinds with instance numbers


def render(seed: int, sequence: int, index: int, size: tuple[int, int]) -> Frame:
    """Renders frame `index` of the street `sequence`; `size` is height and width in pixels."""
    style, rng = street.style(seed, sequence), np.random.default_rng([seed, sequence, 3, index])
    place, heading, pitch = index * STEP + 2 * BLOCK, rng.uniform(-0.03, 0.03), rng.uniform(-0.006, 0.006)
    canvas = Canvas(style, (size[0] * 2, size[1] * 2), place, heading, pitch)
    _paint_backdrop(canvas, np.random.default_rng([seed, sequence, 4]))
    first, last = int(place // BLOCK) - 1, int((place + 1.5 * SIGHT) // BLOCK)
    blocks = (street.block(seed, sequence, number) for number in range(first, last + 1))
    things = [thing.seen_from(place) for thing in itertools.chain.from_iterable(blocks)]
    # Moving things in front of the camera keep a distance.
    nearest = [2 + 8 * thing.speed if thing.speed > 0 or thing.sideways else -BLOCK for thing in things]
    seen = [thing for thing, least in zip(things, nearest, strict=True) if least < thing.z - place < SIGHT]
    # Far things first; within a block, those far from the road first.
    seen.sort(key=lambda thing: (-(thing.z // BLOCK), -max(abs(thing.x), style.road), -thing.z))
    numbers = itertools.count(1)
    for thing in seen:
        paint = SOLID.get(thing.kind, paint_flat)
        paint(canvas, thing, next(numbers) if thing.kind in INSTANCES else 0)
    # The bonnet of the camera's own car, which has no label.
    below = style.above - BONNET * (canvas.height - canvas.horizon) / canvas.focal
    arch = ring(style.lane - heading * BONNET, below - 0.05, 0.6 * BONNET / style.focal, 0.1)
    canvas.face([(x, y, place + BONNET) for x, y in arch], (34, 38, 46), Class.VOID)
    return canvas.to_frame(rng)


def _paint_backdrop(canvas: Canvas, rng: np.random.Generator) -> None:
    """Paints the sky, far trees and roofs, grass, side walks and the road with its markings."""
    style, near, far = canvas.style, canvas.place, canvas.place + FARTHEST
    zenith, horizon, cloud = (np.array(color, np.float32) for color in (style.zenith, style.horizon, style.cloud))
    paving = np.array((1, 0.95, 0.88), np.float32) * np.float32(style.paving)
    clouds = np.asarray(Image.fromarray(NOISE[:32, :32]).resize((256, 256), Image.Resampling.BICUBIC))

    def sky(x: np.ndarray, y: np.ndarray, _: np.ndarray) -> np.ndarray:
        height = np.clip(y / 90, 0, 1)
        distance = 1 / (height + np.float32(0.15))  # to a flat layer of clouds
        density = clouds[(distance * 24).astype(np.int32) & 255, (x * distance / 8 + 128).astype(np.int32) & 255]
        cover = np.clip((density - np.float32(1 - style.clouds)) * 2, 0, 1) * (
            np.float32(0.4) + height * np.float32(0.6)
        )
        height, cover = height[:, None], cover[:, None]
        return (horizon * (1 - height) + zenith * height) * (1 - cover) + cloud * cover

    def slabs(x: np.ndarray, _: np.ndarray, z: np.ndarray) -> np.ndarray:
        kerb, joint = np.abs(x) < style.road + 0.18, np.remainder(z, np.float32(0.8)) < 0.06
        return paving * np.where(kerb, np.float32(1.2), np.where(joint, np.float32(0.86), np.float32(1)))[:, None]

    def marks(x: np.ndarray, _: np.ndarray, z: np.ndarray) -> np.ndarray:
        aside, crossing = np.abs(x), np.abs(np.remainder(z, 80) - 76) < 1.7
        white = (aside < 0.09) & (np.remainder(z, 6) < 3.2) | (np.abs(aside - style.road + 0.35) < 0.07)
        white |= crossing & (np.remainder(x + 50, 1.2) < 0.6)
        worn = np.where(np.abs(aside - style.road * 0.42) < 0.5, np.float32(0.93), np.float32(1))
        return np.where(white, np.float32(205), np.float32(style.asphalt) * worn)[:, None]

    canvas.sky(sky)
    for x in range(-240, 240, 6):
        label, color = ((Class.BUILDING, (120, 96, 84)), (Class.VEGETATION, (70, 92, 50)))[int(rng.random() < 0.6)]
        top = rng.uniform(0, 20)
        canvas.face([(x, -1, far), (x + 6, -1, far), (x + 6, top, far), (x, top, far)], color, label)
    walks = style.road + style.pavement
    strips = ((300, (96, 116, 58), Class.VEGETATION), (walks, slabs, Class.SIDE_WALK), (style.road, marks, Class.ROAD))
    for half, texture, label in strips:
        canvas.face([(-half, 0, near), (half, 0, near), (half, 0, far), (-half, 0, far)], texture, label)
