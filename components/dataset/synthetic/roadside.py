"""Paints what stands still beside the road: buildings, fences, hedges, trees, poles, signs, lights and clutter."""

from __future__ import annotations

import numpy as np

from components.dataset.synthetic.canvas import Canvas, Class, Color, Point
from components.dataset.synthetic.scene import LEAVES, Thing
from components.dataset.synthetic.style import Style
from components.dataset.synthetic.texture import facade, fence, hedge, plain

METAL: Color = (112, 116, 118)
ROOFS: tuple[Color, ...] = ((118, 72, 58), (84, 82, 88), (104, 92, 84))
BOARDS: tuple[Color, ...] = ((134, 104, 72), (164, 140, 108), (104, 84, 66))
RAILS: tuple[Color, ...] = ((52, 56, 58), (140, 146, 150), (200, 202, 198))
WIRE: tuple[Color, ...] = ((104, 118, 108), (120, 124, 128), (84, 100, 84))
FENCES = (("boards", BOARDS, 1.3), ("railing", RAILS, 1.2), ("mesh", WIRE, 1.8))
BINS: tuple[Color, ...] = ((66, 70, 66), (52, 92, 72), (170, 140, 64), (120, 104, 92))
CLUMPS = ((0.0, 0.0, 1.0), (-0.5, -0.25, 0.65), (0.5, -0.3, 0.6), (0.1, 0.45, 0.6))  # across, up, radius of a crown


def paint_building(canvas: Canvas, look: Style, thing: Thing, z: float) -> None:
    """Paints a house: its gable towards the camera, its front and, in a suburb, its roof."""
    if thing.facade is None:
        raise ValueError("a building needs a facade")
    side = 1 if thing.s > 0 else -1
    low, high = look.storeys
    top = (low + thing.variant % (high - low + 1)) * thing.facade.storey + 0.3 + thing.share(1) * 0.7
    if look.verge > 0 or thing.share(2) < 0.35:
        _roof(canvas, thing, z, (top, top + 1.2 + thing.share(3) * 1.2), thing.pick(ROOFS))
    gable = plain(thing.facade.wall, look.grain, thing.facade.bricks)
    canvas.wall((thing.s, z), (thing.s + side * 7, z), 0, top, gable, Class.BUILDING, 0.72)
    front, sunny = facade(thing.facade, look.grain, top), 1.0 if look.sun != side else 0.8
    canvas.wall((thing.s, z), (thing.s, z + thing.size), 0, top, front, Class.BUILDING, sunny)


def _roof(canvas: Canvas, thing: Thing, z: float, heights: tuple[float, float], color: Color) -> None:
    """Paints a pitched roof whose ridge runs along the road, with a chimney."""
    side = 1 if thing.s > 0 else -1
    (eaves, ridge), far, top = heights, z + thing.size, thing.s + side * 3.5
    if z < 1:
        z = 1.0
    if far <= z:
        return
    at = canvas.camera.project
    chimney = [at(top, y, max(z, far - d)) for y, d in ((ridge, 2.2), (ridge + 1, 2.2), (ridge + 1, 1), (ridge, 1))]
    canvas.fill(chimney, canvas.light.shade((120, 82, 70), far), Class.BUILDING)
    gable = [at(thing.s, eaves, z), at(top, ridge, z), at(thing.s + side * 7, eaves, z)]
    canvas.fill(gable, canvas.light.shade(thing.facade.wall if thing.facade else color, z, 0.7), Class.BUILDING)
    slope = [at(thing.s - side * 0.3, eaves, z), at(top, ridge, z), at(top, ridge, far)]
    slope.append(at(thing.s - side * 0.3, eaves, far))
    canvas.fill(slope, canvas.light.shade(color, (z + far) / 2, 0.95), Class.BUILDING)


def paint_fence(canvas: Canvas, look: Style, thing: Thing, z: float) -> None:
    """Paints boards, a railing or wire mesh along the road."""
    kind, colors, low = thing.pick(FENCES)
    top = low + thing.share(1) * 0.7
    surface = fence(kind, colors[thing.variant // 3 % len(colors)], look.grain, top)
    canvas.wall((thing.s, z), (thing.s, z + thing.size), 0, top, surface, Class.FENCE, 0.95)


def paint_railing(canvas: Canvas, look: Style, thing: Thing, z: float) -> None:
    """Paints a guard rail at the kerb."""
    paint = fence("railing", (150, 154, 158), look.grain, 1.05)
    canvas.wall((thing.s, z), (thing.s, z + thing.size), 0, 1.05, paint, Class.FENCE, 1.0)


def paint_hedge(canvas: Canvas, look: Style, thing: Thing, z: float) -> None:
    """Paints a clipped hedge along the road."""
    top = 1.1 + thing.share(1) * 0.9
    surface = hedge(thing.pick(LEAVES), look.grain, top)
    canvas.wall((thing.s, z), (thing.s, z + thing.size), 0, top, surface, Class.VEGETATION, 1.0)


def paint_tree(canvas: Canvas, look: Style, thing: Thing, z: float) -> None:
    """Paints a trunk and a ragged crown."""
    if z < 2.5:
        return
    at, scale = canvas.camera.project, canvas.camera.focal / z
    trunk = [at(thing.s, 0, z), at(thing.s, thing.size * 0.6, z)]
    canvas.stroke(trunk, scale * 0.035 * thing.size, canvas.light.shade((86, 70, 56), z), Class.VEGETATION)
    centre, radius, color = at(thing.s, thing.size * 0.66, z), scale * thing.size * 0.34, thing.pick(LEAVES)
    if radius < 5:
        canvas.disc(centre, (radius * 1.2, radius), canvas.light.shade(color, z, 0.85), Class.VEGETATION)
    else:
        _crown(canvas, look, thing, z, centre, radius)


def _crown(canvas: Canvas, look: Style, thing: Thing, z: float, centre: Point, radius: float) -> None:
    """Paints clumps of leaves whose edge and light follow the noise tiles."""
    camera, grain, (u, v) = canvas.camera, look.grain, centre
    left, right = max(int(u - radius * 1.4), 0), min(int(u + radius * 1.4) + 1, camera.width)
    top, bottom = max(int(v - radius * 1.4), 0), min(int(v + radius * 1.4) + 1, camera.height)
    if left >= right or top >= bottom:
        return
    across = ((np.arange(left, right) + 0.5 - u) / radius).astype(np.float32)[None]
    down = ((np.arange(top, bottom) + 0.5 - v) / radius).astype(np.float32)[:, None]
    squared = np.full((bottom - top, right - left), 9, np.float32)
    for index, (x, y, size) in enumerate(CLUMPS):
        dx, dy = across - np.float32(x + 0.3 * thing.share(index) - 0.15), down + np.float32(y)
        np.minimum(squared, (dx * dx + dy * dy) * np.float32(1 / size**2), out=squared)
    metres, offset = np.float32(radius * z / camera.focal), thing.variant & 127
    clumps = grain.at(grain.soft, (across + 2) * metres * 14 + offset, (down + 2) * metres * 14)
    leaves = grain.at(grain.fine, (across + 2) * metres * 9 + offset, (down + 2) * metres * 9)
    inside = squared < 1.3 - 0.75 * clumps - 0.15 * leaves
    light = np.float32(0.62) + np.float32(0.5) * leaves + np.float32(0.35) * clumps - np.float32(0.2) * down
    light += np.float32(0.16 * look.sun) * across - np.float32(0.25) * (squared - np.float32(0.5))
    color = np.array(thing.pick(LEAVES), np.float32)
    rgb = canvas.lit(color * light[..., None], np.full((1, 1), z, np.float32), 0.9 + 0.2 * thing.share(5))
    canvas.write(left, top, rgb, inside, Class.VEGETATION)


def paint_pole(canvas: Canvas, look: Style, thing: Thing, z: float, width: float = 0.14) -> None:
    """Paints an upright post as high as the thing is large."""
    if z < 1.5:
        return
    at, scale = canvas.camera.project, canvas.camera.focal / z
    canvas.darken(_ground_streak(canvas, look, thing, z), look.light.shadow)
    color = ((96, 100, 104), (60, 66, 64), (132, 134, 134))[thing.variant % 3]
    canvas.stroke(
        [at(thing.s, 0, z), at(thing.s, thing.size, z)], scale * width, canvas.light.shade(color, z), Class.COLUMN_POLE
    )


def _ground_streak(canvas: Canvas, look: Style, thing: Thing, z: float) -> list[Point]:
    """Returns the outline of a post's shadow on the ground, away from the sun."""
    at, reach = canvas.camera.project, -look.sun * 3.0
    return [
        at(thing.s, 0, z),
        at(thing.s, 0, z + 0.25),
        at(thing.s + reach, 0, z + 1.25),
        at(thing.s + reach, 0, z + 1),
    ]


def paint_lamp_post(canvas: Canvas, look: Style, thing: Thing, z: float) -> None:
    """Paints a street lamp with an arm over the road."""
    if z < 1.5:
        return
    paint_pole(canvas, look, thing, z, 0.17)
    at, scale = canvas.camera.project, canvas.camera.focal / z
    inward = thing.s - (1.3 if thing.s > 0 else -1.3)
    color = canvas.light.shade(METAL, z)
    canvas.stroke([at(thing.s, thing.size, z), at(inward, thing.size + 0.3, z)], scale * 0.1, color, Class.COLUMN_POLE)
    lamp = (255, 220, 150) if look.light.lamps else color
    canvas.disc(at(inward, thing.size + 0.3, z), (scale * 0.35, scale * 0.12), lamp, Class.COLUMN_POLE)


def paint_bollard(canvas: Canvas, look: Style, thing: Thing, z: float) -> None:
    """Paints a low post with a light band."""
    if z < 1.5:
        return
    paint_pole(canvas, look, thing, z, 0.2)
    at, scale = canvas.camera.project, canvas.camera.focal / z
    band = [at(thing.s, 0.75, z), at(thing.s, 0.88, z)]
    canvas.stroke(band, scale * 0.2, canvas.light.shade((214, 210, 200), z), Class.COLUMN_POLE)


def paint_sign(canvas: Canvas, look: Style, thing: Thing, z: float) -> None:
    """Paints a traffic sign on a post: a ring, a triangle, a blue disc or a direction board."""
    if z < 1.5:
        return
    paint_pole(canvas, look, thing, z, 0.1)
    at, scale, shade = canvas.camera.project, canvas.camera.focal / z, canvas.light.shade
    u, v = at(thing.s, thing.size, z)
    size, kind = scale * 0.42, thing.variant % 4
    red, white, blue = shade((196, 32, 36), z), shade((236, 236, 232), z), shade((30, 84, 168), z)
    if kind == 0:
        canvas.disc((u, v), (size, size), red, Class.TRAFFIC_LIGHT)
        canvas.disc((u, v), (size * 0.66, size * 0.66), white, Class.TRAFFIC_LIGHT)
    elif kind == 1:
        for share, color in ((1.15, red), (0.65, white)):
            half = size * share
            corners = [(u - half, v + half * 0.75), (u + half, v + half * 0.75), (u, v - half)]
            canvas.fill(corners, color, Class.TRAFFIC_LIGHT)
    elif kind == 2:
        canvas.disc((u, v), (size, size), blue, Class.TRAFFIC_LIGHT)
        canvas.stroke([(u - size * 0.5, v), (u + size * 0.5, v)], size * 0.3, white, Class.TRAFFIC_LIGHT)
    else:
        for share, color in ((1.0, white), (0.85, ((26, 110, 70), blue)[thing.variant % 2])):
            x, y = size * 1.6 * share, size * 0.8 * share
            canvas.fill([(u - x, v - y), (u + x, v - y), (u + x, v + y), (u - x, v + y)], color, Class.TRAFFIC_LIGHT)


def paint_traffic_light(canvas: Canvas, look: Style, thing: Thing, z: float) -> None:
    """Paints a signal head with three lamps, one of them lit, on a post."""
    if z < 1.5:
        return
    paint_pole(canvas, look, thing, z, 0.13)
    at, scale = canvas.camera.project, canvas.camera.focal / z
    u, v = at(thing.s, thing.size - 0.3, z)
    x, y = max(scale * 0.24, 1.5), max(scale * 0.6, 3)
    box = [(u - x, v - y), (u + x, v - y), (u + x, v + y), (u - x, v + y)]
    canvas.fill(box, canvas.light.shade((28, 30, 30), z), Class.TRAFFIC_LIGHT)
    lit = thing.variant % 3
    for lamp, color in enumerate(((255, 60, 40), (255, 180, 40), (60, 240, 130))):
        shown = color if lamp == lit else canvas.light.shade(tuple(c * 0.3 for c in color), z)
        canvas.disc((u, v + (lamp - 1) * y * 0.62), (x * 0.6, x * 0.6), shown, Class.TRAFFIC_LIGHT)


def paint_clutter(canvas: Canvas, look: Style, thing: Thing, z: float) -> None:
    """Paints what CamVid leaves unlabelled: bins, boards and crates on the side walk."""
    side, width = (1 if thing.s > 0 else -1), 0.6 + thing.share(1) * 0.5
    surface, far = plain(thing.pick(BINS), look.grain, 0.3), z + width
    outer = thing.s + side * width
    canvas.wall((thing.s, z), (outer, z), 0, thing.size, surface, Class.VOID, 0.8)
    canvas.wall((thing.s, z), (thing.s, far), 0, thing.size, surface, Class.VOID, 1.0)
    canvas.wall((thing.s, z), (outer, z), thing.size * 0.86, thing.size, surface, Class.VOID, 1.2)
