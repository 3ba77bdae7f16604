"""The command sagan sample."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sagan.commands.arguments import DeviceOption, FloatOption, RunArgument
from sagan.config import check_ranges


@dataclass(frozen=True)
class Sample:
    """Draw pictures from a trained run."""

    run: RunArgument
    """Folder of the run, or its generator.safetensors."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """A .png (a labelled grid), a .npz (arrays) or a folder (single PNGs); default: samples-SEED.png in the run."""
    count: int = 8
    """Pictures of each class; without classes, pictures in all."""
    classes: tuple[str, ...] = ()
    """Names or numbers of the classes to draw; default: all."""
    seed: int = 0
    """The same seed gives the same pictures; on another device they may differ by rounding."""
    truncation: FloatOption = None
    """Cut latents off at this magnitude: nearer to 0 gives more typical, less varied pictures."""
    device: DeviceOption = "auto"

    def __post_init__(self) -> None:
        check_ranges(self, least={"count": 1, "seed": 0}, above_zero=("truncation",))


def sample(options: Sample) -> None:
    """Runs `sagan sample`."""
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
            share=processes,
        )
        if processes.is_first:
            print(out)
