"""The built-in set of twins: two copies of the robots' own images."""

import numpy as np
import pytest

from sagan.config import DataConfig
from sagan.data import prepare
from sagan.data.builtin import robots, twins
from sagan.errors import UserError


@pytest.fixture
def few_parts(monkeypatch):
    """Two parts a layer: enough to test what is done with them."""
    layer_files = robots.layer_files
    monkeypatch.setattr(
        robots, "layer_files", lambda name: [[layer[:2] for layer in variant] for variant in layer_files(name)[:2]]
    )


@pytest.mark.parametrize(("channels", "empty"), [(1, [142]), (3, [10, 200, 190]), (4, [0, 0, 0, 0])])
def test_two_copies_of_a_robot_and_nothing_else(few_parts, channels, empty):
    background = (10, 200, 190)
    config = DataConfig(source="twins", robots=23, background=background)
    store = prepare(config, resolution=32, image_channels=channels, progress=False)
    small, labels = robots.render(23, 16, channels, 0, background)
    np.testing.assert_array_equal(store.images[:, :16, :16], small)
    np.testing.assert_array_equal(store.images[:, 16:, 16:], small)
    assert (store.images[:, :16, 16:] == empty).all()
    assert (store.images[:, 16:, :16] == empty).all()
    np.testing.assert_array_equal(store.labels, labels)
    assert store.class_names == robots.CLASS_NAMES
    assert store.source == "twins"
    assert len(np.unique(np.asarray(store.images).reshape(23, -1), axis=0)) > 15  # they differ from one another


def test_is_a_store_of_its_own(few_parts):
    keys = {
        prepare(DataConfig(source=name, robots=3), resolution=16, image_channels=3, progress=False).key
        for name in ("robots", "twins")
    }
    assert len(keys) == 2


@pytest.mark.parametrize("resolution", [1, 2, 33])
def test_every_side(few_parts, resolution):
    ((images, _),) = twins.render_batches(5, resolution, 3, seed=0)
    assert images.shape == (5, resolution, resolution, 3)
    upper, lower = twins.copies(images)
    np.testing.assert_array_equal(upper, lower)
    assert upper.shape[1] == twins.copy_side(resolution)


def test_number_of_twins():
    with pytest.raises(UserError, match=r"robots\b.*\b0\b"):
        prepare(DataConfig(source="twins", robots=0), resolution=8, image_channels=3)


def test_the_command_knows_them(few_parts, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, output, _ = command("data", "twins", "--resolution", 32, "--out", "sheet.png")
    assert status == 0
    assert "robot heads" in output
    assert (tmp_path / "sheet.png").exists()
    status, _, errors = command("data", "twin")
    assert status == 2
    assert "did you mean 'twins'" in errors
