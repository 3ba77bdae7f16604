"""The parts of `make gpu` survive each other; who kills the whole finds what was done (benchmarks/gpu/parts.py)."""

import json
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PROGRAM = '''
import argparse, os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {benchmarks!r})
from gpu import parts
from gpu.parts import Part, Report, keep, run_all, run_one
parts.GRACE = 1.0

def good(work):
    """Is it?"""
    work.value("answer", 42)
    (work.folder / "good.txt").write_text("kept")

def raises(work):
    work.row("rows", a=1, b="x|y")
    work.row("rows", a=2, b="z")
    raise ValueError("on purpose")

def hangs(work):
    work.value("before", work.values()["answer"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    (Path({out!r}) / "hanging").write_text(str(os.getpid()))
    time.sleep(600)

def dies(work):
    work.value("before", 1)
    os.kill(os.getpid(), signal.SIGKILL)

parser = argparse.ArgumentParser()
for name in ("--part", "--work", "--notes"):
    parser.add_argument(name)
parser.add_argument("--end", type=float)
parser.add_argument("--seconds", type=float, default=60)
options = parser.parse_args()
options.device = "cpu"
every = [Part("good", good, 20), Part("raises", raises, 20), Part("dies", dies, 20), Part("hangs", hangs, {limit})]
every.append(Part("last", good, 20))
if options.part:
    sys.exit(run_one(next(p for p in every if p.name == options.part), options, lambda device: "a machine"))
report = Report("try", "Does it survive?", Path({out!r}), "a command", {volume})
sys.exit(not run_all(report, every, options.seconds, [sys.executable, *sys.argv]))
'''


def start(tmp_path, limit=4, volume=0, seconds=60):
    (tmp_path / "out").mkdir(exist_ok=True)
    program = tmp_path / "program.py"
    program.write_text(
        PROGRAM.format(benchmarks=str(BENCHMARKS), out=str(tmp_path / "out"), limit=limit, volume=volume)
    )
    return subprocess.Popen([sys.executable, program, "--seconds", str(seconds)], stdout=subprocess.PIPE, text=True)


def parts(tmp_path):
    content = json.loads((tmp_path / "out/try.json").read_text())
    return {part["name"]: part for part in content["parts"]}


def wait_for(condition):
    end = time.time() + 60
    while not condition():
        assert time.time() < end
        time.sleep(0.05)


def is_running(number):
    status = Path(f"/proc/{number}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_each_part_has_its_own_end(tmp_path):
    process = start(tmp_path)
    process.communicate(timeout=100)
    assert process.returncode == 1
    found = parts(tmp_path)
    assert found["good"]["state"] == found["last"]["state"] == "done"
    assert found["good"]["values"] == {"answer": 42}
    assert found["raises"]["state"] == "failed"
    assert "ValueError: on purpose" in found["raises"]["error"]
    assert found["raises"]["tables"] == {"rows": [{"a": 1, "b": "x|y"}, {"a": 2, "b": "z"}]}
    assert found["dies"]["state"] == "failed"
    assert found["dies"]["values"] == {"before": 1}
    assert found["hangs"]["state"].startswith("stopped")
    assert found["hangs"]["values"] == {"before": 42}  # what an earlier part noted
    assert found["hangs"]["seconds"] < 10
    text = (tmp_path / "out/try.md").read_text()
    assert "a machine" in text
    assert "| 1 | x/y |" in text
    with tarfile.open(tmp_path / "out/try.tar.gz") as archive:
        assert "try/good.txt" in archive.getnames()
    assert not list((tmp_path / "out").glob(".*"))


def test_no_part_begins_when_the_time_is_over(tmp_path):
    start(tmp_path, seconds=1).communicate(timeout=100)
    assert {part["state"] for part in parts(tmp_path).values()} == {"skipped, no time left"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_what_was_done_outlives_a_kill(tmp_path, number):
    process = start(tmp_path, limit=30)
    wait_for(lambda: (tmp_path / "out/hanging").exists() and "hangs" in parts(tmp_path))
    hanging = int((tmp_path / "out/hanging").read_text())
    process.send_signal(number)
    process.communicate(timeout=60)
    try:
        found = parts(tmp_path)
        assert found["good"]["values"] == {"answer": 42}
        assert [found[name]["state"] for name in ("good", "raises", "dies")] == ["done", "failed", "failed"]
        with tarfile.open(tmp_path / "out/try.tar.gz") as archive:
            assert "try/good.txt" in archive.getnames()
        if number != signal.SIGKILL:  # which no process can answer
            assert not is_running(hanging)
    finally:
        if is_running(hanging):
            subprocess.run(["kill", "-9", str(hanging)], check=True)


def test_a_large_archive_is_cut(tmp_path):
    start(tmp_path, limit=1, volume=0.0001).communicate(timeout=100)
    pieces = sorted((tmp_path / "out").glob("try.tar.gz.*"), key=lambda path: int(path.suffix[1:]))
    assert len(pieces) > 1
    assert max(path.stat().st_size for path in pieces) <= 105
    (tmp_path / "whole.tar.gz").write_bytes(b"".join(path.read_bytes() for path in pieces))
    with tarfile.open(tmp_path / "whole.tar.gz") as archive:
        assert "try/good.txt" in archive.getnames()
