"""The command `sagan interpolate`."""

from dataclasses import dataclass

from sagan.commands.arguments import ClassesOption, DeviceOption, RunArgument
from sagan.config import FileOption, FloatOption, IntOption, check_ranges


@dataclass(frozen=True)
class Interpolate:
    """Interpolate between latents and between classes, as a grid, GIF or MP4.

    A walk is one interpolation: between latents within a class, or through all classes with one latent. In a GIF or MP4
    it is closed, so that the film repeats without a jump.
    """

    run: RunArgument
    """Folder of the run, its generator.safetensors, one of its checkpoints, or a name that sagan list shows."""
    out: FileOption = None
    """File to write: .png (a row per walk), .gif or .mp4; default: interpolation.png in the run."""
    steps: IntOption = None
    """Images along a walk; default: 9 or more in a grid, 12.5 per second in a GIF, 25 in an MP4."""
    count: IntOption = None
    """Walks in each class, and through the classes; default: 1 in a grid, up to 4 in a film, 8 without classes."""
    classes: ClassesOption = ()
    """Names or numbers of the classes; default: the first eight."""
    seconds: float = 6.0
    """Length of a GIF or MP4, in seconds."""
    seed: int = 0
    """Seed of the latents."""
    truncation: FloatOption = None
    """Truncate latents to this magnitude: values near 0 give more typical, less varied images; default: none."""
    device: DeviceOption = "auto"

    def __post_init__(self) -> None:
        check_ranges(self, minimum={"steps": 2, "count": 1, "seed": 0}, positive=("seconds", "truncation"))


def interpolate(options: Interpolate) -> None:
    """Run `sagan interpolate`."""
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
