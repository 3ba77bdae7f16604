"""Is there a grid of dots in generated images? Its power at periods of 2 to 16 pixels, next to that of the real images.

    python benchmarks/grid_power.py runs/emoji runs/bilinear --data emoji.zip
    python benchmarks/grid_power.py folder/of/pngs --data emoji.zip

Each row is a run, a checkpoint, a generator.safetensors, or a folder or .zip of images. Values are 10,000 times the
variance of the mean local contrast at a period, as a share of its squared mean (`sagan.metrics.grid_power`): 50 is a
modulation of 10 %. They are unbiased, so real images without a grid scatter around 0. Samples of a run have the real
images' classes. An arrow says along which axis most of it is: columns that differ (x), rows (y), or a chessboard (xy).
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from machine import Table, argument_parser
from sagan.config import DataConfig
from sagan.data import Store, prepare
from sagan.metrics.grid_power import GridPower, grid_power
from sagan.metrics.reference import choose
from sagan.run import Run, load_generator
from sagan.sampling import draw_latents, sample


def samples(path: Path, store: Store, chosen: NDArray[np.int64], seed: int) -> NDArray[np.uint8]:
    """Return images of a run, of the chosen real images' classes; or the images of a folder."""
    if not (path / "config.json").exists() and path.suffix != ".safetensors":
        config = DataConfig(str(path), labels=False)
        images = prepare(config, resolution=store.resolution, image_channels=3)
        return np.asarray(images.images[:])
    generator = load_generator(path)[0]
    z = draw_latents(len(chosen), generator.config.latent_dim, seed=seed)
    return sample(generator, z, torch.from_numpy(store.labels[chosen]))


def cell(power: GridPower) -> str:
    parts = {"x": power.across, "y": power.down, "xy": power.diagonal}
    return f"{1e4 * power.total:.1f} ({max(parts, key=lambda name: parts[name])})"


def open_images(description: str | None, *, count: int, about_count: str) -> tuple[argparse.Namespace, str, Store]:
    """Parse the options of a script that compares generated images with real ones, and open the real ones.

    Returns:
        the options, the name of the real images, and their store at the size of the first run.
    """
    parser = argument_parser(description, save=True)
    parser.add_argument("generated", nargs="+", type=Path)
    parser.add_argument("--data", help="real images; default: those of the first run")
    parser.add_argument("--resolution", type=int, default=64, help="side, if nothing is a run; pixels")
    parser.add_argument("--count", type=int, default=count, help=about_count)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    runs = [Run(path).info.config for path in options.generated if (path / "config.json").exists()]
    if not options.data and not runs:
        parser.error("--data is required without a run")
    data = DataConfig(options.data) if options.data else runs[0].data
    resolution = runs[0].model.resolution if runs else options.resolution
    return options, Path(data.source).name, prepare(data, resolution=resolution, image_channels=3)


def main() -> None:
    options, name, store = open_images(__doc__, count=1000, about_count="images of a run")
    chosen = choose(store, options.count)

    periods = [2**i for i in range(1, store.resolution.bit_length() - 2)]
    title = f"Power of a grid at periods in pixels, times 10,000; {store.resolution} px images"
    table = Table(title, ["images", "count", *map(str, periods), "sum"], save=options.save)

    def row(name: str, images: NDArray[np.uint8]) -> None:
        powers = grid_power(images)
        total = sum(power.total for power in powers.values())
        table.row(name, len(images), *(cell(powers[p]) for p in periods), f"{1e4 * total:.1f}")

    row(f"real: {name}", np.asarray(store.images[:]))
    half = len(store) // 2
    row("real, half of them", np.asarray(store.images[np.sort(choose(store, half))]))
    for path in options.generated:
        row(path.name or str(path), samples(path, store, chosen, options.seed))


if __name__ == "__main__":
    main()
