"""Distributed training: rank, world size and communication.

`torchrun` starts the processes and gives each its rank in the environment. They compute through NCCL on CUDA and gloo
on the CPU. While one of them works alone (data, checkpoints, grids), the others wait through torchrun's store, which
has no timeout. So a collective only waits for work that all processes do at the same time.
"""

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

from sagan.compat import rendezvous
from sagan.device import choose_device
from sagan.errors import UserError
from sagan.watchdog import Watchdog, lost_others

T = TypeVar("T")

MESSAGE = 2**24
"""Elements of one message, 64 MiB in fp32: large enough for the full bandwidth, small enough to hold a copy."""
PATIENCE = timedelta(hours=1)
"""Time that a process waits for the others to start."""
TIMEOUT = timedelta(minutes=10)
"""Time that a collective waits; NCCL's own default. The processes are furthest apart when one of them reads a batch
from a slow server (`data.shards.remote` gives up within 4 minutes), and in the first step on CUDA, when cuDNN tries its
kernels. The timeout ends a job that would hang because one process does not call what the others call."""


class Processes:
    """This process among those of its job: rank, number of processes and communication.

    By default it is the only one, and nothing is sent. All processes must call the same methods in the same order.

    Args:
        device: the device of this process.
        rank: number of this process in the job.
        count: number of processes in the job.
        local_rank: number of this process on its machine.
        store: torchrun's store; None: this process is the only one.
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
        self.device = device
        self.rank = rank
        self.count = count
        self.local_rank = local_rank
        self._store = store
        self._barriers = 0
        self._vote: tuple[Tensor, torch.cuda.Event] | None = None  # of the previous call of `any`, on CUDA

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, the process that writes files and messages."""
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
        """Return the mean of a tensor over the processes, in a new tensor."""
        t = t.clone()
        self.average_([t])
        return t

    def any(self, condition: bool) -> bool:
        """Return whether the condition holds in at least one process.

        On CUDA the result is that of the previous call, which has arrived by now: this call does not synchronise.
        """
        if self.count == 1:
            return condition
        vote = torch.full((), float(condition), device=self.device)  # torch.tensor would synchronise
        dist.all_reduce(vote, dist.ReduceOp.MAX)
        if self.device.type != "cuda":
            return bool(vote)
        previous, copied = self._vote, torch.cuda.Event()
        self._vote = vote.to("cpu", non_blocking=True), copied
        copied.record()
        if previous is None:
            return False
        previous_vote, previous_copied = previous
        previous_copied.synchronize()
        return bool(previous_vote)

    def first(self, work: Callable[[], T]) -> T:
        """Call `work` in the first process only, and return its result, JSON values, in all of them.

        The others wait as long as it takes.
        """
        if self._store is None:
            return work()
        key = self._next_key()
        if self.is_first:
            self._store.set(key, json.dumps(work()))
        self._wait(lambda store: store.check([key]))
        return json.loads(self._store.get(key))

    def wait_for_first(self) -> None:
        """Wait until the first process calls this too, however long it takes."""
        self.first(lambda: None)

    def in_turn(self, work: Callable[[], T]) -> T:
        """Call `work` in the first process, then in the first one of every other machine, then in the rest.

        Each turn can use files that the turn before has written. Returns the result when all turns are over.
        """
        if self._store is None:
            return work()
        key, result = self._next_key(), None
        own = 0 if self.is_first else 1 if self.local_rank == 0 else 2
        for turn in range(3):
            if turn == own:
                result = work()
            self._store.add(f"{key}/{turn}", 1)
            self._wait_for_all(f"{key}/{turn}")
        return result  # type: ignore[return-value]

    def map(self, work: Callable[[int], np.ndarray], count: int) -> list[np.ndarray]:
        """Return [work(0), ..., work(count - 1)] in all processes, each of which computes its share."""
        own = [work(i) for i in range(self.rank, count, self.count)]
        if self.count == 1:
            return own
        shares: list[Any] = [None] * self.count
        dist.all_gather_object(shares, own)
        return [shares[i % self.count][i // self.count] for i in range(count)]

    def report_failure(self) -> bool:
        """Report that this process fails, which ends the others.

        Returns:
            Whether it is the first to fail: that one prints the reason.
        """
        try:
            return self._store is None or self._store.add("failures", 1) == 1
        except RuntimeError:  # the store is gone
            return True

    def failed(self) -> bool:
        """Return whether a process has reported a failure."""
        return self._store is not None and self._store.add("failures", 0) > 0

    def _next_key(self) -> str:
        """Return a new key of the store, the same in all processes."""
        self._barriers += 1
        return f"barrier/{self._barriers}"

    def _wait_for_all(self, key: str) -> None:
        self._wait(lambda store: store.add(key, 0) == self.count)

    def _wait(self, done: Callable[[Any], bool]) -> None:
        """Wait until `done`; end this process if another one fails. Unlike a collective, Ctrl-C interrupts it."""
        pause = 0.005
        while not done(self._store):
            if self.failed():
                raise SystemExit(2)
            time.sleep(pause)
            pause = min(2 * pause, 0.5)


@contextmanager
def join(device: str) -> Iterator[Processes]:
    """Yield this process as one of those that torchrun started, or as the only one.

    An error of one process ends all of them, and its message is printed once.

    Args:
        device: as in `choose_device`; with 'auto' and 'cuda' process n of a machine gets its GPU n.

    Raises:
        UserError: the device is not available, or another process has ended without a message.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1 or "MASTER_ADDR" not in os.environ:
        yield Processes(choose_device(device))
        return
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    store, rank, count = rendezvous(PATIENCE)
    store = PrefixStore(_name_of_start(store, rank, count), store)
    processes = Processes(torch.device("cpu"), rank, count, local_rank=local_rank, store=store)
    watchdog = Watchdog(rank, count, store)
    try:
        processes.device = _own_device(device, local_rank)
        on_cuda = processes.device.type == "cuda"
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_cuda else "gloo",
            store=PrefixStore("group", store),
            rank=rank,
            world_size=count,
            timeout=TIMEOUT,
            device_id=processes.device if on_cuda else None,  # NCCL connects now, and fails now if it cannot
        )
        watchdog.start()
        yield processes
        _leave(processes, watchdog)
    except BaseException as error:
        watchdog.main_ends.set()
        first = processes.report_failure()
        lost = isinstance(error, RuntimeError) and _is_lost_connection(error)
        if not first and (lost or isinstance(error, UserError | OSError)):
            raise SystemExit(2) from None
        if lost:
            raise UserError(lost_others(rank, count, str(error).splitlines()[0])) from error
        raise


def _leave(processes: Processes, watchdog: Watchdog) -> None:
    """Leave the job, the first process last: it may serve the store."""
    store, key = processes._store, processes._next_key()
    assert store is not None
    store.add(key, 1)
    processes._wait_for_all(key)
    watchdog.stop()
    dist.destroy_process_group()
    store.add(f"{key}/left", 1)
    if processes.is_first:
        processes._wait_for_all(f"{key}/left")


def check_batch(batch_size: int, accumulate: int, processes: Processes) -> None:
    """Check that the processes can share a batch equally.

    Raises:
        UserError: they cannot.
    """
    micro_batches = processes.count * accumulate
    if batch_size % micro_batches:
        shared = f"{processes.count} processes" + (f" times --accumulate {accumulate}" if accumulate > 1 else "")
        raise UserError(f"--batch-size {batch_size} cannot be shared by {shared}: pass a multiple of {micro_batches}")


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
    """Return the sum of a tensor over the processes; its gradient is the sum of their gradients, as of one loss."""
    return _Total.apply(t)


def in_memory_order(t: Tensor) -> Tensor:
    """View a tensor with its axes from the largest stride to the smallest: contiguous if its elements are dense.

    Flattening the view of a channels_last weight copies nothing; flattening the weight would move every element.
    """
    return t.permute(sorted(range(t.dim()), key=t.stride, reverse=True))


def _messages(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield the tensors, in order, in groups of about MESSAGE elements."""
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


def _name_of_start(store: Store, rank: int, count: int) -> str:
    """Return a name for this start of the job: the store outlives a restart, whose processes must not meet old ones.

    Each process sends a random word, which only the living rank 0 can answer. (torchrun counts restarts too, but not
    the same on all machines.)
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
        raise UserError(f"--device {name}: under torchrun use cpu, or cuda (one GPU of its machine for each process)")
    device = choose_device(f"cuda:{local_rank}")
    torch.cuda.set_device(device)
    return device


def _is_lost_connection(error: RuntimeError) -> bool:
    # gloo raises plain RuntimeErrors
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()
