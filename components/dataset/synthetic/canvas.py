"""Renders plane faces as a camera sees them: image, class mask, instances and depth.

World coordinates are metres: x to the right of the middle of the road, y above the ground, z along the road. Pixel
arithmetic uses only operations that IEEE 754 fixes bit for bit (no sine or power of arrays, no matrix product), so that
all machines draw the same picture.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from components.dataset.synthetic.street import Color, Style

Corner = tuple[float, float, float]
Texture = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # x, y and z, float32 [n], to colours [n, 3]

NEAREST, FARTHEST = 0.9, 200.0  # metres ahead of the camera

# CamVid's 12 classes in index order; GRAIN is the contrast of their surfaces.
Class = enum.IntEnum(
    "Class",
    "SKY BUILDING COLUMN_POLE ROAD SIDE_WALK VEGETATION TRAFFIC_LIGHT FENCE VEHICLE PEDESTRIAN BICYCLIST VOID",
    start=0,
)
CLASS_NAMES = tuple(label.name.lower() for label in Class)
GRAIN = np.array([0, 0.25, 0.1, 0.25, 0.3, 1.1, 0.05, 0.4, 0.1, 0.15, 0.15, 0.2], np.float32)

NOISE = np.random.default_rng(0).random((128, 128), np.float32)


class Frame(NamedTuple):
    """An image and its labels."""

    image: np.ndarray  # uint8 [H, W, 3]
    mask: np.ndarray  # class indices, uint8 [H, W]
    instances: np.ndarray  # instance numbers from 1, 0 is no instance, uint8 [H, W]
    depth: np.ndarray  # metres * 256, 0 is the sky, uint16 [H, W]: KITTI's encoding (its depth devkit's readme.txt)


class Canvas:
    """The view of a camera `place` metres along the road; faces are painted from far to near.

    The camera points `heading` metres to the left per metre ahead; the horizon is `pitch` of the height lower than
    usual.
    """

    def __init__(self, style: Style, size: tuple[int, int], place: float, heading: float, pitch: float) -> None:
        self.style, self.place, self.heading, (self.height, self.width) = style, place, heading, size
        self.focal, self.horizon = style.focal * self.width, (style.skyline + pitch) * self.height
        self._numbers, self._shade = Image.new("I", size[::-1]), Image.new("L", size[::-1], 255)
        self._faces: list[tuple[Color | Texture, Class, int, tuple[float, ...]]] = []

    def sky(self, texture: Texture) -> None:
        """Fills the canvas with the sky: a wall at the farthest distance, of unknown depth."""
        self._faces = [(texture, Class.SKY, 0, (0, 0, 1, *[np.inf] * 3))]

    def face(self, corners: Sequence[Corner], color: Color | Texture, label: Class, instance: int = 0) -> None:
        """Paints a plane polygon, given by x, y and z of its corners."""
        seen = self._seen(corners)
        # The plane's normal by Newell's method (Sutherland, Sproull and Schumacker, 1974).
        a = b = c = 0.0
        for (x0, y0, z0), (x1, y1, z1) in zip(seen, seen[1:] + seen[:1], strict=True):
            a, b, c = a + y0 * z1 - z0 * y1, b + z0 * x1 - x0 * z1, c + x0 * y1 - y0 * x1
        if seen and (distance := a * seen[0][0] + b * seen[0][1] + c * seen[0][2]):  # 0 if seen edge-on
            depths = [z for _, _, z in seen]
            self._fill(self._numbers, seen, len(self._faces))
            self._faces.append((color, label, instance, (a, b, c, distance, min(depths), max(depths))))

    def shadow(self, corners: Sequence[Corner], brightness: float) -> None:
        """Darkens road and side walk in a polygon to a fraction of their brightness."""
        self._fill(self._shade, self._seen(corners), int(255 * brightness))

    def to_frame(self, rng: np.random.Generator) -> Frame:
        """Returns the frame, with grain, light, haze and noise, at half the canvas' size."""
        style = self.style
        textures, labels, owners, planes = zip(*self._faces, strict=True)
        numbers = np.asarray(self._numbers)
        label, instance = np.array(labels, np.uint8)[numbers], np.array(owners, np.uint8)[numbers]
        a, b, c, distance, nearest, farthest = np.array(planes, np.float32).T[:, numbers]
        right = ((np.arange(self.width) + 0.5 - self.width / 2) / self.focal).astype(np.float32)
        up = ((self.horizon - np.arange(self.height) - 0.5) / self.focal).astype(np.float32)[:, None]
        with np.errstate(divide="ignore"):
            depth = np.clip(distance / (a * right + b * up + c), nearest, farthest)
        ahead = np.minimum(depth, np.float32(FARTHEST))
        x = (right - np.float32(self.heading)) * ahead + np.float32(style.lane)
        y, z = up * ahead + np.float32(style.above), ahead + np.float32(self.place)

        colors = np.array([(0, 0, 0) if callable(color) else color for color in textures], np.float32)[numbers]
        for number, color in enumerate(textures):
            if callable(color):
                inside = numbers == number
                colors[inside] = color(x[inside], y[inside], z[inside])
        # These sums give each place its own noise, on walls (constant x or z) and on the ground (constant y).
        down, across = y + z, x + z
        fine, coarse = (
            NOISE[(down * scale).astype(np.int32) & 127, (across * scale).astype(np.int32) & 127] - np.float32(0.5)
            for scale in (12, 2)
        )
        fine *= np.clip(np.float32(1.2) - ahead / 40, 0, 1)  # at larger distances grain is smaller than a pixel
        ground = (label == Class.ROAD) | (label == Class.SIDE_WALK)
        shade = np.where(ground, np.asarray(self._shade, np.float32) / 255, np.float32(1))
        haze = np.minimum(ahead * np.float32(style.haze / 100), np.float32(0.75))[..., None]
        lit = colors * (shade * (1 + GRAIN[label] * (fine + coarse * np.float32(0.4))))[..., None]
        lit = lit * np.array(style.tint, np.float32) * (1 - haze) + np.array(style.horizon, np.float32) * haze
        lit = np.where((label == Class.SKY)[..., None], colors, lit)

        small = Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8)).reduce(2).filter(ImageFilter.GaussianBlur(0.45))
        noise, grey = (rng.standard_normal((*small.size[::-1], bands), np.float32) for bands in (3, 1))
        image = np.asarray(small, np.float32) * np.float32(rng.uniform(0.92, 1.06)) + (noise + grey) * 2.5
        encoded = np.where(depth < np.inf, depth * 256, 0).astype(np.uint16)
        found = (values[1::2, 1::2] for values in (label, instance, encoded))
        return Frame(np.clip(image, 0, 255).astype(np.uint8), *found)

    def _seen(self, corners: Sequence[Corner]) -> list[Corner]:
        """Returns a polygon relative to the camera, clipped at the distance `NEAREST`."""
        lane, aside, above, place = self.style.lane, self.heading, self.style.above, self.place
        seen = [(x - lane + aside * (z - place), y - above, z - place) for x, y, z in corners]
        kept = []
        for (x0, y0, z0), (x1, y1, z1) in zip(seen, seen[1:] + seen[:1], strict=True):
            if z0 >= NEAREST:
                kept.append((x0, y0, z0))
            if (z0 >= NEAREST) != (z1 >= NEAREST):
                t = (NEAREST - z0) / (z1 - z0)
                kept.append((x0 + t * (x1 - x0), y0 + t * (y1 - y0), NEAREST))
        return kept

    def _fill(self, image: Image.Image, seen: Sequence[Corner], value: int) -> None:
        """Fills a polygon, given relative to the camera."""
        outline = [(self.width / 2 + self.focal * x / z, self.horizon - self.focal * y / z) for x, y, z in seen]
        if outline:
            ImageDraw.Draw(image).polygon(outline, fill=value)
