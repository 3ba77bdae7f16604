"""Batches are a pure function of store, seed and number."""

import numpy as np
import pytest
import torch

from helpers.stores import numbered_store as store
from sagan.data import Batches


@pytest.mark.parametrize(("count", "batch_size"), [(7, 3), (12, 4), (5, 17), (1, 3), (30, 30)])
def test_every_epoch_has_every_image_once(count, batch_size):
    batches = Batches(store(count), batch_size, seed=3, flips=True)
    seen = np.concatenate([batches(i)[0][:, 0, 0, 0].numpy() for i in range(-(-6 * count // batch_size))])
    for epoch in range(6):
        assert sorted(seen[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_layout_and_labels():
    images, labels = Batches(store(20), 6, seed=0, flips=False)(2)
    assert images.shape == (6, 3, 4, 4)
    assert images.dtype == torch.uint8
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.dtype == torch.int64
    assert labels.tolist() == [10 * number for number in images[:, 0, 0, 0].tolist()]


def test_images_are_those_of_the_store():
    some = store(20)
    images, _ = Batches(some, 6, seed=0, flips=False)(5)
    for image in images:
        np.testing.assert_array_equal(image.permute(1, 2, 0), some.images[int(image[0, 0, 0])])


def test_any_batch_at_any_time():
    first = Batches(store(20), 7, seed=5, flips=True)
    in_order = [first(i) for i in range(12)]
    for i in (11, 0, 7, 3, 3):
        for again in (first, Batches(store(20), 7, seed=5, flips=True)):
            assert all(torch.equal(a, b) for a, b in zip(again(i), in_order[i], strict=True))


def test_seeds_and_epochs_differ():
    a, b = (np.concatenate([Batches(store(50), 50, seed=s, flips=False).positions(i) for i in (0, 1)]) for s in (0, 1))
    assert len({tuple(order) for order in (a[:50], a[50:], b[:50], b[50:])}) == 4


def test_orders_never_change():
    """A run that is resumed with another NumPy or on another machine must see the same images."""
    assert Batches(store(10), 10, seed=1, flips=False).positions(0).tolist() == [2, 3, 0, 7, 4, 1, 8, 5, 9, 6]


def test_half_are_flipped_and_which_is_drawn_again_for_every_batch():
    some = store(200)
    batches = Batches(some, 200, seed=0, flips=True)
    flipped_positions = []
    for i in range(2):
        images = batches(i)[0].permute(0, 2, 3, 1).numpy()
        positions = batches.positions(i)
        plain = (images == some.images[positions]).all((1, 2, 3))
        flipped = (images == some.images[positions][:, :, ::-1]).all((1, 2, 3))
        assert (plain ^ flipped).all()
        assert 70 < flipped.sum() < 130
        flipped_positions.append(set(positions[flipped]))
    assert flipped_positions[0] != flipped_positions[1]


def test_the_store_is_not_written_to():
    some = store(8)
    before = some.images[:]
    images, _ = Batches(some, 8, seed=0, flips=True)(0)
    images.zero_()
    np.testing.assert_array_equal(some.images[:], before)
