"""Write the report of `sagan study rates`."""

import math
import shlex
import statistics
from pathlib import Path

from sagan.presets import train_command
from sagan.study.pages import write_pages
from sagan.study.paired import paired_difference
from sagan.study.rates import PRECISION, VARIANTS, RatesFolder, Search, Trial, bounds, with_rate
from sagan.training.divergence import MAX_LOSS


def write_rates_report(folder: RatesFolder) -> Path:
    """Write report.md and report.html from the trials so far; returns the path of the HTML.

    Raises:
        UserError: markdown-it-py or scipy is missing, or the files cannot be written.
    """
    plan = folder.plan
    searches = folder.searches()
    trials = [(search, trial) for search in searches for trial in search.trials()]
    variants = plan.chosen()
    largest = {variant.name: _largest(searches, variant.name) for variant in variants}
    rows = []
    for variant in variants:
        found = largest[variant.name]
        mean = statistics.geometric_mean(found.values()) if found else None
        rates = "-"
        if mean:
            training = with_rate(variant.config, mean).training
            rates = f"{training.generator_lr:.2g}, {training.discriminator_lr:.2g}"
        of_seeds = [_bracket(s) for s in searches if s.variant.name == variant.name]
        ratio = _ratio(found, largest[variants[0].name]) if variant != variants[0] else "-"
        rows.append((variant.title, _number(mean), rates, *of_seeds, ratio))
    facts = {
        "plan": plan,
        "source": plan.base.data.source,
        "features": plan.base.output.evaluate_features,
        "max_distance": f"{plan.max_distance:g}",
        "min_diversity": f"{plan.min_diversity:g}",
        "rows": rows,
        "first": variants[0].title,
        "precision": f"{PRECISION:g}",
        "max_loss": f"{MAX_LOSS:g}",
        "trials": [_row(search, trial) for search, trial in sorted(trials, key=_place)],
        "unfinished": [f"{s.variant.title}, seed {s.seed}" for s in searches if s.next_rate() is not None],
        "hours": f"{sum(trial.seconds for _, trial in trials) / 3600:.2f}",
        "command": command(folder),
    }
    return write_pages(folder.path, "rates.md", "rates", facts)


def command(folder: RatesFolder) -> str:
    """Return the command that repeats the search."""
    plan = folder.plan
    words = shlex.split(train_command(plan.base, folder.path.name))[2:]
    own = ["--seeds", str(len(plan.seeds)), "--max-distance", f"{plan.max_distance:g}"]
    own += ["--min-diversity", f"{plan.min_diversity:g}"]
    if plan.variants != VARIANTS:
        own += ["--only", *plan.variants]
    return shlex.join(["sagan", "study", "rates", *words, *own])


def _largest(searches: list[Search], variant: str) -> dict[int, float]:
    """Return, by seed, the largest rate of a variant that survived, where a search has found it and one that fails."""
    found = {}
    for search in searches:
        low, high = bounds(search.trials())
        if search.variant.name == variant and search.next_rate() is None and low is not None and high is not None:
            found[search.seed] = low
    return found


def _ratio(found: dict[int, float], base: dict[int, float]) -> str:
    """Return the ratio of two variants' rates over pairs of a seed, in words."""
    logs = [math.log(found[seed] / base[seed]) for seed in found if seed in base]
    if not logs:
        return "-"
    if len(logs) == 1:
        return f"{math.exp(logs[0]):.2f}"
    mean = paired_difference(logs)
    value, low, high = (math.exp(x) for x in (mean.value, mean.low, mean.high))
    return f"{value:.2f} ({low:.2g} to {high:.2g})"


def _bracket(search: Search) -> str:
    """Return the largest rate that survived and the smallest that failed, or what is known of them."""
    if search.next_rate() is not None:
        return "not finished"
    low, high = bounds(search.trials())
    if high is None:
        return f"above {_number(low)}"
    return f"{_number(low)} ({_number(high)})" if low is not None else f"below {_number(high)}"


def _number(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.2g}"


def _row(search: Search, trial: Trial) -> tuple[str, ...]:
    def short(value: float | None) -> str:
        return "-" if value is None else f"{value:.3g}"

    return (
        search.variant.title,
        str(search.seed),
        f"{trial.rate:.3g}",
        "survives" if trial.survived else trial.reason,
        f"{trial.steps:,}",
        short(trial.distance),
        short(trial.untrained_distance),
        short(trial.diversity),
        f"{trial.seconds:.0f}",
    )


def _place(entry: tuple[Search, Trial]) -> tuple[int, int, float]:
    search, trial = entry
    return VARIANTS.index(search.variant.name), search.seed, trial.rate
