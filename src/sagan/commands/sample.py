"""The command `sagan sample`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sagan.commands.arguments import ClassesOption, DeviceOption, RunArgument
from sagan.config import FloatOption, check_ranges


@dataclass(frozen=True)
class Sample:
    """Draw images from a trained run."""

    run: RunArgument
    """Folder of the run, its generator.safetensors, one of its checkpoints, or a name that sagan list shows."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None
    """A .png (a labelled grid), a .npz (arrays) or a folder (single PNGs); default: samples-SEED.png in the run."""
    count: int = 8
    """Images of each class; without classes, images in total."""
    classes: ClassesOption = ()
    """Names or numbers of the classes to draw; default: all."""
    seed: int = 0
    """Seed of the latents. The same seed gives the same images; devices differ by rounding."""
    truncation: FloatOption = None
    """Truncate latents to this magnitude: values near 0 give more typical, less varied images; default: none."""
    device: DeviceOption = "auto"

    def __post_init__(self) -> None:
        check_ranges(self, minimum={"count": 1, "seed": 0}, positive=("truncation",))


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
            truncation=options.truncation,
            device=processes.device,
            processes=processes,
        )
        if processes.is_first:
            print(out)
