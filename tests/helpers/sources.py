"""Sources of images as a store of 8 px, and what was skipped of them."""

import re

from sagan.config import DataConfig
from sagan.data import prepare


def load(source, **options):
    return prepare(DataConfig(source=str(source), **options), resolution=8, image_channels=3, progress=False)


def check_skipped(store, patterns):
    """Check that exactly these files were skipped, each for a reason that its pattern is found in."""
    reasons = {one.name: one.reason for one in store.skipped}
    assert reasons.keys() == patterns.keys()
    for name, pattern in patterns.items():
        assert re.search(pattern, reasons[name]), (name, reasons[name])
