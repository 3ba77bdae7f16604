"""How good is a run? The Frechet distance in EfficientNet-Lite0 features, 2,000 pictures against 2,000.

    python benchmarks/distance.py runs/demo

Real pictures: the run's data, drawn without repetition. Generated: the averaged generator's, no truncation, classes
as in the data. For scale, two numbers more: other real pictures against the same ones (what a perfect generator
would get), and uniform noise.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from sagan import Run, load
from sagan.data import prepare
from sagan.metrics.evaluation import BATCH, Evaluation
from sagan.metrics.features import extract
from sagan.metrics.frechet import frechet_distance
from sagan.training.machine import keep_memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    keep_memory()
    config = Run(arguments.run).info.config
    store = prepare(config.data, resolution=config.model.resolution, image_channels=config.model.image_channels)
    evaluation = Evaluation(store, arguments.count)

    def against_real(images: torch.Tensor) -> float:
        return frechet_distance(evaluation.real, extract(evaluation.features, images.split(BATCH), len(images)))

    print(f"generated  {evaluation(load(arguments.run), seed=arguments.seed):7.1f}")
    others = np.random.Generator(np.random.Philox(0)).permutation(len(store))[arguments.count : 2 * arguments.count]
    if len(others) == arguments.count:
        pictures = torch.from_numpy(store.images[np.sort(others)]).permute(0, 3, 1, 2)
        print(f"real       {against_real(pictures):7.1f}")
    noise = torch.randint(256, (arguments.count, *store.images.shape[3:], *store.images.shape[1:3]), dtype=torch.uint8)
    print(f"noise      {against_real(noise):7.1f}")


if __name__ == "__main__":
    main()
