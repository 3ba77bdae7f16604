"""Measure how near generated images are to real ones, in metrics that say what was compared (`sagan evaluate`)."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sagan.config import DataConfig, EvaluationConfig
from sagan.data.store import cache_folder
from sagan.device import keep_memory
from sagan.distributed import Processes
from sagan.metrics.comparison import measure, measure_to_statistics
from sagan.metrics.features import open_features
from sagan.metrics.image_sets import ImageSet, is_generator, read_folders, read_generated, run_of
from sagan.metrics.measurement import Measurement
from sagan.metrics.result import Evaluation
from sagan.metrics.statistics import Statistics, read_statistics
from sagan.metrics.twin_evaluation import MAPPED_IMAGES, SOURCE, evaluate_copies, evaluate_peaks
from sagan.model.discriminator import Discriminator
from sagan.model.generator import Generator
from sagan.model.spectral_norm import bake_spectral_norm
from sagan.run import read_discriminator, read_generator
from sagan.trained import shipped_name

_NAME_LENGTH = 60  # bytes of a network's name in the name of a file


def evaluate_together(
    processes: Processes,
    generated: str | Path,
    reference: str | None = None,
    *,
    features: str | nn.Module = "auto",
    cache: str = "",
    **options: Any,
) -> Evaluation | None:
    """Compare a generator's images, or those of a folder, with reference images; all processes call this.

    Args:
        processes: that share the work.
        generated: a run, its generator.safetensors or one of its checkpoints, the name of a trained model, or a source
            of images.
        reference: a source of images, or a .npz of statistics (mu, sigma); None: the run's own data.
        features: as in `sagan.config.EvaluationConfig`, or a module.
        cache: folder of the image stores and cached features; empty: $SAGAN_CACHE, or the user's cache folder.
        options: the other fields of `sagan.config.EvaluationConfig`.

    Returns:
        The evaluation; None on all processes but the first.

    Raises:
        UserError: a file is missing, or there are too few images to compare.
        ValueError: an option is out of range.
    """
    keep_memory()
    named = features if isinstance(features, str) else type(features).__name__
    config = EvaluationConfig(features=named, **options)
    network = open_features(
        features,
        cache=cache_folder(DataConfig(cache=cache)) / "features",
        inception_file=config.inception,
        size=config.feature_size,
        resize=config.resize,
    ).to(processes.device)
    statistics = read_statistics(reference)
    if statistics:
        config = replace(config, neighbours=False, patch_correlation=False)
    generates = is_generator(Path(generated))
    read = read_generated if generates else read_folders
    ours, theirs = read(str(generated), statistics or reference, config, network, processes, cache)
    if not processes.is_first:
        return None
    if isinstance(theirs, Statistics):
        return measure_to_statistics(ours, theirs, config, network)
    evaluation = measure(ours, theirs, config, network)
    if theirs.about["source"] != SOURCE:
        return evaluation
    metrics = [*evaluation.metrics, *evaluate_copies(ours.read, ours.labels)]
    if generates:
        metrics += _twin_peaks(Path(generated), theirs, config)
    return replace(evaluation, metrics=tuple(metrics))


def _twin_peaks(path: Path, theirs: ImageSet, config: EvaluationConfig) -> list[Measurement]:
    """Return where the maps of a generator have their peaks, and those of its discriminator if it was kept."""
    images = theirs.read(0, min(MAPPED_IMAGES, len(theirs.labels)))
    y = torch.from_numpy(theirs.labels[: len(images)])
    networks: list[Generator | Discriminator] = [read_generator(path, averaged=config.ema)[0]]
    run = run_of(path)
    if run and run.checkpoints():
        networks.append(read_discriminator(path if path.parent.name == "checkpoints" else run.path))
    metrics = []
    for network in networks:
        metrics += evaluate_peaks(bake_spectral_norm(network.eval()), images, y, seed=config.seed)
    return metrics


def default_path(generated: Path, evaluation: Evaluation) -> Path | None:
    """Return the file in which a run keeps an evaluation: the same options, the same file.

    None outside a run, and for a trained model that comes with the package.
    """
    run = run_of(generated)
    if run is None or shipped_name(run.path) or "step" not in evaluation.generated:
        return None
    content = [evaluation.generated, evaluation.reference, evaluation.features, evaluation.options]
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
    features = "".join(c if c.isalnum() else "-" for c in evaluation.features["network"].lower())
    features = features.encode()[:_NAME_LENGTH].decode(errors="ignore")  # the key tells such networks apart
    return run.evaluations_path / f"step-{evaluation.generated['step']:08d}-{features}-{key}.json"
