"""Pictures of masks for people: overlays, legends, sheets for a prediction and maps of its errors.

Used by `segpipe predict` and by the report; needs nothing but Pillow and NumPy.
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
    """Decodes an image for people: upright RGB, uint8 [H, W, 3].

    The values of a 16-bit PNG are stretched from black to white; of colours Pillow keeps the high bytes alone.

    Args:
        data: an encoded image.

    Raises:
        OSError, SyntaxError, ValueError or PIL.Image.DecompressionBombError: Pillow cannot decode it.
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
    """Lays a mask's display colours over its image.

    Args:
        image: uint8 [H, W, 3].
        mask: class indices, uint8 [h, w], resized to the image where sizes differ.
        class_map: gives the colours.
        opacity: share of the colour, from 0 (image alone) to 1 (mask alone).

    Returns:
        uint8 [H, W, 3]; pixels of the ignored class show the image as it is.

    Raises:
        ValueError: the arrays are not of these shapes and types, or the opacity is out of range.
    """
    _check(image, mask)
    if not 0 <= opacity <= 1:
        raise ValueError(f"overlay: opacity {opacity} is not between 0 and 1")
    mask = fit_mask(mask, (image.shape[0], image.shape[1]))
    colors = class_map.colorize(mask).astype(np.float32)
    mixed = np.rint(image * np.float32(1 - opacity) + colors * np.float32(opacity)).astype(np.uint8)
    if class_map.ignore_index is not None:
        mixed = np.where((mask == class_map.ignore_index)[..., None], image, mixed)
    return mixed


def error_map(
    truth: np.ndarray, prediction: np.ndarray, class_map: ClassMap, image: np.ndarray | None = None
) -> np.ndarray:
    """Shows where a prediction is wrong.

    Args:
        truth: class indices, uint8 [H, W].
        prediction: class indices, uint8 [h, w], resized to the truth where sizes differ.
        class_map: gives the ignore index.
        image: the picture, uint8 [H, W, 3], that shows dimly where the prediction is right; without it those
            pixels are mid-grey.

    Returns:
        uint8 [H, W, 3]: `WRONG` for misses, `IGNORED` with a lighter hatch for pixels that are not scored.

    Raises:
        ValueError: the arrays are not of these shapes and types.
    """
    canvas = np.full((*truth.shape, 3), 128, np.uint8) if image is None else image
    _check(canvas, truth)
    _check(canvas, prediction)
    if canvas.shape[:2] != truth.shape:
        raise ValueError(f"error map: the truth is {truth.shape}, the image {canvas.shape[:2]}; they must agree")
    prediction = fit_mask(prediction, (truth.shape[0], truth.shape[1]))
    grey = (canvas.astype(np.uint16).sum(axis=-1, keepdims=True) // 6 + 32).astype(np.uint8)
    shown = np.where((truth != prediction)[..., None], np.array(WRONG, np.uint8), grey)
    if class_map.ignore_index is not None:
        ignored = truth == class_map.ignore_index
        rows, columns = np.indices(truth.shape)
        shown[ignored] = IGNORED
        shown[ignored & ((rows + columns) % 8 == 0)] = 70
    return shown


def instances(image: np.ndarray, masks: np.ndarray, labels: Sequence[str], opacity: float = 0.5) -> np.ndarray:
    """Lays each mask over an image in a colour of its own, with its box and a label.

    Args:
        image: uint8 [H, W, 3].
        masks: bool [N, H, W]; the first ones lie on top.
        labels: what is written at each box.
        opacity: fraction of the colours, 0 to 1.

    Returns:
        uint8 [H, W, 3].
    """
    canvas = image.astype(np.float32)
    colors = instance_colors(len(masks))
    for mask, color in reversed(list(zip(masks, colors, strict=True))):
        canvas[mask] = canvas[mask] * (1 - opacity) + np.float32(color) * opacity
    picture = Image.fromarray(np.rint(canvas).astype(np.uint8))
    boxes = instance_boxes(masks)
    return draw_boxes(picture, boxes[::-1], labels[::-1], colors[::-1])


def instance_colors(number: int) -> list[Color]:
    """Returns the colours that `instances` gives to a number of instances, in their order."""
    # Hues a golden ratio apart differ most, however many there are.
    return [_bright((0.1 + index * 0.618034) % 1) for index in range(number)]


def _bright(hue: float) -> Color:
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.75, 0.95))
    return red, green, blue


def draw_boxes(picture: Image.Image, boxes: np.ndarray, labels: Sequence[str], colors: Sequence[Color]) -> np.ndarray:
    """Draws boxes with a label at each one's upper left corner into a picture; the last ones lie on top.

    A label that would touch one above it is left out.

    Args:
        picture: RGB; drawn into.
        boxes: (y_min, x_min, y_max, x_max) in pixels, the maximum exclusive, [N, 4].
        labels: what is written, N texts.
        colors: N colours.

    Returns:
        uint8 [H, W, 3].
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
        class_map: gives names and colours.
        names: the classes to show, by default all of them, in the order of the class map.
        width: width of the picture in pixels; by default one entry a row.

    Returns:
        An RGB picture.

    Raises:
        ValueError: a name is not in the class map.
    """
    font = ImageFont.load_default(LEGEND_FONT)
    unknown = [name for name in names or () if name not in class_map.names]
    if unknown:
        raise ValueError(f"legend: {unknown} are not in the class map, which has {list(class_map.names)}")
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


def prediction_sheet(
    image: np.ndarray, mask: np.ndarray, class_map: ClassMap, opacity: float = 0.5, width: int = 960
) -> np.ndarray:
    """Puts image, coloured mask and overlay side by side above a legend of the classes that occur.

    Args:
        image: uint8 [H, W, 3].
        mask: class indices, uint8 [h, w].
        class_map: gives names and colours.
        opacity: share of the colour in the overlay.
        width: least width of the sheet in pixels; small images are enlarged to it.

    Returns:
        uint8 [rows, columns, 3].

    Raises:
        ValueError: the arrays are not of these shapes and types.
    """
    _check(image, mask)
    mask = fit_mask(mask, (image.shape[0], image.shape[1]))
    gap = 6
    scale = max(1.0, (width - 2 * gap) / (3 * image.shape[1]))
    panel = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    smooth, hard = Image.Resampling.BICUBIC, Image.Resampling.NEAREST
    large = Image.fromarray(image).resize(panel, smooth)
    classes = np.asarray(Image.fromarray(mask).resize(panel, hard))
    panels = [np.asarray(large), class_map.colorize(classes), overlay(np.asarray(large), classes, class_map, opacity)]
    present = [class_map.names[index] for index in np.unique(mask) if index < class_map.num_classes]
    strip = legend(class_map, present, width=3 * panel[0] + 2 * gap)
    sheet = Image.new("RGB", (strip.width, panel[1] + strip.height), PAPER)
    for place, pixels in enumerate(panels):
        sheet.paste(Image.fromarray(pixels), (place * (panel[0] + gap), 0))
    sheet.paste(strip, (0, panel[1]))
    return np.asarray(sheet)


def png_bytes(pixels: np.ndarray) -> bytes:
    """Returns an array, uint8 [H, W] or [H, W, 3], as an encoded PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=False, compress_level=6)
    return buffer.getvalue()


def _check(image: np.ndarray, mask: np.ndarray) -> None:
    """Raises ValueError for arrays that are no RGB image and no mask."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image: expected uint8 [H, W, 3], found {image.dtype} {list(image.shape)}")
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise ValueError(f"mask: expected uint8 [H, W], found {mask.dtype} {list(mask.shape)}")
