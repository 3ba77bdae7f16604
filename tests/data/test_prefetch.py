"""The same batches, made one ahead in another thread."""

import threading

import pytest
import torch

from sagan.data import Prefetcher

CPU = torch.device("cpu")


class Source:
    """Batches of their own numbers, and a record of who made which."""

    def __init__(self, broken=()):
        self.broken, self.made, self.threads = broken, [], set()
        self.waiting = threading.Condition()

    def __call__(self, number):
        with self.waiting:
            self.made.append(number)
            self.threads.add(threading.current_thread())
            self.waiting.notify_all()
        if number in self.broken:
            raise OSError(f"batch {number} cannot be read")
        return torch.full((2, 3, 4, 4), number % 256, dtype=torch.uint8), torch.full((2,), number)

    def wait_for(self, count):
        with self.waiting:
            assert self.waiting.wait_for(lambda: len(self.made) >= count, timeout=30)


@pytest.fixture
def prefetched():
    opened = []

    def make(source):
        opened.append(Prefetcher(source, CPU))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


@pytest.mark.parametrize("numbers", [range(5), range(1000, 1005), [0, 0, 1, 7, 8, 3]])
def test_batches_are_those_asked_for(prefetched, numbers):
    batches = prefetched(Source())
    for number in numbers:
        images, labels = batches(number)
        assert (images == number % 256).all()
        assert labels.tolist() == [number, number]


def test_the_next_one_is_made_in_another_thread_while_nobody_waits(prefetched):
    source = Source()
    batches = prefetched(source)
    batches(3)
    source.wait_for(2)
    assert source.made == [3, 4]
    batches(4)
    source.wait_for(3)
    assert source.made == [3, 4, 5]  # 4 was not made again
    assert threading.current_thread() not in source.threads
    assert len(source.threads) == 1


def test_an_error_is_raised_where_the_batch_is_asked_for(prefetched):
    batches = prefetched(Source(broken=[2]))
    assert batches(0)[1][0] == 0
    assert batches(1)[1][0] == 1  # 2 fails behind it, unseen
    with pytest.raises(OSError, match="batch 2"):
        batches(2)
    assert batches(3)[1][0] == 3


def test_close_ends_the_thread():
    source = Source()
    batches = Prefetcher(source, CPU)
    batches(0)
    source.wait_for(2)
    batches.close()
    assert not any(thread.is_alive() for thread in source.threads)
