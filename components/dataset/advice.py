"""Advice for files without a pair and for files to convert; it never deletes a valid image or mask."""

from __future__ import annotations

import os
import shlex

from components.dataset.layout import IMAGE_EXTENSIONS


def separate(kind: str, clashing: list[str]) -> str:
    """Returns how to separate several images, or masks, of one name."""
    if len({os.path.dirname(path) for path in clashing}) == 1:
        return "move all but the one that belongs to the pair to another folder"
    if kind == "images":
        return (
            "write {sequence} in place of the * in layout.images and layout.masks in segpipe.yaml: each folder is then"
            " a recording with names of its own; {sequence} may stand for several nested folders"
        )
    return "write the folder that holds the right masks in place of the * in layout.masks in segpipe.yaml"


def accept(image: str) -> str:
    """Returns how to add an image's extension to the layout; empty if segpipe does not read the format."""
    extension = image.rpartition(".")[2].lower()
    if extension not in IMAGE_EXTENSIONS:
        return ""
    return (
        "accept it in segpipe.yaml: end layout.images in {name}, without an extension, and if layout.extensions is"
        f" set, add {extension} to it"
    )


def convert(path: str) -> str:
    """Returns a command that converts all files of this kind in the folder to PNG, or advice against it for a JPEG."""
    folder, extension = os.path.dirname(path) or ".", path.rpartition(".")[2]
    if extension.lower() in ("jpg", "jpeg"):
        return "export the mask again as PNG: JPEG has changed the class indices, so converting it does not help"
    code = (
        "import pathlib, sys; from PIL import Image; "
        "[Image.open(path).save(path.with_suffix('.png')) for path in pathlib.Path(sys.argv[1]).glob(sys.argv[2])]"
    )
    command = f'python -c "{code}" {shlex.quote(printable(folder))} {shlex.quote(f"*.{extension}")}'
    return f"convert all of them to PNG, which loses nothing; in the data folder: {command}"


_PILLOW = "import sys; from PIL import Image; Image.open(sys.argv[1]){}.save(sys.argv[2])"
_SCALE = (
    "import sys, numpy; from PIL import Image; low, high = map(float, sys.argv[3:]); "
    "values = (numpy.asarray(Image.open(sys.argv[1]), float) - low) / (high - low); "
    "Image.fromarray((values.clip(0, 1) * 65535 + 0.5).astype('uint16')).save(sys.argv[2])"
)
# How to convert an image that `conversion.as_png` refuses: the advice, and the parts of the command before and after
# its arguments (image, PNG to write); empty without a command.
COMMANDS = {
    "first page": ("if its first page is the image, write that as PNG", f'python -c "{_PILLOW.format("")}"', ""),
    "RGB": ("convert it to RGB", f"""python -c "{_PILLOW.format(".convert('RGB')")}\"""", ""),
    "scale": (
        "scale it to 16 bits; LOW and HIGH, the same for all images, are the values that become black and white",
        f'python -c "{_SCALE}"',
        " LOW HIGH",
    ),
    "ImageMagick": ("convert it to PNG with ImageMagick, which keeps 16 bits (version 6: `convert`)", "magick", ""),
    "export": ("export it as PNG of 8 or 16 bits a sample with the program that made it", "", ""),
}


def convert_image(path: str, command: str) -> str:
    """Returns how to convert an image by one of `COMMANDS`; segpipe then reads the PNG beside it instead."""
    purpose, start, end = COMMANDS[command]
    if not start:
        return purpose
    shown = printable(path)
    files = " ".join(shlex.quote(name) for name in (shown, f"{shown.rpartition('.')[0]}.png"))
    return f"{purpose}; run: {start} {files}{end}"


def printable(path: str) -> str:
    """Returns a path with bytes that are not UTF-8 (lone surrogates in Python) as backslash escapes."""
    return path.encode(errors="backslashreplace").decode()
