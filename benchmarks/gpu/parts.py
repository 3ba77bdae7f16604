"""Run the named parts of a measurement, each in its own process and all within one deadline, and write their report.

A part that raises, hangs or is killed loses only its own result, and what it noted before stays. The report has three
files, NAME.json, NAME.md and NAME.tar.gz (the files that the parts wrote). They are replaced atomically after every
part, so that killing the measurement loses nothing that was done.
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
GRACE = 5.0  # seconds between the request to stop and the kill
POLL = 0.2  # seconds between two looks at a part


@dataclass(frozen=True)
class Part:
    """One question of a measurement, and the function that answers it."""

    name: str
    run: Callable[["Work"], None]
    """Its docstring is the question, in the report too."""
    seconds: float
    """Time limit, including the start of its process."""
    leave: float = 0.0
    """Seconds that it must leave for the parts after it."""
    when_asked: bool = False
    """Whether it runs only if --only names it."""


@dataclass(frozen=True)
class Work:
    """What a part gets: where to note results and write files, and its options."""

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
        """Whether to use a toy size, to see that everything runs."""
        return self.options.toy

    @property
    def left(self) -> float:
        """Seconds until the part is stopped."""
        return self.end - time.time()

    def value(self, name: str, value: Any) -> None:
        """Note a number or a text by name."""
        self._note({"value": [name, value]})

    def row(self, table: str, **cells: Any) -> None:
        """Note a row of a table, whose first row determines its columns."""
        self._note({"row": [table, cells]})

    def values(self) -> dict[str, Any]:
        """Return all values noted so far, including those of earlier parts."""
        values: dict[str, Any] = {}
        for path in sorted(self.notes.parent.glob("*.notes")):
            values |= dict(note["value"] for note in read(path) if "value" in note)
        return values

    def _note(self, note: dict[str, Any]) -> None:
        with self.notes.open("a", encoding="utf-8") as file:
            file.write(json.dumps(note, default=str) + "\n")


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the notes in a file; a last line that a kill truncated is skipped."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


@dataclass
class Report:
    """The report of one measurement, in a folder."""

    name: str
    title: str
    folder: Path
    command: str
    volume: float
    """Maximum MiB per file of the archive; 0: one file."""
    content: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob(f"{self.name}.tar.gz*"):
            path.unlink()
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.content = {"name": self.name, "command": self.command, "started": now, "code": code(), "machine": ""}
        self.content["parts"] = []

    def write(self, work: Path | None = None) -> None:
        """Write the JSON and the Markdown, and an archive of the folder `work`."""
        replace(self.folder / f"{self.name}.json", json.dumps(self.content, indent=1).encode() + b"\n")
        replace(self.folder / f"{self.name}.md", self.markdown().encode())
        if work is None:
            return
        archive_path = self.folder / f".{self.name}.tar.gz"
        with tarfile.open(archive_path, "w:gz", compresslevel=1) as archive:
            archive.add(work, self.name)
        if not self.volume:
            os.replace(archive_path, self.folder / f"{self.name}.tar.gz")
            return
        data = archive_path.read_bytes()
        step = int(self.volume * 2**20)
        for i in range(0, len(data), step):
            replace(self.folder / f"{self.name}.tar.gz.{i // step}", data[i : i + step])
        archive_path.unlink()

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
    """Replace a file atomically."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def code() -> str:
    """Describe the code that is measured: the commit, if git knows it, and a digest of the package's files."""
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
    """Run the parts one after the other until the time is over; returns whether all were done without an error.

    `command` with --part NAME, --work FOLDER, --notes FILE and --end TIME calls `run_one`.
    """
    end = time.time() + seconds
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the running part is stopped too
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
    """Run one part in its own process, stopped with all its children, and update the report as it notes results."""
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
        _signal(process, signal.SIGKILL)  # also ends processes that it left running
        process.wait()
    _collect(report, result, notes, start)
    result["state"] = "stopped, its time was over" if stopped else "failed" if process.returncode else "done"
    if result["state"] != "done":
        tail = output.read_text(errors="replace")[-3000:]
        error = result["error"] or f"exit status {process.returncode}\n{tail}"
        result["error"] = error.replace(f"{ROOT}/", "").replace(sys.prefix, "PYTHON")  # hides folders of this machine
        print(f"   {result['state']}: {result['error'].strip().splitlines()[-1]}", flush=True)


def _signal(process: subprocess.Popen, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _collect(report: Report, result: dict[str, Any], notes: Path, start: float) -> None:
    """Copy the notes so far into the result, and print new ones."""
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
    """Run a part in its own process, and note its error if it raises one; returns the exit status."""
    work = Work(options, Path(options.work) / "work", Path(options.notes), options.end)
    try:
        work._note({"machine": describe(options.device)})
        part.run(work)
    except BaseException:
        work._note({"error": traceback.format_exc()})
        return 1
    return 0


def keep(work: Work, path: Path, name: str = "") -> None:
    """Copy a file into the archive."""
    if path.exists():
        shutil.copyfile(path, work.folder / (name or path.name))
