"""Describe and time this machine, and print tables: what the benchmarks share.

python benchmarks/machine.py          # prints the machine and its peak
"""

import argparse
import datetime
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

RESULTS = Path(__file__).parent / "results"
MATRIX_SIDES = {"cpu": (1024, 2048, 3072), "cuda": (4096, 8192)}
# Images, channels and side of 3x3 convolutions, by device: the shapes of a network at 128 px.
CONVOLUTIONS = {
    "cpu": ((8, 64, 128), (8, 128, 64), (8, 256, 32), (8, 512, 16)),
    "cuda": ((256, 128, 64), (256, 256, 32), (256, 512, 16)),
}


def processor() -> str:
    """Return the processor's name for itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


def describe(device: torch.device | str = "cpu") -> str:
    """Describe the machine and the versions in one line."""
    device = torch.device(device)
    machine = f"{processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    if device.type == "cuda":
        machine = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}; {machine}"
    return f"{machine}; python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}"


def wait(device: torch.device | str) -> None:
    """Wait until the device has finished its work."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def seconds(call: Callable[[], object], device: torch.device | str = "cpu") -> float:
    """Return the seconds of one call, to the end of its work on the device."""
    wait(device)
    start = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - start


def alternate(
    calls: Mapping[str, Callable[[], object]], rounds: int, device: torch.device | str = "cpu"
) -> dict[str, list[float]]:
    """Return the seconds of each call in each round. The calls take turns, so that a slow moment slows all of them.

    Warm the calls up before.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds(call, device))
    return times


def peak(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, rounds: int = 5) -> float:
    """Return the most GFLOP/s (a multiply-add is 2) of a matrix product or a channels_last 3x3 convolution here."""
    device, best = torch.device(device), 0.0
    for side in MATRIX_SIDES[device.type]:
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        best = max(best, 2 * side**3 / _fastest(lambda a=a, b=b: a @ b, rounds, device))
    for n, c, side in CONVOLUTIONS[device.type]:
        x = torch.randn(n, c, side, side, device=device, dtype=dtype).to(memory_format=torch.channels_last)
        w = torch.randn(c, c, 3, 3, device=device, dtype=dtype).to(memory_format=torch.channels_last)
        call = lambda x=x, w=w: F.conv2d(x, w, padding=1)  # noqa: E731
        best = max(best, 2 * 9 * n * c * c * side**2 / _fastest(call, rounds, device))
    return best / 1e9


@torch.no_grad()
def _fastest(call: Callable[[], object], rounds: int, device: torch.device) -> float:
    call()
    call()
    return min(seconds(call, device) for _ in range(rounds))


def memory(name: str = "VmHWM") -> float:
    """Return a value of /proc/self/status in GiB (Linux); VmHWM is the peak memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(name))) / 2**20


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Return the median, the smallest and the largest of the values, in words."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def argument_parser(description: str | None, *, save: bool = False) -> argparse.ArgumentParser:
    """Return a parser whose help is the script's docstring; `save` adds the option --save NAME for a `Table`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if save:
        parser.add_argument("--save", default="", metavar="NAME", help="also write the table to results/NAME.md")
    return parser


class Table:
    """Print a table row by row, and write it to results/NAME.md from the first row on.

    Args:
        title: what is measured.
        columns: their names.
        save: NAME of the file, without .md; empty: print only.
        notes: lines above the rows; `note` adds more during the measurements.
        device: the device that is measured.
    """

    def __init__(
        self,
        title: str,
        columns: Sequence[str],
        *,
        save: str = "",
        notes: Iterable[str] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        self.title = title
        self.columns = list(columns)
        self.save = save
        self.device = device
        self.notes = list(notes)
        self.rows: list[list[str]] = []
        for line in (title, describe(device), *self.notes, "", _row(self.columns), _row(["---"] * len(self.columns))):
            print(line, flush=True)

    def note(self, line: str) -> None:
        """Add a line, which is above the rows in the file."""
        self.notes.append(line)
        print(line, flush=True)
        self._write()

    def row(self, *cells: object) -> None:
        """Add a row; missing cells at its end are empty."""
        missing = len(self.columns) - len(cells)
        self.rows.append([*map(str, cells), *[""] * missing])
        print(_row(self.rows[-1]), flush=True)
        self._write()

    def _write(self) -> None:
        if not self.save:
            return
        command = f"python benchmarks/{Path(sys.argv[0]).name} {shlex.join(_public(a) for a in sys.argv[1:])}".strip()
        lines = [f"# {self.title}", "", f"{datetime.date.today()}, {describe(self.device)}", "", f"    {command}", ""]
        lines += [line for note in self.notes for line in (note, "")]
        lines += [_row(self.columns), _row(["---"] * len(self.columns)), *map(_row, self.rows)]
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{self.save}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _public(argument: str) -> str:
    """Replace a folder of this machine by FOLDER."""
    return "FOLDER" if Path(argument).is_absolute() else argument


def main() -> None:
    argument_parser(__doc__).parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(describe(device))
    for dtype in (torch.float32, torch.bfloat16):
        print(f"{str(dtype).removeprefix('torch.')}: {peak(device, dtype):,.0f} GFLOP/s")


if __name__ == "__main__":
    main()
