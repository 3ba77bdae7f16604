"""A training step as a CUDA graph: recorded once, then started by a single call instead of thousands.

A graph repeats the same kernels on the same memory. So it reads its inputs from tensors that keep their place, and all
that changes from step to step is in tensors: images, labels and random numbers (`inputs`), and the learning rates.
Weights, statistics and moments were allocated before, and are changed in place. What the step allocates lies in a pool
of the graphs' own; only the log is read from there.
"""

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sagan.compat import abandon_capture
from sagan.distributed import Processes
from sagan.training.inputs import StepInputs, cloned, copy_into
from sagan.training.progress import say

WARM_UP = 2
"""Steps of each kind before it is captured. In the first one libraries start, cuDNN chooses its kernels, and Adam
allocates its moments: none of this may happen during a capture."""

Update = Callable[..., dict[str, Tensor]]

_unfinished: list[Any] = []  # graphs whose capture failed, empty: the allocator may still refer to them


class _Captured(NamedTuple):
    graph: Any  # torch.cuda.CUDAGraph
    inputs: StepInputs  # that the graph reads
    log: dict[str, Tensor]  # that it writes


class StepGraphs:
    """The graphs of a trainer's step: one for each kind: with and without penalties, with and without the guide.

    Each is captured after WARM_UP ordinary steps of its kind. If a capture fails, a line says so, and all steps from
    then on, the one at hand first, are ordinary ones: a capture itself computes and changes nothing.
    """

    def __init__(self, device: torch.device) -> None:
        # Warm-up and capture share a stream: gradients are accumulated on the stream of the forward pass, which must
        # be the capturing one, and cuBLAS keeps a workspace for each stream.
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._device = device
        self.failed = False
        self.forget()

    def forget(self) -> None:
        """Drop all graphs, because tensors that they refer to were replaced; steps are captured again."""
        self._captured: dict[tuple[bool, ...], _Captured] = {}
        self._seen: Counter[tuple[bool, ...]] = Counter()
        self._pool: Any = None  # shared: every graph is complete in itself, and they never run at the same time

    @property
    def count(self) -> int:
        """The number of graphs captured so far."""
        return len(self._captured)

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Run what is inside on the graphs' stream, between what comes before and after it on the caller's stream."""
        if self._stream is None:
            yield
            return
        callers = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(callers)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:  # what is saved after an error is read on the caller's stream
            callers.wait_stream(self._stream)

    def __call__(self, update: Update, inputs: StepInputs, *, measure: bool) -> dict[str, Tensor]:
        """Compute `update(inputs, measure=measure)`, by a graph if there is one or if it can be captured now."""
        kind = inputs.kind
        if kind in self._captured:
            copy_into(self._captured[kind].inputs, inputs)
        elif self.failed or self._seen[kind] < WARM_UP:
            self._seen[kind] += 1
            return update(inputs, measure=measure)
        elif not self._capture(update, inputs):
            return update(inputs, measure=measure)
        captured = self._captured[kind]
        captured.graph.replay()
        # The next replay overwrites the log. The gradients' norms are always computed.
        return {name: t.clone() for name, t in captured.log.items() if measure or not name.startswith("gradient_norm/")}

    def _capture(self, update: Update, inputs: StepInputs) -> bool:
        """Capture a step without running it; return whether that succeeded."""
        static = cloned(inputs)
        graph: Any = None
        gc.collect()  # not during the capture, in which nothing of CUDA may be destroyed
        collects = gc.isenabled()
        gc.disable()
        try:
            graph = torch.cuda.CUDAGraph()
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            # thread_local: meanwhile the next batch is copied by another thread, on its own stream.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                log = update(static, measure=True)
        except Exception as error:  # whatever it is, an ordinary step may do; if not, it raises it again
            reason = str(error.__context__ or error).partition("\n")[0]
            self.failed = True
        else:
            self._captured[inputs.kind] = _Captured(graph, static, log)
            return True
        finally:
            if collects:
                gc.enable()
        if graph is not None:
            graph.reset()
            _unfinished.append(graph)
            abandon_capture(self._device, self._pool)
        self.forget()
        say(f"--cuda-graph: a step cannot be captured ({reason}); training continues without")
        return False


def why_not(device: torch.device, processes: Processes) -> str | None:
    """Return why steps cannot be captured here, in one line; None if they can."""
    if device.type != "cuda":
        return f"--cuda-graph: ignored on {device.type}, as it is for CUDA"
    if processes.count > 1:
        return "--cuda-graph: ignored with several processes, whose messages are not captured"
    return None
