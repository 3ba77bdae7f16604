"""Open the batches of a training run on its device, read one ahead of the step."""

from sagan.config import Config
from sagan.data import Batches, Prefetcher, Store, resident
from sagan.distributed import Processes
from sagan.training.progress import say


def open_batches(config: Config, store: Store, processes: Processes, *, announce: bool = True) -> Prefetcher:
    """Return this process's share of every batch of a run, gathered on the device where all images fit there.

    Args:
        config: with the batch size, the seed of the order, and whether images are mirrored.
        store: the images.
        processes: that share a batch.
        announce: print a line if the images are kept on the device.

    Raises:
        Unavailable: the images cannot be read.
    """
    training, device = config.training, processes.device
    batches = Batches(
        store,
        training.batch_size,
        seed=training.seed,
        flips=config.data.flips,
        rank=processes.rank,
        count=processes.count,
    )
    if not resident.fits(store, device):
        return Prefetcher(batches, device)
    if announce and processes.is_first:
        say(f"the images are kept on {device.type}: {resident.size(store) / 2**30:.2f} GiB")
    return Prefetcher(resident.ResidentBatches(batches, device), device)
