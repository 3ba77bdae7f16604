"""The command `sagan plot`."""

from dataclasses import dataclass

from sagan.commands.arguments import RunArgument
from sagan.config import FileOption


@dataclass(frozen=True)
class Plot:
    """Draw a run's curves (losses, logits, gammas, evaluations), and its samples over time."""

    run: RunArgument
    """Folder of the run, which may still be training."""
    out: FileOption = None
    """File for the curves, .png or .svg; samples-over-time.png goes next to it; default: curves.png in the run."""


def plot(options: Plot) -> None:
    """Run `sagan plot`."""
    from sagan.render.curves import write_curves, write_film_strip

    out = write_curves(options.run, options.out)
    print(out)
    strip = write_film_strip(options.run, options.out and out.with_name("samples-over-time.png"))
    print(strip or "no samples-over-time.png: the run has no grid of samples yet")
