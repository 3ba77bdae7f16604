"""Training on a GPU: nothing waits for it, a resumed run is the same run, and memory does not grow."""

import pytest
import torch

from helpers.cuda_trainers import (
    EVERYTHING,
    deterministic,
    enough_memory,
    images,
    load_checkpoint,
    state,
    take_snapshot,
    trainer,
    write_checkpoint,
)
from sagan import PRESETS, UserError
from sagan.data import Prefetcher
from sagan.model.attention import attend


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["hinge", "everything"])
def test_nothing_in_a_step_waits_for_the_device(device, no_waiting, precision, options):
    t = trainer(device, precision=precision, **options)
    batch = images(device)
    for step in range(2):  # libraries start, kernels are loaded
        t.train_step(step, lambda i: batch)
    with no_waiting():
        for step in range(2, 6):  # with and without penalties
            log = t.train_step(step, lambda i: batch, measure=True)
    assert all(torch.isfinite(value) for value in log.values())


def test_waiting_would_be_noticed(device, no_waiting):
    value = torch.ones(3, device=device).sum()
    with pytest.raises(RuntimeError), no_waiting():
        value.item()


def test_a_step_with_its_next_batch_on_the_way_waits_for_nothing(device, no_waiting):
    t, batches = trainer(device), Prefetcher(lambda i: images(torch.device("cpu"), number=i), device)
    try:
        for step in range(3):
            t.train_step(step, batches)
        with no_waiting():
            for step in range(3, 6):
                t.train_step(step, batches)
    finally:
        batches.close()


def test_a_prefetched_batch_is_the_batch_that_was_made(device):
    """While the device is busy: a batch used before its copy has come, or overwritten by the next, would differ."""
    batches = Prefetcher(lambda i: images(torch.device("cpu"), number=i, count=256), device)
    busy = torch.randn(1024, 1024, device=device)
    sums = []
    try:
        for number in [*range(12), 4, 5, 30]:
            x, y = batches(number)
            assert x.device.type == device.type
            busy = torch.tanh(busy @ busy)
            sums.append((number, x.double().sum(dim=(1, 2, 3)), y.clone()))
            del x, y
    finally:
        batches.close()
    for number, pixels, labels in sums:
        x, y = images(torch.device("cpu"), number=number, count=256)
        assert torch.equal(pixels.cpu(), x.double().sum(dim=(1, 2, 3)))
        assert torch.equal(labels.cpu(), y)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_deterministic_and_resumed_it_is_the_same_run_bit_for_bit(device, tmp_path, precision):
    def run(stop=None):
        t = trainer(device, precision=precision, loss="relativistic", r1=0.5, penalty_every=2, **chosen)
        for step in range(8):
            if step == stop:
                write_checkpoint(tmp_path / "kept.safetensors", take_snapshot(t, step))
                t = trainer(device, precision=precision, loss="relativistic", r1=0.5, penalty_every=2, **chosen)
                assert load_checkpoint(tmp_path / "kept.safetensors", t) == step
            t.train_step(step, lambda i: images(device, number=i))
        return {name: tensor.cpu() for name, tensor in state(t).items()}

    with deterministic() as chosen:
        once, again, resumed = run(), run(), run(stop=3)
    assert [name for name in once if not torch.equal(once[name], again[name])] == []
    assert [name for name in once if not torch.equal(once[name], resumed[name])] == []


def test_memory_does_not_grow(cuda, record_property):
    t = trainer(cuda, PRESETS["small"].model, batch_size=16, precision="bf16", r1=1.0, penalty_every=2)
    batch = images(cuda, PRESETS["small"].model, count=16)
    for step in range(4):
        t.train_step(step, lambda i: batch)
    held = torch.cuda.memory_allocated()
    for step in range(4, 20):
        t.train_step(step, lambda i: batch)
    record_property("peak MiB", torch.cuda.max_memory_allocated() / 2**20)
    assert torch.cuda.memory_allocated() == held


def test_out_of_memory_is_one_clear_line(cuda):
    with pytest.raises(UserError, match="--batch-size"), enough_memory():
        torch.empty(2**44, dtype=torch.uint8, device=cuda)


# Channels and side of a map: those of attention in the presets, then a head of 256.
SHAPES = {
    "small": (64, 32, "released"),
    "128 px": (128, 32, "released"),
    "paper": (128, 32, "paper"),
    "full": (256, 32, "full"),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_attention_by_whichever_kernel(device, name, dtype, record_property):
    """Forward and backward are right by the kernel that PyTorch chose; which one it was is kept with the test."""
    channels, side, variant = SHAPES[name]
    keys = side**2 // 4 if variant == "released" else side**2
    width = {"released": channels // 2, "paper": channels // 8, "full": channels}[variant]
    rng = torch.Generator().manual_seed(0)
    shapes = ((4, side**2, channels // 8), (4, keys, channels // 8), (4, keys, width))
    exact = [(torch.randn(s, generator=rng, dtype=torch.float64) / 2).requires_grad_() for s in shapes]
    wanted = torch.softmax(exact[0] @ exact[1].transpose(1, 2), -1) @ exact[2]
    wanted.square().sum().backward()
    q, k, v = (t.detach().to(device, dtype).requires_grad_() for t in exact)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        o = attend(q, k, v)
        o.float().square().sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
    names = [event.key for event in profile.key_averages()]
    chosen = [n for n in names if "attention" in n.lower() or "sdp" in n.lower() or "fmha" in n.lower()]
    record_property("kernels", "; ".join(n[:100] for n in chosen))
    tolerance = 2e-2 if dtype == torch.bfloat16 else 2e-3  # fp32 without a fused kernel may be TF32
    for found, reference in ((o, wanted), *((t.grad, e.grad) for t, e in zip((q, k, v), exact, strict=True))):
        difference = (found.detach().cpu().double() - reference.detach()).norm() / reference.detach().norm()
        assert difference < tolerance
