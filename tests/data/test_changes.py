"""What is said of a source that is no longer what it was."""

import shutil

from sagan.config import DataConfig
from sagan.data import prepare
from sagan.data.diff import what_changed


def load(source):
    return prepare(DataConfig(source=str(source)), resolution=8, image_channels=3, progress=False)


def test_each_kind_of_change_is_named(tree, png, cache):
    root = tree({f"{name}/{i}.png": png(100 * k + i) for k, name in enumerate("ab") for i in range(3)})
    before = load(root)
    (root / "a" / "0.png").unlink()
    (root / "a" / "1.png").unlink()
    (root / "b" / "2.png").write_bytes(png(250))
    (root / "b" / "new.png").write_bytes(png(7))
    now = load(root)
    assert what_changed(before.key, now) == "gone: a/0.png and 1 more; new: b/new.png; changed: b/2.png"
    shutil.move(root / "a", root / "c")
    assert "2 classes then, 2 now, or other names" in what_changed(before.key, load(root))
    shutil.rmtree(cache / "stores" / before.key)
    assert what_changed(before.key, now) == "now 5 pictures; what it was is not in the cache"
    assert "not in the cache" in what_changed("../../etc", now)


def test_only_what_was_left_out_differs(tree, png):
    root = tree({f"{i}.png": png(i) for i in range(3)})
    before = load(root)
    (root / "bad.png").write_bytes(b"no picture")
    assert what_changed(before.key, load(root)) == "the same pictures in other files, or other pictures left out"
