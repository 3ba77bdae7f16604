"""`sagan data pack`: the bytes of the source in shards that others can read, in one go or resumed."""

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sagan.cli import main
from sagan.config import DataConfig
from sagan.data import prepare
from sagan.data.shards import pack as pack_module
from sagan.data.shards.pack import pack
from sagan.errors import UserError


def write(source, out, size=20_000, **options):
    return pack(
        DataConfig(source=str(source), **options), out, shard_size=size, resolution=32, image_channels=3, progress=False
    )


def members(folder):
    """Name and bytes of every member of all shards."""
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                yield member.name, tar.extractfile(member).read()


@pytest.fixture
def root(tree, png):
    files = {f"{name}/{i}.png": png(100 * k + i) for k, name in enumerate(("cats", "dogs")) for i in range(30)}
    return tree(files | {"cats/x.jpg": png(250, kind="JPEG"), "cats/y.png": png(251, kind="WEBP")})


def test_bytes_are_those_of_the_source(root, tmp_path):
    packed = write(root, tmp_path / "out")
    assert packed.images == 62
    assert packed.shards == len(list((tmp_path / "out").glob("out-*.tar"))) > 2
    contents = dict(members(tmp_path / "out"))
    images = {name: data for name, data in contents.items() if not name.endswith(".cls")}
    assert sorted(images.values()) == sorted(path.read_bytes() for path in root.rglob("*.*"))
    assert {name.split(".")[1] for name in images} == {"png", "jpg", "webp"}
    names = json.loads((tmp_path / "out" / "index.json").read_text())["class_names"]
    by_bytes = {path.read_bytes(): path.parent.name for path in root.rglob("*.*")}
    for name, data in images.items():
        assert names[int(contents[name.split(".")[0] + ".cls"])] == by_bytes[data]


def test_classes_are_mixed(root, tmp_path):
    write(root, tmp_path / "out")
    with tarfile.open(tmp_path / "out" / "out-000000.tar") as tar:
        assert {tar.extractfile(one).read() for one in tar if one.name.endswith(".cls")} == {b"0", b"1"}


def test_the_webdataset_library_reads_them(root, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    write(root, tmp_path / "out")
    urls = sorted(map(str, (tmp_path / "out").glob("*.tar")))
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8").rename(image="png;jpg;webp"))
    assert len(samples) == 62
    colours = {tuple(one["image"][0, 0].tolist()): one["cls"] for one in samples}
    assert all(colours[(number, 0, 77)] == number // 100 for number in (0, 29, 100, 129))


def test_shards_of_the_webdataset_library_are_read(tmp_path, png):
    webdataset = pytest.importorskip("webdataset")
    (tmp_path / "theirs").mkdir()
    with webdataset.ShardWriter(str(tmp_path / "theirs" / "x-%06d.tar"), maxcount=7, verbose=0) as sink:
        for i in range(20):
            sink.write({"__key__": f"sample{i:03d}", "png": png(i), "cls": i % 4, "json": {"n": i}})
    config = DataConfig(source=f"{tmp_path}/theirs/x-{{000000..000002}}.tar")
    store = prepare(config, resolution=8, image_channels=3)
    numbers = store.load_images(np.arange(20))[:, 0, 0, 0].numpy()
    assert numbers.tolist() == list(range(20))
    assert (store.labels == numbers % 4).all()
    assert store.num_classes == 4


def test_the_same_again_is_the_same(root, tmp_path):
    write(root, tmp_path / "out")
    again = tmp_path / "again" / "out"
    write(root, again)
    for path in sorted((tmp_path / "out").iterdir()):
        assert path.read_bytes() == (again / path.name).read_bytes()


def test_damaged_images_are_skipped_by_name(root, tmp_path, png):
    (root / "cats" / "3.png").write_bytes(png(3)[:50])
    (root / "cats" / "4.png").write_bytes(b"")
    packed = write(root, tmp_path / "out")
    assert packed.images == 60
    reasons = {one.name: one.reason for one in packed.skipped}
    assert reasons.keys() == {"cats/3.png", "cats/4.png"}
    assert "damaged" in reasons["cats/3.png"]
    assert "empty" in reasons["cats/4.png"]
    assert len(prepare(DataConfig(source=str(tmp_path / "out")), resolution=8, image_channels=3).skipped) == 2


def test_built_in_sets_and_shards_are_sources_too(tmp_path):
    write("digits", tmp_path / "digits", size=500_000)
    ours = prepare(DataConfig(source=str(tmp_path / "digits")), resolution=32, image_channels=3)
    drawn = prepare(DataConfig(source="digits"), resolution=32, image_channels=3)
    assert ours.class_names == drawn.class_names
    assert ours.labels.tolist() == drawn.labels.tolist()
    some = np.arange(0, 1797, 97)
    np.testing.assert_array_equal(ours.load_images(some), drawn.load_images(some))
    write(tmp_path / "digits", tmp_path / "again", size=10**6)
    again = prepare(DataConfig(source=str(tmp_path / "again")), resolution=32, image_channels=3)
    assert sorted(data for _, data in members(tmp_path / "again")) == sorted(d for _, d in members(tmp_path / "digits"))
    assert np.bincount(again.labels).tolist() == np.bincount(ours.labels).tolist()


@pytest.mark.parametrize("moment", ["add", "finish"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_stopped_and_resumed(root, tmp_path, monkeypatch, moment, error):
    write(root, tmp_path / "complete" / "out")
    method, calls = getattr(pack_module._Shard, moment), []

    def stop(*args, **options):
        calls.append(1)
        if len(calls) == (37 if moment == "add" else 3):
            raise error
        return method(*args, **options)

    monkeypatch.setattr(pack_module._Shard, moment, stop)
    with pytest.raises(UserError if isinstance(error, OSError) else KeyboardInterrupt):
        write(root, tmp_path / "out")
    assert not (tmp_path / "out" / "index.json").exists()
    assert not (tmp_path / "out" / ".packing.tar").exists()
    monkeypatch.undo()
    monkeypatch.setenv("SAGAN_CACHE", str(tmp_path / "cache"))
    read = []
    decode = pack_module.decode
    monkeypatch.setattr(pack_module, "decode", lambda *args, **options: read.append(1) or decode(*args, **options))
    write(root, tmp_path / "out")
    assert len(read) < 62  # what was done was not done again
    assert sorted(os.listdir(tmp_path / "out")) == sorted(os.listdir(tmp_path / "complete" / "out"))
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() == (tmp_path / "complete" / "out" / path.name).read_bytes()


def test_killed_and_resumed(root, tmp_path):
    write(root, tmp_path / "complete" / "out")
    code = f"""
        import os, signal
        from sagan.config import DataConfig
        from sagan.data.shards import pack as module
        from pathlib import Path
        add, calls = module._Shard.add, []
        def die(*args, **options):
            calls.append(1)
            if len(calls) == 45:
                os.kill(os.getpid(), signal.SIGKILL)
            return add(*args, **options)
        module._Shard.add = die
        module.pack(DataConfig(source={str(root)!r}), Path({str(tmp_path / "out")!r}), shard_size=20_000, resolution=32,
                    image_channels=3)
    """
    died = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert (tmp_path / "out" / ".packing.tar").exists()
    write(root, tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == sorted(os.listdir(tmp_path / "complete" / "out"))
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() == (tmp_path / "complete" / "out" / path.name).read_bytes()


def test_a_truncated_line_of_the_journal(root, tmp_path, monkeypatch):
    write(root, tmp_path / "complete" / "out")
    monkeypatch.setattr(pack_module, "_finish", lambda *_: None)
    write(root, tmp_path / "out")
    monkeypatch.undo()
    monkeypatch.setenv("SAGAN_CACHE", str(tmp_path / "cache"))
    journal = tmp_path / "out" / ".packing.jsonl"
    journal.write_text(journal.read_text()[:-30])
    write(root, tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() == (tmp_path / "complete" / "out" / path.name).read_bytes()


def test_folders_that_hold_something_else(root, tmp_path, png):
    write(root, tmp_path / "out")
    with pytest.raises(UserError, match=rf"{re.escape(str(tmp_path / 'out'))}\b.*\bshards\b"):
        write(root, tmp_path / "out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.tar").write_bytes(b"")
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "other"))):
        write(root, tmp_path / "other")
    (tmp_path / "out" / "index.json").unlink()
    (tmp_path / "out" / ".packing.jsonl").write_text('{"fingerprint": "another"}\n')
    with pytest.raises(UserError, match=rf"{re.escape(str(tmp_path / 'out'))}\b.*\bpacking\b"):
        write(root, tmp_path / "out")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "1.png").write_bytes(b"no")
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "bad"))):
        write(tmp_path / "bad", tmp_path / "none")
    assert not list((tmp_path / "none").iterdir())


def test_a_folder_is_not_packed_into_itself(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    before = sorted(root.rglob("*"))
    for out in (root, root / "cats" / "..", tmp_path / "link"):
        with pytest.raises(UserError, match=f"--out {re.escape(str(out))} is the folder of the images"):
            write(root, out)
    assert sorted(root.rglob("*")) == before
    assert write(root, root / "shards").images == 62


def test_built_in_images_are_packed_into_a_folder_of_their_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "robots").mkdir()  # as an interrupted command left it
    assert write("robots", Path("robots"), robots=8).images == 8


def test_command_line(root, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "pack", str(root), "--out", "out"]) == 0
    assert re.search(r"\b62\b.*\b1 shard", capsys.readouterr().out)
    assert main(["data", "out"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"\b62\b.*\b2 classes\b", shown)
    assert re.search(r"\bcats +32\b", shown)
    assert Image.open(*Path().glob("contact-sheet-*.png")).width > 64
    assert main(["data", "pack", str(root), "--out", "out"]) == 2
    assert re.search(r"\bout\b.*\bshards\b", capsys.readouterr().err)
    assert main(["data", "pack", str(root)]) == 2
    assert "--out" in capsys.readouterr().err
