"""The progress of a training run, on standard error."""

import sys

from tqdm import tqdm

from sagan.text import printable


def say(line: str) -> None:
    """Print a line above the bar; names from outside in it do not control the terminal."""
    tqdm.write(printable(line), file=sys.stderr)
