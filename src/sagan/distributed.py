"""Distributed training: rank, world size and communication.

`torchrun` starts the processes and gives each its rank in the environment. They compute through NCCL on CUDA and gloo
on the CPU. While one of them works alone (data, checkpoints, grids), the others wait through torchrun's store, where
nothing times out; so a collective waits only for what all do at the same time.
"""

import io
import json
import math
import os
import secrets
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import FrameType
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]
from tqdm import tqdm

from sagan.compat import rendezvous
from sagan.device import choose_device
from sagan.errors import UserError

T = TypeVar("T")

MESSAGE = 2**24
"""Numbers of one message, 64 MiB in fp32: large enough for the full bandwidth, small enough for a copy on the side."""
PATIENCE = timedelta(hours=1)
"""How long a process waits for the others to start."""
TIMEOUT = timedelta(minutes=10)
"""How long a collective waits; NCCL's own default. The processes are apart the most where one reads a batch from a
server that is slow to answer (`data.remote` gives up within 4 minutes), and in the first step on CUDA, when cuDNN tries
its kernels. After this time a job ends that would hang, as one process does not call what the others call."""
BEAT = 1.0
"""Seconds between two signs of life of a process, and between two looks at whether another one has failed."""
SILENCE = 5.0
"""Seconds without a sign of life after which a process is gone, once a signal has asked this one to end."""
GRACE = 1.5
"""Seconds for the main thread to end by itself, with a message, before its process is ended."""


class Processes:
    """The processes of a job, as one of them sees them; by default it is the only one, and nothing is sent.

    What is called here is called in all of them, in the same order.
    """

    def __init__(
        self,
        device: torch.device,
        rank: int = 0,
        count: int = 1,
        *,
        local_rank: int = 0,
        store: Store | None = None,
    ):
        self.device, self.rank, self.count, self.local_rank = device, rank, count, local_rank
        self._store, self._meetings = store, 0
        self._vote: tuple[Tensor, torch.cuda.Event | None] | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes files and tells people."""
        return self.rank == 0

    def average_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one dtype by their means over the processes, in few large messages.

        Args:
            tensors: of the same shapes and strides in all processes, as gradients are.
        """
        if self.count == 1:
            return
        on_cuda = self.device.type == "cuda"
        if on_cuda:  # one kernel each way; on the CPU the order of sums stays that of the axes
            tensors = [in_memory_order(t) for t in tensors]
        operation = dist.ReduceOp.AVG if on_cuda else dist.ReduceOp.SUM  # gloo has no AVG
        sent = []
        for part in _messages(tensors):
            flat = torch.cat([t.reshape(-1) for t in part])
            sent.append((part, flat, dist.all_reduce(flat, operation, async_op=True)))
        for part, flat, work in sent:
            work.wait()
            mean = flat if on_cuda else flat / self.count
            pieces = mean.split([t.numel() for t in part])
            torch._foreach_copy_(part, [piece.view_as(t) for piece, t in zip(pieces, part, strict=True)])

    def average(self, t: Tensor) -> Tensor:
        """The mean of a tensor over the processes, in a new tensor."""
        t = t.clone()
        self.average_([t])
        return t

    def any(self, said: bool) -> bool:
        """Whether one of the processes says so.

        On CUDA the answer is that to the question before, which has come by now: nobody waits for the device.
        """
        if self.count == 1:
            return said
        vote = torch.full((), float(said), device=self.device)  # torch.tensor would copy from the host, and wait
        dist.all_reduce(vote, dist.ReduceOp.MAX)
        if self.device.type != "cuda":
            return bool(vote)
        before, copied = self._vote, torch.cuda.Event()
        self._vote = vote.to("cpu", non_blocking=True), copied
        copied.record()
        if before is None or before[1] is None:
            return False
        before[1].synchronize()
        return bool(before[0])

    def first(self, work: Callable[[], T]) -> T:
        """What `work`, done by the first process alone, returns: JSON values. The others wait as long as it takes."""
        if self._store is None:
            return work()
        key = self._meet()
        if self.is_first:
            self._store.set(key, json.dumps(work()))
        self._wait(lambda store: store.check([key]))
        return json.loads(self._store.get(key))

    def wait_for_first(self) -> None:
        """Return when the first process has come here too, however long it takes."""
        self.first(lambda: None)

    def in_turn(self, work: Callable[[], T]) -> T:
        """Does `work` in the first process, then in the first of every other machine, then in the rest.

        What one turn leaves behind, the next finds done. Returns when all are done.
        """
        if self._store is None:
            return work()
        key, result = self._meet(), None
        own = 0 if self.is_first else 1 if self.local_rank == 0 else 2
        for turn in range(3):
            if turn == own:
                result = work()
            self._store.add(f"{key}/{turn}", 1)
            self._wait_for_all(f"{key}/{turn}")
        return result  # type: ignore[return-value]

    def map(self, work: Callable[[int], np.ndarray], count: int) -> list[np.ndarray]:
        """work(0), ..., work(count - 1), shared out among the processes; all of them get all the arrays."""
        own = [work(i) for i in range(self.rank, count, self.count)]
        if self.count == 1:
            return own
        file = io.BytesIO()
        np.savez(file, *own)
        found: list[np.ndarray | None] = [None] * count
        for rank, data in enumerate(_exchange(file.getvalue())):
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                found[rank :: self.count] = [arrays[f"arr_{i}"] for i in range(len(arrays))]
        return found  # type: ignore[return-value]

    def report_failure(self) -> bool:
        """Note that this process fails, which ends the others; return whether it is the first, which says why."""
        try:
            return self._store is None or self._store.add("failures", 1) == 1
        except RuntimeError:  # the store is gone
            return True

    def failed(self) -> bool:
        """Whether one of the processes has failed and said why."""
        return self._store is not None and self._store.add("failures", 0) > 0

    def _meet(self) -> str:
        self._meetings += 1
        return f"meeting/{self._meetings}"

    def _wait_for_all(self, key: str) -> None:
        self._wait(lambda store: store.add(key, 0) == self.count)

    def _wait(self, done: Callable[[Any], bool]) -> None:
        """Until it is done; ends this process when another one fails. Ctrl-C ends it too, unlike a collective."""
        pause = 0.005
        while not done(self._store):
            if self.failed():
                raise SystemExit(2)
            time.sleep(pause)
            pause = min(2 * pause, 0.5)


@contextmanager
def join(device: str) -> Iterator[Processes]:
    """This process among those that torchrun started, or alone.

    An error of one process ends all of them, and is told once.

    Args:
        device: as in `choose_device`; 'auto' and 'cuda' give each process the GPU of its number on its machine.

    Raises:
        UserError: no such device; or another process has ended without a word.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1 or "MASTER_ADDR" not in os.environ:
        yield Processes(choose_device(device))
        return
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    store, rank, count = rendezvous(PATIENCE)
    store = PrefixStore(_name_of_start(store, rank, count), store)
    processes = Processes(torch.device("cpu"), rank, count, local_rank=local_rank, store=store)
    watchdog = _Watchdog(rank, count, store)
    try:
        processes.device = _own_device(device, local_rank)
        on_cuda = processes.device.type == "cuda"
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_cuda else "gloo",
            store=PrefixStore("group", store),
            rank=rank,
            world_size=count,
            timeout=TIMEOUT,
            device_id=processes.device if on_cuda else None,  # NCCL connects now, and says now what is wrong
        )
        watchdog.start()
        yield processes
        _part(processes, watchdog)
    except BaseException as error:
        first = processes.report_failure()
        lost = isinstance(error, RuntimeError) and _is_lost_connection(error)
        if not first and (lost or isinstance(error, UserError | OSError)):
            raise SystemExit(2) from None
        if lost:
            raise UserError(lost_others(rank, count, str(error).splitlines()[0])) from error
        raise


def lost_others(rank: int, count: int, why: str) -> str:
    """Return the message of a process that cannot go on since another one is gone."""
    return f"process {rank} of {count} has lost the others ({why}); resume a training run with --resume"


def _part(processes: Processes, watchdog: "_Watchdog") -> None:
    """Leave the job, the first process last: the store may be its own."""
    store, key = processes._store, processes._meet()
    assert store is not None
    store.add(key, 1)
    processes._wait_for_all(key)
    watchdog.stop()
    dist.destroy_process_group()
    store.add(f"{key}/left", 1)
    if processes.is_first:
        processes._wait_for_all(f"{key}/left")


class _Watchdog:
    """A thread that ends this process when another one of the job has failed or is gone.

    Meanwhile the main thread may wait for the other one in a collective, or for the device, where Python's handlers of
    signals get no turn: torchrun's SIGTERM does nothing, and its SIGKILL ends the process after 30 s. NCCL, unlike
    gloo, need not even notice that a process has died. SIGTERM comes to a job that is to stop, and save, as it comes
    to one of which a process has died; signs of life tell the two apart.
    """

    def __init__(self, rank: int, count: int, store: Store) -> None:
        self.rank, self.count = rank, count
        self._store: Any = store.clone()  # type: ignore[attr-defined]  # a connection of its own: one waits for its answers
        self._keys = [f"beat/{other}" for other in range(count)]
        self._store.set(self._keys[rank], "0")
        self._signals, self._noted = socket.socketpair()
        self._noted.setblocking(False)
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._stopped = threading.Event()

    def start(self) -> None:
        """Begin to watch, when all processes have been made; the main thread calls this."""
        self._before = signal.signal(signal.SIGTERM, _leave_to_watchdog)
        self._descriptor = signal.set_wakeup_fd(self._noted.fileno(), warn_on_full_buffer=False)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; the main thread calls this."""
        self._stopped.set()
        signal.set_wakeup_fd(self._descriptor)
        signal.signal(signal.SIGTERM, self._before)
        self._noted.send(b"\0")  # wakes it
        self._thread.join()
        self._signals.close()
        self._noted.close()

    def _watch(self) -> None:
        beats, last = 0, list[bytes]()
        look = math.inf  # when to look for the signs of life of all processes, by time.monotonic: not before a signal
        while not self._stopped.is_set():
            ready = select.select([self._signals], [], [], BEAT)[0]
            asked = {signal.SIGINT, signal.SIGTERM} & set(self._signals.recv(64)) if ready else None
            if asked:
                look = min(look, time.monotonic())
                if signal.getsignal(signal.SIGTERM) is _leave_to_watchdog:  # no training that could save
                    self._end(128 + max(asked))
            try:
                beats += 1
                self._store.set(self._keys[self.rank], str(beats))
                if self._store.add("failures", 0):
                    self._end(2)
                elif time.monotonic() >= look:
                    before, last = last, self._store.multi_get(self._keys)
                    silent = [i for i, beat in enumerate(before) if beat == last[i]]
                    if silent:
                        self._end(2, f"no sign of life of process {silent[0]}")
                    look = time.monotonic() + SILENCE
            except RuntimeError as error:
                self._end(2, str(error).splitlines()[0])

    def _end(self, status: int, why: str = "") -> None:
        """End the process if the main thread does not; say why if no process has said it."""
        if self._stopped.wait(GRACE):
            return
        if why:
            with suppress(RuntimeError):
                if self._store.add("failures", 1) > 1:
                    why = ""
        if why:
            line = f"sagan: {lost_others(self.rank, self.count, why)}"
            tqdm.write(f"\n{line}" if self.rank else line, file=sys.stderr)  # not behind the first process's bar
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # the main thread may never return


def _leave_to_watchdog(number: int, frame: FrameType | None) -> None:
    """Handle SIGTERM where nothing is trained: the watchdog ends the process, once a message on its way is out."""


def check_batch(batch_size: int, accumulate: int, processes: Processes) -> None:
    """Raises UserError for a batch that the processes cannot share equally."""
    parts = processes.count * accumulate
    if batch_size % parts:
        shared = f"{processes.count} processes" + (f" times --accumulate {accumulate}" if accumulate > 1 else "")
        raise UserError(f"--batch-size {batch_size} cannot be shared by {shared}: take a multiple of {parts}")


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, t: Tensor) -> Tensor:
        t = t.clone()
        dist.all_reduce(t)
        return t

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        g = g.clone()
        dist.all_reduce(g)
        return g


def total(t: Tensor) -> Tensor:
    """The sum of a tensor over the processes; its gradient is the sum of theirs, as of one loss over all of them."""
    return _Total.apply(t)


def in_memory_order(t: Tensor) -> Tensor:
    """View a tensor with its axes from the largest stride to the smallest: contiguous, if no memory lies in between.

    Flattening the view of a channels_last weight copies nothing; flattening the weight would move every element.
    """
    return t.permute(sorted(range(t.dim()), key=t.stride, reverse=True))


def _messages(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield the tensors, in order, in groups of about MESSAGE numbers."""
    group: list[Tensor] = []
    size = 0
    for t in tensors:
        if group and size + t.numel() > MESSAGE:
            yield group
            group, size = [], 0
        group.append(t)
        size += t.numel()
    if group:
        yield group


def _exchange(data: bytes) -> list[bytes]:
    """Every process's bytes, in the order of their numbers."""
    count = dist.get_world_size()
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(count)]
    dist.all_gather(sizes, torch.tensor([len(data)]))
    room = max(int(size) for size in sizes)
    own = torch.frombuffer(bytearray(data.ljust(room, b"\0")), dtype=torch.uint8)
    gathered = [torch.empty(room, dtype=torch.uint8) for _ in range(count)]
    dist.all_gather(gathered, own)
    return [t[: int(size)].numpy().tobytes() for t, size in zip(gathered, sizes, strict=True)]


def _name_of_start(store: Store, rank: int, count: int) -> str:
    """What the processes of this start of the job call it, unlike any before a restart: the store outlives them.

    Each asks with a word of its own, which only a first process that lives now can answer. (torchrun counts restarts,
    but not alike on all machines.)
    """
    own = secrets.token_hex(8)
    if rank:
        store.set(f"hello/{rank}", own)
        while not store.check([f"welcome/{own}"]):
            time.sleep(0.02)
        name = store.get(f"welcome/{own}").decode()
        store.add(f"{name}/joined", 1)
        return name
    while store.add(f"{own}/joined", 0) < count - 1:
        for other in range(1, count):
            if store.check([f"hello/{other}"]):
                store.set(f"welcome/{store.get(f'hello/{other}').decode()}", own)
        time.sleep(0.02)
    return own


def _own_device(name: str, local_rank: int) -> torch.device:
    if name == "auto" and not torch.cuda.is_available():
        name = "cpu"
    if name == "cpu":
        return torch.device("cpu")
    if name not in ("auto", "cuda"):
        raise UserError(f"--device {name}: many processes take cpu, or cuda, of which each has the GPU of its number")
    device = choose_device(f"cuda:{local_rank}")
    torch.cuda.set_device(device)
    return device


def _is_lost_connection(error: RuntimeError) -> bool:
    # gloo raises plain RuntimeErrors
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()
