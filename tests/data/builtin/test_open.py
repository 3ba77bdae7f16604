"""The door to the built-in sets."""

import subprocess
import sys

from sagan.config import DataConfig
from sagan.data.builtin.open import open_built_in


def test_other_sources_are_not_built_in():
    assert open_built_in(DataConfig(source="images"), resolution=8, image_channels=3) is None


def test_nothing_large_is_imported_before_it_is_needed():
    """`sagan.data` must start quickly: a package for one kind of source is imported when such a source is opened."""
    code = "import sys, sagan.data; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "sagan.data.store" in modules
    assert not {"datasets", "fsspec", "huggingface_hub", "matplotlib", "robohash", "scipy", "sklearn"} & set(modules)
