"""The order of an epoch: a permutation, computed, and never another."""

import numpy as np
import pytest

from helpers.shards import load
from sagan.data import Batches
from sagan.data.shards.order import ShardOrder

pytestmark = pytest.mark.usefixtures("small_pieces")


@pytest.mark.parametrize("counts", [[1], [5, 3], [1] * 40, [9, 1, 30, 2], [4] * 16])
def test_an_order_is_a_permutation_and_arithmetic(counts):
    counts = np.array(counts)
    firsts = np.cumsum(counts) - counts

    def order(seed):
        return ShardOrder(
            firsts,
            counts,
            lambda *key, count: np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)).random_raw(count),
        )

    count = counts.sum()
    whole = order(0)[np.arange(count)]
    assert sorted(whole) == list(range(count))
    for place in np.random.default_rng(0).integers(count, size=20):
        assert order(0)[np.array([place])] == whole[place]
    if count > 8:
        assert (order(1)[np.arange(count)] != whole).any()


def test_the_order_never_changes(made):
    """A run that is resumed with another NumPy or on another machine must see the same images."""
    chosen = Batches(load(made), 10, seed=1, flips=False).positions(0).tolist()
    assert chosen == ORDER


ORDER = [6, 11, 80, 59, 60, 85, 71, 3, 51, 15]
