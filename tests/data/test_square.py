"""Images made square: the central part, or all of it and padding; and images of phones."""

import io
import sys

import numpy as np
import pytest
from PIL import Image, features

from sagan.config import DataConfig
from sagan.data import prepare
from sagan.data.decode import Unreadable, decode
from sagan.data.shards.pack import pack
from sagan.errors import UserError

BACKGROUND = (10, 200, 30)


def encode(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def square(image, channels=3, side=8, kind="PNG", **options):
    data = image if isinstance(image, bytes) else encode(image, kind)
    return decode(data, resolution=side, image_channels=channels, background=BACKGROUND, **{"crop": "pad", **options})[
        0
    ]


@pytest.mark.parametrize("size", [(16, 8), (8, 16)])
def test_all_of_the_image_is_in_the_middle_of_the_background(size):
    image = square(Image.new("RGB", size, "red"))
    inside = np.zeros((8, 8), bool)
    inside[(slice(2, 6), slice(None)) if size[0] > size[1] else (slice(None), slice(2, 6))] = True
    assert (image[inside] == (255, 0, 0)).all()
    assert (image[~inside] == BACKGROUND).all()


def test_one_and_four_channels():
    wide = Image.new("RGB", (16, 8), "white")
    grey = square(wide, 1)[..., 0]
    assert (grey[2:6] == 255).all()
    assert (grey[[0, 1, 6, 7]] == round(0.299 * 10 + 0.587 * 200 + 0.114 * 30)).all()
    alpha = square(wide, 4)
    assert (alpha[2:6] == 255).all()
    assert (alpha[[0, 1, 6, 7]] == 0).all()


def test_a_square_image_is_the_same_either_way():
    image = Image.fromarray(np.random.default_rng(0).integers(256, size=(40, 40, 3), dtype=np.uint8))
    for channels in (1, 3, 4):
        assert (square(image, channels) == square(image, channels, crop="centre")).all()


def test_a_line_of_pixels_and_an_orientation():
    assert (square(Image.new("RGB", (100, 1), "red"))[3] == (255, 0, 0)).all()
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    tall = square(encode(Image.new("RGB", (16, 8), "red"), exif=exif))
    assert (tall[:, 2:6] == (255, 0, 0)).all()
    assert (tall[:, :2] == BACKGROUND).all()


def load(source, crop="pad", **options):
    config = DataConfig(str(source), background=BACKGROUND, crop=crop)
    return prepare(config, resolution=8, image_channels=3, progress=False, **options)


def test_it_is_part_of_the_key(tree):
    root = tree({f"{i}.png": encode(Image.new("RGB", (16, 8), (i, i, i))) for i in range(3)})
    padded, centred = load(root), load(root, "centre")
    assert padded.key != centred.key
    assert (padded.images[0][0] == BACKGROUND).all()
    assert (centred.images[0] == 0).all()
    assert load(root).key == padded.key


def test_shards(tree, tmp_path):
    root = tree({f"{i}.png": encode(Image.new("RGB", (16, 8), (i, i, i))) for i in range(3)})
    pack(DataConfig(str(root)), tmp_path / "shards", shard_size=10**6, resolution=8, image_channels=3)
    assert (load(tmp_path / "shards").images[0][0] == BACKGROUND).all()
    assert load(tmp_path / "shards").key != load(tmp_path / "shards", "centre").key


PHOTO = Image.linear_gradient("L").convert("RGB").resize((64, 48))


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow does not read AVIF")
def test_avif(tree, tmp_path):
    data = encode(PHOTO, "AVIF", quality=95)
    exact = np.asarray(PHOTO.crop((8, 0, 56, 48)))
    assert np.abs(square(data, side=48, crop="centre").astype(int) - exact).max() < 12
    root = tree({"1.avif": data, "2.AVIF": data, "3.jpg": data})
    store = load(root)
    assert len(store) == 3
    assert not store.skipped
    assert store.sizes.tolist() == [[64, 48]] * 3
    pack(DataConfig(str(root)), tmp_path / "shards", shard_size=10**6, resolution=8, image_channels=3)
    assert len(load(tmp_path / "shards")) == 3
    with pytest.raises(Unreadable, match="truncated or damaged"):
        square(data[: len(data) // 2])


def test_avif_that_this_pillow_does_not_read(tree, monkeypatch):
    monkeypatch.setattr(features, "check", lambda name: False)
    start = b"\0\0\0\x1cftypavif\0\0\0\0avifmif1"
    with pytest.raises(Unreadable, match=r"AVIF.*pip install"):
        square(start)
    store = load(tree({"1.avif": start, "2.png": encode(PHOTO), "3.jpg": start}))
    assert [one.name for one in store.skipped] == ["1.avif", "3.jpg"]
    assert any("pip install" in note for note in store.notes)


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def test_heic_without_the_extra(tree, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Unreadable, match=r"HEIC.*sagan-torch\[heic\]"):
        square(HEIC)
    store = load(tree({"1.heic": HEIC, "2.HEIF": HEIC, "3.png": encode(PHOTO), "4.jpg": HEIC}))
    assert [one.name for one in store.skipped] == ["1.heic", "2.HEIF", "4.jpg"]
    assert any(note.startswith("2 HEIC") and "sagan-torch[heic]" in note for note in store.notes)
    with pytest.raises(UserError, match=r"sagan-torch\[heic\]"):
        load(tree({"1.heic": HEIC}, "phone"))


def test_heic(tree, monkeypatch):
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    data = encode(PHOTO, "HEIF", quality=95)
    exact = np.asarray(PHOTO.crop((8, 0, 56, 48)))
    assert np.abs(square(data, side=48, crop="centre").astype(int) - exact).max() < 12
    files = {"1.heic": data, "2.jpg": data, "3.png": encode(PHOTO)}
    with monkeypatch.context() as without:
        without.setattr("importlib.util.find_spec", lambda name: None)
        before = load(tree(files))
    after = load(tree(files))  # the index must not remember what could not be read
    assert (len(before), len(after)) == (1, 3)
    assert before.key != after.key
    hidden = tree({"1.jpg": data, "2.png": encode(PHOTO)}, "hidden")
    with monkeypatch.context() as without:
        without.setattr("importlib.util.find_spec", lambda name: None)
        assert len(load(hidden)) == 1
    assert len(load(hidden)) == 2
    with pytest.raises(Unreadable, match="truncated or damaged"):
        square(data[: len(data) // 2])
