"""The device that networks run on, the precision they compute in, and memory."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from sagan.compat import has_amx
from sagan.config import PrecisionName
from sagan.errors import UserError

CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
DETERMINISTIC_WORKSPACES = (":4096:8", ":16:8")
"""With one of these cuBLAS repeats its results bit for bit (cuBLAS documentation, "Results reproducibility")."""

CPU = torch.device("cpu")

DRAW_LESS = "try fewer images (--count), or --device cpu"
"""Advice where images are drawn."""
TRAIN_LESS = (
    "try a smaller --batch-size, more --accumulate (as large a batch in more parts), or a smaller --base-channels or "
    "--resolution"
)
"""Advice in training."""


def choose_device(name: str) -> torch.device:
    """Return the device of a name: 'auto' (CUDA if there is any, else the CPU), or 'cpu', 'cuda:1', 'mps' and so on.

    Raises:
        UserError: the device is not available here, or does not compute ('meta').
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        raise UserError(f"--device {name}: not available here ({str(error).splitlines()[0]}); try cpu") from error
    return device


@dataclass(frozen=True)
class Precision:
    """The arithmetic of convolutions and matrix products in a training step.

    'fp32' has mantissas of 23 bits on every device, 'tf32' of 10 on CUDA. 'bf16' (7 bits) is autocast: what autocast
    leaves in fp32 is fp32, not TF32.
    """

    name: Literal["fp32", "tf32", "bf16"]

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager[object]:
        """Return the context of a forward pass."""
        return torch.autocast(device.type, torch.bfloat16) if self.name == "bf16" else contextlib.nullcontext()

    def flags(self) -> contextlib.AbstractContextManager[None]:
        """Return the context of a whole step: backward passes read the flags too."""
        return _tf32(self.name == "tf32")


def choose_precision(name: PrecisionName, device: torch.device) -> Precision:
    """Return the precision of a name on a device; 'auto' is bf16 on hardware that gains from it, else fp32.

    CUDA gains from compute capability 8.0 (Ampere) on, the CPU with AMX.

    Raises:
        UserError: 'tf32' where there is none.
    """
    # `is_bf16_supported` asks for the same, of the current device only.
    ampere = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    if name == "tf32" and not ampere:
        raise UserError(f"--precision tf32: requires a CUDA GPU from Ampere on, not {device}; use fp32 or bf16")
    if name != "auto":
        return Precision(name)
    gains = ampere or (device.type == "cpu" and has_amx())
    return Precision("bf16" if gains else "fp32")


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Keep fp32 fp32, on CUDA too: for penalties, and for all that draws or measures.

    The flags belong to the whole process, other threads included, and are put back at the end.
    """
    with _tf32(False):
        yield


@contextlib.contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    # Not torch.backends.fp32_precision: PyTorch 2.11 raises where the two are mixed, and others set these.
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    cudnn.allow_tf32 = matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


def choose_algorithms(*, deterministic: bool) -> None:
    """Let cuDNN look for the fastest kernels, or have the same operations always give the same bits.

    The fastest may be others in each process, and some add up in any order. Call it before anything runs on CUDA;
    on the CPU the bits are the same either way.
    """
    torch.backends.cudnn.benchmark = not deterministic  # shapes stay the same: searching pays
    torch.backends.cudnn.deterministic = deterministic
    torch.use_deterministic_algorithms(deterministic)
    if deterministic and os.environ.get(CUBLAS_WORKSPACE) not in DETERMINISTIC_WORKSPACES:
        if torch.cuda.is_initialized():
            wanted = f"{CUBLAS_WORKSPACE}={DETERMINISTIC_WORKSPACES[0]}"
            print(f"sagan: CUDA runs already: set {wanted} before, or results may not repeat", file=sys.stderr)
        os.environ[CUBLAS_WORKSPACE] = DETERMINISTIC_WORKSPACES[0]


@contextlib.contextmanager
def enough_memory(advice: str = TRAIN_LESS) -> Iterator[None]:
    """Turn running out of memory, of the GPU or the CPU, into a UserError that ends in advice: what needs less."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_exhausted(error):
            raise
        raise UserError(f"out of memory: {advice}") from error


def _is_exhausted(error: RuntimeError | MemoryError) -> bool:
    words = (
        "can't allocate memory",
        "overflow",  # more than a number can say
        "ALLOC_FAILED",  # CUDNN_STATUS_ALLOC_FAILED, CUBLAS_STATUS_ALLOC_FAILED
        "unable to find an engine",  # cuDNN, where no kernel's workspace fits
    )
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(word in str(error) for word in words)


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
