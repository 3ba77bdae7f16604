"""Define what each study compares: named changes to one configuration, the paper's experiments first."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, Literal

from sagan.config import Config
from sagan.model.config import AttentionKind, Role
from sagan.presets import option_paths

StudyName = Literal["attention", "stability", "comparison", "settings"]


@dataclass(frozen=True)
class Variant:
    """One configuration that a study compares."""

    name: str
    """Name of its folder, and on the command line."""
    title: str
    config: Config
    same_time: bool = False
    """Whether it trains for the time that the base takes, rather than for the steps of the base."""
    by_name_only: bool = False
    """Whether a study has it only where the option --only names it."""


@dataclass(frozen=True)
class Study:
    """An experiment: the paper's, or one on the settings."""

    title: str
    about: str
    """What is compared, and what is kept the same."""
    variants: Callable[[Config], list[Variant]]
    pairs: Callable[[list[str]], list[tuple[str, str]]]
    """Map the names of the variants in a study to the pairs that its report compares."""
    reference: str
    """Variant that curves show the differences to."""
    paper: str = ""
    """What the paper found, as Markdown."""


def overridden_options(given: Iterable[str], base: Config, variants: Sequence[Variant]) -> list[str]:
    """Return the options of `given` that every variant overrides, so that their values have no effect."""
    paths = option_paths(base)
    values = {option: attrgetter(paths[option]) for option in given if option in paths}
    return [option for option, value in values.items() if all(value(v.config) != value(base) for v in variants)]


def update_share(config: Config) -> float:
    """Return how many steps cost the same as one step with one update of D and one of G: with five and one, a third."""
    return 2 / (1 + config.training.discriminator_steps)


def equal_rate(config: Config) -> float:
    """Return one learning rate for both networks in place of two: their geometric mean.

    For the paper's 1e-4 and 4e-4 this is 2e-4, the rate of SNGAN and of AC-GAN.
    """
    return math.sqrt(config.training.generator_lr * config.training.discriminator_lr)


def _with(config: Config, *, model: dict[str, Any] | None = None, training: dict[str, Any] | None = None) -> Config:
    return replace(
        config, model=replace(config.model, **(model or {})), training=replace(config.training, **(training or {}))
    )


PAPER_LOSS: dict[str, Any] = {
    "loss": "hinge",
    "r1": 0.0,
    "r2": 0.0,
    "gradient_penalty": 0.0,
    "lecam": 0.0,
    "guide": 0.0,
    "penalty_every": 1,
}
"""Fields of `TrainingConfig`: the hinge loss alone, without penalties or a guide."""
RELATIVISTIC: dict[str, Any] = {"loss": "relativistic", "r1": 0.5, "r2": 0.5, "penalty_every": 4}
"""Fields of `TrainingConfig`: R3GAN's loss (Huang et al. 2024), with penalties at every fourth step."""


def _attention_at(
    size: int | None, kind: AttentionKind = "self", roles: tuple[Role, ...] = ("generator", "discriminator")
) -> dict[str, Any]:
    layers = () if size is None else ((size, kind),)
    return {
        "generator_attention": layers if "generator" in roles else (),
        "discriminator_attention": layers if "discriminator" in roles else (),
    }


KINDS: dict[AttentionKind, str] = {
    "self": "self-attention",
    "residual": "residual block",
    "channel": "channel attention",
}

ROLES: dict[str, Role] = {"G": "generator", "D": "discriminator"}


def _attention(base: Config) -> list[Variant]:
    """Return Table 1's variants: no layer, or one in both networks, at each size from 8 to half the image's.

    By name only: self-attention in one of the networks, self-16-g or self-16-d.
    """
    sizes = [8 << i for i in range((base.model.resolution // 8).bit_length() - 1)]
    variants = [Variant("none", "none", _with(base, model=_attention_at(None)))]
    for kind, title in KINDS.items():
        for size in sizes:
            config = _with(base, model=_attention_at(size, kind))
            variants.append(Variant(f"{kind}-{size}", f"{title} {size}", config))
    for size in sizes:
        for letter, role in ROLES.items():
            config = _with(base, model=_attention_at(size, roles=(role,)))
            title = f"{KINDS['self']} {size} in {letter} only"
            variants.append(Variant(f"self-{size}-{letter.lower()}", title, config, by_name_only=True))
    return variants


def _attention_pairs(names: list[str]) -> list[tuple[str, str]]:
    sizes = [name.removeprefix("self-") for name in names if name.startswith("self-")]
    pairs = [(name, "none") for name in names if name != "none" and "none" in names]
    return pairs + [(f"self-{size}", f"residual-{size}") for size in sizes if f"residual-{size}" in names]


def _stability(base: Config) -> list[Variant]:
    """Return Figure 3's variants: spectral norm in D or in both networks, one rate or two; no attention, as there."""
    base = _with(base, training=PAPER_LOSS)
    equal = {"generator_lr": equal_rate(base), "discriminator_lr": equal_rate(base), "discriminator_steps": 1}
    in_d = {**_attention_at(None), "generator_spectral_norm": False, "discriminator_spectral_norm": True}
    in_both = {**in_d, "generator_spectral_norm": True}
    return [
        Variant("sn-d", "SN in D", _with(base, model=in_d, training=equal)),
        Variant("sn-both", "SN in G and D", _with(base, model=in_both, training=equal)),
        Variant("sn-both-ttur", "SN in G and D, TTUR", _with(base, model=in_both, training={"discriminator_steps": 1})),
        Variant("sn-d-5", "SN in D, 5 to 1", _with(base, model=in_d, training={**equal, "discriminator_steps": 5})),
    ]


def _comparison(base: Config) -> list[Variant]:
    """Return Table 2's variants on networks of one shape, which differ only in what defines each method."""
    base = _with(base, training=PAPER_LOSS)
    equal = {"generator_lr": equal_rate(base), "discriminator_lr": equal_rate(base)}
    acgan = _with(
        base,
        model={
            **_attention_at(None),
            "class_head": "classifier",
            "generator_spectral_norm": False,
            "discriminator_spectral_norm": False,
        },
        training={**equal, "loss": "non-saturating", "discriminator_steps": 1, "beta1": 0.5, "beta2": 0.999},
    )
    sngan = _with(
        base,
        model={**_attention_at(None), "generator_spectral_norm": False},
        training={**equal, "discriminator_steps": 5},
    )
    return [
        Variant("acgan", "AC-GAN", acgan),
        Variant("sngan", "SNGAN-projection", sngan),
        Variant("sagan", "SAGAN", base),
    ]


def _settings(base: Config) -> list[Variant]:
    """Return variants with one setting changed, or changed back if the base has it; no-op changes are skipped."""
    width = base.model.base_channels
    old = base.training
    one = equal_rate(base)

    def changed(name: str, title: str, *, same_time: bool = False, **training: Any) -> Variant:
        return Variant(name, title, _with(base, training=training), same_time)

    def of_width(name: str, title: str, channels: int) -> Variant:
        return Variant(name, title, _with(base, model={"base_channels": channels}), same_time=True)

    def of_batch(name: str, title: str, size: int) -> Variant:
        accumulate = math.gcd(size, old.accumulate)
        return changed(name, title, batch_size=size, accumulate=accumulate, same_time=True)

    variants = [
        changed("augment", "augmented", augment=("color", "translation", "cutout"))
        if not old.augment
        else changed("no-augment", "not augmented", augment=()),
        changed("no-average", "no EMA", ema_decay=0.0),
        Variant("no-attention", "no attention", _with(base, model=_attention_at(None))),
        changed("paper-rates", "the paper's rates", generator_lr=1e-4, discriminator_lr=4e-4),
        changed("one-rate", "one rate", generator_lr=one, discriminator_lr=one),
        changed(
            "double-rates",
            "twice the rates",
            generator_lr=2 * old.generator_lr,
            discriminator_lr=2 * old.discriminator_lr,
        ),
        of_width("narrow", "two thirds as wide", max(1, 2 * width // 3)),
        of_width("wide", "a third wider", 4 * width // 3),
        of_batch("half-batch", "half the batch", max(1, old.batch_size // 2)),
        of_batch("double-batch", "twice the batch", 2 * old.batch_size),
        changed("no-guide", "no guide", guide=0.0, same_time=True),
        changed("hinge", "the paper's loss", **PAPER_LOSS | {"guide": old.guide}, same_time=True)
        if old.loss != "hinge"
        else changed("relativistic", "relativistic, R1, R2", **RELATIVISTIC, same_time=True),
    ]
    return [Variant("base", "as it is", base), *(v for v in variants if v.config != base)]


def _all_against(last: str) -> Callable[[list[str]], list[tuple[str, str]]]:
    return lambda names: [(last, name) for name in names if name != last and last in names]


_PAPER_ATTENTION = """ImageNet at 128 x 128, best of a million steps of 256 images (Zhang et al. 2019, Table 1):

| | none | SA 8 | SA 16 | SA 32 | SA 64 | residual 8 | residual 16 | residual 32 | residual 64 |
|---|---|---|---|---|---|---|---|---|---|
| FID | 22.96 | 22.98 | 22.14 | 18.28 | 18.65 | 42.13 | 22.40 | 27.33 | 28.82 |
| IS | 42.87 | 43.15 | 45.94 | 51.43 | 52.52 | 23.17 | 44.49 | 38.50 | 38.96 |
"""

_PAPER_COMPARISON = """ImageNet at 128 x 128 (Zhang et al. 2019, Table 2):

| | AC-GAN | SNGAN-projection | SAGAN |
|---|---|---|---|
| IS | 28.5 | 36.8 | 52.52 |
| intra-FID | 260.0 | 92.4 | 83.7 |
| FID | - | 27.62 | 18.65 |
"""

STUDIES: dict[StudyName, Study] = {
    "attention": Study(
        "Does attention help, and where?",
        "The paper's Table 1: one layer in both networks, at several sizes of feature map, or none; the residual "
        "blocks have as many parameters as the self-attention that they replace.",
        _attention,
        _attention_pairs,
        "none",
        _PAPER_ATTENTION,
    ),
    "stability": Study(
        "What makes training stable?",
        "The paper's Figure 3, networks without attention, hinge loss: spectral norm (SN) in the discriminator alone "
        "or in both networks, with one learning rate for both or two (TTUR). One rate is their geometric mean. "
        "With five updates of D for one of G there are a third as many steps, so that all cost about the same.",
        _stability,
        _all_against("sn-both-ttur"),
        "sn-both-ttur",
    ),
    "comparison": Study(
        "How does it compare with its predecessors?",
        "The paper's Table 2 on networks of one shape. AC-GAN: an auxiliary classifier, the original GAN loss, Adam "
        "(0.5, 0.999), no spectral norm. SNGAN: projection, hinge loss, spectral norm in D, five updates of D for one "
        "of G in a third of the steps. SAGAN: the configuration with the hinge loss. The first two have one "
        "learning rate for both networks, the geometric mean of SAGAN's.",
        _comparison,
        _all_against("sagan"),
        "sagan",
        _PAPER_COMPARISON,
    ),
    "settings": Study(
        "What makes the largest difference here?",
        "One setting changed at a time, the rest of the configuration as it is. A change of width, of batch size or of "
        "the loss gets as many steps as take the same time, by a short trial; any other as many steps as the base.",
        _settings,
        lambda names: [(name, "base") for name in names if name != "base" and "base" in names],
        "base",
    ),
}
