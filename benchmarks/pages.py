"""Start `sagan explore` for a benchmark."""

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def serve_page(run: Path | str, *options: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """Serve the page of a run on a free port of this machine; yields the process and the page's address."""
    command = [sys.executable, "-m", "sagan", "explore", str(run), "--port", "0", "--open", "False", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, re.search(r"http://\S+:\d+", process.stdout.readline())[0]
        finally:
            process.send_signal(signal.SIGINT)
