import pytest
from explorer_runs import make_run

from sagan.explorer.engine import Explorer
from sagan.explorer.networks import read_networks


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("explorer") / "run", discriminator_attention=((16, "self"), (4, "self")))


@pytest.fixture(scope="session")
def explorer(run):
    return Explorer(read_networks(run))
