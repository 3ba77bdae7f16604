import pytest

from helpers.shards import write_shards
from sagan.data.shards import reader, remote


@pytest.fixture
def made(tmp_path, png):
    """90 images, each of a colour that is its number, of three classes in five shards of several pieces."""
    write_shards(tmp_path / "made", [png(i) for i in range(90)], 20, labels=[i % 3 for i in range(90)])
    return tmp_path / "made"


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces of about four images and what is between them, and short waits."""
    monkeypatch.setattr(reader, "PIECE", 8000)
    monkeypatch.setattr(remote, "WAITS", (0.01, 0.01))
