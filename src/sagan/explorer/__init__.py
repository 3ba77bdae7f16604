"""The web page on which a run is explored: generate, click on a pixel, see what it attends to."""

from sagan.explorer.serve import launch

__all__ = ["launch"]
