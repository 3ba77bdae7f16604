"""The command `sagan report`."""

from dataclasses import dataclass

from sagan.commands.arguments import DeviceOption, RunArgument
from sagan.config import FileOption


@dataclass(frozen=True)
class Report:
    """Write one self-contained HTML file with a run's images, curves, metrics and configuration.

    The report shows what the run already contains; --device is only checked.
    """

    run: RunArgument
    """Folder of the run, which may still be training."""
    out: FileOption = None
    """File to write, .html; default: report.html in the run."""
    device: DeviceOption = "auto"


def report(options: Report) -> None:
    """Run `sagan report`."""
    from sagan.device import choose_device
    from sagan.render.report import write_report

    choose_device(options.device)  # a missing device is an error, as in the other commands
    print(write_report(options.run, options.out))
