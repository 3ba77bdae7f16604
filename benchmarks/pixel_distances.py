"""How far are generated images from real ones where no trained network judges: by their pixels and by their patches?

    python benchmarks/pixel_distances.py runs/guided runs/plain
    python benchmarks/pixel_distances.py runs/emoji --data emoji.zip

A distance in features that ImageNet taught flatters networks that learnt from such features (--guide). Two others:

* pixels: the Frechet distance of whole images, averaged to 16 x 16 pixels in [0, 1]: colours, layout and variety.
* patches: the sliced Wasserstein distance (after Karras et al. 2018, Progressive GAN) of 32 random 7 x 7 patches per
  image, normalised per channel, over 256 random directions, times 1,000: texture and sharpness.

Each row is a run, a checkpoint or a generator.safetensors, which draws the classes of the real images, or a folder or
.zip of at least as many images; the first one is other real images.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from grid_power import open_images, samples
from machine import Table
from sagan.metrics.frechet import frechet_distance
from sagan.metrics.reference import choose

SIDE, PATCH, PATCHES, DIRECTIONS = 16, 7, 32, 256


def to_floats(images: NDArray[np.uint8]) -> Tensor:
    """Convert uint8 (N, R, R, C) to float (N, C, R, R) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255


def pixels(x: Tensor) -> NDArray[np.float64]:
    return F.adaptive_avg_pool2d(x, SIDE).flatten(1).double().numpy()


def projections(x: Tensor) -> Tensor:
    """Return sorted projections (patches, DIRECTIONS) of random patches of images (N, C, R, R)."""
    rng = torch.Generator().manual_seed(0)
    n, c, side = x.shape[:3]
    places = torch.randint(side - PATCH + 1, (2, n, PATCHES), generator=rng)
    windows = x.unfold(2, PATCH, 1).unfold(3, PATCH, 1)  # (N, C, places down, places across, PATCH, PATCH)
    patches = torch.cat([windows[i, :, down, across].transpose(0, 1) for i, (down, across) in enumerate(zip(*places))])  # noqa: B905
    spread, mean = torch.std_mean(patches, (0, 2, 3), keepdim=True)
    directions = F.normalize(torch.randn(c * PATCH**2, DIRECTIONS, generator=rng), dim=0)
    return (((patches - mean) / spread).flatten(1) @ directions).sort(0).values


def main() -> None:
    about_count = "images of each side; at most half of the real ones"
    options, name, store = open_images(__doc__, count=2000, about_count=about_count)
    count = min(options.count, len(store) // 2)
    chosen = choose(store, 2 * count)
    real = to_floats(np.asarray(store.images[chosen[:count]]))
    real_pixels, real_projections = pixels(real), projections(real)

    title = f"Distances of {count:,} images to {count:,} of {name} without a trained network"
    table = Table(title, ["images", "pixels", "patches"], save=options.save)

    def row(name: str, images: NDArray[np.uint8]) -> None:
        x = to_floats(images)
        patches = 1e3 * (projections(x) - real_projections).abs().mean().item()
        table.row(name, f"{frechet_distance(pixels(x), real_pixels):.2f}", f"{patches:.1f}")

    row("other real images", np.asarray(store.images[chosen[count:]]))
    for path in options.generated:
        row(path.name or str(path), samples(path, store, chosen[:count], options.seed)[:count])


if __name__ == "__main__":
    main()
