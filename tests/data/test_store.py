"""The store is made once, whole or not at all, and opens unread."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image

from sagan.config import DataConfig
from sagan.data import prepare
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
    """From the call on, reading an image fails the test."""

    def forbid():
        def decode(*_args, **_options):
            raise AssertionError("a picture was decoded again")

        monkeypatch.setattr(store_module, "decode", decode)

    return forbid


def test_layout(root, cache):
    store = load(root)
    assert store.path == cache / "stores" / store.key
    assert sorted(path.name for path in store.path.iterdir()) == ["images.npy", "labels.npy", "meta.json"]
    assert isinstance(store.images, np.memmap)
    assert not store.images.flags.writeable
    assert store.images.shape == (12, 8, 8, 3)
    assert store.labels.dtype == np.int64
    assert len(store) == 12
    assert [path.name for path in (cache / "stores").iterdir()] == [store.key]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_are_those_of_plain_pillow(tmp_path, channels):
    (tmp_path / "set").mkdir()
    picture = Image.fromarray(np.random.default_rng(0).integers(256, size=(50, 50, 3), dtype=np.uint8))
    picture.save(tmp_path / "set" / "a.png")
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    expected = np.asarray(picture.resize((20, 20), Image.Resampling.LANCZOS).convert(mode)).reshape(20, 20, channels)
    assert abs(load(tmp_path / "set", 20, channels).images[0].astype(int) - expected).max() <= 1


def test_the_second_time_nothing_is_read(root, unread):
    first = load(root)
    (root / "a" / "notes.txt").write_text("no picture: no matter")
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


@pytest.mark.parametrize("damage", ["images.npy", "labels.npy", "meta.json"])
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
    add = store_module._Writer.add

    def stop(self, image, label, name, size):
        if name == "b/2.png":
            raise error
        add(self, image, label, name, size)

    monkeypatch.setattr(store_module._Writer, "add", stop)
    with pytest.raises(error):
        load(root)
    assert not list((cache / "stores").iterdir())
    assert not list((cache / "index").iterdir())


def test_what_a_killed_process_left_is_swept(root, cache):
    script = f"""
        import os, signal
        from sagan.config import DataConfig
        from sagan.data import prepare, store
        def add(self, *picture):
            os.kill(os.getpid(), signal.SIGKILL)
        store._Writer.add = add
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
        from sagan.data import prepare
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

    monkeypatch.setattr(store_module._Writer, "add", add)
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
