"""Draws masks for people: overlays, legends, sheets of predictions, and error maps.

`segpipe predict` and the report use it; it needs only Pillow and NumPy. Images are RGB, uint8 [H, W, 3]. Masks are
class indices, uint8 [h, w], resized to the image by nearest neighbour if sizes differ. Functions raise ValueError if
the shape or type of an array is wrong.
"""

from __future__ import annotations

import colorsys
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from components.class_map import ClassMap, Color
from components.dataset.encoded import has_16_bits
from components.dataset.orientation import upright
from components.instances import boxes as instance_boxes

WRONG = (220, 38, 38)
IGNORED = (24, 24, 27)
INK = (31, 35, 40)
PAPER = (255, 255, 255)
EDGE = (140, 149, 159)
LEGEND_FONT = 14  # pixels
LABEL_FONT = 11  # pixels


def photo(data: bytes) -> np.ndarray:
    """Decodes an encoded image to upright RGB.

    Stretches the values of a 16-bit PNG from black to white; Pillow keeps only the high bytes of 16-bit colours. Raises
    OSError, SyntaxError, ValueError or PIL.Image.DecompressionBombError if Pillow cannot decode the image.
    """
    with Image.open(io.BytesIO(data)) as opened:
        image = upright(opened)
        values = np.asarray(image if image.mode.startswith("I") else image.convert("RGB"))
    if has_16_bits(data):
        low, high = int(values.min()), int(values.max())
        values = np.rint((values - np.float32(low)) * np.float32(255 / max(1, high - low))).astype(np.uint8)
    return values if values.ndim == 3 else np.stack([values] * 3, axis=-1)


def fit_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes class indices, uint8 [h, w], to `size` (height, width) by nearest neighbour."""
    if mask.shape == size:
        return mask
    return np.asarray(Image.fromarray(mask).resize((size[1], size[0]), Image.Resampling.NEAREST))


def overlay(image: np.ndarray, mask: np.ndarray, class_map: ClassMap, opacity: float = 0.5) -> np.ndarray:
    """Lays a mask's display colours over its image; pixels of the ignored class show the plain image.

    `opacity` is the fraction of the colour, from 0 (only the image) to 1 (only the mask).
    """
    _check(image, mask)
    if not 0 <= opacity <= 1:
        raise ValueError(f"overlay: found opacity {opacity}, expected 0 to 1")
    mask = fit_mask(mask, (image.shape[0], image.shape[1]))
    colors = class_map.colorize(mask).astype(np.float32)
    mixed = np.rint(image * np.float32(1 - opacity) + colors * np.float32(opacity)).astype(np.uint8)
    if class_map.ignore_index is not None:
        mixed = np.where((mask == class_map.ignore_index)[..., None], image, mixed)
    return mixed


def error_map(truth: np.ndarray, prediction: np.ndarray, class_map: ClassMap, image: np.ndarray) -> np.ndarray:
    """Shows misses in `WRONG`, pixels that are not scored in `IGNORED` with a lighter hatch, and others as a dim image.

    The truth has the size of the image.
    """
    _check(image, truth)
    _check(image, prediction)
    if image.shape[:2] != truth.shape:
        raise ValueError(f"error map: found a truth of {truth.shape}, expected the image's size {image.shape[:2]}")
    prediction = fit_mask(prediction, (truth.shape[0], truth.shape[1]))
    grey = (image.astype(np.uint16).sum(axis=-1, keepdims=True) // 6 + 32).astype(np.uint8)
    shown = np.where((truth != prediction)[..., None], np.array(WRONG, np.uint8), grey)
    if class_map.ignore_index is not None:
        ignored = truth == class_map.ignore_index
        rows, columns = np.indices(truth.shape)
        shown[ignored] = IGNORED
        shown[ignored & ((rows + columns) % 8 == 0)] = 70
    return shown


def instances(image: np.ndarray, masks: np.ndarray, labels: Sequence[str], opacity: float = 0.5) -> np.ndarray:
    """Lays masks, bool [N, H, W], over an image in different colours, with boxes and labels; the first ones lie on top.

    `opacity` is the fraction of the colour, 0 to 1.
    """
    canvas = image.astype(np.float32)
    colors = instance_colors(len(masks))
    for mask, color in reversed(list(zip(masks, colors, strict=True))):
        canvas[mask] = canvas[mask] * (1 - opacity) + np.float32(color) * opacity
    picture = Image.fromarray(np.rint(canvas).astype(np.uint8))
    boxes = instance_boxes(masks)
    return draw_boxes(picture, boxes[::-1], labels[::-1], colors[::-1])


def instance_colors(number: int) -> list[Color]:
    """Returns the colours of a number of instances in `instances`."""
    # Hues that are a golden ratio apart differ most, for any number of colours.
    colors = (colorsys.hsv_to_rgb((0.1 + index * 0.618034) % 1, 0.75, 0.95) for index in range(number))
    return [(round(255 * red), round(255 * green), round(255 * blue)) for red, green, blue in colors]


def draw_boxes(picture: Image.Image, boxes: np.ndarray, labels: Sequence[str], colors: Sequence[Color]) -> np.ndarray:
    """Draws N boxes with labels at their upper left corners into a picture and returns its pixels.

    The last boxes lie on top. Leaves out a label that would touch one on top of it.

    Args:
        picture: RGB; changed in place.
        boxes: (y_min, x_min, y_max, x_max) in pixels, the maximum exclusive, [N, 4].
        labels: N texts.
        colors: N colours.
    """
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(LABEL_FONT)
    drawn = list(zip(boxes.tolist(), labels, colors, strict=True))
    for (top, left, bottom, right), _, color in drawn:
        draw.rectangle((left, top, right - 1, bottom - 1), outline=color)
    written: list[tuple[float, float, float, float]] = []
    for (top, left, _, _), label, _ in reversed(drawn):
        place = (left + 1, max(0, top - LABEL_FONT - 2))
        area = draw.textbbox(place, label, font=font)
        if all(area[2] < x0 or x1 < area[0] or area[3] < y0 or y1 < area[1] for x0, y0, x1, y1 in written):
            written.append(area)
            draw.rectangle(area, fill=INK)
            draw.text(place, label, fill=PAPER, font=font)
    return np.asarray(picture)


def legend(class_map: ClassMap, names: Sequence[str] | None = None, width: int | None = None) -> Image.Image:
    """Draws swatches with class names, in rows that fit a width.

    Args:
        class_map: names and colours.
        names: the classes to show, in the order of the class map; None for all.
        width: width of the picture in pixels; None for one entry per row.

    Raises:
        ValueError: a name is not in the class map.
    """
    font = ImageFont.load_default(LEGEND_FONT)
    unknown = [name for name in names or () if name not in class_map.names]
    if unknown:
        raise ValueError(f"legend: found unknown classes {unknown}, expected some of {list(class_map.names)}")
    wanted = [i for i, name in enumerate(class_map.names) if names is None or name in names]
    labels = {index: class_map.names[index].replace("_", " ") for index in wanted}
    swatch, line, margin = 16, 24, 8
    cell = swatch + 6 + round(max((font.getlength(text) for text in labels.values()), default=0)) + 14
    columns = 1 if width is None else max(1, (width - 2 * margin) // cell)
    rows = -(-len(labels) // columns)
    picture = Image.new("RGB", (width or cell + 2 * margin, rows * line + 2 * margin), PAPER)
    draw = ImageDraw.Draw(picture)
    for place, (index, text) in enumerate(labels.items()):
        left, top = margin + place % columns * cell, margin + place // columns * line
        box = (left, top + 4, left + swatch, top + 4 + swatch)
        draw.rectangle(box, fill=class_map.colors[index], outline=EDGE)
        draw.text((left + swatch + 6, top + 4 + swatch / 2), text, fill=INK, font=font, anchor="lm")
    return picture


def prediction_sheet(image: np.ndarray, mask: np.ndarray, class_map: ClassMap, width: int = 960) -> np.ndarray:
    """Puts image, coloured mask and overlay side by side, above a legend of the classes in the mask.

    Enlarges small images, so that the sheet has at least the width in pixels.
    """
    _check(image, mask)
    mask = fit_mask(mask, (image.shape[0], image.shape[1]))
    gap = 6
    scale = max(1.0, (width - 2 * gap) / (3 * image.shape[1]))
    panel = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    large = np.asarray(Image.fromarray(image).resize(panel, Image.Resampling.BICUBIC))
    classes = fit_mask(mask, (panel[1], panel[0]))
    panels = [large, class_map.colorize(classes), overlay(large, classes, class_map)]
    present = [class_map.names[index] for index in np.unique(mask) if index < class_map.num_classes]
    strip = legend(class_map, present, width=3 * panel[0] + 2 * gap)
    sheet = Image.new("RGB", (strip.width, panel[1] + strip.height), PAPER)
    for place, pixels in enumerate(panels):
        sheet.paste(Image.fromarray(pixels), (place * (panel[0] + gap), 0))
    sheet.paste(strip, (0, panel[1]))
    return np.asarray(sheet)


def png_bytes(pixels: np.ndarray) -> bytes:
    """Encodes an array, uint8 [H, W] or [H, W, 3], as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _check(image: np.ndarray, mask: np.ndarray) -> None:
    """Raises ValueError unless the arrays are an RGB image and a mask."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image: expected uint8 [H, W, 3], found {image.dtype} {list(image.shape)}")
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise ValueError(f"mask: expected uint8 [H, W], found {mask.dtype} {list(mask.shape)}")
