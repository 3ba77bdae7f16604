"""Write checkpoints in a thread, one at a time, while training continues."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class BackgroundWriter:
    """Run one write at a time in a thread. The next method call after it fails raises its error."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._write: Future[None] | None = None

    def start(self, write: Callable[[], None]) -> None:
        """Wait for the previous write, then start this one. The data that it reads must not change meanwhile."""
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
