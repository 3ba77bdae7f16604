"""Any source of pictures -> a packed uint8 store -> reproducible batches."""

from .batches import Batches
from .store import Skipped, Store, prepare

__all__ = ["Batches", "Skipped", "Store", "prepare"]
