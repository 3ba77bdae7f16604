"""What each kind of source is found to hold."""

import json
import os
import re
import socket
import struct
import sys
import time
import tracemalloc
import unicodedata
import zipfile

import numpy as np
import pytest

from sagan.compat import few_seconds_of_hub
from sagan.config import DataConfig
from sagan.data import prepare
from sagan.data.sources import LABEL_BYTES, natural_key, open_source
from sagan.errors import UserError
from sagan.figures.grid import animate, draw_grid, save


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
            "a/phone.jxl": b"?",
            "b/readme.txt": b"",
            "beside.png": png(2),
        }
        store = load(tree(files, zipped=zipped))
        assert store.class_names == ("a",)
        patterns = {
            "a/text.jpg": r"\bformat\b",
            "a/empty.png": r"\bempty\b",
            "a/half.png": r"\bdamaged\b",
            "a/phone.jxl": r"\bPNG or JPEG\b",
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
        assert store.class_names == ("0", "2")
        assert store.labels.tolist() == [1, 0, 1]
        label = r"dataset\.json\b"
        check_skipped(
            store,
            {
                "1 class without a usable image": r"\b1$",
                "00000/img00000002.png": rf"\blabel\b.*{label}",
                "gone.png": label,
            },
        )

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
    assert sorted(names, key=natural_key)[:3] == ["", "1b", "2"]
    assert sorted(["img10", "img9", "IMG1"], key=natural_key) == ["IMG1", "img9", "img10"]
    assert sorted(["9" * 5000, "10", "0", "007", "x"], key=natural_key) == ["0", "007", "10", "9" * 5000, "x"]


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
def test_images_of_a_source_that_disappears_are_not_skipped_one_by_one(tree, png, zipped):
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
        file.truncate(sum(LABEL_BYTES) + 1)
    with pytest.raises(UserError, match=r"dataset\.json\b.*\b8 megabytes\b"):
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
        """A data set of four images as from the Hub, once with class names and once with numbers."""
        datasets = pytest.importorskip("datasets")
        # Set where they are read, and put back: the environment's HF_HUB_OFFLINE counts once, at the first import.
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")

        def make(feature, split="train", label=(1, 0, 1, 0)):
            images = [{"bytes": png(i), "path": None} for i in range(3)] + [{"bytes": b"text", "path": None}]
            features = {"note": datasets.Value("string"), "img": datasets.Image(), "label": feature}
            data = {"note": list("abcd"), "img": images, "label": list(label)}
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

    def test_texts_as_classes(self, hub):
        name = hub(hub.datasets.Value("string"), label=["dog", "cat", "dog", "cat"])
        store = load(name)
        assert store.class_names == ("cat", "dog")
        assert store.labels.tolist() == [1, 0, 1]
        assert load(name, labels=False).class_names == ()

    def test_captions_are_no_classes_but_listed(self, hub):
        store = load(hub(hub.datasets.Value("string"), label=["one dog", "two cats", "a dog", "no cat"]))
        assert store.class_names == ()
        assert (
            "note (string), img (Image), label (string)"
            in {one.name: one.reason for one in store.skipped}[store.source]
        )

    def test_no_network(self, hub):
        with pytest.raises(UserError, match="hf:nobody/nothing") as caught:
            load("hf:nobody/nothing")
        assert "\n" not in str(caught.value)

    def test_a_hub_that_never_answers_takes_seconds(self, monkeypatch):
        """`datasets` alone tries each of several files six times, each until a time-out of its own."""
        constants = pytest.importorskip("huggingface_hub").constants
        with socket.create_server(("127.0.0.1", 0)) as silent:
            monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
            since = time.monotonic()
            with few_seconds_of_hub(0.5):
                assert constants.HF_HUB_OFFLINE
            assert not constants.HF_HUB_OFFLINE
            with pytest.raises(UserError, match="hf:nobody/nothing"):
                open_source("hf:nobody/nothing", True)
        assert time.monotonic() - since < 20  # 30 without it

    def test_not_installed(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(UserError, match=r"pip install 'sagan-torch\[hub\]'"):
            open_source("hf:a/b", True)


RUN = json.dumps({"config": {"data": {}}, "class_names": [], "data_key": "x"}).encode()
FIGURES = ("contact-sheet.png", "samples.gif")


@pytest.fixture
def figure(tmp_path):
    """`figure(name)`: the bytes of a grid that sagan drew, as PNG or GIF."""

    def make(name):
        page = draw_grid(np.zeros((2, 8, 8, 3), np.uint8), columns=2)
        if name.endswith(".gif"):
            animate([page, page], tmp_path / name, 1)
        else:
            save(page, tmp_path / name)
        return (tmp_path / name).read_bytes()

    return make


@pytest.mark.parametrize("zipped", [False, True])
class TestWrittenBySagan:
    @pytest.mark.parametrize("name", FIGURES)
    def test_figures_are_not_data(self, tree, png, figure, zipped, name):
        files = {f"a/{i}.png": png(i) for i in range(3)}
        before = load(tree(files, "before", zipped=zipped))
        after = load(tree({**files, f"a/{name}": figure(name), f"a/z-{name}": figure(name)}, "after", zipped=zipped))
        assert list(after.names) == list(before.names)
        assert after.key == before.key  # so a run can be resumed after its data were looked at
        with pytest.raises(UserError, match=r"\bsagan\b"):
            load(tree({name: figure(name)}, "alone", zipped=zipped))

    def test_runs_are_not_data(self, tree, png, zipped):
        images = {f"{i}.png": png(i) for i in range(3)}
        run = {"config.json": RUN, "attend.png": png(8), "samples/step-1.png": png(9), "x.safetensors": b""}
        for where in ("runs/1/", "run/"):
            for form in ("flat", "classes"):
                files = {("a/" if form == "classes" else "") + name: data for name, data in images.items()}
                before = load(tree(files, f"before-{form}-{len(where)}", zipped=zipped))
                files |= {where + name: data for name, data in run.items()}
                after = load(tree(files, f"after-{form}-{len(where)}", zipped=zipped))
                assert list(after.names) == list(before.names)
                assert after.class_names == before.class_names
                assert not after.skipped
                assert after.key == before.key

    def test_a_run_is_refused_as_a_source(self, tree, png, zipped):
        with pytest.raises(UserError, match=r"\brun\b"):
            load(tree({"config.json": RUN, "samples/1.png": png(1)}, zipped=zipped))
        with pytest.raises(UserError, match=r"\bruns\b"):
            load(tree({"x/config.json": RUN, "x/1.png": png(1), "y/config.json": RUN}, "runs", zipped=zipped))

    def test_another_config_json_is_no_run(self, tree, png, zipped):
        files = {"a/1.png": png(1), "a/config.json": b'{"config": 1}', "b/2.png": png(2), "b/config.json": b"no JSON"}
        assert len(load(tree(files, zipped=zipped))) == 2


@pytest.mark.parametrize("zipped", [False, True])
class TestNothingIsLost:
    def test_files_that_are_not_read_are_named(self, tree, png, zipped):
        names = ["0001", "a.ppm", "b.apng", "c.jpg_large", "d.png.bak", "e.npy"]
        innocent = ["README", "labels.txt", "Thumbs.db", "LICENSE", "0005.json", ".DS_Store"]
        images = {"a/1.png": png(1), "b/2.png": png(2)}
        plain = load(tree(images, "plain", zipped=zipped))
        store = load(tree({**images, **{f"a/{name}": png(2) for name in names + innocent}}, zipped=zipped))
        check_skipped(store, {f"a/{name}": r"\bnot read$" for name in names})
        assert store.key == plain.key  # the names change no image
        opened = load(store.source)
        assert opened.skipped == store.skipped

    def test_classes_without_a_usable_image_are_not_trained(self, tree, png, zipped):
        files = {"a/1.png": png(1), "bad/1.png": b"\x89PNG", "c/1.png": png(3), "worse/1.png": b""}
        for _ in range(2):  # packed, then opened
            store = load(tree(files, zipped=zipped))
            assert store.class_names == ("a", "c")
            assert store.labels.tolist() == [0, 1]
            assert store.skipped[0].name == "2 classes without a usable image"
            assert store.skipped[0].reason == "not trained: bad, worse"
            assert len(store.skipped) == 3

    def test_labels_from_1(self, tree, png, zipped):
        labels = [["1.png", 1], ["2.png", 2], ["3.png", 1]]
        files = {f"{i}.png": png(i) for i in (1, 2, 3)} | {"dataset.json": json.dumps({"labels": labels}).encode()}
        store = load(tree(files, zipped=zipped))
        assert store.class_names == ("1", "2")
        assert store.labels.tolist() == [0, 1, 0]
        check_skipped(store, {"1 class without a usable image": r": 0$"})

    @pytest.mark.parametrize(
        "labels",
        [
            b'{"labels": [["a.png", 0], ["a.png", 1]]}',
            b'{"labels": [["a.png", 0], ["./a.png", 1]]}',
            b'{"labels": [["a.png", 0]], "labels": [["a.png", 1]]}',
        ],
    )
    def test_two_labels_of_an_image(self, tree, png, zipped, labels):
        with pytest.raises(UserError, match=r"dataset\.json\b.*\btwice\b") as caught:
            load(tree({"a.png": png(1), "dataset.json": labels}, zipped=zipped))
        assert "\n" not in str(caught.value)

    def test_one_label_said_twice(self, tree, png, zipped):
        labels = b'{"labels": [["a.png", 0], ["a.png", 0], ["b.png", 1]]}'
        assert len(load(tree({"a.png": png(1), "b.png": png(2), "dataset.json": labels}, zipped=zipped))) == 2

    @pytest.mark.parametrize(
        "form", ["./{}", "/{}", "x\\{}", ".//{}", "x/./{}"], ids=["dot", "root", "windows", "double", "inside"]
    )
    def test_other_forms_of_a_name_in_dataset_json(self, tree, png, zipped, form):
        folder = "x/" if "x" in form else ""
        files = {f"{folder}{i}.png": png(i) for i in range(4)}
        labels = [[form.format(f"{i}.png"), i % 2] for i in range(4)]
        store = load(tree({**files, "dataset.json": json.dumps({"labels": labels}).encode()}, zipped=zipped))
        assert store.labels.tolist() == [0, 1, 0, 1]
        assert not store.skipped

    def test_composed_and_decomposed_names_in_dataset_json(self, tree, png, zipped):
        names = [unicodedata.normalize("NFD", f"café{i}.png") for i in range(2)]
        labels = [[unicodedata.normalize("NFC", name), i] for i, name in enumerate(names)]
        files = {name: png(i) for i, name in enumerate(names)}
        store = load(tree({**files, "dataset.json": json.dumps({"labels": labels}).encode()}, zipped=zipped))
        assert store.labels.tolist() == [0, 1]


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


def test_a_dataset_json_is_limited_by_the_images_it_can_label(tmp_path, png):
    """A small archive must not cost gigabytes: the JSON is not even unpacked beyond its limit."""
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.png", png(1))
        archive.writestr("dataset.json", b'{"labels": [' + b"[]," * 40_000_000 + b"[]]}")
    assert (tmp_path / "bomb.zip").stat().st_size < 200_000
    tracemalloc.start()
    with pytest.raises(UserError, match=r"dataset\.json\b.*\b8 megabytes\b"):
        load(tmp_path / "bomb.zip")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**26


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


def test_a_source_whose_path_is_not_text_is_refused(tree, png, tmp_path, monkeypatch):
    root = tmp_path / os.fsdecode(b"caf\xe9")
    tree({"1.png": png(1)}).rename(root)
    with pytest.raises(UserError, match=r"\bUTF-8\b"):
        load(root)
    monkeypatch.chdir(root)
    with pytest.raises(UserError, match=r"\bUTF-8\b"):
        load(".")


@pytest.mark.parametrize("name", ["x[1]", "x{1,2}", "x*?", "a::b", "hf:x", "~old", "set.tar", "x[1].zip"])
def test_a_path_that_exists_is_that_path(tree, png, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    tree({"a/1.png": png(1), "b/2.png": png(2)}, name.removesuffix(".zip"), zipped=name.endswith(".zip"))
    for path in (name, tmp_path / name):
        assert load(path).names == ["a/1.png", "b/2.png"]


@pytest.mark.parametrize("name", ["hf:..", "hf:../..", "hf:", "hf:.", "hf:a b", "hf:x/..", "hf:/nowhere", "hf:a/b/c"])
def test_what_is_no_name_of_the_hub_is_refused_before_anything_is_loaded(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"\bhf:USER/NAME\b"):
        load(name)


@pytest.mark.parametrize("name", ["~old", "~old/x"])
def test_a_home_that_nobody_has(name):
    with pytest.raises(UserError, match="does not exist"):
        load(name)
