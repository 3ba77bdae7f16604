"""What is listed of shards: with an index, without one, from the cache, and when they lie."""

import hashlib
import json
import re

import numpy as np
import pytest

from helpers.shards import add, load, numbers, write_shards
from sagan.config import DataConfig
from sagan.data import Batches
from sagan.data.shards import tables
from sagan.data.shards.listing import is_shards
from sagan.data.shards.pack import pack
from sagan.errors import UserError

pytestmark = pytest.mark.usefixtures("small_pieces")


def test_what_is_taken_for_shards(tmp_path, made, tree, png):
    for name in (
        "a/b-{000..003}.tar",
        "x.tar",
        "s3://bucket/x-{0..1}.tar",
        "http://host/folder",
        "x.tar.gz",
        str(made),
    ):
        assert is_shards(name), name
    for name in ("images", "images.zip", "hf:user/name", "robots", str(tree({"a/1.png": png(1), "x.tar": b""}))):
        assert not is_shards(name), name


def test_the_key_names_the_content(tmp_path, made, png):
    import shutil

    shutil.copytree(made, tmp_path / "copy")
    assert load(made).key == load(tmp_path / "copy").key
    assert load(made, labels=False).key != load(made).key
    write_shards(tmp_path / "copy", [png(999, side=9)], 1, labels=[0], name="set-000005")
    assert load(tmp_path / "copy").key != load(made).key


@pytest.mark.parametrize("what", ["size", "checksum", "row", "json", "name", "label", "empty"])
def test_an_index_that_lies(tmp_path, made, what):
    folder = tmp_path / "ours"
    pack(DataConfig(source=str(made)), folder, shard_size=30_000, resolution=8, image_channels=3, progress=False)
    index = json.loads((folder / "index.json").read_text())
    if what == "size":
        with (folder / "ours-000000.tar").open("ab") as file:
            file.write(b"x")
    elif what in ("checksum", "row", "label"):
        rows = np.load(folder / "index.npy")
        if what == "row":
            rows["size"][3] = 2**40
        elif what == "label":
            rows["label"][3] = 77
        else:
            rows["sides"][3] = 1
        np.save(folder / "index.npy", rows)
        if what != "checksum":
            index["table_sha256"] = hashlib.sha256((folder / "index.npy").read_bytes()).hexdigest()
    elif what == "name":
        index["shards"][0]["name"] = "../other.tar"
    elif what == "empty":
        index["shards"] = []
    (folder / "index.json").write_text(json.dumps(index)[: 100 if what == "json" else None])
    with pytest.raises(UserError, match=re.escape(str(folder))):
        load(folder)


def test_without_labels_and_without_some(tmp_path, png):
    folder = tmp_path / "some"
    write_shards(folder, [png(i) for i in range(6)], 6)
    assert load(folder).class_names == ()
    write_shards(folder, [png(i) for i in range(6)], 6, labels=[0, 4, 0, 0, 0, 0], name="more")
    store = load(folder)
    assert store.class_names == ("0", "4")
    assert store.labels.tolist() == [0, 1, 0, 0, 0, 0]
    assert len(store) == 6
    assert re.search(r"\b1, 2, 3$", store.skipped[0].reason)
    assert re.search(r"\b6\b.*\.cls\b", store.skipped[1].reason)
    assert len(load(folder, labels=False)) == 12


def test_a_damaged_table_in_the_cache_is_written_again(made):
    store = load(made)
    labels = store.labels.tolist()
    store.path.write_bytes(b"nonsense")
    assert load(made).labels.tolist() == labels


def test_headers_are_read_once(made, monkeypatch):
    load(made)

    def forbid(*_):
        raise AssertionError("headers were read again")

    monkeypatch.setattr(tables, "scan", forbid)
    load(made)
    with (made / "set-000002.tar").open("ab") as file:
        file.write(b"\0" * 512)
    with pytest.raises(AssertionError, match="again"):
        load(made)


def test_compressed_and_foreign(tmp_path, png):
    import gzip

    write_shards(tmp_path, [png(1)], 1)
    bomb = tmp_path / "bomb.tar.gz"
    bomb.write_bytes(gzip.compress(bytes(10**7)))
    for path, message in ((bomb, r"bomb\.tar\.gz\b.*\bgzip\b"), (tmp_path / "no.tar", r"no\.tar\b")):
        if not path.exists():
            path.write_bytes(b"This is no tar file. " * 100)
        with pytest.raises(UserError, match=message):
            load(path)


def test_nothing_in_it(tmp_path):
    import tarfile

    with tarfile.open(tmp_path / "empty.tar", "w") as tar:
        add(tar, "readme.txt", b"hello")
    with pytest.raises(UserError, match=r"empty\.tar\b"):
        load(tmp_path / "empty.tar")


def test_a_part_of_the_shards_trains_the_classes_that_it_has(tmp_path, png):
    files = {f"{k}/{i}.png": png(100 * k + i) for k in range(3) for i in range(4)}
    for name, data in files.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    pack(DataConfig(str(tmp_path / "in")), tmp_path / "out", shard_size=1, resolution=8, image_channels=3)
    first = load(tmp_path / "out" / "out-000000.tar")
    (number,) = numbers(first.load_images(np.arange(1)))
    assert first.class_names == (str(number // 100),)
    assert first.labels.tolist() == [0]
    assert re.search(r"\b2 classes\b", first.skipped[0].name)
    assert first.key != load(tmp_path / "out").key
    assert load(tmp_path / "out").class_names == ("0", "1", "2")
    assert not load(tmp_path / "out").skipped


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("packed", [False, True])
def test_a_changed_table_in_the_cache_is_written_again(tmp_path, png, made, packed):
    source = made
    if packed:
        source = tmp_path / "packed"
        pack(DataConfig(str(made)), source, shard_size=4000, resolution=8, image_channels=3)
    table = np.array(load(source).images.shards.table)
    for at in np.linspace(0, load(source).path.stat().st_size - 1, 30).astype(int).tolist():
        flip(load(source).path, at)
        np.testing.assert_array_equal(load(source).images.shards.table, table)


def test_a_changed_scan_in_the_cache_is_made_again(made, cache):
    table = np.array(load(made).images.shards.table)
    scan = next((cache / "shards" / "scans").iterdir())
    for at in range(0, scan.stat().st_size, 37):
        flip(scan, at)
        load(made).path.unlink()
        np.testing.assert_array_equal(load(made).images.shards.table, table)


def test_a_table_that_is_truncated_while_it_is_used(made):
    store = load(made)
    batches = Batches(store, 4, seed=0, flips=False)
    expected = numbers(batches(1)[0])
    store.path.write_bytes(b"")  # a mapped file would now end the process
    assert numbers(batches(1)[0]) == expected


@pytest.mark.parametrize("name", ["x[1]", "x{1,2}", "x{0..3}", "x*"])
def test_brackets_in_the_name_of_a_folder(tmp_path, png, name):
    write_shards(tmp_path / name, [png(i) for i in range(6)], 2, name="s[0]")
    for pattern in ("", "/s[0]-000000.tar", "/*.tar", "/s[[]0]-00000[0-2].tar"):
        assert len(load(str(tmp_path / name) + pattern)) == (2 if pattern == "/s[0]-000000.tar" else 6)
    assert is_shards(str(tmp_path / name))
