"""A thread that ends a process of a distributed job when another one has failed or is gone."""

import math
import os
import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import Any

from torch.distributed import Store  # type: ignore[attr-defined]
from tqdm import tqdm

BEAT = 1.0
"""Seconds between two signs of life of a process, and between two checks whether another one has failed."""
SILENCE = 5.0
"""Seconds without a sign of life after which a process counts as gone, once a signal has asked this one to end."""
GRACE = 1.5
"""Seconds that the main thread has to end by itself, with a message, before the watchdog ends the process."""
LAST_WORDS = 10.0
"""Seconds that it has for the message once it has begun to end: on a busy machine GRACE may be too short."""


class Watchdog:
    """A thread that ends this process when another one of the job has failed or is gone.

    The main thread may be waiting for the other process in a collective, or for the device. Python runs no signal
    handlers there: torchrun's SIGTERM has no effect, and its SIGKILL follows after 30 s. NCCL, unlike gloo, need not
    even notice that a process has died. A job gets SIGTERM when it is to stop and save, and also when one of its
    processes has died; signs of life tell the two cases apart.
    """

    def __init__(self, rank: int, count: int, store: Store) -> None:
        self.rank, self.count = rank, count
        # A connection of its own: calls on one connection wait for each other.
        self._store: Any = store.clone()  # type: ignore[attr-defined]
        self._keys = [f"beat/{other}" for other in range(count)]
        self._store.set(self._keys[rank], "0")
        self._signals, self._wakeup = socket.socketpair()  # Python writes every signal's number to the second
        self._wakeup.setblocking(False)
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._stopped = threading.Event()
        self.main_ends = threading.Event()  # set by the main thread when it ends because of an error

    def start(self) -> None:
        """Start watching, after all processes have joined. Call it in the main thread."""
        self._previous_handler = signal.signal(signal.SIGTERM, _ignore)
        self._previous_wakeup = signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        self._thread.start()

    def stop(self) -> None:
        """End the thread. Call it in the main thread."""
        self._stopped.set()
        signal.set_wakeup_fd(self._previous_wakeup)
        signal.signal(signal.SIGTERM, self._previous_handler)
        self._wakeup.send(b"\0")  # wakes the thread
        self._thread.join()
        self._signals.close()
        self._wakeup.close()

    def _watch(self) -> None:
        beats = 0
        last: list[bytes] = []  # the signs of life of all processes at the last check
        next_check = math.inf  # of the signs of life, by time.monotonic; none before a signal
        while not self._stopped.is_set():
            # Wait for a signal, for a second at most.
            ready = select.select([self._signals], [], [], BEAT)[0]
            stop_signals = {signal.SIGINT, signal.SIGTERM} & set(self._signals.recv(64)) if ready else None
            if stop_signals:
                next_check = min(next_check, time.monotonic())
                if signal.getsignal(signal.SIGTERM) is _ignore:  # no training run that could save
                    self._end(128 + max(stop_signals))

            # Give a sign of life; look for failures and, after a signal, for processes that give none.
            try:
                beats += 1
                self._store.set(self._keys[self.rank], str(beats))
                if self._store.add("failures", 0):
                    self._end(2)
                elif time.monotonic() >= next_check:
                    before, last = last, self._store.multi_get(self._keys)
                    silent = [i for i, beat in enumerate(before) if beat == last[i]]
                    if silent:
                        self._end(2, f"no sign of life of process {silent[0]}")
                    next_check = time.monotonic() + SILENCE
            except RuntimeError as error:
                self._end(2, str(error).splitlines()[0])

    def _end(self, status: int, why: str = "") -> None:
        """End the process if the main thread does not; print the reason if no process has printed one."""
        if self._stopped.wait(GRACE) or (self.main_ends.is_set() and self._stopped.wait(LAST_WORDS)):
            return
        if why:
            with suppress(RuntimeError):
                if self._store.add("failures", 1) > 1:
                    why = ""
        if why:
            line = f"sagan: {lost_others(self.rank, self.count, why)}"
            # A line break keeps it off the line of the first process's bar.
            tqdm.write(f"\n{line}" if self.rank else line, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # the main thread may never return


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing at SIGTERM: the watchdog ends the process, after the messages that are on their way."""


def lost_others(rank: int, count: int, why: str) -> str:
    """Return the message of a process that has to end since another one is gone."""
    return f"process {rank} of {count} has lost the others ({why}); resume a training run with --resume"
