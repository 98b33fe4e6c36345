"""Paints what fills the frame before any object stands in it: the sky, the far horizon and the ground."""

from __future__ import annotations

import functools

import numpy as np

from components.dataset.synthetic.canvas import Camera, Canvas, Class
from components.dataset.synthetic.scene import BLOCK, LEAVES, has_side_road
from components.dataset.synthetic.style import Style, style
from components.dataset.synthetic.texture import smooth

FAR = 160.0  # metres; the ground beyond is haze


@functools.lru_cache(maxsize=4)
def _clouds(seed: int, sequence: int) -> np.ndarray:
    """Returns how dense the clouds are, float32 [256, 256] from 0 to 1, seamless."""
    rng = np.random.default_rng([seed, sequence, 4])
    total = np.zeros((256, 256), np.float32)
    for cells, weight in ((4, 0.5), (8, 0.27), (16, 0.14), (32, 0.09)):
        total += np.float32(weight / 255) * smooth(rng, cells, 256)
    low, high = float(total.min()), float(total.max())
    return (total - np.float32(low)) / np.float32(high - low)


def paint_sky(canvas: Canvas, seed: int, sequence: int, heading: float) -> None:
    """Paints the sky down to the horizon, clouds flattened towards it.

    Args:
        canvas: where to paint.
        seed: seed of the data set.
        sequence: number of the street.
        heading: slope of the road, which turns the clouds sideways.
    """
    camera, light = canvas.camera, canvas.light
    # Clouds are soft: half the pixels each way are enough.
    rows, columns = int(camera.horizon) // 2 + 2, camera.width // 2
    fall = ((np.arange(rows, dtype=np.float32) + 0.5) / rows)[:, None]
    sky = (np.array(light.zenith, np.float32) * (1 - fall) + np.array(light.horizon, np.float32) * fall)[:, None]
    # A cloud deck is a plane: its height in the picture goes with the inverse of its distance.
    distance = 1 / (1.12 - fall)
    across = (np.arange(columns, dtype=np.float32)[None] / columns - 0.5 + np.float32(heading)) * distance
    density = _clouds(seed, sequence)[
        (distance * 60).astype(np.int32) & 255, (across * 150 + 512).astype(np.int32) & 255
    ]
    cover = np.clip((density - np.float32(1 - light.clouds)) * 3.5, 0, 1)[..., None] * (1 - fall[..., None] * 0.55)
    shaded = np.array(light.cloud, np.float32) * (np.float32(1.06) - np.float32(0.22) * density[..., None])
    colors = sky * (1 - cover) + shaded * cover
    pixels = np.minimum(colors, 255).astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    canvas.pixels[: 2 * rows, :, :3] = pixels
    canvas.pixels[: 2 * rows, :, 3] = int(Class.SKY)


def paint_horizon(canvas: Canvas, look: Style, place: float) -> None:
    """Paints distant trees and roofs as a ragged, hazy band on the horizon."""
    camera, light = canvas.camera, canvas.light
    columns = np.arange(camera.width)
    _, slope = look.middle(place)
    shift = int((slope * camera.focal + 4096) / 3)
    for label, color, scale, row in (
        (Class.BUILDING, look.materials[0], 0.085, 11),
        (Class.VEGETATION, LEAVES[int(place / 60) % len(LEAVES)], 0.075, 47),
    ):
        step = 10 if label is Class.BUILDING else 1
        profile = look.grain.soft[row, ((columns // 3 + shift) // step * (7 if step > 1 else 1)) & 127]
        height = np.clip((profile - np.float32(0.25)) * scale * camera.height * 1.6, 0, None)
        top = int(camera.horizon - height.max()) - 1
        rows = np.arange(top, int(camera.horizon) + 4)
        inside = rows[:, None] > camera.horizon - height[None]
        noise = look.grain.fine[rows[:, None] & 127, columns[None] & 127]
        shade = np.array(light.shade(color, 110, 0.75), np.float32) * (0.9 + 0.2 * noise[..., None])
        if top >= 0:
            canvas.write(0, top, shade, inside, label)


def paint_ground(canvas: Canvas, seed: int, sequence: int, place: float) -> None:
    """Paints road, kerbs, side walks and grass by casting a ray through every pixel below the horizon.

    Args:
        canvas: where to paint.
        seed: seed of the data set.
        sequence: number of the street.
        place: the camera's position along the road in metres.
    """
    camera, look = canvas.camera, style(seed, sequence)
    top = int(camera.horizon) + 1
    rows = np.arange(top, camera.height, dtype=np.float64) + 0.5
    depth = np.minimum(camera.focal * camera.above / (rows - camera.horizon), FAR)
    bend = np.interp(depth, np.arange(len(camera.bends)), camera.bends)
    columns = np.arange(camera.width, dtype=np.float64) + 0.5 - camera.width / 2
    s = (columns[None] * (depth / camera.focal)[:, None] - (bend - camera.lane)[:, None]).astype(np.float32)
    along = (depth + place).astype(np.float32)[:, None]
    near = np.clip(1.2 - depth / 40, 0, 1).astype(np.float32)[:, None]

    label = _zones(look, s, _side_roads(seed, sequence, along))
    base = np.zeros((12, 3), np.float32)
    base[Class.ROAD], base[Class.SIDE_WALK], base[Class.VEGETATION] = look.asphalt, look.paving, (96, 116, 58)
    colors = base[label]
    _add_marks(colors, look, s, along, label)
    grain = look.grain
    fine = grain.at(grain.fine, s * 14 + 640, along * 14) - np.float32(0.5)
    soft = grain.at(grain.soft, s * 6 + 640, along * 2) - np.float32(0.5)
    grass = (label == Class.VEGETATION) * np.float32(0.5)
    factor = 1 + near * fine * (np.float32(0.22) + grass) + soft * np.float32(0.28)
    factor *= _shadows(look, s, along)
    lit = canvas.lit(colors * factor[..., None], depth.astype(np.float32)[:, None], 1.0)
    _write_ground(canvas, top, lit, label)


def _side_roads(seed: int, sequence: int, along: np.ndarray) -> np.ndarray:
    """Returns for each row the side on which the ground is a side road, -1, 0 or 1, as [rows, 1]."""
    index = np.floor(along / BLOCK).astype(int)
    sides = {i: has_side_road(seed, sequence, i) for i in set(index.ravel().tolist())}
    side = np.array([sides[i] for i in index.ravel().tolist()], np.int8)[:, None]
    return side * (np.abs(along - index * BLOCK - BLOCK / 2) < 3.2)


def _zones(look: Style, s: np.ndarray, side_road: np.ndarray) -> np.ndarray:
    """Returns the class of every ground pixel, uint8 [h, w]."""
    distance = np.abs(s)
    label = np.full(s.shape, int(Class.VEGETATION), np.uint8)
    label[distance < look.road + look.pavement + (1.2 if look.verge == 0 else 0)] = Class.SIDE_WALK
    label[(distance < look.road) | (side_road * s > look.road)] = Class.ROAD
    return label


def _add_marks(colors: np.ndarray, look: Style, s: np.ndarray, along: np.ndarray, label: np.ndarray) -> None:
    """Paints lane marks, edge lines, zebra crossings, repairs, kerbs and joints between slabs, in place."""
    road, walk = label == Class.ROAD, label == Class.SIDE_WALK
    distance = np.abs(s)
    patch = (look.grain.at(look.grain.fine, np.floor(s / 2.2) + 64, np.floor(along / 5)) > 0.86) & road
    colors[patch] *= np.float32(0.8)
    wheel = (np.abs(distance - look.road * 0.42) < 0.5) & road
    colors[wheel] *= np.float32(0.94)
    white = (distance < 0.09) & (np.remainder(along, 6) < 3.2)
    white |= (np.remainder(along, 80) > 74.5) & (np.remainder(along, 80) < 78) & (np.remainder(s + 50, 1.2) < 0.6)
    yellow = (np.abs(distance - look.road + 0.32) < 0.07) | (np.abs(distance - look.road + 0.55) < 0.07)
    colors[white & road & (distance < look.road - 0.2)] = (212, 212, 206)
    if look.verge == 0:
        colors[yellow & road] = (188, 160, 70)
    else:
        colors[(np.abs(distance - look.road + 0.35) < 0.06) & road] = (200, 200, 194)
    kerb = walk & (distance < look.road + 0.18)
    colors[kerb] = np.array(look.paving, np.float32) * np.float32(1.22)
    colors[kerb & (distance < look.road + 0.06)] *= np.float32(0.55)
    joint = (np.remainder(s + 64, np.float32(0.8)) < 0.06) | (np.remainder(along, np.float32(0.8)) < 0.06)
    colors[joint & walk & (along - along.min() < 14)] *= np.float32(0.86)


def _shadows(look: Style, s: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Returns the brightness of the ground, less where buildings and trees by the road cast a shadow."""
    if look.light.shadow >= 1:
        return np.ones_like(s)
    edge = look.grain.at(look.grain.soft, along * 4, np.zeros_like(along))
    blocks = look.grain.at(look.grain.fine, np.floor(along / 10), np.ones_like(along))
    reach = look.road * (np.float32(0.9) - np.float32(1.3) * blocks) + edge
    return np.where(s * look.sun > reach, np.float32(look.light.shadow), np.float32(1))


def _write_ground(canvas: Canvas, top: int, colors: np.ndarray, label: np.ndarray) -> None:
    """Writes colours and classes of the ground in one block."""
    canvas.pixels[top:, :, :3] = np.minimum(np.maximum(colors, 0), 255)
    canvas.pixels[top:, :, 3] = label


def make_camera(seed: int, sequence: int, place: float, size: tuple[int, int], pitch: float) -> Camera:
    """Returns the camera at `place` metres along a street.

    Args:
        seed: seed of the data set.
        sequence: number of the street.
        place: metres along the road.
        size: height and width of the canvas in pixels.
        pitch: share of the height by which the horizon is off, as the car rocks.
    """
    look = style(seed, sequence)
    position, slope = look.middle(place)
    height, width = size
    bends = tuple(look.middle(place + z)[0] - position - slope * z for z in range(int(FAR) + 2))
    return Camera(width, height, look.focal * width, (look.horizon + pitch) * height, look.above, look.lane, bends)
