"""The classes of a data set: names, display colours and the ignored index.

The class map is stored as JSON in the pipeline's configuration, the exported model and the report, so that an index
never loses its meaning.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np

Color = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class ClassMap:
    """Class names in index order, each with a display colour.

    Attributes:
        names: the class names; a class's index is its position.
        colors: one RGB colour per class, 0 to 255.
        ignore_index: index of the class whose pixels are neither trained on nor scored, such as CamVid's void; None if
            all pixels count.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...]
    ignore_index: int | None = None

    def __post_init__(self) -> None:
        if len(self.names) != len(self.colors):
            raise ValueError(f"class map: {len(self.names)} names but {len(self.colors)} colours")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"class map: names repeat: {self.names}")
        if not 2 <= len(self.names) <= 256:
            raise ValueError(f"class map: {len(self.names)} classes; 2 to 256 fit an 8-bit mask")
        if self.ignore_index is not None and not 0 <= self.ignore_index < len(self.names):
            raise ValueError(f"class map: ignore index {self.ignore_index} is not one of 0 to {len(self.names) - 1}")

    @property
    def num_classes(self) -> int:
        """Number of classes, including the ignored one."""
        return len(self.names)

    @property
    def scored_indices(self) -> tuple[int, ...]:
        """Indices of the classes that count in a mean, ascending."""
        return tuple(i for i in range(self.num_classes) if i != self.ignore_index)

    @property
    def scored_names(self) -> tuple[str, ...]:
        """Names of the classes that count in a mean, in index order."""
        return tuple(self.names[i] for i in self.scored_indices)

    @property
    def palette(self) -> np.ndarray:
        """Display colours, uint8 [num_classes, 3]."""
        return np.array(self.colors, dtype=np.uint8)

    def index(self, name: str) -> int:
        """Returns the index of a class. Raises ValueError for an unknown name."""
        return self.names.index(name)

    def colorize(self, class_indices: np.ndarray) -> np.ndarray:
        """Maps class indices, integer [..., H, W], to colours, uint8 [..., H, W, 3]; white for unknown indices."""
        palette = np.full((256, 3), 255, dtype=np.uint8)
        palette[: self.num_classes] = self.palette
        return palette[class_indices]

    def to_dict(self) -> dict[str, Any]:
        """Returns the map as plain JSON types; `from_dict` reads it back."""
        return {
            "names": list(self.names),
            "colors": [list(color) for color in self.colors],
            "ignore_index": self.ignore_index,
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> ClassMap:
        """Reads the result of `to_dict`."""
        colors = tuple((int(r), int(g), int(b)) for r, g, b in value["colors"])
        return cls(tuple(value["names"]), colors, value["ignore_index"])

    def to_json(self) -> str:
        """Returns the map as one line of canonical JSON, which can be part of a cache key."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ClassMap:
        """Reads the result of `to_json`."""
        return cls.from_dict(json.loads(text))
