"""A camera and a canvas that paints colour and class index in one stroke, so image and mask cannot drift apart.

Pixel arithmetic uses only operations that IEEE 754 fixes bit for bit (no sine or power on arrays), so that
every machine draws the same picture.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

Point = tuple[float, float]
Color = tuple[int, int, int]

NEAREST_DEPTH = 0.9  # metres in front of the camera; nearer parts of a wall are cut off
PLAIN_WIDTH = 8.0  # pixels; a narrower wall is filled with one colour


class Class(enum.IntEnum):
    """CamVid's 12 classes with their indices."""

    SKY = 0
    BUILDING = 1
    COLUMN_POLE = 2
    ROAD = 3
    SIDE_WALK = 4
    VEGETATION = 5
    TRAFFIC_LIGHT = 6
    FENCE = 7
    VEHICLE = 8
    PEDESTRIAN = 9
    BICYCLIST = 10
    VOID = 11


CLASS_NAMES = tuple(label.name.lower() for label in Class)


@dataclasses.dataclass(frozen=True)
class Light:
    """Time of day and weather.

    Attributes:
        zenith: colour of the sky above.
        horizon: colour of the sky at the horizon, and of the haze.
        tint: factors on red, green and blue of everything lit by that sky.
        haze: share of haze in the colour at a distance of 100 m.
        shadow: brightness inside a cast shadow, 1 where there is none.
        clouds: share of the sky that clouds cover, 0 to 1.
        cloud: colour of the clouds.
        lamps: whether windows and vehicles have their lights on.
        noise: standard deviation of the sensor noise, in grey levels.
    """

    zenith: Color
    horizon: Color
    tint: tuple[float, float, float]
    haze: float
    shadow: float
    clouds: float
    cloud: Color
    lamps: bool
    noise: float

    def shade(self, color: Sequence[float], z: float, brightness: float = 1.0) -> Color:
        """Returns an object's colour under this light at a depth of `z` metres."""
        fog = min(max(z, 0.0) * self.haze / 100, 0.75)
        mixed = (
            c * t * brightness * (1 - fog) + h * fog for c, t, h in zip(color, self.tint, self.horizon, strict=True)
        )
        red, green, blue = (min(max(int(value), 0), 255) for value in mixed)
        return red, green, blue


@dataclasses.dataclass(frozen=True)
class Camera:
    """A pinhole camera driving along a curved road.

    Road coordinates are metres: `s` across from the middle of the road (right is positive), `y` up from the
    ground, `z` ahead of the camera. Image coordinates are pixels of the canvas.

    Attributes:
        width, height: size of the canvas.
        focal: focal length in pixels.
        horizon: row of the horizon.
        above: height of the camera over the road.
        lane: the camera's own `s`.
        bends: how many metres the road's middle has moved sideways at a depth of 0, 1, 2, ... metres, relative
            to the camera's heading.
    """

    width: int
    height: int
    focal: float
    horizon: float
    above: float
    lane: float
    bends: tuple[float, ...]

    def across(self, s: float, z: float) -> float:
        """Returns the metres between the optical axis and a point of the road."""
        z = min(max(z, 0.0), len(self.bends) - 1.001)
        before = int(z)
        here, there = self.bends[before], self.bends[before + 1]
        return s + here + (there - here) * (z - before) - self.lane

    def project(self, s: float, y: float, z: float) -> Point:
        """Returns the image point (column, row) of a point in road coordinates."""
        z = max(z, NEAREST_DEPTH)
        scale = self.focal / z
        return self.width / 2 + scale * self.across(s, z), self.horizon + scale * (self.above - y)


@dataclasses.dataclass(frozen=True)
class Surface:
    """What a wall is made of.

    Attributes:
        color: its colour where it is too far away to show more.
        paint: takes metres along the wall [1, w] and heights [h, w], returns the colours [h, w, 3] and, where
            the wall has a ragged edge, which pixels belong to it [h, w].
    """

    color: Color
    paint: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray | None]]


class Canvas:
    """One picture, `pixels` uint8 [H, W, 4]: red, green, blue, and a value that says class and instance.

    A value below 12 is a class index, of a pixel of no instance. Each instance has a value of its own, from 12 on.
    """

    def __init__(self, camera: Camera, light: Light) -> None:
        self.camera = camera
        self.light = light
        self.pixels = np.zeros((camera.height, camera.width, 4), np.uint8)
        # Pillow draws straight into the array's memory, so that strokes and arrays need no copies between them.
        picture = Image.frombuffer("RGBA", (camera.width, camera.height), self.pixels, "raw", "RGBA", 0, 1)
        picture.readonly = 0
        self._draw = ImageDraw.Draw(picture)
        self._classes = list(Class)  # by value
        self._values = {label: int(label) for label in Class}

    def begin_instance(self, label: Class) -> None:
        """Starts an instance: what is painted with its label from now on belongs to it. At most 244 fit a picture."""
        self._values[label] = len(self._classes)
        self._classes.append(label)

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the class index and the instance's number, from 1, or 0 for no instance; both uint8 [H, W]."""
        values = self.pixels[..., 3]
        numbers = np.maximum(np.arange(len(self._classes)) - len(Class) + 1, 0).astype(np.uint8)
        return np.array(self._classes, np.uint8)[values], numbers[values]

    def fill(self, points: Sequence[Point], color: Color, label: Class) -> None:
        """Fills a polygon given in image coordinates."""
        self._draw.polygon(list(points), fill=(*color, self._values[label]))

    def disc(self, centre: Point, radius: Point, color: Color, label: Class) -> None:
        """Fills an ellipse with half-axes `radius`, at least one pixel wide."""
        (u, v), (a, b) = centre, (max(radius[0], 0.5), max(radius[1], 0.5))
        self._draw.ellipse([u - a, v - b, u + a, v + b], fill=(*color, self._values[label]))

    def stroke(self, points: Sequence[Point], width: float, color: Color, label: Class) -> None:
        """Draws a line, at least two pixels wide, so that it survives in the halved mask."""
        self._draw.line(list(points), fill=(*color, self._values[label]), width=max(2, round(width)))

    def write(self, left: int, top: int, rgb: np.ndarray, inside: np.ndarray, label: Class) -> None:
        """Writes the pixels of `rgb` [h, w, 3] where `inside` [h, w] is true, with its corner at (left, top)."""
        block = self.pixels[top : top + inside.shape[0], left : left + inside.shape[1]]
        colors = np.minimum(np.maximum(rgb, 0), 255).astype(np.uint8)
        np.copyto(block[..., :3], colors, where=inside[..., None])
        np.copyto(block[..., 3], np.uint8(self._values[label]), where=inside)

    def darken(self, points: Sequence[Point], factor: float) -> None:
        """Multiplies colours inside a polygon, a cast shadow, and leaves the classes as they are."""
        box = self._clip(points)
        if factor >= 1 or box is None:
            return
        left, top, right, bottom = box
        stencil = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(stencil).polygon([(u - left, v - top) for u, v in points], fill=255)
        colors = self.pixels[top:bottom, left:right, :3]
        np.copyto(colors, (colors * np.float32(factor)).astype(np.uint8), where=np.asarray(stencil)[..., None] > 0)

    def wall(
        self, start: Point, end: Point, bottom: float, top: float, surface: Surface, label: Class, brightness: float
    ) -> None:
        """Paints an upright rectangle in perspective, pixel by pixel.

        Args:
            start: (s, z) of one foot, in metres.
            end: (s, z) of the other foot.
            bottom: height of the lower edge.
            top: height of the upper edge.
            surface: what it is made of.
            label: the wall's class.
            brightness: factor for the light that falls on this side.
        """
        feet = self._cut((self.camera.across(*start), start[1]), (self.camera.across(*end), end[1]))
        if feet is None:
            return
        (x0, z0), (x1, z1), begin, length = feet
        camera = self.camera
        centre = camera.width / 2
        u0, u1 = sorted((centre + camera.focal * x0 / z0, centre + camera.focal * x1 / z1))
        left, right = max(int(u0), 0), min(int(u1) + 1, camera.width)
        if right <= left:
            return
        if u1 - u0 < PLAIN_WIDTH:
            corners = [(start, bottom), (end, bottom), (end, top), (start, top)]
            color = self.light.shade(surface.color, max(z0, z1), brightness * 0.9)
            self.fill([camera.project(s, y, z) for (s, z), y in corners], color, label)
            return
        slope = (np.arange(left, right) + 0.5 - centre) / camera.focal
        crossing = (x1 - x0) - slope * (z1 - z0)
        share = (slope * z0 - x0) / np.where(np.abs(crossing) < 1e-9, 1e-9, crossing)
        share = np.clip(share, 0, 1)
        depth = z0 + share * (z1 - z0)
        nearest = float(depth.min())
        high = max(int(camera.horizon + camera.focal * min((camera.above - top) / d for d in (nearest, z0, z1))), 0)
        low = min(int(camera.horizon + camera.focal * (camera.above - bottom) / nearest) + 2, camera.height)
        if low <= high:
            return
        rows = np.arange(high, low)[:, None] + 0.5
        y = camera.above - (rows - camera.horizon) * (depth / camera.focal)
        colors, keep = surface.paint((begin + share * length)[None].astype(np.float32), y.astype(np.float32))
        inside = (y >= bottom) & (y <= top)
        if keep is not None:
            inside &= keep
        if inside.any():
            self.write(left, high, self.lit(colors, depth[None], brightness), inside, label)

    def lit(self, colors: np.ndarray, depth: np.ndarray, brightness: float) -> np.ndarray:
        """Applies light and haze to colours [h, w, 3] at depths [h or 1, w]."""
        fog = np.minimum(depth * (self.light.haze / 100), 0.75).astype(np.float32)[..., None]
        tint = np.array(self.light.tint, np.float32) * np.float32(brightness)
        return colors * (tint * (1 - fog)) + np.array(self.light.horizon, np.float32) * fog

    def _cut(self, start: Point, end: Point) -> tuple[Point, Point, float, float] | None:
        """Cuts off what lies behind the camera.

        Returns the feet that are left, the metres cut from the start and the metres left, or None.
        """
        (x0, z0), (x1, z1) = start, end
        length = ((x1 - x0) ** 2 + (z1 - z0) ** 2) ** 0.5
        if max(z0, z1) <= NEAREST_DEPTH:
            return None
        first, last = 0.0, 1.0
        if z0 < NEAREST_DEPTH:
            first = (NEAREST_DEPTH - z0) / (z1 - z0)
        elif z1 < NEAREST_DEPTH:
            last = (NEAREST_DEPTH - z0) / (z1 - z0)
        ends = [(x0 + (x1 - x0) * t, z0 + (z1 - z0) * t) for t in (first, last)]
        return ends[0], ends[1], first * length, (last - first) * length

    def _clip(self, points: Sequence[Point]) -> tuple[int, int, int, int] | None:
        """Returns the polygon's bounding box within the canvas, or None outside of it."""
        columns, rows = zip(*points, strict=True)
        left, top = max(int(min(columns)), 0), max(int(min(rows)), 0)
        right, bottom = (
            min(int(max(columns)) + 1, self.camera.width),
            min(int(max(rows)) + 1, self.camera.height),
        )
        return (left, top, right, bottom) if left < right and top < bottom else None
