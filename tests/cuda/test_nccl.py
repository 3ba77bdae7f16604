"""Communication by NCCL, which needs a GPU for each process: here one process that takes itself for two."""

import pytest
import torch
import torch.distributed as dist

from sagan.distributed import Processes

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.fixture
def processes():
    device = torch.device("cuda", 0)
    dist.init_process_group("cpu:gloo,cuda:nccl", store=dist.HashStore(), rank=0, world_size=1, device_id=device)
    yield Processes(device, count=2)
    dist.destroy_process_group()


@pytest.fixture
def waits_are_errors():
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def test_means_are_taken_in_place(processes):
    """Of one process they are what they were; a sum over two halves would be a half."""
    shapes = [(6, 4, 3, 3), (5, 1, 3, 3), (1, 4, 3, 3), (5, 4, 1, 1), (7, 5), ()]
    tensors = [torch.rand(shape, device=processes.device) for shape in shapes]
    tensors += [t.to(memory_format=torch.channels_last) for t in tensors[:4]]
    wanted, strides = [t.clone() for t in tensors], [t.stride() for t in tensors]
    processes.average_(tensors)
    assert all(torch.equal(t, w) for t, w in zip(tensors, wanted, strict=True))
    assert [t.stride() for t in tensors] == strides


def test_a_stop_is_heard_one_step_later_without_a_wait(processes):
    assert not processes.any(True)  # the first question has no answer before it
    torch.cuda.synchronize()
    assert processes.any(False)
    torch.cuda.synchronize()
    assert not processes.any(False)


def test_nothing_waits_for_the_device(processes, waits_are_errors):
    processes.average_([torch.rand(4, 4, device=processes.device)])
    processes.any(True)
