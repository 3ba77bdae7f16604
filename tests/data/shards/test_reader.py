"""Shards train as the packed store does: every image once an epoch, in an order that needs no state."""

import hashlib
import json
import re
import tracemalloc

import numpy as np
import pytest

from helpers.shards import add, write_shards
from sagan.config import DataConfig
from sagan.data import Batches, prepare
from sagan.data.shards import reader, remote
from sagan.data.shards.pack import pack
from sagan.data.shards.reader import ShardOrder, decode_threads, is_shards
from sagan.errors import UserError


def load(source, resolution=8, **options):
    config = DataConfig(source=str(source), **options)
    return prepare(config, resolution=resolution, image_channels=3, progress=False)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(reader, "PIECE", 8000)  # about four images and what is between them
    monkeypatch.setattr(remote, "WAITS", (0.01, 0.01))


def numbers(images):
    """The images' numbers, by their colours."""
    return (images[:, 0, 0, 0].int() + 256 * images[:, 1, 0, 0].int()).tolist()


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


@pytest.mark.parametrize("batch_size", [7, 45, 200])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_epoch_has_every_image_once(made, batch_size, count):
    store, batch_size = load(made), batch_size * count
    parts = [Batches(store, batch_size, seed=3, flips=True, rank=r, count=count) for r in range(count)]
    seen = []
    for index in range(-(-180 // batch_size)):
        together = np.zeros(batch_size, np.int64)
        for rank, part in enumerate(parts):
            images, labels = part(index)
            together[rank::count] = numbers(images)
            assert [number % 3 for number in numbers(images)] == labels.tolist()
        seen += together.tolist()
    for epoch in range(2):
        assert sorted(seen[90 * epoch : 90 * (epoch + 1)]) == list(range(90))


def test_processes_share_the_batch_of_one(made):
    store = load(made)
    one = Batches(store, 24, seed=1, flips=True)
    parts = [Batches(store, 24, seed=1, flips=True, rank=r, count=4) for r in range(4)]
    for index in (0, 7, 1):
        images, labels = one(index)
        for rank, part in enumerate(parts):
            assert (part(index)[0] == images[rank::4]).all()
            assert (part(index)[1] == labels[rank::4]).all()


def test_processes_read_pieces_of_their_own(tmp_path, png):
    """Of two processes each reads about half of the bytes, not all of them."""
    write_shards(tmp_path / "many", [png(i) for i in range(509)], 64)
    store = load(tmp_path / "many")
    pieces = []
    for rank in range(2):
        batches = Batches(store, 32, seed=0, flips=False, rank=rank, count=2)
        positions = np.concatenate([batches.positions(index)[batches.share] for index in range(509 // 32)])
        pieces.append(set(np.searchsorted(store.images._firsts, positions, side="right").tolist()))
    assert len(pieces[0] & pieces[1]) <= reader.LANES  # where a lane ends within a piece
    assert len(pieces[0] | pieces[1]) > 5 * reader.LANES


@pytest.mark.parametrize("counts", [[1], [5, 3], [1] * 40, [9, 1, 30, 2], [4] * 16])
def test_an_order_is_a_permutation_and_arithmetic(counts):
    counts = np.array(counts)
    firsts = np.cumsum(counts) - counts

    def order(seed):
        return ShardOrder(
            firsts,
            counts,
            lambda *key, count: np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)).random_raw(count),
        )

    count = counts.sum()
    whole = order(0)[np.arange(count)]
    assert sorted(whole) == list(range(count))
    for place in np.random.default_rng(0).integers(count, size=20):
        assert order(0)[np.array([place])] == whole[place]
    if count > 8:
        assert (order(1)[np.arange(count)] != whole).any()


def test_the_order_never_changes(made):
    """A run that is resumed with another NumPy or on another machine must see the same images."""
    chosen = Batches(load(made), 10, seed=1, flips=False).positions(0).tolist()
    assert chosen == ORDER


ORDER = [6, 11, 80, 59, 60, 85, 71, 3, 51, 15]


@pytest.mark.parametrize(("processes", "threads"), [(None, 8), ("2", 4), ("3", 2), ("16", 1)])
def test_processes_of_a_machine_share_its_cores(monkeypatch, processes, threads):
    monkeypatch.setattr(reader.os, "cpu_count", lambda: 8)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if processes:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    assert decode_threads() == threads


def test_a_batch_mixes_pieces(made):
    store = load(made)
    chosen = Batches(store, 16, seed=0, flips=False).positions(0)
    pieces = np.searchsorted(store.images._firsts, chosen, side="right")
    assert len(set(pieces.tolist())) >= 12  # of 16 lanes


def test_any_batch_at_any_time_and_little_is_held(made):
    store = load(made)
    first = Batches(store, 6, seed=5, flips=True)
    in_order = [first(i) for i in range(30)]
    assert len(store.images._pieces) <= 2 * reader.LANES
    for i in (29, 0, 7, 8, 3, 3):
        for again in (first, Batches(load(made), 6, seed=5, flips=True)):
            assert all((a == b).all() for a, b in zip(again(i), in_order[i], strict=True))


def test_each_piece_is_read_once_an_epoch_and_ahead(made, monkeypatch):
    store, reads = load(made), []
    read = remote.read
    monkeypatch.setattr(remote, "read", lambda *args: reads.append(args) or read(*args))
    batches = Batches(store, 9, seed=0, flips=False)
    for i in range(10):
        batches(i)
    ahead = 2 * reader.LANES
    assert len(store.images._firsts) <= len(reads) <= len(store.images._firsts) + ahead
    assert all(stop - start <= reader.PIECE for _, start, stop in reads)


def test_packed_shards_train_like_a_store(tmp_path, made):
    config = DataConfig(source=str(made))
    pack(config, tmp_path / "ours", shard_size=30_000, resolution=8, image_channels=3, progress=False)
    theirs, ours = load(made), load(tmp_path / "ours")
    assert len(list((tmp_path / "ours").glob("*.tar"))) > 2
    assert ours.key != theirs.key
    assert sorted(numbers(ours.load_images(np.arange(90)))) == list(range(90))
    assert (ours.sizes == 8).all()
    assert not theirs.sizes.any()
    assert ours.labels.tolist() == [n % 3 for n in numbers(ours.load_images(np.arange(90)))]
    assert load(f"{tmp_path}/ours/ours-{{000000..000001}}.tar").class_names == ("0", "1", "2")
    part = load(f"{tmp_path}/ours/ours-00000[02].tar")
    assert 0 < len(part) < 90
    assert [n % 3 for n in numbers(part.load_images(np.arange(len(part))))] == part.labels.tolist()


def test_the_key_names_the_content(tmp_path, made, png):
    import shutil

    shutil.copytree(made, tmp_path / "copy")
    assert load(made).key == load(tmp_path / "copy").key
    assert load(made, labels=False).key != load(made).key
    write_shards(tmp_path / "copy", [png(999, side=9)], 1, labels=[0], name="set-000005")
    assert load(tmp_path / "copy").key != load(made).key


def test_a_broken_image_is_replaced_by_the_next_of_its_class(tmp_path, png, caplog):
    images = [png(i) for i in range(40)]
    for broken in (5, 7, 39):
        images[broken] = images[broken][:40]
    write_shards(tmp_path / "broken", images, 15, labels=[i % 2 for i in range(40)])
    store = load(tmp_path / "broken")
    for _ in range(2):
        assert numbers(store.load_images(np.array([4, 5, 7, 39, 6]))) == [4, 9, 9, 1, 6]
    assert len(re.findall(r"set-000000\.tar\b.*\bbyte\b", caplog.text)) == 2
    assert re.search(r"damaged\b.*\bclass\b", caplog.text)


def test_nothing_but_broken_images(tmp_path):
    write_shards(tmp_path / "broken", [b"\x89PNG nothing"] * 30, 30)
    with pytest.raises(UserError, match=r"\bset-000000\.tar\b"):
        load(tmp_path / "broken").load_images(np.arange(3))


@pytest.mark.parametrize("what", ["size", "checksum", "row", "json", "name", "label"])
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


def test_memory_does_not_grow_with_the_data(tmp_path, png, monkeypatch):
    """Four times the images, and the same memory to train on them: that of the pieces."""
    monkeypatch.setattr(reader, "PIECE", 20_000)
    peaks, held = [], []
    for count in (600, 2400):
        folder = tmp_path / str(count)
        write_shards(folder, [png(i) + b"\0" * 1500 for i in range(count)], 200)
        batches = Batches(load(folder), 8, seed=0, flips=False)
        tracemalloc.start()
        for i in range(60):
            batches(i)
            held.append(sum(len(piece.result()[1]) for piece in batches.store.images._pieces.values()))
        peaks.append(tracemalloc.get_traced_memory()[1])  # of all but the pieces, which lie outside of Python's heap
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.15 + 100_000
    assert max(held) <= 2 * reader.LANES * reader.PIECE


def test_headers_are_read_once(made, monkeypatch):
    load(made)

    def forbid(*_):
        raise AssertionError("headers were read again")

    monkeypatch.setattr(reader, "scan", forbid)
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
