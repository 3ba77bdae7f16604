"""NCCL with one process, told that it is one of two: what needs a second GPU is left to whoever has one."""

import pytest
import torch
import torch.distributed as dist

from helpers.cuda_trainers import Processes, distance


@pytest.fixture
def pair(device):
    """This process as the first of two, in a group that holds no other: sums over the group are its own values."""
    store = dist.HashStore()
    on_gpu = device.type == "cuda"
    backend, device_id = ("cpu:gloo,cuda:nccl", device) if on_gpu else ("gloo", None)
    dist.init_process_group(backend, store=store, rank=0, world_size=1, device_id=device_id)
    try:
        yield Processes(device, 0, 2, store=store)
    finally:
        dist.destroy_process_group()


def tensors(device):
    """Gradients as a step has them: of convolutions in channels_last memory, of vectors, of single numbers."""
    rng = torch.Generator().manual_seed(0)
    weight = torch.randn(16, 8, 3, 3, generator=rng).to(device)
    return [weight.to(memory_format=torch.channels_last), weight, *(torch.randn(n, device=device) for n in (7, 1))]


def test_means_are_taken_element_by_element(pair, device):
    """All tensors end as the same share of what they were, in the memory order that they had."""
    given = tensors(device)
    before, strides = [t.clone() for t in given], [t.stride() for t in given]
    pair.average_(given)
    share = (given[0].flatten()[0] / before[0].flatten()[0]).item()
    assert share == pytest.approx(0.5) or share == pytest.approx(1.0)  # the sum over 2, or NCCL's mean over its group
    for t, b, s in zip(given, before, strides, strict=True):
        assert t.stride() == s
        assert distance(t, share * b) < 1e-6


def test_asking_the_others_waits_for_nothing(pair, device, no_waiting):
    """On CUDA the answer is that to the question before; gloo has it at once, so on the CPU nothing is forbidden."""
    pair.any(False)
    if device.type != "cuda":
        assert pair.any(True)
        return
    with no_waiting():
        first = pair.any(True)
    torch.cuda.synchronize()
    assert not first
    assert pair.any(False)


def test_averaging_waits_for_nothing(pair, cuda, no_waiting):
    given = tensors(cuda)
    pair.average_(given)
    with no_waiting():
        pair.average_(given)
