"""A pytest plugin: a line of JSON for every test as it ends, in the file $GPU_NOTES, so that a kill costs little."""

import json
import os

import pytest


@pytest.hookimpl
def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # xdist's workers report to the process that has the file
        config.pluginmanager.register(_Notes(os.environ["GPU_NOTES"]))


class _Notes:
    def __init__(self, path: str) -> None:
        self.file = open(path, "a", encoding="utf-8")  # noqa: SIM115

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        note = {
            "test": report.nodeid.removeprefix("tests/"),
            "outcome": report.outcome if report.when == "call" or report.skipped else "error",
            "seconds": round(report.duration, 2),
            "properties": dict(report.user_properties),
            "message": "" if report.passed else _message(report),
        }
        print(json.dumps(note, default=str), file=self.file, flush=True)


def _message(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):  # of a skipped test: file, line, reason
        return report.longrepr[2]
    return report.longreprtext[-2000:]
