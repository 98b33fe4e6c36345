"""The page that shows what a served model sees: `segpipe serve --ui`."""

from serving.ui.page import Page, start

__all__ = ["Page", "start"]
