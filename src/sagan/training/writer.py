"""Writing in the background: a thread that writes one checkpoint while training continues."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class BackgroundWriter:
    """Run one write at a time in a thread. Its error is raised by whichever of the methods is called next."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._write: Future[None] | None = None

    def start(self, write: Callable[[], None]) -> None:
        """Wait for the write before, then start this one. What it reads must no longer change."""
        self.wait()
        self._write = self._thread.submit(write)

    def check(self) -> None:
        """Raise the error of a write that has failed, without waiting."""
        if self._write is not None and self._write.done():
            self.wait()

    def wait(self) -> None:
        """Wait until nothing is being written."""
        write, self._write = self._write, None
        if write is not None:
            write.result()

    def close(self) -> None:
        """Wait until nothing is being written, and end the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()
