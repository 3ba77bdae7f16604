import pytest

from helpers.shards import write_shards


@pytest.fixture
def made(tmp_path, png):
    """90 images, each of a colour that is its number, of three classes in five shards of several pieces."""
    write_shards(tmp_path / "made", [png(i) for i in range(90)], 20, labels=[i % 3 for i in range(90)])
    return tmp_path / "made"
