"""Measure where the time of a training run goes, for the metrics log."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Stopwatch:
    """Add up the seconds of training steps, of waiting for their data, and of pauses between them.

    On CUDA a step returns before it is computed. The loop reads a step's log, which waits for it, before every pause,
    so the sums over steps and the pauses are right.
    """

    def __init__(self) -> None:
        self._pauses: dict[str, float] = {}  # seconds that `take` has not returned yet, by part
        self.restart()

    def restart(self) -> None:
        """Start the count of steps and data again."""
        self._begun = time.perf_counter()
        self._data = self._paused = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds since the count began, pauses included."""
        return time.perf_counter() - self._begun

    def timed(self, get_batch: Callable[[int], T]) -> Callable[[int], T]:
        """Return the function with its seconds counted as waiting for data."""

        def get(number: int) -> T:
            since = time.perf_counter()
            try:
                return get_batch(number)
            finally:
                self._data += time.perf_counter() - since

        return get

    @contextmanager
    def pause(self, part: str) -> Iterator[None]:
        """Count the seconds inside for this part, and not for steps."""
        since = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - since
            self._paused += seconds
            self._pauses[part] = self._pauses.get(part, 0.0) + seconds

    def steps(self, count: int) -> dict[str, float]:
        """Return the mean seconds of the `count` steps since the count began, and of waiting for their data."""
        return {"seconds/step": (self.elapsed - self._paused) / count, "seconds/data": self._data / count}

    def take(self, part: str) -> dict[str, float]:
        """Return the seconds of all pauses for this part that were not yet returned; nothing if there was none."""
        return {f"seconds/{part}": self._pauses.pop(part)} if part in self._pauses else {}
