"""The store is packed once, completely or not at all, and opens without reading the source."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
import unicodedata

import numpy as np
import pytest
from PIL import Image

from sagan.config import DataConfig
from sagan.data import Batches, Unavailable, packing, prepare
from sagan.data import store as store_module
from sagan.errors import UserError


def load(source, resolution=8, channels=3, **options):
    return prepare(
        DataConfig(source=str(source), **options), resolution=resolution, image_channels=channels, progress=False
    )


@pytest.fixture
def root(tree, png):
    return tree({f"{name}/{i}.png": png(100 * k + i) for k, name in enumerate("ab") for i in range(6)})


@pytest.fixture
def unread(monkeypatch):
    """From this call on, decoding an image fails the test."""

    def forbid():
        def decode(*_args, **_options):
            raise AssertionError("an image was decoded again")

        monkeypatch.setattr(packing, "decode", decode)

    return forbid


def test_layout(root, cache):
    store = load(root)
    assert store.path == cache / "stores" / store.key
    assert sorted(path.name for path in store.path.iterdir()) == [
        "checksums.npy",
        "images.npy",
        "labels.npy",
        "meta.json",
    ]
    assert store.images.shape == (12, 8, 8, 3)
    assert store.labels.dtype == np.int64
    assert len(store) == 12
    assert [path.name for path in (cache / "stores").iterdir()] == [store.key]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_are_those_of_plain_pillow(tmp_path, channels):
    (tmp_path / "set").mkdir()
    image = Image.fromarray(np.random.default_rng(0).integers(256, size=(50, 50, 3), dtype=np.uint8))
    image.save(tmp_path / "set" / "a.png")
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    expected = np.asarray(image.resize((20, 20), Image.Resampling.LANCZOS).convert(mode)).reshape(20, 20, channels)
    assert abs(load(tmp_path / "set", 20, channels).images[0].astype(int) - expected).max() <= 1


def test_the_second_time_nothing_is_read(root, unread):
    first = load(root)
    (root / "a" / "notes.txt").write_text("not an image: ignored")
    unread()
    second = load(root)
    assert second.key == first.key
    np.testing.assert_array_equal(second.images, first.images)
    assert (second.names, second.class_names) == (first.names, first.class_names)


def test_the_key_is_the_content(root, tree, png):
    key = load(root).key
    copy = tree({f"{name}/{i}.png": png(100 * k + i) for k, name in enumerate("ab") for i in range(6)}, "copy")
    assert load(copy).key == key
    assert load(copy).source == str(copy)
    assert load(root).source == str(root)
    (copy / "a" / "0.png").write_bytes(png(55))
    assert load(copy).key != key
    (copy / "a" / "0.png").write_bytes(png(0))
    assert load(copy).key == key
    (copy / "a" / "0.png").rename(copy / "b" / "9.png")
    assert load(copy).key != key


def test_the_same_in_an_archive(root, tree, png):
    files = {f"{name}/{i}.png": png(100 * k + i) for k, name in enumerate("ab") for i in range(6)}
    assert load(tree(files, zipped=True)).key == load(root).key


def test_options_have_stores_of_their_own(root):
    keys = [
        load(root).key,
        load(root, 4).key,
        load(root, channels=1).key,
        load(root, background=(0, 0, 0)).key,
        load(root, labels=False).key,
    ]
    assert len(set(keys)) == 5


@pytest.mark.parametrize("damage", ["images.npy", "labels.npy", "meta.json", "checksums.npy"])
@pytest.mark.parametrize("how", ["gone", "cut", "nonsense"])
def test_a_damaged_store_is_made_again(root, damage, how, caplog):
    good = load(root)
    expected, victim = np.array(good.images), good.path / damage
    del good
    if how == "gone":
        victim.unlink()
    else:
        victim.write_bytes(victim.read_bytes()[:-40] if how == "cut" else b'{"x": 1}')
    again = load(root)
    np.testing.assert_array_equal(again.images, expected)
    assert "damaged" in caplog.text


def test_a_store_with_objects_in_it_is_not_unpickled(root):
    store = load(root)
    np.save(store.path / "labels.npy", np.array([{"a": 1}] * 12, object), allow_pickle=True)
    assert load(root).labels.dtype == np.int64


def test_a_damaged_index_is_no_matter(root, cache):
    load(root)
    (entry,) = (cache / "index").iterdir()
    for text in ("", "[]", '{"key": "../../x"}', "[" * 100_000):
        entry.write_text(text)
        assert len(load(root)) == 12
    assert len(json.loads(entry.read_text())["key"]) == 64


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_broken_off_in_the_middle_nothing_is_left(root, cache, monkeypatch, error):
    add = store_module.StoreWriter.add

    def stop(self, image, label, name, size):
        if name == "b/2.png":
            raise error
        add(self, image, label, name, size)

    monkeypatch.setattr(store_module.StoreWriter, "add", stop)
    with pytest.raises(error):
        load(root)
    assert not list((cache / "stores").iterdir())
    assert not list((cache / "index").iterdir())


def test_what_a_killed_process_left_is_swept(root, cache):
    script = f"""
        import os, signal
        from sagan.config import DataConfig
        from sagan.data import prepare, store
        def add(self, *image):
            os.kill(os.getpid(), signal.SIGKILL)
        store.StoreWriter.add = add
        prepare(DataConfig(source={str(root)!r}), resolution=8, image_channels=3, progress=False)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list((cache / "stores").glob(".tmp-*"))) == 1
    store = load(root)
    assert [path.name for path in (cache / "stores").iterdir()] == [store.key]


def test_two_at_once(root, cache):
    script = f"""
        import sys
        from sagan.config import DataConfig
        from sagan.data import Batches, prepare
        print("ready", flush=True)
        sys.stdin.readline()
        print(prepare(DataConfig(source={str(root)!r}), resolution=8, image_channels=3, progress=False).key)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    both = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ)
        for _ in range(2)
    ]
    for process in both:
        process.stdout.readline()
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    keys = [process.communicate(timeout=60)[0].strip() for process in both]
    assert keys == [load(root).key] * 2
    assert [path.name for path in (cache / "stores").iterdir()] == keys[:1]


def test_another_was_faster(root, cache, monkeypatch):
    """The store comes into being while this process is still at it: on the first look it is not there yet."""
    first = load(root)
    shutil.rmtree(cache / "index")
    look, looks = store_module._open, []

    def late(*where):
        looks.append(where)
        return look(*where) if len(looks) > 1 else None

    monkeypatch.setattr(store_module, "_open", late)
    assert load(root).key == first.key
    assert len(looks) == 2
    assert [path.name for path in (cache / "stores").iterdir()] == [first.key]


def test_a_full_disk_is_the_users_to_mend(root, cache, monkeypatch):
    def add(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module.StoreWriter, "add", add)
    with pytest.raises(UserError, match=r"No space left on device\b.*--cache\b") as caught:
        load(root)
    assert str(cache) in str(caught.value)
    assert not list((cache / "stores").iterdir())


def test_a_cache_that_cannot_be(root, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--cache"):
        load(root, cache=str(tmp_path / "file" / "cache"))


def test_where_the_cache_is(tmp_path, monkeypatch):
    assert store_module.cache_folder(DataConfig(cache=str(tmp_path / "x"))) == tmp_path / "x"
    assert store_module.cache_folder(DataConfig()) == tmp_path / "cache"
    monkeypatch.delenv("SAGAN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert store_module.cache_folder(DataConfig()) == tmp_path / "xdg" / "sagan"


def test_wrong_options(root):
    with pytest.raises(UserError, match=r"image.channels\b.*\b2\b"):
        load(root, channels=2)
    with pytest.raises(UserError, match=r"background\b.*\b256\b"):
        load(root, background=(0, 0, 256))


def test_nothing_reaches_the_terminal(tree, png, capfd, recwarn):
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {"1.png": png(1), "2.png": b"text", "3.tif": b"II*\0" + bytes(99), "4.jpg": png(1, kind="JPEG")[:-9]}
    load(tree(files))
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def flip(path, at, bit=0):
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "checksums.npy", "meta.json"])
def test_any_flipped_bit_of_a_store_is_found_when_it_is_opened(root, name, caplog):
    good = load(root)
    images, labels, size = np.array(good.images), good.labels, (good.path / name).stat().st_size
    for at in np.linspace(0, size - 1, 40).astype(int).tolist():
        flip(good.path / name, at, at % 8)
        caplog.clear()
        again = load(root)
        # A space in the header of a .npy file may become another character that means nothing.
        assert "damaged" in caplog.text or (name.endswith(".npy") and at < 128)
        np.testing.assert_array_equal(again.images, images)
        np.testing.assert_array_equal(again.labels, labels)
        assert again.class_names == ("a", "b")


def test_all_zeros_are_found(root, caplog):
    store = load(root)
    images, size = np.array(store.images), 12 * 8 * 8 * 3
    with (store.path / "images.npy").open("rb+") as file:
        file.seek(-size, os.SEEK_END)
        file.write(bytes(size))
    np.testing.assert_array_equal(load(root).images, images)
    assert "damaged" in caplog.text


def test_a_change_that_opening_did_not_look_at_is_found_when_the_image_is_read(root, monkeypatch):
    """Opening a large store looks at a few images only."""
    monkeypatch.setattr("sagan.data.packed._MAX_CHECKED", 0)
    monkeypatch.setattr("sagan.data.packed._FEW_CHECKED", 2)
    store = load(root)
    images = np.array(store.images)
    flip(store.path / "images.npy", 128 + 5 * 192 + 7)
    opened = load(root)
    np.testing.assert_array_equal(opened.images[:5], images[:5])
    with pytest.raises(UserError, match=rf"{store.key}\b.*\bimage 5\b.*\bpacked again\b") as caught:
        Batches(opened, 12, seed=0, flips=False)(0)
    assert "\n" not in str(caught.value)
    np.testing.assert_array_equal(load(root).images, images)  # as promised


def test_a_store_that_is_truncated_while_it_is_used(root):
    store = load(root)
    os.truncate(store.path / "images.npy", 500)
    with pytest.raises(Unavailable, match=r"\btruncated\b.*\bpacked again\b"):  # the training loop saves its step then
        store.images[np.array([11])]
    assert len(load(root)) == 12


def test_a_store_of_an_earlier_version_opens(tree, unread, monkeypatch):
    """Without checksums, and with a key that has not changed."""
    monkeypatch.setattr("sagan.data.tree.extra_formats", lambda: ["AVIF"])
    pixels = bytes(range(192))
    bmp = b"BM" + struct.pack("<IIIIiiHHIIiiII", 246, 0, 54, 40, 8, 8, 1, 24, 0, 192, 0, 0, 0, 0) + pixels
    root = tree({"a/1.bmp": bmp, "b/2.bmp": bmp, "b/3.bmp": b"", "b/4.heic": b"", "5.bmp": bmp})
    (root / "c").mkdir()
    store = load(root)
    (store.path / "checksums.npy").unlink()
    meta = json.loads((store.path / "meta.json").read_bytes())
    del meta["crc32"]
    (store.path / "meta.json").write_text(json.dumps(meta))
    unread()
    again = load(root)
    assert again.key == store.key == "3ca28da842fb2731513be0b4bcde494d21069f473f1e96e902e6d89b0310cf6a"
    np.testing.assert_array_equal(again.images, store.images)


def test_a_store_of_an_earlier_version_with_a_class_without_images_is_packed_again(root, cache):
    (root / "bad").mkdir()
    (root / "bad" / "1.png").write_bytes(b"")
    store = load(root)
    old = cache / "stores" / ("0" * 64)
    shutil.copytree(store.path, old)
    (old / "checksums.npy").unlink()
    meta = json.loads((old / "meta.json").read_bytes())
    del meta["crc32"]
    (old / "meta.json").write_text(json.dumps({**meta, "class_names": ["a", "b", "bad"]}))
    (entry,) = (cache / "index").iterdir()
    entry.write_text(json.dumps({"key": "0" * 64}))
    assert load(root).key == store.key
    assert load(root).class_names == ("a", "b")


def test_indexing_is_that_of_an_array(root):
    images = load(root).images
    array = np.array(images)
    assert array.shape == images.shape == (12, 8, 8, 3)
    positions = np.array([3, 4, 5, 0, 11, 11])
    for index in (0, -1, slice(2, 9, 3), slice(None, None, -1), positions, [1, 2], array[:, 0, 0, 0] % 2 == 0):
        np.testing.assert_array_equal(images[index], array[index])
    np.testing.assert_array_equal(images[..., 1], array[..., 1])
    np.testing.assert_array_equal(images[positions, 2:4], array[positions, 2:4])
    np.testing.assert_array_equal(images[3, 4], array[3, 4])
    for outside in (12, -13, [12]):
        with pytest.raises(IndexError):
            images[outside]


def test_no_home(root, monkeypatch):
    monkeypatch.delenv("SAGAN_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # no HOME, and a user id without a name
    with pytest.raises(UserError, match=r"\bhome\b.*--cache\b"):
        load(root)


def test_class_names_in_either_form_are_one(tree, png):
    names = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    stores = [
        load(tree({f"{name}/1.png": png(1), "b/2.png": png(2)}, form)) for name, form in zip(names, "xy", strict=True)
    ]
    assert [store.class_names for store in stores] == [("b", names[0])] * 2
    both = load(tree({f"{name}/1.png": png(1) for name in names}, "both"))
    assert set(both.class_names) == set(names)


def test_classes_in_another_order(root):
    store = load(root)
    other = store.with_classes(("b", "a"))
    assert other.class_names == ("b", "a")
    assert other.labels.tolist() == [1 - label for label in store.labels]
    assert store.with_classes(("a", "c")) is store
