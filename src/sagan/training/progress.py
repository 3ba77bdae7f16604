"""The progress of a training, on standard error."""

import sys
import time
from typing import Any

from tqdm import tqdm


class Bar(tqdm):
    """tqdm by a clock that nobody sets: whatever the time of day does, rate and time left stay right."""

    monitor_interval = 0  # tqdm's own watchman looks at the other clock

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._time = time.monotonic
        self.start_t = self.last_print_t = self._time()

    def go_back(self, step: int, pictures: int) -> int:
        """Shows `step` steps of `pictures` pictures as done; returns the step."""
        self.n = self.last_print_n = step * pictures
        self.refresh()
        return step


def say(line: str) -> None:
    """Prints a line above the bar."""
    tqdm.write(line, file=sys.stderr)
