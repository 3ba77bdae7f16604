"""The command `sagan sample`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sagan.commands.arguments import (
    ClassesOption,
    DeviceOption,
    LatentsOption,
    RunArgument,
    SeedsOption,
    check_latents,
    parse_seeds,
)
from sagan.config import FloatOption, IntOption


@dataclass(frozen=True)
class Sample:
    """Draw images from a trained run.

    Image number k of a class depends on the seed, the class and k, and on nothing else.
    """

    run: RunArgument
    """Folder of the run, its generator.safetensors, one of its checkpoints, or a name that sagan list shows."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None
    """A .png (a labelled grid), .npz (arrays), .zip or folder (single PNGs); default: samples-SEED.png in the run."""
    count: IntOption = None
    """Images of each class and seed; without classes, images in total; default: 8, or 1 with --seeds."""
    classes: ClassesOption = ()
    """Names or numbers of the classes to draw; default: all."""
    seed: int = 0
    """Seed of the latents. The same seed gives the same images; devices differ by rounding."""
    seeds: SeedsOption = ()
    latents: LatentsOption = None
    """A .npy file of latents (N, latent_dim) to draw for each class, instead of latents of a seed."""
    truncation: FloatOption = None
    """Truncate latents to this magnitude: values near 0 give more typical, less varied images; default: none."""
    scale: IntOption = None
    """Magnify the written images N times, without smoothing; default: 1, in a grid at least to 64 pixels."""
    device: DeviceOption = "auto"

    def __post_init__(self) -> None:
        check_latents(self)


def sample(options: Sample) -> None:
    """Run `sagan sample`."""
    from sagan.device import DRAW_LESS, enough_memory
    from sagan.distributed import join
    from sagan.render.samples import write_samples

    with join(options.device) as processes, enough_memory(DRAW_LESS):
        out = write_samples(
            options.run,
            options.out,
            count=options.count,
            classes=options.classes,
            seed=options.seed,
            seeds=parse_seeds(options.seeds),
            latents=options.latents,
            truncation=options.truncation,
            scale=options.scale,
            device=processes.device,
            processes=processes,
        )
        if processes.is_first:
            print(out)
