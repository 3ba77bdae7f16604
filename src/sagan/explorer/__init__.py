"""The web page that explores a run: generate images, click on a pixel, see what it attends to."""

from sagan.explorer.serve import launch

__all__ = ["launch"]
