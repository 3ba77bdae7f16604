"""What is said of a source that is no longer what it was."""

import re
import shutil

from sagan.config import DataConfig
from sagan.data import prepare
from sagan.data.changes import what_changed


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
    assert re.fullmatch(
        r".*\ba/0\.png\b.*\b1 more\b.*\bnew: b/new\.png\b.*\bchanged: b/2\.png", what_changed(before.key, now)
    )
    shutil.move(root / "a", root / "c")
    assert re.search(r"\b2 classes\b.*\b2\b", what_changed(before.key, load(root)))
    shutil.rmtree(cache / "stores" / before.key)
    assert re.search(r"\b5\b.*\bcache\b", what_changed(before.key, now))
    assert re.search(r"\b5\b.*\bcache\b", what_changed("../../etc", now))


def test_only_what_was_skipped_differs(tree, png):
    root = tree({f"{i}.png": png(i) for i in range(3)})
    before = load(root)
    (root / "bad.png").write_bytes(b"no picture")
    assert not re.search(r"\d|\.png", what_changed(before.key, load(root)))
