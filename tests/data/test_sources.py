"""What each kind of source is found to hold."""

import json
import os
import re
import tracemalloc
import unicodedata
import zipfile

import numpy as np
import pytest

from helpers.sources import check_skipped, load
from sagan.data.source import natural_key
from sagan.data.tree import LABEL_BYTES
from sagan.errors import UserError
from sagan.figures.grid import animate, draw_grid, save


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


def test_a_vast_dataset_json_is_refused(tree, png):
    path = tree({"a/1.png": png(1)})
    with open(path / "dataset.json", "wb") as file:
        file.truncate(sum(LABEL_BYTES) + 1)
    with pytest.raises(UserError, match=r"dataset\.json\b.*\b8 megabytes\b"):
        load(path)


@pytest.mark.parametrize(("name", "hint"), [("robot", "'robots'"), ("digit", "'digits'"), ("x/y", "")])
def test_unknown_sources(name, hint):
    with pytest.raises(UserError, match=f"'{name}'.*{hint}.*'hf:USER/NAME'.*'robots'.*'digits'"):
        load(name)


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


@pytest.mark.parametrize("name", ["~old", "~old/x"])
def test_a_home_that_nobody_has(name):
    with pytest.raises(UserError, match="does not exist"):
        load(name)
