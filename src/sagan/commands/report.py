"""The command sagan report."""

from dataclasses import dataclass

from sagan.commands.arguments import FileOption, RunArgument


@dataclass(frozen=True)
class Report:
    """Gather a run's pictures, curves, figures and configuration into one HTML file that can be mailed."""

    run: RunArgument
    """Folder of the run; it may be in training still."""
    out: FileOption = None
    """A .html file; default: report.html in the run."""


def report(options: Report) -> None:
    """Runs `sagan report`."""
    from sagan.render.report import write_report

    print(write_report(options.run, options.out))
