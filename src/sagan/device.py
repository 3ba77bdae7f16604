"""The device that networks run on, the precision they compute in, and their memory."""

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
"""Advice when drawing images runs out of memory."""
TRAIN_LESS = (
    "try a smaller --batch-size, a larger --accumulate (smaller micro-batches), or a smaller --base-channels or "
    "--resolution"
)
"""Advice when training runs out of memory."""


def choose_device(name: str) -> torch.device:
    """Return the device of a name: 'auto' (CUDA if available, else the CPU), or 'cpu', 'cuda:1', 'mps' and so on.

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

    'fp32' has mantissas of 23 bits on every device, 'tf32' of 10 bits on CUDA. 'bf16' (7 bits) is autocast; operations
    that autocast leaves in fp32 run in fp32, not in TF32.
    """

    name: Literal["fp32", "tf32", "bf16"]

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager[object]:
        """Return the context of a forward pass."""
        return torch.autocast(device.type, torch.bfloat16) if self.name == "bf16" else contextlib.nullcontext()

    def flags(self) -> contextlib.AbstractContextManager[None]:
        """Return the context of a training step; it must include backward passes, which read the flags too."""
        return _tf32(self.name == "tf32")


def choose_precision(name: PrecisionName, device: torch.device) -> Precision:
    """Return the precision of a name on a device; 'auto' is bf16 on hardware that gains from it, else fp32.

    CUDA gains from compute capability 8.0 (Ampere) on, the CPU with AMX.

    Raises:
        UserError: the device has no TF32.
    """
    # torch.cuda.is_bf16_supported checks the same, but for the current device only.
    ampere = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    if name == "tf32" and not ampere:
        raise UserError(f"--precision tf32: requires a CUDA GPU from Ampere on, not {device}; use fp32 or bf16")
    if name != "auto":
        return Precision(name)
    gains = ampere or (device.type == "cpu" and has_amx())
    return Precision("bf16" if gains else "fp32")


_PEAKS = {  # FLOP/s of dense products, from NVIDIA's data sheets, by a part of the card's name
    "H200": {"bf16": 989e12, "tf32": 495e12, "fp32": 67e12},
    "H100 80GB HBM3": {"bf16": 989e12, "tf32": 495e12, "fp32": 67e12},
    "A100": {"bf16": 312e12, "tf32": 156e12, "fp32": 19.5e12},
}


def peak_speed(device: torch.device, precision: Precision) -> float | None:
    """Return the operations per second that a device reaches at most in a precision; None if they are not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peaks[precision.name] for part, peaks in _PEAKS.items() if part in name), None)


def peak_memory(device: torch.device) -> int | None:
    """Return the most memory so far, bytes: of tensors on the GPU, or of this process on the CPU; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # Linux counts in KiB


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Turn TF32 off inside, for penalties and for everything that draws or measures.

    The flags apply to the whole process, other threads included. They are restored at the end.
    """
    with _tf32(False):
        yield


@contextlib.contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    # Not torch.backends.fp32_precision: PyTorch 2.11 raises if both are used, and other libraries set these flags.
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    cudnn.allow_tf32 = matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


def choose_algorithms(*, deterministic: bool) -> None:
    """Choose the fastest cuDNN kernels, or deterministic ones, which repeat every result bit for bit.

    The fastest kernels may differ from process to process, and some add in no fixed order. Call this before anything
    runs on CUDA. Results on the CPU repeat either way.
    """
    torch.backends.cudnn.benchmark = not deterministic  # shapes stay the same, so one search serves all steps
    torch.backends.cudnn.deterministic = deterministic
    torch.use_deterministic_algorithms(deterministic)
    if deterministic and os.environ.get(CUBLAS_WORKSPACE) not in DETERMINISTIC_WORKSPACES:
        if torch.cuda.is_initialized():
            setting = f"{CUBLAS_WORKSPACE}={DETERMINISTIC_WORKSPACES[0]}"
            print(f"sagan: CUDA has already started: results may not repeat unless {setting} is set", file=sys.stderr)
        os.environ[CUBLAS_WORKSPACE] = DETERMINISTIC_WORKSPACES[0]


@contextlib.contextmanager
def enough_memory(advice: str = TRAIN_LESS) -> Iterator[None]:
    """Raise a UserError with advice when the GPU or the CPU runs out of memory inside."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_exhausted(error):
            raise
        raise UserError(f"out of memory: {advice}") from error


def _is_exhausted(error: RuntimeError | MemoryError) -> bool:
    signs = (
        "can't allocate memory",
        "overflow",  # the size in bytes exceeds int64
        "ALLOC_FAILED",  # CUDNN_STATUS_ALLOC_FAILED, CUBLAS_STATUS_ALLOC_FAILED
        "unable to find an engine",  # cuDNN, when no kernel's workspace fits
    )
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(sign in str(error) for sign in signs)


def keep_memory() -> None:
    """Tell glibc to keep freed memory for the next step instead of returning it to the kernel.

    By default every large tensor is mapped and unmapped again, and the page faults cost a training step on the CPU a
    tenth of its time. Without glibc this has no effect.
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
