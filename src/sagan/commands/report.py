"""The command sagan report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Report:
    """Gather a run's pictures, curves, figures and configuration into one HTML file that can be mailed."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run; it may be in training still."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A .html file; default: report.html in the run."""


def report(options: Report) -> None:
    """Runs `sagan report`."""
    from sagan.report import write_report

    print(write_report(options.run, options.out))
