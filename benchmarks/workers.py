"""Time contenders in turn, each in a process of its own, so that no allocator or thread setting reaches another.

The script starts one process of itself for each contender. Each process builds its contender and then waits for lines
on stdin; each line requests a number of calls, and the reply holds the seconds of each call.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from machine import memory

REST = 0.3  # seconds between two turns; OpenMP's threads spin for a while after their work


class Worker:
    """Run this script with the given arguments in another process, until `close`."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, sys.argv[0], *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = self._read()

    def ask(self, what: str, count: int = 1) -> list[float]:
        """Return the seconds of each of `count` calls, made after a rest."""
        time.sleep(REST)
        return self._send(what, count)["seconds"]

    def memory(self) -> float:
        """Return the peak memory of the process, GiB."""
        return self._send("", 0)["memory"]

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()

    def _send(self, what: str, count: int) -> dict[str, Any]:
        assert self.process.stdin
        print(json.dumps([what, count]), file=self.process.stdin, flush=True)
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args} ended: {self.process.wait()}")
        return json.loads(line)


def serve(build: Callable[[], tuple[dict[str, Any], Mapping[str, Callable[[], object]]]]) -> None:
    """Answer the requests of a `Worker`, in its process; `build` returns facts about itself, and calls by name."""
    out = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # some codebases print
        about, calls = build()
        print(json.dumps(about), file=out, flush=True)
        for line in sys.stdin:
            what, count = json.loads(line)
            times = []
            for _ in range(count):
                start = time.perf_counter()
                calls[what]()
                times.append(time.perf_counter() - start)
            print(json.dumps({"seconds": times, "memory": memory()}), file=out, flush=True)


def take_turns(workers: Mapping[str, Worker], what: str, rounds: int, count: int = 1) -> dict[str, list[float]]:
    """Return the seconds of each worker's calls: `count` per turn, one turn per round. Ctrl-C ends the rounds."""
    times: dict[str, list[float]] = {name: [] for name in workers}
    for worker in workers.values():
        worker.ask(what, 1 if count == 1 else 3)  # warm-up
    with contextlib.suppress(KeyboardInterrupt):
        for i in range(rounds):
            for name, worker in workers.items():
                seconds = worker.ask(what, count)
                times[name] += seconds
                print(f"  {i + 1}/{rounds} {name}: {min(seconds):.4f} s", file=sys.stderr, flush=True)
    return times


def cpu_seconds() -> tuple[float, float, float]:
    """Return the time, the processor seconds used by everything on this machine and its host, and by us (Linux)."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    used = user + nice + system + irq + softirq + steal
    return time.perf_counter(), used / os.sysconf("SC_CLK_TCK"), sum(os.times()[:4])


def others_since(before: tuple[float, float, float]) -> str:
    """Return the share of the processors that others used since `before`, a result of `cpu_seconds`, in words.

    More than a few per cent spoils the times. Call this after all workers are closed.
    """
    elapsed, used, ours = (now - then for now, then in zip(cpu_seconds(), before, strict=True))
    return f"Other processes took {max(0.0, used - ours) / (elapsed * (os.cpu_count() or 1)):.1%} of the processors."
