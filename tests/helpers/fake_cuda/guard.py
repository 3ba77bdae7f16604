"""Builds guard.cpp and loads it into this process, which then takes itself for one with a GPU, for good."""

import ctypes
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

SOURCE = Path(__file__).with_name("guard.cpp")


class Unavailable(Exception):
    """Fake CUDA cannot be had here; the message says why, in one line."""


def build() -> Path:
    """Return the compiled guard.cpp, compiled again for another PyTorch or source, else from the user's cache.

    PyTorch is not imported: the guard must be loaded before it is.

    Raises:
        Unavailable: PyTorch is built for CUDA, or there is no compiler, or it refuses the source.
    """
    torch = Path(importlib.util.find_spec("torch").origin).parent
    if not sys.platform.startswith("linux"):
        raise Unavailable("fake CUDA is for Linux")
    if (torch / "lib" / "libtorch_cuda.so").exists():
        raise Unavailable("this PyTorch is built for CUDA; fake CUDA needs the CPU build")
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if not compiler:
        raise Unavailable("no C++ compiler for fake CUDA (c++, g++ or $CXX)")
    version = importlib.metadata.version("torch")
    key = hashlib.sha256(f"{version} {torch} {compiler}\n{SOURCE.read_text()}".encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sagan-fake-cuda"
    library = folder / f"guard-torch-{version}-{key}.so"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:  # processes of pytest-xdist wait for the one that compiles
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():
            _compile(compiler, torch, library)
    return library


def _compile(compiler: str, torch: Path, library: Path) -> None:
    temporary = library.with_suffix(f".{os.getpid()}.tmp")
    command = [compiler, "-shared", "-fPIC", "-std=c++20", f"-I{torch / 'include'}", str(SOURCE), "-o", str(temporary)]
    libraries = [f"-L{torch / 'lib'}", "-lc10", "-ltorch_cpu"]
    try:
        done = subprocess.run([*command, *libraries], capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{compiler} could not be run: {error}") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"{compiler} failed with status {done.returncode}"]
        raise Unavailable(next((line for line in lines if "error" in line), lines[0]))
    os.replace(temporary, library)


def load(library: Path) -> None:
    """Load a compiled guard into this process and make PyTorch see one GPU.

    Raises:
        RuntimeError: PyTorch has been imported already, and has found no GPU.
    """
    if "torch" in sys.modules:
        raise RuntimeError("fake CUDA must be loaded before PyTorch is imported")
    folder = Path(importlib.util.find_spec("torch").origin).parent / "lib"
    for path in (folder / "libc10.so", folder / "libtorch_cpu.so", library):
        ctypes.CDLL(str(path))

    import torch

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")  # copy.deepcopy does
    torch.autograd.set_multithreading_enabled(False)  # a thread for the GPU may outlive the interpreter, and abort
    # What torch.cuda asks of parts that a CPU build does not have.
    torch.cuda._lazy_init = lambda: None
    torch.cuda.is_available = lambda: True
    torch.cuda.device_count = lambda: 1
    torch.cuda.current_device = lambda: 0
    torch.cuda.is_bf16_supported = lambda including_emulation=True: True
    torch.cuda.get_device_capability = lambda device=None: (9, 0)  # Hopper
    torch.cuda.synchronize = lambda device=None: None
    torch.cuda.Event = _Event
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(1.0, device="cuda"): on the CPU first, then copied
    # A module that moves to another device gets new parameters: a tensor cannot lose its memory in place.
    torch.__future__.set_overwrite_module_params_on_conversion(True)


class _Event:
    """An event of a stream on which everything is done at once."""

    def record(self, stream: object = None) -> None: ...

    def wait(self, stream: object = None) -> None: ...

    def synchronize(self) -> None: ...

    def query(self) -> bool:
        return True
