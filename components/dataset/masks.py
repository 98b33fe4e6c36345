"""Converts a stored mask of indices or colours into class indices."""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image

from components.dataset.description import DatasetDescription
from components.dataset.encoded import BadFileError, png_header
from components.dataset.pairs import COLOUR_MASK, LABEL_OUTSIDE_MAP, UNDECODABLE, UNKNOWN_COLOUR

OUTSIDE = -1
_SHOWN = 5  # values or colours named in a message
_SHOWN_NAMED = 20  # values and their classes named in a message


def class_indices(image: Image.Image, data: bytes, description: DatasetDescription) -> np.ndarray:
    """Returns the class indices, uint8 [H, W], of a decoded mask; `data` is its PNG.

    With the encoding `index`, values are read from a grey mask of up to 16 bits, the indices of a palette, or three
    equal channels. With `color`, every mode is read as its colours. Values and colours that no class names become the
    ignored class if the description says `unnamed: ignore`.

    Raises:
        BadFileError: with the reason `colour_mask`, `unknown_colour`, `label_outside_map` or `undecodable`.
    """
    header = png_header(data)
    if header.bit_depth == 16 and not (header.is_grey and description.mask_encoding == "index"):
        raise BadFileError(UNDECODABLE, "a PNG with 16-bit colour samples", "a mask with 8 bits a sample")
    if description.mask_encoding == "color":
        return _from_colors(np.asarray(image.convert("RGB")), description)
    return _from_indices(stored_values(image, data), description)


def encode(indices: np.ndarray) -> bytes:
    """Returns class indices, uint8 [H, W], as an 8-bit grey PNG."""
    buffer = io.BytesIO()
    # Level 1 is three times faster than the default, and index masks are small at any level.
    Image.fromarray(indices).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def is_canonical(image: Image.Image, data: bytes, indices: np.ndarray) -> bool:
    """Tells whether a stored mask is already an 8-bit grey PNG of its class indices."""
    header = png_header(data)
    return header.is_grey and header.bit_depth == 8 and np.array_equal(np.asarray(image), indices)


def stored_values(image: Image.Image, data: bytes) -> np.ndarray:
    """Returns the stored values, integer [H, W], of a decoded mask; `data` is its PNG. Raises BadFileError."""
    values, header = np.asarray(image), png_header(data)
    if values.dtype == bool:
        return values.astype(np.uint8)
    if values.ndim == 2:
        if header.is_grey and header.bit_depth < 8:
            # Pillow scales grey levels of 2 and 4 bits to 0 to 255.
            return values // np.uint8(255 // (2**header.bit_depth - 1))
        return values
    if values.shape[2] == 2:  # grey and alpha
        return values[..., 0]
    red, green, blue = values[..., 0], values[..., 1], values[..., 2]
    if not (np.array_equal(red, green) and np.array_equal(red, blue)):
        count = int(((red != green) | (red != blue)).sum())
        raise BadFileError(
            COLOUR_MASK,
            f"a colour mask; the channels differ in {count} of {red.size} pixels",
            "class indices: a grey PNG, or three equal channels",
        )
    return red


def _from_indices(values: np.ndarray, description: DatasetDescription) -> np.ndarray:
    """Converts values, unsigned [H, W], to class indices, uint8 [H, W]."""
    table = index_table(tuple(sorted(description.index_of_value().items())), _default_class(description))
    present = np.flatnonzero(np.bincount(values.ravel()))
    mapped = table[present]
    if (mapped == OUTSIDE).any():
        raise _outside(values, present[mapped == OUTSIDE], description)
    if values.dtype == np.uint8 and (mapped == present).all():
        return values
    return table.astype(np.uint8)[values]


def _default_class(description: DatasetDescription) -> int:
    """Returns the class index of values and colours that no class names; OUTSIDE if they are an error."""
    index = description.class_map.ignore_index
    return OUTSIDE if description.unnamed == "error" or index is None else index


def _outside(values: np.ndarray, outside: np.ndarray, description: DatasetDescription) -> BadFileError:
    shown = ", ".join(str(int(value)) for value in outside[:_SHOWN]) + (", ..." if len(outside) > _SHOWN else "")
    known = sorted(description.index_of_value().items())
    named = ", ".join(f"{value} {description.classes[index].name}" for value, index in known[:_SHOWN_NAMED])
    more = f" and {len(known) - _SHOWN_NAMED} more" if len(known) > _SHOWN_NAMED else ""
    count = int(np.isin(values, outside).sum())
    return BadFileError(
        LABEL_OUTSIDE_MAP,
        f"value {shown} in {count} of {values.size} pixels",
        f"values that classes name: {named}{more}",
    )


@functools.lru_cache(maxsize=8)
def index_table(items: tuple[tuple[int, int], ...], default: int) -> np.ndarray:
    """Returns the class index of each mask value, int16 [65536]; `default` if no class names the value."""
    table = np.full(65536, default, dtype=np.int16)
    for value, index in items:
        table[value] = index
    return table


def _from_colors(colors: np.ndarray, description: DatasetDescription) -> np.ndarray:
    """Converts colours, uint8 [H, W, 3], to class indices by a search of 24-bit numbers."""
    codes, indices = _color_table(tuple(sorted(description.index_of_color().items())))
    pixels = _codes(colors)
    positions = np.searchsorted(codes, pixels)
    np.minimum(positions, len(codes) - 1, out=positions)
    unknown = codes[positions] != pixels
    if not unknown.any():
        return indices[positions]
    default = _default_class(description)
    if default != OUTSIDE:
        return np.where(unknown, np.uint8(default), indices[positions])
    found, counts = np.unique(pixels[unknown], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_SHOWN]
    shown = "; ".join(
        f"({found[i] >> 16}, {found[i] >> 8 & 255}, {found[i] & 255}) in {counts[i]} pixels" for i in order
    )
    more = f"; and {len(found) - _SHOWN} more colours" if len(found) > _SHOWN else ""
    raise BadFileError(UNKNOWN_COLOUR, shown + more, f"one of the {len(codes)} colours of {description.name}")


def _codes(colors: np.ndarray) -> np.ndarray:
    wide = colors.astype(np.int32)
    return (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]


@functools.lru_cache(maxsize=8)
def _color_table(items: tuple[tuple[tuple[int, int, int], int], ...]) -> tuple[np.ndarray, np.ndarray]:
    """Returns colours as sorted 24-bit numbers, int32 [K], and the class index of each, uint8 [K]."""
    codes = _codes(np.array([color for color, _ in items], dtype=np.uint8))
    return codes, np.array([index for _, index in items], dtype=np.uint8)
