"""Check that the Frechet distance grows when images are damaged more and more, and draw how.

    python benchmarks/distance_properties.py docs/images/distance.png [--save distance_properties]

Built-in robots at 32 px, 2,000 against 2,000 others, EfficientNet-Lite0 features. The table also shows the distance of
a set to itself, the difference between d(a, b) and d(b, a), and the distance to uniform noise.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from machine import Table, argument_parser
from sagan import DataConfig
from sagan.data import prepare
from sagan.device import keep_memory
from sagan.files import write_atomically
from sagan.metrics.features import EfficientNetLite0, extract
from sagan.metrics.frechet import frechet_distance
from sagan.metrics.reference import choose

COUNT = 2000
NOISE = (4, 8, 16, 32, 64)  # standard deviation, of 255
BLUR = (0.4, 0.6, 0.8, 1.2, 2.0)  # standard deviation, pixels


def noisy(x: Tensor, sigma: float) -> Tensor:
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return (x + sigma * noise).round().clamp(0, 255).byte()


def blurred(x: Tensor, sigma: float) -> Tensor:
    at = torch.arange(-8, 9)
    kernel = torch.exp(-(at**2) / (2 * sigma**2))
    kernel = (kernel[:, None] * kernel / kernel.sum() ** 2).expand(3, 1, -1, -1)
    return F.conv2d(F.pad(x.float(), (8,) * 4, "replicate"), kernel, groups=3).round().byte()


def main() -> None:
    parser = argument_parser(__doc__, save=True)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    keep_memory()
    store = prepare(DataConfig(source="robots"), resolution=32, image_channels=3)
    chosen = choose(store, 2 * COUNT)
    images = torch.from_numpy(store.images[chosen]).permute(0, 3, 1, 2)
    lite = EfficientNetLite0()

    def features(x: Tensor, label: str) -> np.ndarray:
        return extract(lite, lambda i, j: x[i:j], len(x), label=label)

    real, others = features(images[:COUNT], "real"), features(images[COUNT:], "others")
    labels = store.labels[chosen[COUNT:]]
    base = frechet_distance(real, others)
    table = Table("Frechet distances to 2,000 real images", ("images", "distance"), save=options.save)
    table.row("the same images", f"{frechet_distance(real, real):.1e}")
    table.row("other real images", f"{base:.3f}")
    table.row("|d(a, b) - d(b, a)| of the two sets", f"{abs(base - frechet_distance(others, real)):.1e}")
    noise = torch.randint(256, images[:COUNT].shape, dtype=torch.uint8)
    table.row("uniform noise", f"{frechet_distance(real, features(noise, 'noise')):.1f}")
    damage = {
        "noise, standard deviation of 255": (
            NOISE,
            [features(noisy(images[COUNT:], s), f"noise {s}") for s in NOISE],
        ),
        "blur, standard deviation in pixels": (
            BLUR,
            [features(blurred(images[COUNT:], s), f"blur {s}") for s in BLUR],
        ),
        "classes missing, of 5": ((1, 2, 3, 4), [others[labels < 5 - dropped] for dropped in (1, 2, 3, 4)]),
    }
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    for axes, (name, (amounts, sets)) in zip(figure.subplots(1, 3, sharey=True), damage.items(), strict=True):
        distances = [base, *(frechet_distance(real, x) for x in sets)]
        for amount, d in zip((0, *amounts), distances, strict=True):
            table.row(f"{name}: {amount:g}", f"{d:.1f}")
        assert distances == sorted(distances), f"the distance does not grow with {name}"
        axes.plot((0, *amounts), distances, "o-", color="#2f5d9b", markersize=4)
        axes.set_xlabel(name)
        axes.set_ylim(0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
        if axes.get_subplotspec().is_first_col():
            axes.set_ylabel("Frechet distance")
    write_atomically(options.out, lambda path: figure.savefig(path, dpi=110))
    print(options.out)


if __name__ == "__main__":
    main()
