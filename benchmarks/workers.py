"""Contenders in processes of their own, so that no allocator or thread setting reaches another; they work in turn.

The script starts one process of itself for each contender. They build, and then wait for a line on stdin, asleep; the
answer to a line is the seconds of each call that it asks for.
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

REST = 0.3  # seconds between two turns: OpenMP's threads go on spinning for a while after their work


class Worker:
    """A process of this script with the arguments given, until it is closed."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, sys.argv[0], *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = self._read()

    def ask(self, what: str, count: int = 1) -> list[float]:
        """Seconds of each of `count` calls, when the machine has come to rest."""
        time.sleep(REST)
        return self._send(what, count)["seconds"]

    def memory(self) -> float:
        """The most that the process has held, GiB."""
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
    """The process's side: builds what there is to say of itself, and its calls by name; then answers until the end."""
    out = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # some of them talk
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
    """Seconds of each one's calls, `count` a turn, all of them in turn in every round; Ctrl-C ends the rounds."""
    times: dict[str, list[float]] = {name: [] for name in workers}
    for worker in workers.values():
        worker.ask(what, 1 if count == 1 else 3)  # warmed up
    with contextlib.suppress(KeyboardInterrupt):
        for i in range(rounds):
            for name, worker in workers.items():
                found = worker.ask(what, count)
                times[name] += found
                print(f"  {i + 1}/{rounds} {name}: {min(found):.4f} s", file=sys.stderr, flush=True)
    return times


def cpu_seconds() -> tuple[float, float, float]:
    """The time now, processor time used by everything on this machine and its host's others, and by us (Linux)."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    used = user + nice + system + irq + softirq + steal
    return time.perf_counter(), used / os.sysconf("SC_CLK_TCK"), sum(os.times()[:4])


def others_since(before: tuple[float, float, float]) -> str:
    """What else the processors did since `cpu_seconds()` was `before`: more than a few per cent spoils the times.

    To be asked for when all workers are closed.
    """
    elapsed, used, ours = (now - then for now, then in zip(cpu_seconds(), before, strict=True))
    return f"Other processes took {max(0.0, used - ours) / (elapsed * (os.cpu_count() or 1)):.1%} of the processors."
