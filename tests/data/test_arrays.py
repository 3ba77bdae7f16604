"""A .npz of images as a source."""

import numpy as np
import pytest

from sagan.config import DataConfig
from sagan.data import prepare
from sagan.data.sources import open_source
from sagan.errors import UserError


def images(channels=3, count=6, side=8):
    shape = (count, side, side) if channels == 0 else (count, side, side, channels)
    return np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)


def load(path, channels=3, **options):
    return prepare(DataConfig(source=str(path), **options), resolution=8, image_channels=channels, progress=False)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_images_and_labels(tmp_path, save):
    save(tmp_path / "x.npz", images=images(), labels=np.array([0, 2, 2, 0, 3, 0]))
    store = load(tmp_path / "x.npz")
    assert (np.asarray(store.images) == images()).all()
    assert store.class_names == ("0", "2", "3")  # class 1 has no images
    assert store.labels.tolist() == [0, 1, 1, 0, 2, 0]
    assert load(tmp_path / "x.npz", labels=False).class_names == ()


@pytest.mark.parametrize(("channels", "stored"), [(0, 1), (1, 1), (3, 3), (4, 4)])
def test_grey_and_alpha(tmp_path, channels, stored):
    pixels = images(channels)
    if channels == 4:
        pixels[..., 3] = 255  # colours under transparency are not kept
    np.savez(tmp_path / "x.npz", pixels)  # arr_0
    store = load(tmp_path / "x.npz", stored)
    assert (np.asarray(store.images) == pixels.reshape(6, 8, 8, stored)).all()
    assert store.class_names == ()


def test_labels_of_a_generator_without_classes(tmp_path):
    np.savez(tmp_path / "x.npz", images=images(), labels=np.zeros(6, np.int64))
    assert load(tmp_path / "x.npz").class_names == ()


def test_other_content_is_another_store(tmp_path):
    np.savez(tmp_path / "x.npz", images=images())
    first = load(tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", images=images()[::-1], labels=np.arange(6))
    assert load(tmp_path / "x.npz").key != first.key


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"pixels": images()}, "no array 'images' (its arrays: pixels)"),
        ({"mu": np.zeros(4), "sigma": np.eye(4)}, "statistics (mu, sigma), not images"),
        ({"images": images().astype(np.float32)}, "float32 of shape [6, 8, 8, 3]"),
        ({"images": images().transpose(0, 3, 1, 2)}, "uint8 of shape [6, 3, 8, 8]"),
        ({"images": images()[:0]}, "shape [0, 8, 8, 3]"),
        ({"images": images()[0, 0]}, "shape [8, 3]"),
        ({"images": images(), "labels": np.arange(5)}, "int64 of shape [5]"),
        ({"images": images(), "labels": np.arange(6.0)}, "float64 of shape [6]"),
        ({"images": images(), "labels": np.arange(6) - 1}, "from -1 to 4"),
        ({"images": images(), "labels": np.arange(6) * 10**9}, "from 0 to 5000000000"),
        ({"images": np.zeros((2, 1, 100_000_001), np.uint8)}, "100 megapixels"),
    ],
)
def test_what_is_not_images_is_refused_in_a_line(tmp_path, arrays, words):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(UserError) as error:
        open_source(str(tmp_path / "x.npz"), labels=True)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_damage_leaves_no_store(tmp_path, cache):
    np.savez(tmp_path / "x.npz", images=images())
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[data.index(images()[5].tobytes())] ^= 1
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(UserError, match=r"x\.npz is damaged"):
        load(tmp_path / "x.npz")
    assert not list((cache / "stores").iterdir())
