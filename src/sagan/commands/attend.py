"""The command `sagan attend`."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from sagan.commands.arguments import (
    ClassesOption,
    DeviceOption,
    Flag,
    LatentsOption,
    RunArgument,
    SeedsOption,
    check_latents,
    parse_seeds,
)
from sagan.config import FileOption, FloatOption, IntOption


@dataclass(frozen=True)
class Attend:
    """Draw attention maps: images with query points, and what each point attends to.

    Also prints a table of how strongly each layer is used, and how far it looks. With --off, draw what the layer does:
    images with and without it.
    """

    run: RunArgument
    """Folder of the run, or a name that sagan list shows; for the generator, its generator.safetensors is enough."""
    out: FileOption = None
    """File to write, .png or .svg; default: attend.png in the run, with --off attend-off.png, with other options in its
    name if there are any."""
    off: Flag = 0
    """Draw the generator's images with and without --layer, and their difference, instead of maps."""
    network: Literal["generator", "discriminator", "both"] = "generator"
    """The generator is shown its own images, the discriminator images of the run's data."""
    layer: str = "last"
    """last, all, a layer's name in the metrics log (such as 16.0), or the size of its feature map (such as 16)."""
    points: Annotated[tuple[str, ...], tyro.conf.arg(metavar="X,Y ...", help_behavior_hint="")] = ()
    """Query points in pixels from the upper left, such as 8,20 16,3; default: five, chosen in each image."""
    count: IntOption = None
    """Images of each class and seed; default: 1. Without classes, images in total; default: 6, or 1 with --seeds."""
    classes: ClassesOption = ()
    """Names or numbers of the classes to draw; default: the first eight."""
    seed: int = 0
    """Seed of the images; sagan sample draws the same ones."""
    seeds: SeedsOption = ()
    latents: LatentsOption = None
    """A .npy file of latents (N, latent_dim) to show for each class, instead of latents of a seed."""
    truncation: FloatOption = None
    """Truncate latents to this magnitude; default: no truncation."""
    smooth: bool = True
    """Interpolate maps between the centres of the keys; False: draw the keys as cells."""
    own_scale: bool = False
    """Scale each map to its own peak, instead of all to 0 to 8 times even attention."""
    data: Annotated[str | None, tyro.conf.arg(metavar="SOURCE", help_behavior_hint="")] = None
    """Images that the discriminator is shown, as for sagan train; default: the run's data."""
    scale: IntOption = None
    """Magnify the whole .png N times; default: 1."""
    device: DeviceOption = "auto"

    def __post_init__(self) -> None:
        check_latents(self)
        if self.network != "generator" and (self.seeds or self.latents):
            raise ValueError(f"{'seeds' if self.seeds else 'latents'} requires network generator, got {self.network}")
        if self.out is not None and self.out.suffix.lower() not in (".png", ".svg"):
            raise ValueError(f"out must be a .png or .svg file, got {self.out}")
        if len(self.points) > 8:
            raise ValueError(f"points must be 8 or fewer, got {len(self.points)}")
        self.query_points()
        if self.off and self.network != "generator":
            raise ValueError(f"off draws images of the generator, got network {self.network}")
        if self.off and self.points:
            raise ValueError("off draws images, not maps: omit points")

    def query_points(self) -> list[tuple[float, float]] | None:
        """Return the points as numbers; None if there are none."""
        points = []
        for point in self.points:
            try:
                x, y = map(float, point.split(","))
            except ValueError:
                raise ValueError(f"points must be X,Y in pixels such as 8,20, got {point}") from None
            points.append((x, y))
        return points or None


def attend(options: Attend) -> None:
    """Run `sagan attend`."""
    from sagan.device import DRAW_LESS, choose_device, enough_memory
    from sagan.render.attention import write_attention
    from sagan.render.attention_effect import write_attention_effect

    shared: dict[str, Any] = {
        "layer": options.layer,
        "count": options.count,
        "classes": options.classes,
        "seed": options.seed,
        "seeds": parse_seeds(options.seeds),
        "latents": options.latents,
        "truncation": options.truncation,
        "scale": options.scale,
        "device": choose_device(options.device),
    }
    with enough_memory(DRAW_LESS):
        if options.off:
            out, text = write_attention_effect(options.run, options.out, **shared)
        else:
            out, text = write_attention(
                options.run,
                options.out,
                network=options.network,
                points=options.query_points(),
                smooth=options.smooth,
                own_scale=options.own_scale,
                data=options.data,
                **shared,
            )
    print(text)
    print(out)
