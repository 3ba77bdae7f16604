"""What each kind of source is found to hold."""

import json
import os
import re
import struct
import sys
import zipfile

import numpy as np
import pytest

from sagan.config import DataConfig
from sagan.data import prepare
from sagan.data.sources import MAX_LABEL_BYTES, natural, open_source
from sagan.errors import UserError


def load(source, **options):
    return prepare(DataConfig(source=str(source), **options), resolution=8, image_channels=3, progress=False)


def check_skipped(store, patterns):
    """Check that exactly these files were skipped, each for a reason that its pattern is found in."""
    reasons = {one.name: one.reason for one in store.skipped}
    assert reasons.keys() == patterns.keys()
    for name, pattern in patterns.items():
        assert re.search(pattern, reasons[name]), (name, reasons[name])


@pytest.mark.parametrize("zipped", [False, True])
class TestTree:
    def test_class_folders(self, tree, png, zipped):
        files = {f"{name}/{i}.png": png(100 * k + i) for k, name in enumerate(("10", "2", "b", "A")) for i in (10, 9)}
        files["b/deeper/still/x.JPG"] = png(7, kind="JPEG")
        files |= {".hidden/1.png": b"", "__MACOSX/b/1.png": b"", "b/.DS_Store": b"", "b/notes.txt": b"", "a.md": b""}
        store = load(tree(files, zipped=zipped))
        assert store.class_names == ("2", "10", "A", "b")
        assert store.num_classes == 4
        expected = [f"{name}/{i}.png" for name in store.class_names for i in (9, 10)] + ["b/deeper/still/x.JPG"]
        assert list(store.names) == expected
        assert store.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 3]
        assert not store.skipped
        numbers = {"2": 109, "10": 9, "A": 309, "b": 209}
        for name, first in numbers.items():
            image = store.images[store.names.index(f"{name}/9.png")]
            assert (image == [first % 256, first // 256, 77]).all()
        assert store.sizes.tolist() == [[8, 8]] * 9

    def test_flat(self, tree, png, zipped):
        store = load(tree({f"{i}.png": png(i) for i in (1, 2, 10)}, zipped=zipped))
        assert list(store.names) == ["1.png", "2.png", "10.png"]
        assert store.class_names == ()
        assert store.labels.tolist() == [0, 0, 0]

    def test_without_labels(self, tree, png, zipped):
        files = {"a/1.png": png(1), "b/2.png": png(2), "3.png": png(3), "dataset.json": b"not even JSON"}
        store = load(tree(files, zipped=zipped), labels=False)
        assert store.class_names == ()
        assert sorted(store.names) == ["3.png", "a/1.png", "b/2.png"]

    def test_problems_are_listed(self, tree, png, zipped):
        files = {
            "a/1.png": png(1),
            "a/text.jpg": b"this is text",
            "a/empty.png": b"",
            "a/half.png": png(1)[:40],
            "a/phone.heic": b"?",
            "b/readme.txt": b"",
            "beside.png": png(2),
        }
        store = load(tree(files, zipped=zipped))
        assert store.class_names == ("a",)
        patterns = {
            "a/text.jpg": r"\bformat\b",
            "a/empty.png": r"\bempty\b",
            "a/half.png": r"\bdamaged\b",
            "a/phone.heic": r"\bPNG or JPEG\b",
            "b": r"class folder 'b'",
            "beside.png": r"\bclass folders\b",
        }
        check_skipped(store, patterns)

    def test_nothing_left(self, tree, zipped):
        files = {f"{i}.jpg": b"text" for i in range(9)}
        with pytest.raises(UserError, match=r"0\.jpg: .*\b6 more\b"):
            load(tree(files, zipped=zipped))

    def test_no_images(self, tree, zipped):
        with pytest.raises(UserError, match=r"\b1 files?\b.*\.jpg\b"):
            load(tree({"a/b.txt": b""}, zipped=zipped))

    def test_stylegan_labels(self, tree, png, zipped):
        files = {f"00000/img{i:08d}.png": png(i) for i in range(4)}
        labels = [["00000/img00000000.png", 2], ["00000/img00000001.png", 0], ["00000/img00000003.png", 2]]
        files["dataset.json"] = json.dumps({"labels": [*labels, ["gone.png", 1]]}).encode()
        store = load(tree(files, zipped=zipped))
        assert store.class_names == ("0", "1", "2")
        assert store.labels.tolist() == [2, 0, 2]
        label = r"dataset\.json\b"
        check_skipped(store, {"00000/img00000002.png": rf"\blabel\b.*{label}", "gone.png": label})

    def test_stylegan_without_labels(self, tree, png, zipped):
        files = {"00000/a.png": png(1), "00001/b.png": png(2), "dataset.json": b'{"labels": null}'}
        store = load(tree(files, zipped=zipped))
        assert (store.class_names, len(store)) == ((), 2)

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"{", "JSON"),
            (b"\xff\xfe\x00", "JSON"),
            (b"[" * 100_000, "JSON"),
            (b'{"labels": 3}', "labels"),
            (b"[1]", "labels"),
            (b'{"labels": [["a.png"]]}', "pair"),
            (b'{"labels": [["a.png", [0.5, 1]]]}', "integer"),
            (b'{"labels": [["a.png", true]]}', "integer"),
            (b'{"labels": [["a.png", -1]]}', r"\blabels\b.*-1\b"),
            (b'{"labels": [["a.png", 1000000000000]]}', r"\bclasses\b.*\b0\b"),
        ],
    )
    def test_wrong_labels(self, tree, png, zipped, content, reason):
        with pytest.raises(UserError, match=reason) as caught:
            load(tree({"a.png": png(1), "dataset.json": content}, zipped=zipped))
        assert "dataset.json" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_natural_order():
    names = ["b", "A10", "a9", "10", "2", "", "1b", "Ünder", "²"]
    assert sorted(names, key=natural)[:3] == ["", "1b", "2"]
    assert sorted(["img10", "img9", "IMG1"], key=natural) == ["IMG1", "img9", "img10"]
    assert sorted(["9" * 5000, "10", "0", "007", "x"], key=natural) == ["0", "007", "10", "9" * 5000, "x"]


def test_an_empty_class_folder(tree, png):
    root = tree({"a/1.png": png(1)})
    (root / "b").mkdir()
    check_skipped(load(root), {"b": "class folder 'b'"})


def test_an_empty_folder(tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "none"))):
        load(tmp_path / "none")


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


@pytest.mark.parametrize("zipped", [False, True])
def test_a_source_that_vanishes_is_not_skipped_image_by_image(tree, png, zipped):
    path = tree({f"{i}.png": png(i) for i in range(4)}, zipped=zipped)
    source = open_source(str(path), labels=True)
    if zipped:  # as of a disk that is gone: the file that is open can be read no more
        os.truncate(path, 0)
    path.rename(path.with_name("elsewhere"))
    with pytest.raises(UserError, match=re.escape(str(path))):
        source.read(0)


def test_a_vast_dataset_json_is_refused(tree, png):
    path = tree({"a/1.png": png(1)})
    with open(path / "dataset.json", "wb") as file:
        file.truncate(MAX_LABEL_BYTES + 1)
    with pytest.raises(UserError, match=r"dataset\.json\b.*\b128 megabytes\b"):
        load(path)


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
    monkeypatch.setattr("sagan.data.sources.MAX_BYTES", 2**20)
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.png", png(1))
        archive.writestr("2.png", png(1) + bytes(2**24))
    check_skipped(load(path), {"2.png": r"\b1 megabytes?\b"})


@pytest.mark.parametrize(("name", "hint"), [("robot", "'robots'"), ("digit", "'digits'"), ("x/y", "")])
def test_unknown_sources(name, hint):
    with pytest.raises(UserError, match=f"'{name}'.*{hint}.*'hf:USER/NAME'.*'robots'.*'digits'"):
        load(name)


class TestHub:
    @pytest.fixture
    def hub(self, tree, png, tmp_path, monkeypatch):
        """A data set of four images as the Hub would give it, once with class names and once with numbers."""
        datasets = pytest.importorskip("datasets")
        # Set where they are read, and put back: the environment's HF_HUB_OFFLINE counts once, at the first import.
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")

        def make(label, split="train"):
            pictures = [{"bytes": png(i), "path": None} for i in range(3)] + [{"bytes": b"text", "path": None}]
            features = {"note": datasets.Value("string"), "img": datasets.Image(), "label": label}
            data = {"note": list("abcd"), "img": pictures, "label": [1, 0, 1, 0]}
            table = datasets.Dataset.from_dict(data, features=datasets.Features(features))
            (tmp_path / "set" / "data").mkdir(parents=True)
            table.to_parquet(tmp_path / "set" / "data" / f"{split}-00000-of-00001.parquet")
            return f"hf:{tmp_path / 'set'}"

        make.datasets = datasets
        return make

    def test_named_classes(self, hub):
        name = hub(hub.datasets.ClassLabel(names=["cat", "dog"]))
        store = load(name)
        assert store.class_names == ("cat", "dog")
        assert store.labels.tolist() == [1, 0, 1]
        np.testing.assert_array_equal(store.images[:, 0, 0], [[0, 0, 77], [1, 0, 77], [2, 0, 77]])
        check_skipped(store, {"00000003": r"\bformat\b"})
        assert load(name, labels=False).class_names == ()

    def test_numbered_classes_and_splits(self, hub):
        name = hub(hub.datasets.Value("int64"), split="test")
        store = load(f"{name}@test")
        assert store.class_names == ("0", "1")
        with pytest.raises(UserError, match=r"@nonsense\b.*\bsplit\b"):
            load(f"{name}@nonsense")

    def test_no_network(self, hub):
        with pytest.raises(UserError, match="hf:nobody/nothing") as caught:
            load("hf:nobody/nothing")
        assert "\n" not in str(caught.value)

    def test_not_installed(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(UserError, match=r"pip install 'sagan\[hub\]'"):
            open_source("hf:a/b", True)
