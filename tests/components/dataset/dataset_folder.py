"""Draws small images and masks with PIL and writes them to the folders of a layout."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from components.dataset.description import DatasetDescription
from components.dataset.fingerprint import content_hashes, fingerprint_of

HEIGHT, WIDTH = 16, 24


class Folder:
    """A data root that tests fill with files."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, data: bytes) -> bytes:
        """Writes a file, making its folders."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        return data

    def save(self, path: str, image: Image.Image, **options: object) -> bytes:
        """Writes an image in the format its extension names."""
        kind = "PNG" if path.lower().endswith(".png") else "JPEG"
        return self.write(path, encode(image, kind, **options))

    def pair(self, image_path: str, mask_path: str, seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
        """Writes a random RGB image and a mask of the indices 0 and 1."""
        self.save(image_path, random_image(seed, size))
        self.save(mask_path, Image.fromarray(random_mask(seed, size)))


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def random_image(seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def random_mask(seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, size, dtype=np.uint8)


def content_fingerprint(root: str, description: DatasetDescription, index_dir: str = "") -> str:
    return fingerprint_of(description, content_hashes(root, description, index_dir))
