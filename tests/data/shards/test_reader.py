"""Shards train as the packed store does: every image once an epoch, in an order that needs no state."""

import json
import re
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from helpers.shards import load, numbers, write_shards
from sagan.config import DataConfig
from sagan.data import Batches
from sagan.data.decode import decode
from sagan.data.shards import reader, remote
from sagan.data.shards.index import UNCHECKED_ROW
from sagan.data.shards.order import LANES
from sagan.data.shards.pack import pack
from sagan.data.shards.reader import decode_threads
from sagan.data.shards.tables import convert
from sagan.errors import UserError
from sagan.files import sha256

pytestmark = pytest.mark.usefixtures("small_pieces")


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
    assert len(pieces[0] & pieces[1]) <= LANES  # where a lane ends within a piece
    assert len(pieces[0] | pieces[1]) > 5 * LANES


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
    assert len(store.images._pieces) <= 2 * LANES
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
    ahead = 2 * LANES
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


def test_a_changed_byte_of_a_jpeg_is_found(tmp_path, caplog):
    """No decoder sees it, and the file keeps its size; the table next to the shards has a checksum per image."""
    rng = np.random.default_rng(0)
    for i in range(6):
        colours = Image.fromarray(rng.integers(256, size=(4, 4, 3), dtype=np.uint8)).resize((64, 64))
        (tmp_path / f"images/{'ab'[i % 2]}").mkdir(parents=True, exist_ok=True)
        colours.save(tmp_path / f"images/{'ab'[i % 2]}/{i}.jpg")
    options = {"shard_size": 10**6, "resolution": 32, "image_channels": 3, "progress": False}
    pack(DataConfig(source=str(tmp_path / "images")), tmp_path / "set", **options)
    before = load(tmp_path / "set")
    images = before.load_images(np.arange(6))
    row = before.images.shards.table[2]

    shard = tmp_path / "set/set-000000.tar"
    data = bytearray(shard.read_bytes())
    data[row["offset"] + row["size"] - 20] ^= 16
    shard.write_bytes(data)
    decode(bytes(data[row["offset"] :][: row["size"]]), resolution=32, image_channels=3, background=(0, 0, 0))
    store = load(tmp_path / "set")
    replaced = store.load_images(np.arange(6))
    same = [np.flatnonzero((images == image).all((1, 2, 3))).tolist() for image in replaced]
    other = next(i for i in (3, 4, 5, 0, 1) if store.labels[i] == store.labels[2])
    assert same == [[0], [1], [other], [3], [4], [5]]
    assert re.search(r"set-000000\.tar, image at byte \d[\d,]*: damaged\b.*\bchecksum\b", caplog.text)

    # Packed again, it is skipped by name; shards from before there were checksums are read as they are.
    again = pack(DataConfig(source=str(tmp_path / "set")), tmp_path / "again", **options)
    assert (again.images, "checksum" in again.skipped[0].reason) == (5, True)
    table = np.load(tmp_path / "set/index.npy")
    np.save(tmp_path / "set/index.npy", convert(table, UNCHECKED_ROW))
    index = json.loads((tmp_path / "set/index.json").read_text())
    index["table_sha256"] = sha256(tmp_path / "set/index.npy")
    (tmp_path / "set/index.json").write_text(json.dumps(index))
    older = load(tmp_path / "set").load_images(np.arange(6))
    assert not (older[2] == images[2]).all()
    assert (older[[0, 1, 3, 4, 5]] == images[[0, 1, 3, 4, 5]]).all()


def test_nothing_but_broken_images(tmp_path):
    write_shards(tmp_path / "broken", [b"\x89PNG nothing"] * 30, 30)
    with pytest.raises(UserError, match=r"\bset-000000\.tar\b"):
        load(tmp_path / "broken").load_images(np.arange(3))


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
    assert max(held) <= 2 * LANES * reader.PIECE
