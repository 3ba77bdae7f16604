"""Headers of a tar file, honest and hostile: the images, or a reason; never much memory, never a file."""

import io
import os
import random
import re
import tarfile
import tracemalloc
import unicodedata

import numpy as np
import pytest

from helpers.shards import add
from sagan.data.shards.index import MAX_PROBLEMS, scan
from sagan.errors import UserError


@pytest.fixture(autouse=True)
def _nothing_is_written(tmp_path, monkeypatch):
    """Every test runs in an empty folder, and leaves it empty."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield
    assert not list(folder.iterdir())
    assert sorted(os.listdir(tmp_path)) == ["cache", "empty"] or os.listdir(tmp_path) == ["empty"]


def tar(members, form=tarfile.USTAR_FORMAT, end=True):
    """A tar of (name, data, fields)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, data, *fields in members:
            add(archive, name, data, **(fields[0] if fields else {}))
        size = archive.offset
    return buffer.getvalue()[: None if end else size]


def look(data, block=1000):
    return scan("dir/x.tar", len(data), lambda start, stop: data[start:stop], block)


def reasons(data):
    return [f"{one.name}: {one.reason}" for one in look(data).problems]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("end", [True, False])
def test_offsets_sizes_and_labels_are_those_of_tarfile(form, end):
    long = "n" * 90 + "/" + "ü" * 45
    members = [("a/1.jpg", b"x" * 700), ("a/1.cls", b"3"), ("a/2.cls", b" 4\n"), ("a/2.json", b"{}")]
    members += [("a/2.PNG", b"y"), (f"{long}.webp", b"z" * 512), ("b.txt", b"q" * 99), ("./c.jpeg", b"w" * 5000)]
    data = tar(members, form, end)
    found = look(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        wanted = [
            (one.offset_data, one.size) for one in archive if one.name[-4:].lower() in (".jpg", ".png", "webp", "jpeg")
        ]
    assert [(row["offset"], row["size"]) for row in found.rows] == wanted
    assert found.rows["label"].tolist() == [3, 4, -1, -1]
    assert not found.problems


@pytest.mark.parametrize("block", [1, 512, 10**6])
def test_blocks_make_no_difference(block):
    data = tar([(f"{i}.png", bytes(i)) for i in range(1, 40)])
    assert look(data, block).rows["size"].tolist() == list(range(1, 40))


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("../out.png", {}, r"\barchive\b"),
        ("a/../../out.png", {}, r"\barchive\b"),
        ("/etc/out.png", {}, r"\barchive\b"),
        ("..\\out.png", {}, r"\barchive\b"),
        ("link.png", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, r"\blink\b"),
        ("hard.png", {"type": tarfile.LNKTYPE, "linkname": "ok.png"}, r"\blink\b"),
        ("device.png", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5}, r"\bplain file\b"),
        ("block.png", {"type": tarfile.BLKTYPE}, r"\bplain file\b"),
        ("pipe.png", {"type": tarfile.FIFOTYPE}, r"\bplain file\b"),
        ("folder.png", {"type": tarfile.DIRTYPE}, r"\bplain file\b"),
        ("1.pyd", {}, r"\bpickle\b"),
        ("1.pkl", {}, r"\bpickle\b"),
        ("empty.png", {}, r"\bempty\b"),
        ("ok.other.png", {}, r"\bsample\b"),
    ],
)
def test_members_that_are_refused(name, fields, message):
    data = tar([("ok.png", b"fine"), (name, b"", fields), ("last.png", b"fine")])
    assert look(data).rows["size"].tolist() == [4, 4]
    (problem,) = look(data).problems
    assert problem.name.endswith(name)
    assert re.search(message, problem.reason)


@pytest.mark.parametrize("text", [b"", b"cat", b"-1", b"100000", b"9" * 5000, b"1.5", b"\xff"])
def test_what_is_not_a_class(text):
    found = look(tar([("a.png", b"fine"), ("a.cls", text)]))
    assert found.rows["label"].tolist() == [-1]
    assert "class" in found.problems[0].reason


def test_an_enormous_claim():
    good = tar([("ok.png", b"fine")], end=False)
    member = tarfile.TarInfo("huge.png")
    member.size = 2**50
    data = good + member.tobuf(tarfile.GNU_FORMAT) + b"short" + bytes(2000)
    assert look(data).rows["size"].tolist() == [4]
    assert "1,125,899,906,842,624 bytes" in reasons(data)[0]
    member.size = 2**27
    within = good + member.tobuf() + bytes(2**27) + tar([("last.png", b"fine")])
    assert look(within).rows["size"].tolist() == [4, 4]
    assert "64 megabytes" in reasons(within)[0]


@pytest.mark.parametrize("cut", [100, 511, 513, 1100, 1535, 1600, 3000])
def test_truncated_anywhere(cut):
    data = tar([("1.png", b"x" * 600), ("2.png", b"y" * 600)])[:cut]
    if cut < 512:
        with pytest.raises(UserError, match=r"x\.tar\b"):
            look(data)
    else:
        found = look(data)
        assert len(found.rows) == sum(end <= cut for end in (512 + 600, 2048 + 600 - 0))
        if cut != 3000:
            assert reasons(data)


def test_damaged_in_the_middle():
    data = bytearray(tar([(f"{i}.png", b"x" * 600) for i in range(5)]))
    data[3 * 1536 : 3 * 1536 + 512] = random.Random(0).randbytes(512)
    assert len(look(bytes(data)).rows) == 3
    assert re.search(r"damaged\b.*\b4,608\b", reasons(bytes(data))[0])


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
@pytest.mark.parametrize("size", ["77777777777", "negative"])
def test_headers_that_would_fill_the_memory(kind, size):
    """Extended headers state their own size, and tarfile reads all of them."""
    member = tarfile.TarInfo("name")
    member.type, member.size = kind, 2**24
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    if size == "negative":
        header[124:136] = (-(2**20)).to_bytes(12, "big", signed=True)
    header[148:156] = f"{sum(header[:148]) + 8 * 32 + sum(header[156:]):06o}\0 ".encode()
    data = tar([("ok.png", b"fine")], end=False) + bytes(header) + b"1" * 2**24 + bytes(1024)
    tracemalloc.start()
    found = scan("x.tar", len(data), lambda start, stop: data[start:stop], 1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.rows) == 1
    assert found.problems
    assert peak < 4 * 2**20


def test_long_names_without_end():
    """Each asks for the next header: a chain of them is as deep as the file is long."""
    member = tarfile.TarInfo("name")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 1
    chain = (member.tobuf() + b"x" + bytes(511)) * 3000
    found = look(tar([("ok.png", b"fine")], end=False) + chain)
    assert len(found.rows) == 1
    assert "damaged" in found.problems[0].reason


def test_problems_are_counted_not_kept():
    found = look(tar([(f"{i}.pkl", b"") for i in range(MAX_PROBLEMS + 50)]))
    assert len(found.problems) == MAX_PROBLEMS + 1
    assert re.search(r"\b50 more\b", found.problems[-1].reason)


def test_any_bytes_give_images_or_a_reason():
    """Bits flipped at random: what is found lies within the file, and nothing else comes of it."""
    rng = random.Random(1)
    clean = tar([(f"{i}.png", b"x" * 300) for i in range(6)] + [("6.cls", b"1")], tarfile.PAX_FORMAT)
    for _ in range(400):
        data = bytearray(clean[: rng.randrange(600, len(clean))])
        for _ in range(rng.randrange(1, 30)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        try:
            found = look(bytes(data))
        except UserError:
            continue
        assert (found.rows["offset"] + found.rows["size"] <= len(data)).all()
        assert (np.diff(found.rows["offset"]) > 0).all()


def labelled(count, name="{:04d}"):
    return [
        [(f"{name.format(i)}.png", bytes([i + 1])), (f"{name.format(i)}.cls", str(i % 3).encode())]
        for i in range(count)
    ]


def test_doubles_that_macos_writes_are_no_samples():
    pairs = labelled(6)
    members = [(form.format(name), data) for pair in pairs for form in ("._{}", "{}") for name, data in pair]
    members += [("__MACOSX/x.png", b"x"), (".hidden/x.png", b"x"), ("./.y.png", b"y")]
    found = look(tar(members))
    assert found.rows["label"].tolist() == [0, 1, 2, 0, 1, 2]
    assert (found.rows["size"] == 1).all()
    assert not found.problems


@pytest.mark.parametrize("order", ["labels first", "images first", "reversed"])
def test_labels_and_images_that_lie_apart_are_paired_by_name(order):
    pairs = labelled(7)
    images, labels = [image for image, _ in pairs], [label for _, label in pairs]
    members = {"labels first": labels + images, "images first": images + labels, "reversed": labels[::-1] + images}[
        order
    ]
    found = look(tar(members))
    assert found.rows["label"].tolist() == [i % 3 for i in range(7)]
    assert not found.problems


def test_labels_without_an_image_are_counted():
    pairs = labelled(5)
    lone = [(f"x{i}.cls", b"1") for i in range(20)]
    found = look(tar([*lone, *(member for pair in pairs for member in pair)]))
    assert found.rows["label"].tolist() == [0, 1, 2, 0, 1]
    (problem,) = found.problems
    assert re.search(r"\b20 labels\b.*\bno image\b", problem.reason)


def test_names_that_are_not_unique_are_not_paired():
    members = [("a.cls", b"1"), ("x.png", b"x"), ("a.cls", b"2"), ("y.png", b"y"), ("a.jpg", b"a")]
    found = look(tar(members))
    assert found.rows["label"].tolist() == [-1, -1, -1]
    assert re.search(r"\b2 labels\b", found.problems[0].reason)


def test_two_labels_of_a_sample_are_named():
    assert not reasons(tar([("a.png", b"x"), ("a.cls", b"1"), ("a.cls", b"1")]))
    (reason,) = reasons(tar([("a.png", b"x"), ("a.cls", b"1"), ("a.cls", b"2")]))
    assert re.search(r"a\.cls: .*\b2\b.*\b1\b", reason)


def test_members_that_are_not_read_are_named():
    names = ["c/0001", "c/a.jpg_large", "c/b.ppm", "c/c.apng", "c/d.png.bak", "c/e.npy"]
    innocent = ["0.json", "0.txt", "README", "0.cls.txt"]
    found = look(tar([("0.png", b"x"), *((name, b"y") for name in names + innocent)]))
    assert [one.name for one in found.problems] == [f"x.tar: {name}" for name in names]


RUN = b'{"config": {"data": {"source": "x"}}, "class_names": [], "data_key": "x"}'


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("folder", ["runs/1", "run", "./run"])
def test_the_folder_of_a_run_is_not_data(place, folder):
    images = [("1.png", b"x"), ("2.png", b"yy"), (f"{folder}-2/3.png", b"zzz")]
    grids = [(f"{folder}/samples/step-1.png", b"run"), (f"{folder}/a.png", b"run"), (f"{folder}/0001", b"run")]
    config = [(f"{folder}/config.json", RUN)]
    found = look(tar([*images[:1], *(config + grids if place == "before" else grids + config), *images[1:]]))
    assert found.rows["size"].tolist() == [1, 2, 3]
    assert not found.problems


def test_other_files_of_that_name_are_no_runs():
    members = [
        ("a/config.json", b'{"config": 1}'),
        ("a/1.png", b"x"),
        ("b/config.json", b"{" * 300_000),
        ("b/2.png", b"y"),
    ]
    assert len(look(tar(members)).rows) == 2
    assert len(look(tar([("a/config.json", b" " * 10**6 + RUN), ("a/1.png", b"x")])).rows) == 1
    assert len(look(tar([("a/config.json", RUN + b" " * 10**6), ("a/1.png", b"x")])).rows) == 0


@pytest.mark.parametrize("first", ["NFC", "NFD"])
def test_names_are_paired_whatever_their_form(first):
    names = [f"café-{i}" for i in range(3)]
    images = [(unicodedata.normalize("NFD" if first == "NFC" else "NFC", f"{name}.png"), b"x") for name in names]
    labels = [(unicodedata.normalize(first, f"{name}.cls"), str(i).encode()) for i, name in enumerate(names)]
    for members in (labels + images, [member for pair in zip(images, labels, strict=True) for member in pair]):
        found = look(tar(members, tarfile.PAX_FORMAT))
        assert found.rows["label"].tolist() == [0, 1, 2]
        assert not found.problems
