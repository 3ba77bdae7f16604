import io

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """No test touches the user's cache."""
    monkeypatch.setenv("SAGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def png():
    """`png(number)`: the bytes of an 8 x 8 image of one colour, made of the number's digits."""

    def make(number, side=8, kind="PNG"):
        colour = (number % 256, number // 256 % 256, 77)
        buffer = io.BytesIO()
        Image.fromarray(np.full((side, side, 3), colour, np.uint8)).save(buffer, format=kind)
        return buffer.getvalue()

    return make


@pytest.fixture
def tree(tmp_path):
    """`tree({"a/1.png": bytes, ...})`: a folder of these files, or a .zip."""

    def make(files, name="images", zipped=False):
        import zipfile

        if zipped:
            path = tmp_path / f"{name}.zip"
            with zipfile.ZipFile(path, "w") as archive:
                for file, data in files.items():
                    archive.writestr(file, data)
            return path
        for file, data in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return tmp_path / name

    return make
