"""A budget of memory that many threads share."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Budget:
    """Let threads spend memory until a limit is reached; the others wait.

    A cost above the limit is accepted when nobody else spends, so nothing waits for ever.

    Args:
        limit: bytes that may be spent at the same time.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.spent = 0
        self._changed = threading.Condition()

    @contextmanager
    def spend(self, cost: int) -> Iterator[None]:
        """Hold `cost` bytes for the duration of the context."""
        with self._changed:
            self._changed.wait_for(lambda: not self.spent or self.spent + cost <= self.limit)
            self.spent += cost
        try:
            yield
        finally:
            with self._changed:
                self.spent -= cost
                self._changed.notify_all()
