import pytest

from sagan import Config, UserError
from sagan.run import Run, RunInfo
from sagan.training.metrics_log import MetricsLog


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run", RunInfo(Config(), (), "key"))


def test_rows_after_the_checkpoint_are_dropped_on_resuming(run):
    log = MetricsLog(run, 0)
    for step in (2, 4, 6):
        log.write(step, {"loss": step / 2})
    log.close()
    with open(run.metrics_path, "a") as file:
        file.write('{"step": 8, "lo')  # cut off by a crash
    log = MetricsLog(run, 4)
    log.write(6, {"loss": 30.0})
    log.close()
    assert run.metrics() == [{"step": 2, "loss": 1.0}, {"step": 4, "loss": 2.0}, {"step": 6, "loss": 30.0}]


def test_a_full_disk_is_named(run):
    log = MetricsLog(run, 0)
    log.file = open("/dev/full", "w")  # noqa: SIM115
    with pytest.raises(UserError, match=r"metrics\.jsonl\b.*No space left"):
        log.write(1, {"loss": 1.0})
    log.close()
