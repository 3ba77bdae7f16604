"""The description of a source that has changed."""

import re
import shutil

from helpers.sources import load
from sagan.data.diff import describe_changes, is_unchanged, note_on_changes


def test_each_kind_of_change_is_named(tree, png, cache):
    root = tree({f"{name}/{i}.png": png(100 * k + i) for k, name in enumerate("ab") for i in range(3)})
    before = load(root)
    (root / "a" / "0.png").unlink()
    (root / "a" / "1.png").unlink()
    (root / "b" / "2.png").write_bytes(png(250))
    (root / "b" / "new.png").write_bytes(png(7))
    now = load(root)
    assert re.fullmatch(
        r".*\ba/0\.png\b.*\b1 more\b.*\bnew: b/new\.png\b.*\bchanged: b/2\.png", describe_changes(before.key, now)
    )
    shutil.move(root / "a", root / "c")
    assert re.search(r"\b2 classes\b.*\b2\b", describe_changes(before.key, load(root)))
    shutil.rmtree(cache / "stores" / before.key)
    assert re.search(r"\b5\b.*\bcache\b", describe_changes(before.key, now))
    assert re.search(r"\b5\b.*\bcache\b", describe_changes("../../etc", now))


def test_only_what_was_skipped_differs(tree, png):
    root = tree({f"{i}.png": png(i) for i in range(3)})
    before = load(root)
    (root / "bad.png").write_bytes(b"not an image")
    assert not re.search(r"\d|\.png", describe_changes(before.key, load(root)))


def test_the_same_images_next_to_other_things_are_unchanged(tree, png, cache):
    root = tree({f"{name}/{i}.png": png(100 * k + i) for k, name in enumerate("ab") for i in range(3)})
    before = load(root)
    assert is_unchanged(before.key, before)
    (root / "c").mkdir()
    (root / "b" / "broken.png").write_bytes(b"x")
    now = load(root)
    assert now.key != before.key
    assert is_unchanged(before.key, now)
    assert note_on_changes(before.key, now) is None
    assert not is_unchanged("0" * 64, now)

    # An image, an order, a label or a name of a class that differs is a change.
    for change in ("image", "order", "label", "class"):
        other = root.with_name(change)
        shutil.copytree(root, other)
        if change == "image":
            (other / "a" / "1.png").write_bytes(png(9))
        elif change == "order":
            (other / "a" / "1.png").rename(other / "a" / "9.png")
        elif change == "label":
            (other / "a" / "2.png").rename(other / "b" / "!.png")
        else:
            (other / "a").rename(other / "aa")
        changed = load(other)
        assert not is_unchanged(before.key, changed), change
    shutil.rmtree(cache / "stores" / before.key)
    assert not is_unchanged(before.key, now)  # nothing to compare with
