"""Shards at a URL are those of a local folder; failures are retried, then end with one line."""

import contextlib
import logging
import re
import socket
import sys
import threading
import time

import pytest

from helpers.shards import load, serve
from sagan.config import DataConfig
from sagan.data import Batches
from sagan.data.shards import remote
from sagan.data.shards.pack import pack
from sagan.errors import UserError

pytestmark = pytest.mark.usefixtures("small_pieces")


@pytest.mark.parametrize("scheme", ["memory", "http"])
def test_shards_at_a_url_are_those_here(tmp_path, made, scheme):
    pack(DataConfig(source=str(made)), tmp_path / "packed", shard_size=30_000, resolution=8, image_channels=3)
    here = [load(made), load(tmp_path / "packed")]
    if scheme == "memory":
        import fsspec

        system = fsspec.filesystem("memory")
        for folder in ("made", "packed"):
            for path in (tmp_path / folder).iterdir():
                system.pipe(f"/{folder}/{path.name}", path.read_bytes())
        there = [load("memory://made/set-*.tar"), load("memory://packed")]
        compare(here, there)
    else:
        with serve(tmp_path) as (url, _):
            compare(here, [load(url + "/made/set-{000000..000004}.tar"), load(url + "/packed")])


def compare(here, there):
    for a, b in zip(here, there, strict=True):
        assert a.key == b.key
        mine, other = (Batches(store, 16, seed=0, flips=True) for store in (a, b))
        for index in (0, 5, 6):
            assert all((x == y).all() for x, y in zip(mine(index), other(index), strict=True))


def test_a_server_that_fails_is_asked_again(tmp_path, made, caplog):
    with serve(tmp_path) as (url, server):
        store = load(url + "/made/set-{000000..000004}.tar")
        batches = Batches(store, 45, seed=0, flips=False)
        left = [1, 1]
        server.refuses = lambda path: bool(left and left.pop())
        with caplog.at_level(logging.WARNING):
            batches(0)
        assert re.search(r"set-\d+\.tar\b", caplog.text)
        server.refuses = lambda path: True
        store.images._pieces.clear()
        with pytest.raises(UserError, match=r"set-\d+\.tar\b.*\b3 attempts\b"):
            batches(1)


def test_a_server_without_ranges(tmp_path, made):
    with serve(tmp_path, ranges=False) as (url, _), pytest.raises(UserError, match=r"^http://127\.0\.0\.1:\d+\b"):
        load(url + "/made/set-000000.tar")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nothing-{00..02}.tar", r"nothing-00\.tar\b"),
        ("nothing-*.tar", r"nothing-\*\.tar\b"),
        ("x-{0..99999999}.tar", r"\b1,000,000 files\b"),
        ("x-{0..9999}-{0..9999}.tar", r"\b1,000,000 files\b"),
        ("nonsense://x.tar", r"nonsense://x\.tar\b.*\bfsspec\b"),
        ("memory://empty", r"memory://empty\b.*index\.json\b"),
        ("{a,a}.tar", r"\{a,a\}\.tar\b.*\bshard\b"),
    ],
)
def test_sources_that_are_not_there(source, message):
    with pytest.raises(UserError, match=message):
        load(source)


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(UserError, match=r"pip install 'sagan-torch\[remote\]'"):
        load("http://127.0.0.1:1/x.tar")
    monkeypatch.undo()
    if "s3fs" not in sys.modules:
        monkeypatch.setitem(sys.modules, "s3fs", None)
        with pytest.raises(UserError, match="s3fs"):
            load("s3://bucket/x.tar")


@pytest.mark.parametrize("sends", [b"", b"HTTP/1.1 200 OK\r\nx: y"])
def test_headers_that_never_end_are_one_line(monkeypatch, sends):
    """A server that accepts and sends nothing, or a byte now and then, holds nobody for ever."""
    monkeypatch.setattr(remote, "_TIMEOUT", 0.2)
    monkeypatch.setattr(remote, "_LONGEST", 0.4)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        over = threading.Event()

        def drip(peer):
            with peer, contextlib.suppress(OSError):
                peer.sendall(sends)
                while sends and not over.wait(0.05):
                    peer.sendall(b"y")
                over.wait()

        def accept():
            with contextlib.suppress(OSError):
                while not over.is_set():
                    threading.Thread(target=drip, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        start = time.monotonic()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/x.tar"
        with pytest.raises(UserError, match=r"^http://127\.0\.0\.1:\d+/index\.json cannot be read after 3 attempts\b"):
            load(url)
        assert time.monotonic() - start < 60
        over.set()


def test_an_index_that_cannot_be_fetched_is_not_a_missing_one(tmp_path, made):
    """Without their index the same shards would have another key, and a run on them would not be resumed."""
    pack(DataConfig(source=str(made)), tmp_path / "packed", shard_size=30_000, resolution=8, image_channels=3)
    with serve(tmp_path) as (url, server):
        store = load(url + "/packed")
        for failures in (1, 10**9):
            left = [failures]

            def refuses(path, left=left):
                left[0] -= path.endswith("index.json")
                return path.endswith("index.json") and left[0] >= 0

            server.refuses = refuses
            if failures == 1:
                assert load(url + "/packed").key == store.key
            else:
                with pytest.raises(UserError, match=r"/packed/index\.json cannot be read after 3 attempts\b.*\b503\b"):
                    load(url + "/packed")
