"""A UserError is a ValueError, and code that turns other ValueErrors into messages lets it pass as it is."""

import io
import tarfile

import pytest

from helpers.runs import make_run
from sagan import UserError
from sagan.data.images import Unavailable
from sagan.data.shards.index import scan
from sagan.importers.mmgeneration import parse_model_config
from sagan.render.curves import read_film_strip, write_curves


def test_it_is_a_value_error():
    assert issubclass(UserError, ValueError)


def test_a_server_out_of_reach_is_no_damaged_shard():
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for number in range(3):
            member = tarfile.TarInfo(f"{number}.png")
            member.size = 5000
            tar.addfile(member, io.BytesIO(bytes(5000)))

    def read(start, end):
        if start > 4000:
            raise Unavailable("the server does not answer")
        return data.getvalue()[start:end]

    with pytest.raises(Unavailable, match="the server does not answer"):
        scan("a.tar", len(data.getvalue()), read, 512)


def test_a_configuration_that_is_refused_is_python_nevertheless():
    with pytest.raises(UserError, match="changed in line 2"):
        parse_model_config("model = dict()\nmodel.update(a=1)")


def test_files_of_a_run_that_cannot_be_read_are_named(tmp_path):
    run = make_run(tmp_path / "run", samples=[5])
    run.metrics_path.mkdir()
    with pytest.raises(UserError, match="could not be read"):
        write_curves(run.path)
    run.sample_path(5).write_bytes(b"not a PNG")
    with pytest.raises(UserError, match=r"not a readable PNG: delete it$"):
        read_film_strip(run)
