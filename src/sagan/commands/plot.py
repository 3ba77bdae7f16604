"""The command sagan plot."""

from dataclasses import dataclass

from sagan.commands.arguments import FileOption, RunArgument


@dataclass(frozen=True)
class Plot:
    """Draw a run's losses, logits, gammas and evaluations, and how its pictures changed."""

    run: RunArgument
    """Folder of the run; it may be in training still."""
    out: FileOption = None
    """A .png or .svg for the curves, samples-over-time.png beside it; default: curves.png in the run."""


def plot(options: Plot) -> None:
    """Runs `sagan plot`."""
    from sagan.render.curves import write_curves, write_film_strip

    out = write_curves(options.run, options.out)
    print(out)
    strip = write_film_strip(options.run, options.out and out.with_name("samples-over-time.png"))
    print(strip or "no film strip: the run has no grid of samples yet")
