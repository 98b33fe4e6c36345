"""Reads and checks the depth map of a pair."""

from __future__ import annotations

from components import files
from components.dataset.encoded import BadFileError, Limits, decode, png_header
from components.dataset.pairs import SIZE_MISMATCH, UNDECODABLE, Pair


def read(root: str, pair: Pair, size: tuple[int, int], limits: Limits) -> bytes:
    """Returns the file of a pair's depth map, or b"" without one; `size` is the mask's (width, height).

    Raises:
        BadFileError: not a valid grey PNG of 16 bits, or not of the mask's size.
        OSError: the file cannot be read.
        SegpipeError: the disk or the store cannot read the file; see `files.read_data_file`.
    """
    if not pair.depth:
        return b""
    data = files.read_data_file(files.join(root, pair.depth))
    image, header = decode(data, limits, ("PNG",)), png_header(data)
    if header.bit_depth != 16 or not header.is_grey:
        raise BadFileError(
            UNDECODABLE,
            f"a {'grey' if header.is_grey else 'colour'} PNG with {header.bit_depth} bits a sample",
            "a grey PNG with 16 bits a sample",
            "export the depth map again: a value is the distance in metres times depth_scale, 0 is unknown",
        )
    if image.size != size:
        found, expected = (f"{width}x{height} pixels" for width, height in (image.size, size))
        raise BadFileError(
            SIZE_MISMATCH,
            f"a depth map of {found}",
            f"the mask's {expected}",
            "give mask and depth map the same size, resizing without interpolation",
        )
    return data
