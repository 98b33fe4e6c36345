"""Paints what moves: vehicles as solid bodies in perspective, pedestrians and bicyclists as jointed figures."""

from __future__ import annotations

import dataclasses
import math

from components.dataset.synthetic.canvas import Canvas, Class, Color, Point
from components.dataset.synthetic.scene import Thing
from components.dataset.synthetic.style import Style

PAINT: tuple[Color, ...] = (
    (170, 26, 30), (32, 58, 120), (200, 202, 204), (34, 36, 40), (118, 122, 126), (232, 230, 224),
    (30, 90, 66), (196, 160, 44), (92, 30, 44), (96, 130, 168),
)  # fmt: skip
CLOTHES: tuple[Color, ...] = (
    (40, 44, 58), (150, 40, 46), (60, 92, 140), (190, 178, 160),
    (56, 80, 56), (210, 160, 60), (92, 74, 100), (30, 30, 32),
)  # fmt: skip
SKIN: tuple[Color, ...] = ((222, 178, 150), (178, 128, 98), (120, 82, 62))
HAIR: tuple[Color, ...] = ((40, 32, 28), (96, 70, 44), (170, 150, 120))
GLASS: Color = (44, 54, 66)
RUBBER: Color = (24, 24, 26)


@dataclasses.dataclass(frozen=True)
class Body:
    """The side view of a vehicle, seen with its near end at 0.

    Attributes:
        width: metres.
        profile: (metres from the tail, height) from the tail's lower edge over the roof to the nose.
        panes: indices of the profile's edges that are glass.
        window: outline of the side windows.
        wheels: (metres from the tail, radius).
    """

    width: float
    profile: tuple[Point, ...]
    panes: tuple[int, ...]
    window: tuple[Point, ...]
    wheels: tuple[Point, ...]

    @property
    def length(self) -> float:
        """Length in metres."""
        return self.profile[-1][0]


HATCHBACK = Body(
    1.72,
    ((0.0, 0.32), (0.0, 0.88), (0.35, 1.42), (2.2, 1.46), (2.9, 0.98), (3.8, 0.8), (3.9, 0.32)),
    (1, 3),
    ((0.42, 0.95), (0.6, 1.34), (2.1, 1.37), (2.65, 0.97)),
    ((0.7, 0.31), (3.15, 0.31)),
)
SALOON = Body(
    1.78,
    ((0.0, 0.34), (0.0, 0.86), (0.75, 0.98), (1.3, 1.4), (2.6, 1.43), (3.35, 0.98), (4.4, 0.82), (4.5, 0.34)),
    (2, 4),
    ((1.0, 0.97), (1.4, 1.32), (2.5, 1.34), (3.1, 0.97)),
    ((0.85, 0.32), (3.65, 0.32)),
)
VAN = Body(
    2.0,
    ((0.0, 0.42), (0.0, 1.25), (0.05, 2.1), (3.6, 2.15), (4.3, 1.25), (5.0, 1.05), (5.05, 0.42)),
    (1, 3),
    ((3.0, 1.25), (3.0, 1.85), (3.6, 1.85), (4.1, 1.25)),
    ((0.95, 0.36), (4.1, 0.36)),
)
BUS = Body(
    2.4,
    ((0.0, 0.4), (0.0, 1.5), (0.05, 3.1), (8.8, 3.1), (8.95, 1.2), (9.0, 0.4)),
    (1, 3),
    ((0.4, 1.4), (0.4, 2.5), (8.4, 2.5), (8.4, 1.4)),
    ((1.6, 0.5), (7.2, 0.5)),
)
BODIES = (HATCHBACK, SALOON, HATCHBACK, SALOON, VAN, HATCHBACK, SALOON, BUS)


def paint_vehicle(canvas: Canvas, look: Style, thing: Thing, z: float) -> None:
    """Paints a vehicle with its shadow; those that come towards the camera show their nose."""
    body, color = thing.pick(BODIES), PAINT[thing.variant // len(BODIES) % len(PAINT)]
    if thing.speed == 0 and body is BUS:
        body = VAN
    nose_first = thing.speed < 0 or (thing.speed == 0 and thing.s > 0)
    # Nobody drives closer than this to the vehicle in front.
    if not (body.length * 1.6 if thing.speed > 0 else 2.2) < z < 110:
        return
    half = body.width / 2
    foot = [(thing.s - half - 0.1, z - 0.15), (thing.s + half + 0.1, z - 0.15)]
    foot += [(s, z + body.length) for s, _ in reversed(foot)]
    canvas.darken([canvas.camera.project(s, 0.0, max(d, 1.2)) for s, d in foot], 0.45)
    _wheels_behind(canvas, body, thing.s, z)
    _shell(canvas, look, body, thing.s, z, color, nose_first)
    _lamps(canvas, look, body, thing.s, z, nose_first)


def _shell(canvas: Canvas, look: Style, body: Body, s: float, z: float, color: Color, nose_first: bool) -> None:
    """Paints those faces of the body that are turned towards the camera."""
    at, shade, half = canvas.camera.project, canvas.light.shade, body.width / 2

    def along(d: float) -> float:
        return z + (body.length - d if nose_first else d)

    edges = list(enumerate(zip(body.profile, body.profile[1:], strict=False)))
    for index, ((d0, y0), (d1, y1)) in edges if nose_first else reversed(edges):
        rise, run = y1 - y0, d1 - d0
        quad = [at(s - half, y0, along(d0)), at(s + half, y0, along(d0))]
        quad += [at(s + half, y1, along(d1)), at(s - half, y1, along(d1))]
        # Tail edges run up and nose edges down, so the faces in sight turn opposite ways on the screen.
        if (_area(quad) > 0) != nose_first:
            continue
        glass = index in body.panes
        level = abs(run) / (abs(run) + abs(rise))
        surface = shade(GLASS if glass else color, z, 0.72 + 0.45 * level + (0.25 if glass else 0.0))
        canvas.fill(quad, surface, Class.VEHICLE)
    offset = canvas.camera.across(s, z)
    if abs(offset) < half:
        return
    near = s - half if offset > 0 else s + half
    sunny = 0.95 if look.sun * offset < 0 else 0.78
    canvas.fill([at(near, y, along(d)) for d, y in body.profile], shade(color, z, sunny), Class.VEHICLE)
    canvas.fill([at(near, y, along(d)) for d, y in body.window], shade(GLASS, z, 1.1), Class.VEHICLE)
    for d, radius in body.wheels:
        for size, rubber in ((1.0, RUBBER), (0.55, (126, 128, 130))):
            ring = [(math.cos(a * 0.6283) * radius * size, math.sin(a * 0.6283) * radius * size) for a in range(10)]
            points = [at(near, radius + up, along(d + out)) for out, up in ring]
            canvas.fill(points, shade(rubber, z), Class.VEHICLE)


def _area(points: list[Point]) -> float:
    """Returns twice the signed area of a polygon, positive where it runs clockwise on the screen."""
    turned = points[1:] + points[:1]
    return sum(u0 * v1 - u1 * v0 for (u0, v0), (u1, v1) in zip(points, turned, strict=True))


def _wheels_behind(canvas: Canvas, body: Body, s: float, z: float) -> None:
    """Paints the tyres that show under the end turned to the camera."""
    at, half = canvas.camera.project, body.width / 2
    for left in (s - half + 0.05, s + half - 0.3):
        tyre = [
            at(left, 0, z + 0.3),
            at(left + 0.25, 0, z + 0.3),
            at(left + 0.25, 0.5, z + 0.3),
            at(left, 0.5, z + 0.3),
        ]
        canvas.fill(tyre, canvas.light.shade(RUBBER, z), Class.VEHICLE)


def _lamps(canvas: Canvas, look: Style, body: Body, s: float, z: float, nose_first: bool) -> None:
    """Paints lamps and number plate on the end turned to the camera."""
    at, half, shade = canvas.camera.project, body.width / 2, canvas.light.shade
    lit = look.light.lamps
    color: Color = (255, 250, 220) if nose_first else (255, 40, 36)
    if not lit:
        color = shade((226, 228, 224) if nose_first else (168, 24, 24), z)
    for left in (s - half + 0.05, s + half - 0.4):
        lamp = [at(left, 0.62, z), at(left + 0.35, 0.62, z), at(left + 0.35, 0.82, z), at(left, 0.82, z)]
        canvas.fill(lamp, color, Class.VEHICLE)
    plate = [at(s - 0.26, 0.46, z), at(s + 0.26, 0.46, z), at(s + 0.26, 0.58, z), at(s - 0.26, 0.58, z)]
    canvas.fill(plate, shade((228, 226, 214) if nose_first else (222, 190, 60), z), Class.VEHICLE)


@dataclasses.dataclass(frozen=True)
class Figure:
    """A flat, jointed figure that stands at one depth.

    Attributes:
        canvas: where it is painted.
        s, z: where it stands.
        label: its class.
    """

    canvas: Canvas
    s: float
    z: float
    label: Class

    def at(self, across: float, up: float) -> Point:
        """Returns the image point of a place on the figure, in metres from its foot."""
        return self.canvas.camera.project(self.s + across, up, self.z)

    def limb(self, joints: list[Point], width: float, color: Color, brightness: float = 1.0) -> None:
        """Paints a limb along its joints, `width` metres thick."""
        scale = self.canvas.camera.focal / self.z
        shaded = self.canvas.light.shade(color, self.z, brightness)
        self.canvas.stroke([self.at(*joint) for joint in joints], scale * width, shaded, self.label)

    def patch(self, corners: list[Point], color: Color, brightness: float = 1.0) -> None:
        """Paints a polygon of the figure."""
        shaded = self.canvas.light.shade(color, self.z, brightness)
        self.canvas.fill([self.at(*corner) for corner in corners], shaded, self.label)

    def ball(self, centre: Point, radius: Point, color: Color, brightness: float = 1.0) -> None:
        """Paints an ellipse of the figure."""
        scale = self.canvas.camera.focal / self.z
        shaded = self.canvas.light.shade(color, self.z, brightness)
        self.canvas.disc(self.at(*centre), (radius[0] * scale, radius[1] * scale), shaded, self.label)


def _dress(thing: Thing) -> tuple[Color, Color, Color, Color]:
    """Returns the colours of coat, trousers, skin and hair."""
    number = thing.variant
    coat, trousers = CLOTHES[number % len(CLOTHES)], CLOTHES[number // 8 % len(CLOTHES)]
    return coat, trousers, SKIN[number // 64 % len(SKIN)], HAIR[number // 192 % len(HAIR)]


def paint_pedestrian(canvas: Canvas, look: Style, thing: Thing, z: float) -> None:
    """Paints somebody walking; the step goes with the place, so that legs move from frame to frame."""
    if not 1.8 < z < 90:
        return
    coat, trousers, skin, hair = _dress(thing)
    figure, tall = Figure(canvas, thing.s, z, Class.PEDESTRIAN), thing.size
    stride = 0.22 * math.sin(z * 1.9 + thing.variant % 7)
    swing = stride * 0.8
    canvas.darken(_pool(figure, 0.4), 0.6)
    for foot, brightness in ((-stride, 0.8), (stride, 1.0)):
        figure.limb([(0.0, tall * 0.5), (foot * 0.5, tall * 0.26), (foot, 0.04)], 0.16, trousers, brightness)
    figure.limb([(-0.2, tall * 0.78), (-0.24 - swing * 0.4, tall * 0.48)], 0.1, coat, 0.8)
    shoulders, hips = tall * 0.135, tall * 0.1
    torso = [(-shoulders, tall * 0.82), (shoulders, tall * 0.82), (hips, tall * 0.44), (-hips, tall * 0.44)]
    figure.patch(torso, coat)
    figure.patch([(0.0, tall * 0.82), (shoulders, tall * 0.82), (hips, tall * 0.44)], coat, 0.8 + 0.1 * look.sun)
    figure.limb([(0.2, tall * 0.78), (0.24 + swing * 0.4, tall * 0.48)], 0.1, coat, 1.05)
    if thing.share(3) < 0.4:
        figure.ball((0.27, tall * 0.42), (0.13, 0.16), CLOTHES[thing.variant // 576 % len(CLOTHES)])
    figure.ball((0, tall * 0.93), (0.11, 0.14), skin)
    figure.ball((0, tall * 0.97), (0.115, 0.09), hair)


def _pool(figure: Figure, radius: float) -> list[Point]:
    """Returns the outline of the dark spot under a figure."""
    at, s, z = figure.canvas.camera.project, figure.s, figure.z
    return [at(s - radius, 0, z), at(s, 0, z + radius), at(s + radius, 0, z), at(s, 0, max(z - radius, 1))]


def paint_bicyclist(canvas: Canvas, look: Style, thing: Thing, z: float) -> None:
    """Paints a rider seen from behind or in front."""
    if not 2.0 < z < 90:
        return
    coat, trousers, skin, hair = _dress(thing)
    figure, pedal = Figure(canvas, thing.s, z, Class.BICYCLIST), 0.14 * math.sin(z * 2.3)
    canvas.darken(_pool(figure, 0.45), 0.6)
    figure.ball((0, 0.35), (0.06, 0.35), RUBBER)
    figure.limb([(0, 0.5), (0, 0.95)], 0.08, (110, 112, 116))
    figure.limb([(-0.3, 1.02), (0.3, 1.02)], 0.06, (60, 62, 66))
    for side, up in ((-1, pedal), (1, -pedal)):
        knee = (side * 0.2, 0.66 + up)
        figure.limb([(side * 0.1, 0.98), knee, (side * 0.13, 0.3 + up)], 0.14, trousers, 0.9 + 0.1 * side)
        figure.limb([(side * 0.2, 1.42), (side * 0.33, 1.2), (side * 0.28, 1.02)], 0.1, coat, 0.95)
    figure.patch([(-0.24, 1.48), (0.24, 1.48), (0.16, 0.9), (-0.16, 0.9)], coat, 1 + 0.08 * look.sun)
    figure.ball((0, 1.64), (0.11, 0.14), skin if thing.speed < 0 else hair)
    helmet: Color = ((230, 230, 226), (200, 40, 40), (40, 70, 150))[thing.variant % 3]
    figure.ball((0, 1.7), (0.13, 0.1), helmet)


def paint_crossing_bicyclist(canvas: Canvas, look: Style, thing: Thing, z: float) -> None:
    """Paints a rider seen from the side."""
    if not 3.0 < z < 90:
        return
    coat, trousers, skin, _ = _dress(thing)
    ahead = 1 if thing.stroll > 0 else -1
    figure, pedal = Figure(canvas, thing.s, z, Class.BICYCLIST), 0.15 * math.sin(thing.s * 3)
    canvas.darken([figure.at(x, y) for x, y in ((-0.9, 0.02), (0.9, 0.02), (0.8, -0.06), (-0.8, -0.06))], 0.6)
    for hub in (-0.52, 0.52):
        figure.ball((hub, 0.34), (0.34, 0.34), RUBBER)
        figure.ball((hub, 0.34), (0.27, 0.27), (124, 124, 122), 0.9)
        figure.limb([(hub, 0.08), (hub, 0.6)], 0.02, (70, 70, 72))
    metal = PAINT[thing.variant % len(PAINT)]
    frame = [(-0.52, 0.34), (-0.12, 0.82), (0.4, 0.84), (0.02, 0.34), (-0.12, 0.82)]
    figure.limb([(x * ahead, y) for x, y in frame], 0.05, metal)
    figure.limb([(0.52 * ahead, 0.34), (0.42 * ahead, 1.0)], 0.05, metal)
    for up in (pedal, -pedal):
        legs = [(-0.16, 0.94), (0.16, 0.68 + up * 0.4), (0.02 + up * 0.5, 0.3 + up)]
        figure.limb([(x * ahead, y) for x, y in legs], 0.15, trousers, 0.9 + up)
    torso = [(-0.3, 0.9), (0.06, 1.5), (0.26, 1.4), (0.0, 0.88)]
    figure.patch([(x * ahead, y) for x, y in torso], coat)
    figure.limb([(x * ahead, y) for x, y in ((0.16, 1.4), (0.3, 1.15), (0.42, 1.02))], 0.1, coat, 0.85)
    figure.ball((0.22 * ahead, 1.62), (0.12, 0.14), skin)
    figure.ball((0.2 * ahead, 1.69), (0.14, 0.09), PAINT[(thing.variant + 3) % len(PAINT)])
