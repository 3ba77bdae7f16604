import pytest

from helpers.runs import make_run
from sagan.explorer.engine import Explorer
from sagan.explorer.networks import read_networks


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explorer") / "run"
    return make_run(folder, checkpoint=True, discriminator_attention=((16, "self"), (4, "self"))).path


@pytest.fixture(scope="session")
def explorer(run):
    return Explorer(read_networks(run))
