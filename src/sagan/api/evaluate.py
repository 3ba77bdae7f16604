"""Evaluate from Python: `sagan.evaluate` is `sagan evaluate` with its options by name."""

import os
from pathlib import Path
from typing import Literal

from torch import nn

from sagan.config import EvaluationConfig
from sagan.device import choose_device
from sagan.distributed import Processes
from sagan.metrics.evaluation import evaluate_together
from sagan.metrics.result import Evaluation


def evaluate(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    *,
    features: str | nn.Module = EvaluationConfig.features,
    inception: str | os.PathLike[str] | None = None,
    resize: Literal["auto", "bicubic", "bilinear", "legacy"] = EvaluationConfig.resize,
    feature_size: int | None = None,
    count: int = EvaluationConfig.count,
    reference_count: int = EvaluationConfig.reference_count,
    resolution: int | None = None,
    seed: int = EvaluationConfig.seed,
    truncation: float | None = None,
    class_shares: Literal["reference", "uniform"] = EvaluationConfig.class_shares,
    ema: bool = EvaluationConfig.ema,
    batch_norm: Literal["running", "batch", "standing"] = EvaluationConfig.batch_norm,
    standing_batches: int = EvaluationConfig.standing_batches,
    neighbours: bool = EvaluationConfig.neighbours,
    patch_correlation: bool = EvaluationConfig.patch_correlation,
    device: str = "auto",
    cache: str | os.PathLike[str] = "",
) -> Evaluation:
    """Compare a generator's images, or those of a folder, with reference images.

    Args:
        run: a run, its generator.safetensors or one of its checkpoints, the name of a trained model, or a source of
            images to judge.
        data: reference images (a folder, a .zip, a .npz, hf:USER/NAME, robots, twins, digits), or a .npz of statistics
            (mu, sigma), which allow only the Frechet distance; None: the run's own data.
        features: 'auto' (inception if its weights are in the cache, else efficientnet-lite0), 'inception' (FID),
            'efficientnet-lite0', 'efficientnet-lite2', a TorchScript file, or a module that maps float images
            (N, 3, H, W) in [0, 255] to (N, D).
        inception: weights of the Inception network, for a machine that cannot download them.
        resize: to the features' input: 'bicubic' (as clean-fid), 'bilinear' or 'legacy' (unfiltered, as StyleGAN, EDM).
        feature_size: for a TorchScript file or a module: resize images to this side, pixels; None: no resizing.
        count: number of images to generate; of a folder, the most to read. Papers report 50,000.
        reference_count: most reference images; 0: all.
        resolution: side at which images are compared, pixels; None: the run's, or that of the first folder's images.
        seed: of the latents and of the kernel distance's subsets.
        truncation: magnitude to which latents are truncated. Report such metrics as truncated.
        class_shares: classes of the generated images: in the proportions of the reference, or all equally often.
        ema: evaluate the averaged generator; False: the one without averaging.
        batch_norm: statistics: 'running' (from training), 'batch' (of each batch of 64), 'standing' (re-estimated).
        standing_batches: batches of 64 from which standing statistics are estimated.
        neighbours: also compute precision, recall, density, coverage, and the nearest reference image of each sample.
        patch_correlation: also compute the patch correlation error.
        device: 'auto', 'cpu', 'cuda', ...
        cache: folder of the image stores and cached features; empty: $SAGAN_CACHE, or the user's cache folder.

    Raises:
        ValueError: an option is out of its range, a file is missing, or there are too few images to compare.
    """
    evaluation = evaluate_together(
        Processes(choose_device(device)),
        os.fspath(run),
        None if data is None else os.fspath(data),
        features=features,
        cache=os.fspath(cache),
        inception=None if inception is None else Path(inception),
        resize=resize,
        feature_size=feature_size,
        count=count,
        reference_count=reference_count,
        resolution=resolution,
        seed=seed,
        truncation=truncation,
        class_shares=class_shares,
        ema=ema,
        batch_norm=batch_norm,
        standing_batches=standing_batches,
        neighbours=neighbours,
        patch_correlation=patch_correlation,
    )
    assert evaluation is not None  # this process is the first
    return evaluation
