"""The progress of a training run: a bar, on standard error or in a notebook, and lines above it."""

import sys
import warnings

from tqdm import tqdm

from sagan.text import printable

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # a notebook without ipywidgets shows the bar as text
    from tqdm.auto import tqdm as progress_bar

__all__ = ["progress_bar", "say"]


def say(line: str) -> None:
    """Print a line above the bar; names from outside in it do not control the terminal."""
    tqdm.write(printable(line), file=sys.stderr)
