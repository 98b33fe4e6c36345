"""A synthetic street-scene data set with CamVid's 12 classes, drawn by the project itself.

It stands in for a real data set in the first run, in tests and in measurements of speed.
"""

from components.dataset.synthetic.canvas import CLASS_NAMES, Class, Frame
from components.dataset.synthetic.scene import render
from components.dataset.synthetic.writer import DEFAULT_PAIRS, DEFAULT_SIZE, MANIFEST, make

__all__ = ["CLASS_NAMES", "DEFAULT_PAIRS", "DEFAULT_SIZE", "MANIFEST", "Class", "Frame", "make", "render"]
