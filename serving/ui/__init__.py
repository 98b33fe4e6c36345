"""The web page that shows a model's predictions: `segpipe serve --ui`."""

from serving.ui.page import Page, start

__all__ = ["Page", "start"]
