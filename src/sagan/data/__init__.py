"""Any source of images -> a packed uint8 store -> reproducible batches."""

from sagan.data.batches import Batches
from sagan.data.images import Unavailable
from sagan.data.open import prepare
from sagan.data.prefetch import Prefetcher
from sagan.data.source import Skipped
from sagan.data.store import Store

__all__ = ["Batches", "Prefetcher", "Skipped", "Store", "Unavailable", "prepare"]
