"""The built-in set of digits against scikit-learn's own numbers."""

import numpy as np
import pytest

from sagan.config import DataConfig
from sagan.data import prepare
from sagan.data.builtin import digits
from sagan.errors import UserError


@pytest.fixture
def scans():
    return pytest.importorskip("sklearn.datasets").load_digits()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_at_their_own_size(scans, channels):
    store = prepare(DataConfig(source="digits"), resolution=8, image_channels=channels, progress=False)
    np.testing.assert_array_equal(store.labels, scans.target)
    assert store.class_names == tuple("0123456789")
    assert len(store) == digits.COUNT
    for channel in range(min(channels, 3)):
        assert abs(store.images[..., channel] - scans.images * 255 / 16).max() <= 0.51
    if channels == 4:
        assert (store.images[..., 3] == 255).all()


def test_enlarged(scans):
    store = prepare(DataConfig(source="digits"), resolution=32, image_channels=1, progress=False)
    small = np.asarray(store.images).reshape(-1, 8, 4, 8, 4).mean((2, 4))
    assert abs(small - scans.images * 255 / 16).mean() < 12
    assert store.sizes.tolist() == [[8, 8]] * digits.COUNT


def test_not_installed(monkeypatch):
    def version(name):
        raise digits.metadata.PackageNotFoundError

    monkeypatch.setattr(digits.metadata, "version", version)
    with pytest.raises(UserError, match=r"pip install 'sagan-torch\[digits\]'"):
        prepare(DataConfig(source="digits"), resolution=8, image_channels=1)
