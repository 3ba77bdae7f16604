"""Types of arguments that several commands accept, and the checks of those that choose images."""

import re
from pathlib import Path
from typing import Annotated, Any

import tyro

from sagan.config import check_ranges

MAX_SEED = 2**63 - 1
MAX_SEEDS = 100_000

RunArgument = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
SourceArgument = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
FolderOption = Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")]
ClassesOption = Annotated[tuple[str, ...], tyro.conf.arg(metavar="CLASS ...", help_behavior_hint="")]
DeviceOption = Annotated[
    str,
    tyro.conf.arg(
        metavar="DEVICE",
        help="Where the networks run: cpu, cuda, cuda:1, mps, or auto (CUDA if there is a GPU, else the CPU).",
    ),
]
Flag = Annotated[tyro.conf.UseCounterAction[int], tyro.conf.arg(help_behavior_hint="")]
"""An option without a value; not 0 if it is present."""
SeedsOption = Annotated[
    tuple[str, ...],
    tyro.conf.arg(metavar="SEED,A-B", help_behavior_hint="", help="Several seeds, such as 3,17,40-49."),
]
LatentsOption = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]


def check_latents(options: Any) -> None:
    """Check the fields that choose latents: seed, seeds, latents, count, truncation; and scale.

    Raises:
        ValueError: a field is out of its range, or contradicts another one; the message names it.
    """
    check_ranges(options, minimum={"count": 1, "seed": 0, "scale": 1}, positive=("truncation",))
    if options.seed > MAX_SEED:
        raise ValueError(f"seed must be {MAX_SEED} or less, got {options.seed}")
    if options.scale is not None and options.scale > 64:
        raise ValueError(f"scale must be 64 or less, got {options.scale}")
    parse_seeds(options.seeds)
    if options.seeds and options.seed:
        raise ValueError("seed cannot be combined with seeds: pass one of them")
    if options.latents is not None:
        for name in ("seeds", "seed", "count", "truncation"):
            if getattr(options, name):
                raise ValueError(f"{name} cannot be combined with latents: the file holds all latents")


def parse_seeds(words: tuple[str, ...]) -> tuple[int, ...]:
    """Return the seeds that a list such as '3,17,40-49' names, each once, in its order.

    Raises:
        ValueError: it is not such a list, or names too many seeds.
    """
    seeds: dict[int, None] = {}
    for part in ",".join(words).split(",") if words else ():
        ends = re.fullmatch(r"\s*([0-9]{1,19})(?:\s*-\s*([0-9]{1,19}))?\s*", part)
        if not ends:
            raise ValueError(f"seeds must be numbers and ranges such as 3,17,40-49, got {part!r}")
        first, last = int(ends[1]), int(ends[2] or ends[1])
        if not first <= last <= MAX_SEED:
            raise ValueError(f"seeds must be from 0 to {MAX_SEED}, a range in ascending order, got {part!r}")
        if last - first + len(seeds) >= MAX_SEEDS:
            raise ValueError(f"seeds must be {MAX_SEEDS:,} or fewer, got {part!r}")
        seeds |= dict.fromkeys(range(first, last + 1))
    return tuple(seeds)
