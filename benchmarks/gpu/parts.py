"""Named parts of a measurement, each in a process of its own and within one deadline, and the report that they fill.

A part that raises, hangs or is killed costs its own result and no other: what it noted before stays. The report is
three files, NAME.json, NAME.md and NAME.tar.gz (what the parts wrote), replaced as wholes after every part, so that
whoever kills the whole finds there what was done.
"""

import argparse
import contextlib
import datetime
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
GRACE = 5.0  # seconds between being asked to stop and being killed
POLL = 0.2  # seconds


@dataclass(frozen=True)
class Part:
    """One question, and what answers it."""

    name: str
    run: Callable[["Work"], None]
    """Its docstring is the question, in the report too."""
    seconds: float
    """The most that it may take, the start of its process included."""
    leave: float = 0.0
    """Seconds to leave for the parts after it, however much it could use."""
    when_asked: bool = False
    """Only with --only."""


@dataclass(frozen=True)
class Work:
    """What a part is given: where to note and write, and its options."""

    options: argparse.Namespace
    folder: Path
    """Files written here are archived; it is shared by the parts of one report."""
    notes: Path
    end: float
    """Value of time.time() at which the part is stopped."""

    @property
    def device(self) -> str:
        return self.options.device

    @property
    def toy(self) -> bool:
        """Whether to do as little as shows that it works."""
        return self.options.toy

    @property
    def left(self) -> float:
        """Seconds until the part is stopped."""
        return self.end - time.time()

    def value(self, name: str, value: Any) -> None:
        """Notes a number or a text by name."""
        self._note({"value": [name, value]})

    def row(self, table: str, **cells: Any) -> None:
        """Notes a row of a table; its columns are those of the table's first row."""
        self._note({"row": [table, cells]})

    def values(self) -> dict[str, Any]:
        """What was noted so far, by the parts before this one too."""
        found: dict[str, Any] = {}
        for path in sorted(self.notes.parent.glob("*.notes")):
            found |= dict(note["value"] for note in read(path) if "value" in note)
        return found

    def _note(self, note: dict[str, Any]) -> None:
        with self.notes.open("a", encoding="utf-8") as file:
            file.write(json.dumps(note, default=str) + "\n")


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The notes in a file; a last line cut short by a kill is skipped."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


@dataclass
class Report:
    """The report of one name in a folder."""

    name: str
    title: str
    folder: Path
    command: str
    volume: float
    """MiB of a file of the archive at most; 0: it is one file."""
    content: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob(f"{self.name}.tar.gz*"):
            path.unlink()
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.content = {"name": self.name, "command": self.command, "started": now, "code": code(), "machine": ""}
        self.content["parts"] = []

    def write(self, work: Path | None = None) -> None:
        """Replaces the JSON and the Markdown, and the archive by what is in `work`."""
        replace(self.folder / f"{self.name}.json", json.dumps(self.content, indent=1).encode() + b"\n")
        replace(self.folder / f"{self.name}.md", self.markdown().encode())
        if work is None:
            return
        whole = self.folder / f".{self.name}.tar.gz"
        with tarfile.open(whole, "w:gz", compresslevel=1) as archive:
            archive.add(work, self.name)
        if not self.volume:
            os.replace(whole, self.folder / f"{self.name}.tar.gz")
            return
        data, step = whole.read_bytes(), int(self.volume * 2**20)
        for i in range(0, len(data), step):
            replace(self.folder / f"{self.name}.tar.gz.{i // step}", data[i : i + step])
        whole.unlink()

    def markdown(self) -> str:
        content = self.content
        lines = [f"# {self.title}", "", f"{content['started']}, {content['machine'] or 'machine unknown'}", ""]
        lines += [f"Code {content['code']}", "", f"    {content['command']}", ""]
        for part in content["parts"]:
            lines += [f"## {part['name']}: {part['state']}, {part['seconds']:.0f} s", "", part["question"], ""]
            lines += [f"* {name}: {value}" for name, value in part["values"].items()]
            lines += [""] if part["values"] else []
            for table, rows in part["tables"].items():
                lines += [f"{table}:", "", *_table(rows), ""]
            if part["error"]:
                lines += ["```", part["error"].strip(), "```", ""]
        return "\n".join(lines)


def _table(rows: list[dict[str, Any]]) -> list[str]:
    columns = list(rows[0])
    cells = [[str(row.get(column, "")).replace("|", "/") for column in columns] for row in rows]
    return ["| " + " | ".join(line) + " |" for line in (columns, ["---"] * len(columns), *cells)]


def replace(path: Path, data: bytes) -> None:
    """Writes a file that is at no time half there."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def code() -> str:
    """Which code is measured: the commit, where git knows, and a digest of the package's files."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "src").rglob("*.py")):
        digest.update(path.read_bytes())
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "of an unknown commit"
    return f"{commit}, sources {digest.hexdigest()[:12]}"


def run_all(report: Report, parts: list[Part], seconds: float, command: list[str]) -> bool:
    """Runs the parts one after the other until the time is over. Returns whether all were done without an error.

    `command` with --part NAME, --work FOLDER, --notes FILE and --end TIME calls `run_one`.
    """
    end = time.time() + seconds
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is ended too
    with tempfile.TemporaryDirectory(prefix="sagan-gpu-") as name:
        work, notes = Path(name) / "work", Path(name) / "notes"
        work.mkdir()
        notes.mkdir()
        report.write(work)
        for number, part in enumerate(parts):
            result = _entry(part)
            report.content["parts"].append(result)
            most = min(part.seconds, end - time.time() - part.leave)
            if most < 2 * GRACE:
                result["state"] = "skipped, no time left"
            else:
                print(f"\n== {report.name}: {part.name}, at most {most:.0f} s", flush=True)
                file = notes / f"{number:02}.notes"
                _run(report, result, [*command, "--part", part.name, "--work", name], file, most)
            report.write(work)
    for part_result in report.content["parts"]:
        print(f"{part_result['name']}: {part_result['state']}")
    print(f"{report.folder / report.name}.md")
    return all(result["state"] == "done" for result in report.content["parts"])


def _entry(part: Part) -> dict[str, Any]:
    question = " ".join((part.run.__doc__ or "").split())
    return {
        "name": part.name,
        "question": question,
        "state": "running",
        "seconds": 0.0,
        "values": {},
        "tables": {},
        "error": "",
    }


def _run(report: Report, result: dict[str, Any], command: list[str], notes: Path, seconds: float) -> None:
    """One part in a process of its own, which is stopped with all that it started; the report follows its notes."""
    start, seen, output = time.time(), -1, notes.with_suffix(".log")
    command = [*command, "--notes", str(notes), "--end", str(start + seconds - GRACE)]
    with output.open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    stopped = False
    try:
        while process.poll() is None:
            time.sleep(POLL)
            now = time.time() - start
            if now > seconds - GRACE and not stopped:
                stopped = True
                _signal(process, signal.SIGINT)  # sagan train saves, pytest writes its report
            if now > seconds:
                _signal(process, signal.SIGKILL)
            if notes.exists() and notes.stat().st_size != seen:
                seen = notes.stat().st_size
                _collect(report, result, notes, start)
                report.write()
    finally:
        _signal(process, signal.SIGKILL)  # what it left running
        process.wait()
    _collect(report, result, notes, start)
    result["state"] = "stopped, its time was over" if stopped else "failed" if process.returncode else "done"
    if result["state"] != "done":
        tail = output.read_text(errors="replace")[-3000:]
        error = result["error"] or f"exit status {process.returncode}\n{tail}"
        result["error"] = error.replace(f"{ROOT}/", "").replace(sys.prefix, "PYTHON")  # folders are nobody's business
        print(f"   {result['state']}: {result['error'].strip().splitlines()[-1]}", flush=True)


def _signal(process: subprocess.Popen, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _collect(report: Report, result: dict[str, Any], notes: Path, start: float) -> None:
    """Brings the notes so far into the result, and prints those that are new."""
    values: dict[str, Any] = {}
    tables: dict[str, list[dict[str, Any]]] = {}
    for note in read(notes):
        if "value" in note:
            name, value = note["value"]
            values[name] = value
            if name not in result["values"]:
                print(f"   {name}: {value}", flush=True)
        elif "row" in note:
            table, cells = note["row"]
            tables.setdefault(table, []).append(cells)
            if len(tables[table]) > len(result["tables"].get(table, ())):
                print(f"   {table}: {', '.join(f'{k} {v}' for k, v in cells.items())}", flush=True)
        elif "machine" in note:
            report.content["machine"] = report.content["machine"] or note["machine"]
        else:
            result["error"] = note["error"]
    result["values"], result["tables"], result["seconds"] = values, tables, round(time.time() - start, 1)


def run_one(part: Part, options: argparse.Namespace, describe: Callable[[str], str]) -> int:
    """The process's side: runs a part, and notes its error if it raises one. Returns the exit status."""
    work = Work(options, Path(options.work) / "work", Path(options.notes), options.end)
    try:
        work._note({"machine": describe(options.device)})
        part.run(work)
    except BaseException:
        work._note({"error": traceback.format_exc()})
        return 1
    return 0


def keep(work: Work, path: Path, name: str = "") -> None:
    """Copies a file into the archive."""
    if path.exists():
        shutil.copyfile(path, work.folder / (name or path.name))
