"""These tests need a CUDA device, and are skipped one by one where there is none.

With SAGAN_CUDA_TESTS_DEVICE=cpu they run on the CPU, but for those of which CUDA is the subject: so a test is known to
work before a GPU comes.
"""

import contextlib
import os

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

NAME = os.environ.get("SAGAN_CUDA_TESTS_DEVICE", "cuda")
# cuBLAS reads it when CUDA starts; without it no run is deterministic.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@pytest.fixture
def device() -> torch.device:
    """The device under test; the test is skipped without it."""
    if NAME == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(NAME, 0) if NAME == "cuda" else torch.device(NAME)


@pytest.fixture
def cuda(device) -> torch.device:
    """The CUDA device under test, of a test that has nothing to see on the CPU."""
    if device.type != "cuda":
        pytest.skip("its subject is CUDA")
    return device


class _NoReads(TorchDispatchMode):
    """Refuses what makes a value of a tensor a number of Python: on CUDA that waits for the device."""

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        if function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            raise RuntimeError(f"{function} waits for the device")
        return function(*arguments, **(options or {}))


@pytest.fixture
def no_waiting(device):
    """A context in which waiting for the device is an error; on the CPU, reading a value is one."""

    @contextlib.contextmanager
    def forbidden():
        if device.type != "cuda":
            with _NoReads():
                yield
            return
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")

    return forbidden
