"""The command `sagan interpolate`."""

from dataclasses import dataclass

from sagan.commands.arguments import (
    ClassesOption,
    DeviceOption,
    LatentsOption,
    RunArgument,
    SeedsOption,
    check_latents,
    parse_seeds,
)
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
    """File to write: .png (a row per walk), .gif or .mp4; default: interpolation.png in the run, with other options in
    its name if there are any."""
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
    seeds: SeedsOption = ()
    latents: LatentsOption = None
    """A .npy file of latents (N, latent_dim) that each walk passes through, in order."""
    truncation: FloatOption = None
    """Truncate latents to this magnitude: values near 0 give more typical, less varied images; default: none."""
    scale: IntOption = None
    """Magnify the images N times, without smoothing; default: at least to 64 pixels."""
    device: DeviceOption = "auto"

    def __post_init__(self) -> None:
        check_ranges(self, minimum={"steps": 2}, positive=("seconds",))
        check_latents(self)
        if self.seeds and len(parse_seeds(self.seeds)) < 2:
            raise ValueError("seeds must be two or more: walks pass through the first latent of each")
        if self.seeds and self.count is not None:
            raise ValueError("count cannot be combined with seeds: there is one walk, through all of them")


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
            seeds=parse_seeds(options.seeds),
            latents=options.latents,
            truncation=options.truncation,
            scale=options.scale,
            device=device,
        )
    print(out)
