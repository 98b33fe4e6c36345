"""A synthetic street-scene data set with CamVid's 12 classes, for first runs, tests and benchmarks."""

from components.dataset.synthetic.canvas import CLASS_NAMES, Class, Frame
from components.dataset.synthetic.scene import render
from components.dataset.synthetic.writer import MANIFEST, make

__all__ = ["CLASS_NAMES", "MANIFEST", "Class", "Frame", "make", "render"]
