"""Compute the metrics of two sets of images from their features and patch values."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sagan.config import EvaluationConfig
from sagan.figures.grid import draw_grid
from sagan.metrics.features import BATCH, Features
from sagan.metrics.frechet import classwise_frechet_distance, frechet_distance, frechet_distance_to_normal
from sagan.metrics.image_sets import ImageSet
from sagan.metrics.kernel import kernel_distance
from sagan.metrics.measurement import Measurement
from sagan.metrics.neighbours import Neighbours, compare
from sagan.metrics.patch_correlation import (
    FAR_ABOVE,
    LEAST_IMAGES,
    NEAR_BELOW,
    PatchCorrelation,
    compare_patch_correlation,
)
from sagan.metrics.result import Evaluation
from sagan.metrics.score import classifier_score
from sagan.metrics.statistics import Statistics
from sagan.text import short

NEAREST_SHOWN = 10  # images in a row of the figure of nearest neighbours
FEW = 10_000  # images; with fewer, the upward bias of a Frechet distance is large
LEAST_FOR_NEIGHBOURS = 6  # images of each set: density and coverage use the fifth neighbour


def measure(ours: ImageSet, theirs: ImageSet, config: EvaluationConfig, network: Features) -> Evaluation:
    """Compute all metrics that the two sets and the options allow, and draw the nearest neighbours."""
    a, b = ours.features, theirs.features
    is_inception = network.name == "Inception"
    metrics = [_frechet_measurement(frechet_distance(a, b), network)]
    remarks = [*ours.remarks, *theirs.remarks]
    classes: dict[str, float] = {}

    def add(name: str, inception_name: str, value: float, spread: float | None, about: str) -> None:
        metrics.append(Measurement(inception_name if is_inception else name, value, spread, about))

    remarks += _few_remark(min(len(a), len(b)))
    value, spread = kernel_distance(a, b, seed=config.seed)
    add("kernel distance", "KID", value, spread, "0 is best, at any count; ± over subsets of 1,000")
    probabilities = network.probabilities(a)
    if probabilities is not None:
        value, spread = classifier_score(probabilities)
        add("classifier score", "Inception Score", value, spread, "higher is better; ± over 10 parts")
    if ours.class_names and ours.class_names == theirs.class_names:
        by_class = classwise_frechet_distance(a, ours.labels, b, theirs.labels)
        if by_class:
            values = np.array(list(by_class.values()))
            about = f"0 is best; mean of {len(values)} classes, ± over them"
            add("class-wise Frechet distance", "intra-FID", values.mean(), values.std(), about)
            classes = {ours.class_names[y]: value for y, value in by_class.items()}
    patch_correlation = None
    if ours.patches is not None and theirs.patches is not None:
        # Labels of other classes than the reference's mean nothing there.
        same = ours.class_names == theirs.class_names
        y_ours, y_theirs = (x.labels if same else np.zeros_like(x.labels) for x in (ours, theirs))
        patch_correlation = compare_patch_correlation(ours.patches, y_ours, theirs.patches, y_theirs)
        if patch_correlation is None:
            remarks.append(
                f"patch correlation requires at least {LEAST_IMAGES} images, and twice as many reference images"
            )
        else:
            metrics += _patch_correlation_metrics(patch_correlation)
            if patch_correlation.excluded:
                share = patch_correlation.excluded / (patch_correlation.excluded + patch_correlation.pairs)
                remarks.append(
                    f"patch correlation excludes {share:.1%} of the pairs of values: one of them hardly varies in "
                    "the reference"
                )
    nearest = None
    if config.neighbours and min(len(a), len(b)) < LEAST_FOR_NEIGHBOURS:
        remarks.append(f"nearest neighbours need at least {LEAST_FOR_NEIGHBOURS} images of each set")
    elif config.neighbours:
        neighbours = compare(b, a)
        for name in ("precision", "recall"):
            metrics.append(Measurement(name, getattr(neighbours, name), None, "1 is best; k = 3"))
        for name in ("density", "coverage"):
            metrics.append(Measurement(name, getattr(neighbours, name), None, "1 is as the reference; k = 5"))
        about = "share not suspiciously near to a reference image"
        metrics.append(Measurement("authenticity", neighbours.authenticity, None, about))
        nearest = _draw_nearest(ours, theirs, neighbours)
    if _is_grey(ours) != _is_grey(theirs):
        grey = "generated" if _is_grey(ours) else "reference"
        remarks.append(f"the {grey} images are grey, the others in colour: the metrics mostly measure that")
    return Evaluation(
        ours.about,
        theirs.about,
        _about_features(network, a.shape[1]),
        tuple(metrics),
        classes,
        tuple(remarks),
        _options(config),
        nearest,
        patch_correlation,
    )


def measure_to_statistics(
    ours: ImageSet, theirs: Statistics, config: EvaluationConfig, network: Features
) -> Evaluation:
    """Measure the only metric that statistics of reference features allow."""
    a = ours.features
    distance = frechet_distance_to_normal(a, theirs.mean, theirs.root)
    remarks = [
        *ours.remarks,
        "statistics (mu, sigma) allow only the Frechet distance; it means something if they were computed by the same "
        "network with the same resizing",
        *_few_remark(len(a)),
    ]
    about_features = _about_features(network, a.shape[1])
    metrics = (_frechet_measurement(distance, network),)
    return Evaluation(ours.about, theirs.about, about_features, metrics, {}, tuple(remarks), _options(config), None)


def _frechet_measurement(distance: float, network: Features) -> Measurement:
    if network.name == "Inception":
        return Measurement("FID", distance, None, "0 is best")
    return Measurement("Frechet distance", distance, None, f"0 is best (in {network.name} features, so not an FID)")


def _few_remark(count: int) -> list[str]:
    """Return a remark on the Frechet distance of a count of images, if it is small."""
    if count >= FEW:
        return []
    return [f"the Frechet distance of {count:,} images is biased upward: compare it only with values at the same count"]


def _about_features(network: Features, dimensions: int) -> dict[str, Any]:
    return {
        "network": network.name,
        "dimensions": dimensions,
        "checksum": network.checksum,
        "resize": network.resize if network.size else "none",
        "side": f"{network.size} px" if network.size else "as they are",
    }


def _options(config: EvaluationConfig) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(config).items()}


def _patch_correlation_metrics(found: PatchCorrelation) -> list[Measurement]:
    """Return the near and the far error, each if there are pairs that far apart."""
    ends = (
        ("near", found.near, found.near_floor, f"below {NEAR_BELOW:g}"),
        ("far", found.far, found.far_floor, f"above {FAR_ABOVE:g}"),
    )
    return [
        Measurement(
            f"patch correlation error, {end}",
            error,
            None,
            f"two real sets of {found.images:,}: {short(floor)}; distances {where} patches of 8",
        )
        for end, error, floor, where in ends
        if not math.isnan(error)
    ]


def _draw_nearest(ours: ImageSet, theirs: ImageSet, neighbours: Neighbours) -> Image.Image:
    order = np.argsort(neighbours.distance, kind="stable")
    count = min(NEAREST_SHOWN, len(order))
    random = np.random.Generator(np.random.Philox(0)).permutation(len(order))[:count]

    def load(source: ImageSet, chosen: NDArray[np.int64]) -> list[Tensor]:
        # Whole batches are read, as they were when measured: batch statistics then are the same.
        starts = chosen // BATCH * BATCH
        total = len(source.features)
        blocks = {start: source.read(start, min(start + BATCH, total)) for start in np.unique(starts).tolist()}
        return [blocks[start][i - start] for start, i in zip(starts.tolist(), chosen.tolist(), strict=True)]

    rows = []
    for chosen in (order[:count], random):
        rows += load(ours, chosen) + load(theirs, neighbours.nearest[chosen])
    images = torch.stack(rows).permute(0, 2, 3, 1).numpy()
    labels = ["nearest of all", "their reference", "at random", "their reference"]
    title = "Samples, and the reference images nearest to them"
    return draw_grid(images, columns=count, row_labels=labels, title=title)


def _is_grey(source: ImageSet) -> bool:
    """Return whether the first batch of a set has no colour."""
    batch = source.read(0, min(BATCH, len(source.features)))
    return batch.shape[1] == 1 or bool((batch[:, :1] == batch[:, :3]).all())
