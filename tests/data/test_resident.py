"""Batches from images on the device are those from the disk, value for value, whatever the process and the moment."""

import numpy as np
import pytest
import torch

from helpers.stores import numbered_store as store
from sagan.data import Batches, Prefetcher, resident
from sagan.data.packed import DamagedStore, PackedImages, checksum
from sagan.data.resident import ResidentBatches, fits
from sagan.files import load_tensors
from sagan.run import Run

CPU = torch.device("cpu")


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize(("rank", "count"), [(0, 1), (0, 2), (2, 3)])
def test_they_are_the_same_batches(flips, rank, count, monkeypatch):
    """In any order, over the ends of epochs, and where the images are copied in parts."""
    monkeypatch.setattr(resident, "_CHUNK", 3 * 4 * 4 * 3)
    some = store(20)
    batches = Batches(some, 12, seed=5, flips=flips, rank=rank, count=count)
    on_device = ResidentBatches(Batches(some, 12, seed=5, flips=flips, rank=rank, count=count), CPU)
    for number in (7, 0, 1, 2, 3, 11):
        (images, labels), (wanted, wanted_labels) = on_device(number), batches(number)
        assert len(images) == 12 // count
        assert torch.equal(images, wanted)
        assert images.stride() == wanted.stride()  # channels_last, as the convolutions want it
        assert torch.equal(labels, wanted_labels)
        images.zero_()  # a copy: later batches have the images


def test_what_is_prefetched_is_the_same():
    some = store(20)
    ahead = Prefetcher(ResidentBatches(Batches(some, 6, seed=0, flips=True), CPU), CPU)
    batches = Batches(some, 6, seed=0, flips=True)
    for number in (0, 1, 2, 9):
        assert all(torch.equal(a, b) for a, b in zip(ahead(number), batches(number), strict=True))
    ahead.close()


def test_a_damaged_image_is_noticed(tmp_path):
    images = np.zeros((3, 4, 4, 3), np.uint8)
    (tmp_path / "store").mkdir()
    np.save(tmp_path / "store" / "images.npy", images)
    some = store(3)
    some.images = PackedImages(tmp_path / "store" / "images.npy", np.full(3, checksum(images[0]) ^ 1, np.uint32))
    with pytest.raises(DamagedStore):
        ResidentBatches(Batches(some, 2, seed=0, flips=False), CPU)


@pytest.mark.parametrize(
    ("free", "reserved", "wanted"), [(4 * 960, 0, True), (4 * 960 - 4, 0, False), (4 * 900, 300, True)]
)
def test_they_may_fill_a_quarter_of_the_free_memory(free, reserved, wanted, monkeypatch):
    some, cuda = store(20), torch.device("cuda", 0)
    assert resident.size(some) == 20 * 4 * 4 * 3 == 960
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved + 50)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 50)
    assert fits(some, cuda) == wanted
    assert not fits(some, CPU)  # where a copy would gain nothing
    some.images = some.images[:]
    assert not fits(some, cuda)  # images that are decoded on every access, as those of shards


@pytest.mark.slow
def test_a_run_is_the_same_and_so_is_one_that_is_resumed_within_an_epoch(command, tmp_path, train_options, monkeypatch):
    """Epochs have 24 images, 6 steps; the checkpoint of step 3 lies within the first one."""
    options = [*train_options, "--flips", "True", "--log-every", 1]
    for name, on_device in (("host", False), ("device", True), ("resumed", True)):
        monkeypatch.setattr(resident, "fits", lambda store, device, on_device=on_device: on_device)
        steps = 3 if name == "resumed" else 8
        status, _, error = command("train", *options, "--steps", steps, "--out", tmp_path / name)
        assert status == 0
        assert ("the images are kept on cpu: 0.00 GiB" in error) == on_device
    assert command("train", "--resume", tmp_path / "resumed", "--steps", 8, "--device", "cpu")[0] == 0
    host, *others = (load_tensors(Run(tmp_path / name).checkpoint_path(8))[0] for name in ("host", "device", "resumed"))
    for other in others:
        assert all(torch.equal(host[name], other[name]) for name in host)
