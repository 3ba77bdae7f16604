"""The progress of a training run, on standard error."""

import sys
import time
from typing import Any

from tqdm import tqdm

from sagan.text import printable


class ProgressBar(tqdm):
    """A tqdm bar on the monotonic clock: rate and time left stay right when the time of day is changed."""

    monitor_interval = 0  # turns off tqdm's monitor thread, which reads the other clock

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._time = time.monotonic
        self.start_t = self.last_print_t = self._time()

    def rewind(self, n: int) -> None:
        """Show `n` units as done, fewer than before."""
        self.n = self.last_print_n = n
        self.refresh()


def say(line: str) -> None:
    """Print a line above the bar; names from outside in it do not control the terminal."""
    tqdm.write(printable(line), file=sys.stderr)
