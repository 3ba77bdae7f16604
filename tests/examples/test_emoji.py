"""examples/emoji.py makes class folders from the package's files: white, once each, without skin tones."""

import hashlib
import importlib.util
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sagan.config import DataConfig
from sagan.data import prepare

FILE = Path(__file__).parents[2] / "examples" / "emoji.py"


def load_example():
    spec = importlib.util.spec_from_file_location("emoji", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


emoji = load_example()


def png(colour):
    buffer = io.BytesIO()
    image = Image.new("RGBA", (64, 64), colour)
    image.putpixel((0, 0), (0, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 128))
    image.save(buffer, "PNG")
    return buffer.getvalue()


def row(name, category, order, **more):
    return {"image": f"{name}.png", "category": category, "sort_order": order, "has_img_google": True} | more


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write a package of a few emoji in the layout of the real one, and accept it for the real one."""
    rows = [
        row("twin", "Food & Drink", 3),
        row("grin", "Smileys & Emotion", 1, skin_variations={"1F3FB": {"image": "grin-dark.png"}}),
        row("cake", "Food & Drink", 2),
        row("tone", "Component", 4),
        row("missing", "Flags", 5, has_img_google=False),
    ]
    files = {"emoji.json": json.dumps(rows).encode(), "img/google/sheets/32.png": b"not read"}
    colours = {"twin": "green", "cake": "green", "grin": "yellow", "grin-dark": "brown", "tone": "pink"}
    files |= {f"img/google/64/{name}.png": png(colour) for name, colour in colours.items()}
    path = tmp_path / "package.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    monkeypatch.setattr(emoji, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def test_makes_a_folder_and_an_equal_zip_that_sagan_reads(package, tmp_path, capsys):
    folder, archive, again = tmp_path / "emoji", tmp_path / "emoji.zip", tmp_path / "again.zip"
    for out in (folder, archive, again):
        assert emoji.main(["--out", str(out), "--package", str(package)]) == 0
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*"))
    assert names == ["LICENSE.txt", "food-drink/cake.png", "smileys-emotion/grin.png"]
    assert "Apache" in (folder / "LICENSE.txt").read_text()
    assert "2 images in 2 classes; Noto Emoji by Google, Apache License 2.0" in capsys.readouterr().out
    with zipfile.ZipFile(archive) as opened:
        assert sorted(opened.namelist()) == names
        assert {info.date_time[0] for info in opened.infolist()} == {1980}  # the same bytes at any time
        assert all(opened.read(name) == (folder / name).read_bytes() for name in names)
    assert archive.read_bytes() == again.read_bytes()
    pixels = np.asarray(Image.open(folder / "smileys-emotion/grin.png"))
    assert pixels.shape == (64, 64, 3)
    assert pixels[0, :3].tolist() == [[255, 255, 255], [255, 127, 127], [255, 255, 0]]
    configs = [DataConfig(str(source), cache=str(tmp_path / "cache")) for source in (folder, archive)]
    stores = [prepare(config, resolution=64, image_channels=3) for config in configs]
    assert stores[0].key == stores[1].key
    assert stores[0].class_names == ("food-drink", "smileys-emotion")


def refused(capsys, *arguments):
    """Run the command, which fails, and return its one line."""
    assert emoji.main([str(argument) for argument in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_says_in_one_line_what_is_wrong(package, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    assert f"--out {tmp_path} exists already" in refused(capsys, "--out", tmp_path, "--package", package)
    assert "cannot be read: No such file" in refused(capsys, "--out", out, "--package", tmp_path / "none.tgz")
    assert "is not the package emoji-datasource-google" in refused(capsys, "--out", out, "--package", FILE)
    under_a_file = package / "out.zip"
    assert "cannot be written: File exists" in refused(capsys, "--out", under_a_file, "--package", package)
    monkeypatch.setenv("PATH", "")
    assert "npm is not installed" in refused(capsys, "--out", out)
    # An npm that fails as the real one does without a network.
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error code ECONNREFUSED' >&2\necho 'npm error errno 1' >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "could not download" in (line := refused(capsys, "--out", out))
    assert "(ECONNREFUSED): check the network" in line
    assert not out.exists()
