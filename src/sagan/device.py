"""The device that networks run on, the precision they compute in, and memory."""

import contextlib
import ctypes
import sys
from collections.abc import Iterator

import torch

from sagan.errors import UserError


def choose_device(name: str) -> torch.device:
    """'auto' (CUDA if there is any, else the CPU) or a PyTorch device such as 'cpu', 'cuda:1', 'mps'.

    Raises:
        UserError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"--device {name}: not available here ({str(error).splitlines()[0]}); try cpu") from error
    return device


@contextlib.contextmanager
def enough_memory() -> Iterator[None]:
    """Turns running out of memory, of the GPU or the CPU, into a UserError that says what needs less."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        words = ("can't allocate memory", "overflow")  # more than there is, or than a number can say
        exhausted = isinstance(error, MemoryError | torch.OutOfMemoryError) or any(word in str(error) for word in words)
        if not exhausted:
            raise
        raise UserError(
            "out of memory: try a smaller --batch-size, more --accumulate (as large a batch in more parts), or a "
            "smaller --base-channels or --resolution"
        ) from error


def keep_memory() -> None:
    """Tells glibc to keep freed memory for the next step instead of returning it to the kernel.

    By default every large tensor is mapped and unmapped anew, and the page faults cost a training step on the CPU a
    tenth of its time. Elsewhere than on glibc nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    m_trim_threshold, m_mmap_max = -1, -4  # from malloc.h
    mallopt(m_mmap_max, 0)
    mallopt(m_trim_threshold, 2**31 - 1)
