"""The command sagan interpolate."""

from dataclasses import dataclass

from sagan.commands.arguments import DeviceOption, FileOption, FloatOption, IntOption, RunArgument
from sagan.config import check_ranges


@dataclass(frozen=True)
class Interpolate:
    """Walk smoothly between latents and between classes: a grid, or a GIF or MP4 that repeats without a jump."""

    run: RunArgument
    """Folder of the run, or its generator.safetensors."""
    out: FileOption = None
    """A .png (a row for each walk), .gif or .mp4; default: interpolation.png in the run."""
    steps: IntOption = None
    """Pictures along a walk; default: 9 or more in a grid, 12.5 a second in a GIF, 25 in an MP4."""
    count: IntOption = None
    """Walks of each kind; default: 1 in a grid, up to 4 side by side in a GIF or MP4; 8 without classes."""
    classes: tuple[str, ...] = ()
    """Names or numbers of the classes to walk within and through; default: the first eight."""
    seconds: float = 6.0
    """Length of a GIF or MP4."""
    seed: int = 0
    """The same seed gives the same walks."""
    truncation: FloatOption = None
    """Cut latents off at this magnitude: nearer to 0 gives more typical, less varied pictures."""
    device: DeviceOption = "auto"

    def __post_init__(self) -> None:
        check_ranges(self, least={"steps": 2, "count": 1, "seed": 0}, above_zero=("seconds", "truncation"))


def interpolate(options: Interpolate) -> None:
    """Runs `sagan interpolate`."""
    from sagan.device import DRAW_LESS, choose_device, enough_memory
    from sagan.render.interpolation import write_interpolation

    device = choose_device(options.device)
    with enough_memory(DRAW_LESS):
        out = write_interpolation(
            options.run,
            options.out,
            steps=options.steps,
            count=options.count,
            classes=options.classes,
            seconds=options.seconds,
            seed=options.seed,
            truncation=options.truncation,
            device=device,
        )
    print(out)
