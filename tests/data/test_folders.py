"""Folders and archives of images: links, names, damage, and members that mean harm."""

import os
import re
import struct
import zipfile

import pytest

from helpers.sources import check_skipped, load
from sagan.data.sources import open_source
from sagan.errors import UserError


def test_links_are_followed_and_loops_are_not(tree, png, tmp_path):
    root = tree({"a/1.png": png(1)})
    elsewhere = tree({"2.png": png(2)}, "elsewhere")
    (root / "b").symlink_to(elsewhere)
    (root / "a" / "loop").symlink_to(root)
    (root / "a" / "gone.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(root / "a" / "pipe.png")
    store = load(root)
    assert list(store.names) == ["a/1.png", "b/2.png"]
    assert [one.name for one in store.skipped] == ["a/gone.png"]


def test_names_that_are_no_text(tree, png):
    root = tree({"a/1.png": png(1)})
    name = os.fsdecode(b"a/\xff\x1b[31m.png")
    (root / name).write_bytes(png(2))
    (root / "a" / "\x1b[2J.png").write_bytes(b"")
    for _ in range(2):  # made, then opened
        store = load(root)
        assert set(store.names) == {"a/1.png", name}


def test_a_folder_around_everything_in_an_archive_does_not_count(tree, png):
    store = load(tree({"mine/a/1.png": png(1), "mine/b/2.png": png(2), "README.txt": b""}, zipped=True))
    assert store.class_names == ("a", "b")
    assert load(tree({"mine/1.png": png(1), "mine/2.png": png(2)}, "flat", zipped=True)).class_names == ()


@pytest.mark.parametrize("name", ["../out.png", "a/../../out.png", "..\\out.png", "a/.."])
def test_archives_with_members_that_lead_out_are_refused(tree, png, tmp_path, name):
    path = tree({"a/1.png": png(1), name: png(2)}, zipped=True)
    with pytest.raises(UserError, match=r"\barchive\b"):
        load(path)
    assert not list(tmp_path.rglob("out.png"))


def test_damaged_archives(tree, png, tmp_path):
    (tmp_path / "text.zip").write_text("text")
    with pytest.raises(UserError, match=r"text\.zip\b"):
        load(tmp_path / "text.zip")
    path = tree({"1.png": png(1), "2.png": png(2)}, zipped=True)
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 6] ^= 255
    path.write_bytes(data)
    check_skipped(load(path), {"1.png": "damaged"})


def test_encrypted_members(tree, png):
    path = tree({"1.png": png(1), "2.png": png(2)}, zipped=True)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\1\2") + 8
    data[at : at + 2] = struct.pack("<H", 1)
    path.write_bytes(data)
    check_skipped(load(path), {"1.png": "encrypted"})


def test_members_that_unpack_to_gigabytes(tree, png, tmp_path, monkeypatch):
    monkeypatch.setattr("sagan.data.folders.MAX_BYTES", 2**20)
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.png", png(1))
        archive.writestr("2.png", png(1) + bytes(2**24))
    check_skipped(load(path), {"2.png": r"\b1 megabytes?\b"})


def test_members_of_an_archive_in_other_forms(tree, png):
    files = {"./a/1.png": png(1), "./a/2.png": png(2), ".//b/3.png": png(3), "./._x.png": b"double"}
    store = load(tree(files, zipped=True))
    assert list(store.names) == ["a/1.png", "a/2.png", "b/3.png"]
    assert store.class_names == ("a", "b")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_twice_in_an_archive(png, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name, number in (("1.png", 1), ("2.png", 2), ("1.png", 3)):
            archive.writestr(name, png(number))
    store = load(tmp_path / "x.zip")
    assert store.images[:, 0, 0, 0].tolist() == [3, 2]
    check_skipped(store, {"1.png": r"\bmore than once\b"})


def test_an_archive_of_junk_is_given_up(tmp_path, monkeypatch, png):
    monkeypatch.setattr("sagan.data.packing._MAX_JUNK", 50)
    with zipfile.ZipFile(tmp_path / "junk.zip", "w") as archive:
        for i in range(2000):
            archive.writestr(f"{i}.png", b"x")
        archive.writestr("z.png", png(1))
    with pytest.raises(UserError, match=r"\b47 more\b"):
        load(tmp_path / "junk.zip")


def test_class_folders_whose_names_are_not_text(tree, png):
    root = tree({"b/1.png": png(1)})
    for name in (b"caf\xe9", b"caf\xe8"):
        os.mkdir(os.fsencode(root) + b"/" + name)
        with open(os.fsencode(root) + b"/" + name + b"/1.png", "wb") as file:
            file.write(png(2))
    for _ in range(2):
        assert set(load(root).class_names) == {"b", "café", "cafè"}


@pytest.mark.parametrize("zipped", [False, True])
def test_images_of_a_source_that_disappears_are_not_skipped_one_by_one(tree, png, zipped):
    path = tree({f"{i}.png": png(i) for i in range(4)}, zipped=zipped)
    source = open_source(str(path), labels=True)
    if zipped:  # as of a disk that is gone: the file that is open can be read no more
        os.truncate(path, 0)
    path.rename(path.with_name("elsewhere"))
    with pytest.raises(UserError, match=re.escape(str(path))):
        source.read(0)
