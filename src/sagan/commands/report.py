"""The command sagan report."""

from dataclasses import dataclass

from sagan.commands.arguments import DeviceOption, FileOption, RunArgument


@dataclass(frozen=True)
class Report:
    """Gather a run's pictures, curves, figures and configuration into one HTML file that can be mailed.

    It draws nothing anew: --device is accepted as by the other commands, and changes nothing.
    """

    run: RunArgument
    """Folder of the run; it may be in training still."""
    out: FileOption = None
    """A .html file; default: report.html in the run."""
    device: DeviceOption = "auto"


def report(options: Report) -> None:
    """Runs `sagan report`."""
    from sagan.device import choose_device
    from sagan.render.report import write_report

    choose_device(options.device)  # one that is not there is an error here too
    print(write_report(options.run, options.out))
