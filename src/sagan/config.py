"""Every hyper-parameter, once: what a run is made of, and the named presets.

The command line is derived from these classes; their docstrings are its help.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sagan.model.config import ModelConfig

LossName = Literal["hinge", "non-saturating", "least-squares", "wasserstein", "relativistic"]
AugmentName = Literal["color", "translation", "cutout"]
BUILT_IN_FEATURES = ("auto", "inception", "efficientnet-lite0")  # all others are files, with code in them
PrecisionName = Literal["auto", "fp32", "tf32", "bf16"]


def check_ranges(options: object, *, least: Mapping[str, int] | None = None, above_zero: Sequence[str] = ()) -> None:
    """Checks fields of a dataclass, each at least so much or above 0; a field that is None is as it should be.

    Raises:
        ValueError: a field is out of its range; the message names it.
    """
    for name, lowest in (least or {}).items():
        value = getattr(options, name)
        if value is not None and value < lowest:
            raise ValueError(f"{name} must be {lowest} or more, got {value}")
    for name in above_zero:
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} must be above 0 and finite, got {value}")


@dataclass(frozen=True)
class DataConfig:
    """The pictures to learn from."""

    source: Annotated[str, tyro.conf.arg(name="data", metavar="SOURCE")] = "robots"
    """A folder of class folders, a flat folder, a .zip (StyleGAN/EDM format), tar shards (WebDataset; a folder, a
    pattern such as shards/a-{000..009}.tar, or URLs), hf:USER/NAME, robots or digits."""
    labels: bool = True
    """Use the classes that the source names; without, train unconditionally."""
    background: tuple[int, int, int] = (255, 255, 255)
    """Colour that transparent pictures are laid on: red, green, blue, 0 to 255 (4-channel models keep alpha)."""
    robots: int = 20_000
    """Number of pictures to render for the built-in set 'robots'."""
    flips: bool = False
    """Mirror every picture left to right with probability 1/2 when it is drawn."""
    cache: str = ""
    """Folder of the packed picture stores; empty: $SAGAN_CACHE, or the user's cache folder."""


@dataclass(frozen=True)
class TrainingConfig:
    """How the networks are trained.

    Raises:
        ValueError: a field is out of its range; the message names it.
    """

    start: Annotated[str, tyro.conf.arg(name="from", metavar="RUN_OR_FILE")] = ""
    """Run, checkpoint or generator.safetensors whose networks to start from; their shape goes before the preset's."""
    freeze_discriminator: int = 0
    """Blocks of the discriminator, from the picture on, that stay as they come with --from (Mo et al. 2020)."""
    steps: int = 100_000
    """Generator steps in all."""
    batch_size: int = 64
    """Pictures in one step, real ones and as many generated."""
    accumulate: int = 1
    """Parts that a batch is worked through in, to save memory; batch norm sees one part at a time."""
    discriminator_steps: int = 1
    """Discriminator steps for each generator step."""
    loss: LossName = "hinge"
    """The pair of losses; 'relativistic' is R3GAN's, to be used with --r1 and --r2."""
    generator_lr: float = 1e-4
    """Adam's learning rate for the generator (TTUR: the two rates differ)."""
    discriminator_lr: float = 4e-4
    """Adam's learning rate for the discriminator."""
    beta1: float = 0.0
    """Adam's decay of the mean gradient."""
    beta2: float = 0.9
    """Adam's decay of the mean squared gradient."""
    lr_decay_from: float = 1.0
    """Share of the steps after which both rates fall linearly to 0; 1: constant rates."""
    ema_decay: float = 0.999
    """Decay of the generator's moving average (EMA), from which pictures are drawn; 0: the generator itself."""
    ema_start: int = 0
    """Step from which the average is taken; before it, it equals the generator."""
    sync_batch_norm: bool = False
    """Where many processes share a batch, normalise over all of it; else each process over its own part."""
    augment: tuple[AugmentName, ...] = ()
    """Differentiable augmentation of real and generated pictures, for small data sets (Zhao et al. 2020)."""
    r1: float = 0.0
    """Weight of the R1 penalty, gamma/2 |grad D|^2 at real pictures (Mescheder et al. 2018)."""
    r2: float = 0.0
    """Weight of the R2 penalty, the same at generated pictures."""
    gradient_penalty: float = 0.0
    """Weight of WGAN-GP's penalty, (|grad D| - 1)^2 between real and generated (Gulrajani et al. 2017)."""
    penalty_every: int = 1
    """Discriminator steps between two computations of these three penalties (each weighted by as much)."""
    lecam: float = 0.0
    """Weight of the LeCam regulariser for small data sets (Tseng et al. 2021)."""
    precision: PrecisionName = "auto"
    """Arithmetic of convolutions and products; auto: bf16 where the hardware gains from it (CUDA from Ampere on, CPUs
    with AMX), else fp32; tf32: CUDA from Ampere on."""
    deterministic: bool = False
    """On CUDA: kernels that repeat bit for bit, so that a resumed run does too; slower. A CPU repeats by itself."""
    seed: int = 0
    """Fixes initial weights, order of pictures, latents and augmentation."""

    def __post_init__(self) -> None:
        def check(ok: bool, name: str, expected: str) -> None:
            if not ok:
                raise ValueError(f"{name} must be {expected}, got {getattr(self, name)}")

        for name in ("steps", "batch_size", "accumulate", "discriminator_steps", "penalty_every"):
            check(getattr(self, name) >= 1, name, "1 or more")
        check(self.batch_size % self.accumulate == 0, "accumulate", f"a divisor of batch_size {self.batch_size}")
        for name in ("generator_lr", "discriminator_lr"):
            check(getattr(self, name) > 0, name, "above 0")
        for name in ("beta1", "beta2", "ema_decay"):
            check(0 <= getattr(self, name) < 1, name, "from 0 to below 1")
        check(self.freeze_discriminator >= 0, "freeze_discriminator", "0 or more")
        check(not self.freeze_discriminator or self.start != "", "freeze_discriminator", "0 without --from")
        check(0 <= self.lr_decay_from <= 1, "lr_decay_from", "from 0 to 1")
        for name in ("ema_start", "r1", "r2", "gradient_penalty", "lecam"):
            check(getattr(self, name) >= 0, name, "0 or more")
        check(0 <= self.seed < 2**31, "seed", f"from 0 to {2**31 - 1}")


@dataclass(frozen=True)
class OutputConfig:
    """What a run writes, and when.

    Raises:
        ValueError: a field is out of its range; the message names it.
    """

    log_every: int = 50
    """Steps between two lines of the metrics log."""
    sample_every: int = 500
    """Steps between two grids of samples."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints."""
    keep: int = 2
    """Number of newest checkpoints to keep; the best evaluated one is kept besides."""
    evaluate_every: int = 1000
    """Steps between two evaluations, which choose the best checkpoint and warn of collapse; 0: none."""
    evaluate_count: int = 1000
    """Pictures, real and generated, of one evaluation."""
    evaluate_features: str = "efficientnet-lite0"
    """Features of these evaluations: efficientnet-lite0 (cheap), inception (FID), or a TorchScript file."""

    def __post_init__(self) -> None:
        least = dict.fromkeys(("log_every", "sample_every", "checkpoint_every", "keep"), 1)
        check_ranges(self, least=least | {"evaluate_every": 0, "evaluate_count": 2})


@dataclass(frozen=True)
class EvaluationConfig:
    """How pictures are compared.

    Raises:
        ValueError: a field is out of its range; the message names it.
    """

    features: str = "auto"
    """inception (FID), efficientnet-lite0, a TorchScript file, or auto: inception if its weights are here."""
    inception: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The weights of the Inception network, where they cannot be fetched."""
    resize: Literal["auto", "bicubic", "bilinear", "legacy"] = "auto"
    """To the features' size: bicubic (as clean-fid), bilinear, or legacy (unfiltered, as StyleGAN's and EDM's FID)."""
    feature_size: int | None = None
    """Side that pictures are resized to for a TorchScript file, in pixels; default: as they are."""
    count: int = 10_000
    """Pictures to generate, or to take of a folder at most; the literature takes 50,000."""
    reference_count: int = 50_000
    """Pictures of the reference to take at most; 0: all."""
    resolution: int | None = None
    """Side at which pictures are compared, in pixels; default: the run's, or that of the first folder's pictures."""
    seed: int = 0
    """Fixes the latents, and the subsets of the kernel distance."""
    truncation: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None
    """Cut latents off at this magnitude; figures with truncation are to be named so."""
    class_shares: Literal["reference", "uniform"] = "reference"
    """Classes of the generated pictures: as often as in the reference, or all alike."""
    ema: bool = True
    """Measure the averaged generator, not the trained one."""
    batch_norm: Literal["running", "batch", "standing"] = "running"
    """Statistics of batch norms: as trained, of each batch of 64, or estimated anew (standing)."""
    standing_batches: int = 16
    """Batches of 64 from which standing statistics are estimated."""
    neighbours: bool = True
    """Also precision, recall, density, coverage, and the nearest reference picture of each sample."""

    def __post_init__(self) -> None:
        least = {"count": 2, "reference_count": 0, "seed": 0, "standing_batches": 1}
        check_ranges(self, least=least, above_zero=("feature_size", "resolution", "truncation"))
        if self.resize == "legacy" and self.features not in ("auto", "inception"):
            raise ValueError("resize legacy is what the Inception network does by itself: take bicubic or bilinear")


@dataclass(frozen=True)
class Config:
    """Everything that a run is made from."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
