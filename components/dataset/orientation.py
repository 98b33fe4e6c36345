"""Applies the EXIF orientation to images that Pillow decodes; `components.exif` does so inside the exported model."""

from __future__ import annotations

from PIL import ExifTags, Image, ImageOps

from components.dataset.encoded import PNG_SIGNATURE, chunks, segments

ORIENTATION = ExifTags.Base.Orientation
_APP1 = 0xE1


def upright(image: Image.Image) -> Image.Image:
    """Returns an image with its EXIF orientation applied; the same image if it is upright.

    An image with damaged EXIF data counts as upright, as in viewers. `PIL.ImageOps.exif_transpose` alone would also
    read XMP and PNG text, which the exported model does not, and fails on EXIF data that it cannot write again.
    """
    orientation = orientation_of(image)
    if orientation == 1:
        return image
    plain = image.copy()
    plain.info = {"exif": orientation_exif(orientation)}
    return ImageOps.exif_transpose(plain)


def orientation_of(image: Image.Image) -> int:
    """Returns the orientation in an image's EXIF data, 1 to 8; 1 if it is missing or damaged."""
    image.load()  # a PNG's EXIF data may follow its pixels
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        orientation = exif.get(ORIENTATION, 1)
    except Exception:  # damaged EXIF data raises many types, SyntaxError and struct.error among them
        return 1
    # A value of another type, such as a fraction, is damaged too.
    return orientation if isinstance(orientation, int) and orientation in range(2, 9) else 1


def orientation_exif(orientation: int) -> bytes:
    """Returns EXIF data with nothing but an orientation."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif.tobytes()


def without_exif(data: bytes) -> bytes:
    """Removes the EXIF data from a PNG or JPEG that `encoded.decode` accepts, without encoding its pixels again."""
    if data.startswith(PNG_SIGNATURE):
        cut = [(start, end) for kind, start, end in chunks(data) if kind == b"eXIf"]
    else:
        cut = [(start, end) for marker, start, end in segments(data) if marker == _APP1 and _is_exif(data, start)]
    for start, end in reversed(cut):
        data = data[:start] + data[end:]
    return data


def _is_exif(data: bytes, start: int) -> bool:
    return data[start + 4 : start + 10] == b"Exif\0\0"
