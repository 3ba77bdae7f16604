"""Many processes that train as one: which of them this is, and all that they tell each other.

`torchrun` starts them and says, in the environment, who each one is. They compute through NCCL on CUDA and gloo on the
CPU, and wait for each other through torchrun's store, where nothing times out while pictures are being prepared.
"""

import io
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

from sagan.device import choose_device
from sagan.errors import UserError

T = TypeVar("T")

MESSAGE = 2**24
"""Numbers of one message, 64 MiB in fp32: large enough for the full bandwidth, small enough for a copy on the side."""
PATIENCE = timedelta(hours=1)
"""How long a process waits for another in the midst of training: for a checkpoint, a grid, an evaluation."""


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
        """Replaces tensors of one dtype by their means over the processes, in few large messages."""
        if self.count == 1:
            return
        sent = []
        for part in _messages(tensors):
            flat = torch.cat([t.reshape(-1) for t in part])
            sent.append((part, flat, dist.all_reduce(flat, async_op=True)))
        for part, flat, work in sent:
            work.wait()
            pieces = (flat / self.count).split([t.numel() for t in part])
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
        vote = torch.tensor(float(said), device=self.device)
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
        """Notes that this process fails; whether it is the first, whose message all will see."""
        return self._store is None or self._store.add("failures", 1) == 1

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
    store, rank, count = next(dist.rendezvous("env://", timeout=PATIENCE))  # type: ignore[attr-defined]
    store = PrefixStore(_name_of_start(store, rank, count), store)
    processes = Processes(torch.device("cpu"), rank, count, local_rank=local_rank, store=store)
    try:
        processes.device = _own_device(device, local_rank)
        backend = "gloo" if processes.device.type == "cpu" else "cpu:gloo,cuda:nccl"
        group = PrefixStore("group", store)
        dist.init_process_group(backend, store=group, rank=rank, world_size=count, timeout=PATIENCE)
        yield processes
        dist.destroy_process_group()
    except UserError:
        if not processes.report_failure():
            raise SystemExit(2) from None
        raise
    except RuntimeError as error:
        if not _is_lost_connection(error):
            raise
        if not processes.report_failure():
            raise SystemExit(2) from None
        raise UserError(
            f"process {rank} of {count} has lost the others: one has ended or cannot be reached; go on with --resume"
        ) from error


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


def _messages(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors, in order, in groups of about MESSAGE numbers."""
    group: list[Tensor] = []
    for t in tensors:
        if group and sum(g.numel() for g in group) + t.numel() > MESSAGE:
            yield group
            group = []
        group.append(t)
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
