"""Draws one frame of a synthetic street: image, mask and instances, whole and in the right order from far to near."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from components.dataset.synthetic import actors, backdrop, roadside
from components.dataset.synthetic.canvas import Canvas, Class
from components.dataset.synthetic.scene import BLOCK, STEP, Thing, block
from components.dataset.synthetic.style import Style, style

SIGHT = 100.0  # metres; things beyond are lost in the horizon
PAINTERS: dict[str, Callable[[Canvas, Style, Thing, float], None]] = {
    "building": roadside.paint_building,
    "fence": roadside.paint_fence,
    "railing": roadside.paint_railing,
    "hedge": roadside.paint_hedge,
    "tree": roadside.paint_tree,
    "lamp_post": roadside.paint_lamp_post,
    "bollard": roadside.paint_bollard,
    "sign": roadside.paint_sign,
    "traffic_light": roadside.paint_traffic_light,
    "clutter": roadside.paint_clutter,
    "vehicle": actors.paint_vehicle,
    "pedestrian": actors.paint_pedestrian,
    "bicyclist": actors.paint_bicyclist,
    "crossing_bicyclist": actors.paint_crossing_bicyclist,
}
# The kinds of which each is an instance.
INSTANCES = {
    "vehicle": Class.VEHICLE,
    "pedestrian": Class.PEDESTRIAN,
    "bicyclist": Class.BICYCLIST,
    "crossing_bicyclist": Class.BICYCLIST,
}


def render(seed: int, sequence: int, index: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws one frame at twice the size, averages the colours and takes every second class index.

    Args:
        seed: seed of the data set.
        sequence: number of the street, from 0.
        index: number of the frame; the camera moves 5 m from one to the next.
        size: height and width of the result in pixels.

    Returns:
        The image, uint8 [H, W, 3]; its mask of class indices, uint8 [H, W]; and the number of the instance that each
        pixel shows, from 1, or 0 for no instance, likewise.
    """
    look = style(seed, sequence)
    rng = np.random.default_rng([seed, sequence, 5, index])
    place = index * STEP + 2 * BLOCK
    pitch = float(rng.uniform(-0.006, 0.006))
    camera = backdrop.make_camera(seed, sequence, place, (size[0] * 2, size[1] * 2), pitch)
    canvas = Canvas(camera, look.light)
    backdrop.paint_sky(canvas, seed, sequence, look.middle(place)[1])
    backdrop.paint_horizon(canvas, look, place)
    backdrop.paint_ground(canvas, seed, sequence, place)
    for thing, depth in _in_sight(seed, sequence, place):
        if thing.kind in INSTANCES:
            canvas.begin_instance(INSTANCES[thing.kind])
        PAINTERS[thing.kind](canvas, look, thing, depth)
    _paint_bonnet(canvas, look)
    colors = Image.fromarray(np.ascontiguousarray(canvas.pixels[..., :3]))
    mask, instances = (labels[1::2, 1::2] for labels in canvas.labels())
    return _expose(colors.reduce(2), look, rng), mask, instances


def _in_sight(seed: int, sequence: int, place: float) -> list[tuple[Thing, float]]:
    """Returns the things ahead and their depths, the ones to paint first in front.

    Within one block of road whatever stands further from the road is hidden by what stands nearer to it.
    """
    road = style(seed, sequence).road
    first, last = int((place - BLOCK) // BLOCK), int((place + SIGHT * 1.5) // BLOCK)
    seen = []
    for index in range(first, last + 1):
        for thing in block(seed, sequence, index):
            ahead = thing.z - place
            depth = ahead * (1 - thing.speed)
            moved = dataclasses.replace(thing, s=thing.s - thing.stroll * ahead) if thing.stroll else thing
            if -BLOCK < depth < SIGHT:
                seen.append((moved, depth))
    return sorted(seen, key=lambda pair: (-((pair[1] + place) // BLOCK), -max(abs(pair[0].s), road), -pair[1]))


def _paint_bonnet(canvas: Canvas, look: Style) -> None:
    """Paints the bonnet of the camera's own car, which nobody labels."""
    width, height = canvas.camera.width, canvas.camera.height
    edge = [(width * t / 12, height * (1 - look.bonnet * (0.45 + 2.2 * (t / 12) * (1 - t / 12)))) for t in range(13)]
    tone = (34, 38, 46) if look.sun > 0 else (66, 22, 26)
    canvas.fill([*edge, (width, height), (0, height)], canvas.light.shade(tone, 0), Class.VOID)
    shine = [(u, v + height * 0.012) for u, v in edge[3:10]]
    canvas.stroke(shine, height * 0.006, canvas.light.shade((150, 158, 170), 0), Class.VOID)


def _expose(image: Image.Image, look: Style, rng: np.random.Generator) -> np.ndarray:
    """Adds what a camera adds: softness, exposure, darker corners and sensor noise."""
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(0.45)), np.float32)
    height, width = soft.shape[:2]
    across = (np.arange(width, dtype=np.float32) / width - np.float32(0.5))[None]
    down = (np.arange(height, dtype=np.float32) / height - np.float32(0.5))[:, None]
    corners = 1 - np.float32(0.3) * (across * across + down * down)
    gain = np.float32(rng.uniform(0.94, 1.06))
    noise = rng.standard_normal((height, width, 3), dtype=np.float32) * np.float32(look.light.noise)
    grey = rng.standard_normal((height, width, 1), dtype=np.float32) * np.float32(look.light.noise * 0.7)
    return np.clip(soft * (corners * gain)[..., None] + noise + grey, 0, 255).astype(np.uint8)
