"""The command sagan attend."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from sagan.commands.arguments import DeviceOption, FileOption, FloatOption, IntOption, RunArgument
from sagan.config import check_ranges


@dataclass(frozen=True)
class Attend:
    """Show what the attention layers look at: pictures with query points, and a map for each point.

    Also prints how strongly each layer is used, and how far it looks.
    """

    run: RunArgument
    """Folder of the run; for the generator alone, its generator.safetensors will do."""
    out: FileOption = None
    """A .png or .svg; default: attend.png in the run."""
    network: Literal["generator", "discriminator", "both"] = "generator"
    """The generator on pictures of its own, the discriminator on pictures of the run's data."""
    layer: str = "last"
    """last, all, a layer's name as in the metrics log (16.0), or the size of its feature map (16)."""
    points: Annotated[tuple[str, ...], tyro.conf.arg(metavar="X,Y")] = ()
    """Query points in pixels from the upper left, such as 8,20 16,3; default: five for what each picture shows."""
    count: IntOption = None
    """Pictures of each class, or in all without classes; default: 1, or 6 without classes."""
    classes: tuple[str, ...] = ()
    """Names or numbers of the classes to draw; default: the first eight."""
    seed: int = 0
    """The same seed gives the same pictures, those of sagan sample."""
    truncation: FloatOption = None
    """Cut latents off at this magnitude."""
    smooth: bool = True
    """Draw maps smoothly between the keys' centres; False: as the cells that they are."""
    data: Annotated[str | None, tyro.conf.arg(metavar="SOURCE")] = None
    """Images that the discriminator is shown, as for sagan train; default: the run's data."""
    device: DeviceOption = "auto"

    def __post_init__(self) -> None:
        check_ranges(self, least={"count": 1, "seed": 0}, above_zero=("truncation",))
        if self.out is not None and self.out.suffix.lower() not in (".png", ".svg"):
            raise ValueError(f"out must be a .png or a .svg, got {self.out}")
        if len(self.points) > 8:
            raise ValueError(f"points must be 8 or fewer, got {len(self.points)}")
        self.query_points()

    def query_points(self) -> list[tuple[float, float]] | None:
        """The points as numbers; None if none are given."""
        found = []
        for point in self.points:
            try:
                x, y = map(float, point.split(","))
            except ValueError:
                raise ValueError(f"points must be X,Y in pixels such as 8,20, got {point}") from None
            found.append((x, y))
        return found or None


def attend(options: Attend) -> None:
    """Runs `sagan attend`."""
    from sagan.device import DRAW_LESS, choose_device, enough_memory
    from sagan.render.attention import write_attention

    device = choose_device(options.device)
    with enough_memory(DRAW_LESS):
        out, table = write_attention(
            options.run,
            options.out,
            network=options.network,
            layer=options.layer,
            points=options.query_points(),
            count=options.count,
            classes=options.classes,
            seed=options.seed,
            truncation=options.truncation,
            smooth=options.smooth,
            data=options.data,
            device=device,
        )
    print(table)
    print(out)
