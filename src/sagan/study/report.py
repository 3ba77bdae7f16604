"""Write a study's report: Markdown for people and repositories, and the same as one self-contained HTML file."""

import shlex
import shutil
import statistics
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from sagan.figures.curves import save_figure
from sagan.figures.grid import save
from sagan.files import write_atomically
from sagan.model.build import count_parameters
from sagan.presets import train_command
from sagan.study.figures import draw_outcomes, draw_samples
from sagan.study.pages import write_pages
from sagan.study.paired import MOST_PAIRS
from sagan.study.plan import Job, StudyFolder
from sagan.study.results import (
    DISTANCE,
    PILOT_SHARES,
    Difference,
    Outcome,
    compared_metrics,
    find_differences,
    gather,
    main_metric,
)


def write_study_report(folder: StudyFolder) -> Path:
    """Write report.md, report.html and their images from the runs so far; returns the path of the HTML.

    Raises:
        UserError: markdown-it-py or scipy is missing, or the files cannot be written.
    """
    outcomes = gather(folder)
    images = _draw(folder, outcomes)
    return write_pages(folder.path, "study.md", folder.plan.study, _facts(folder, outcomes, images))


def _draw(folder: StudyFolder, outcomes: list[Outcome]) -> dict[str, str]:
    """Draw the report's figures; returns their paths within the folder, by name."""
    paths = {}
    figures = folder.path / "figures"
    if any(outcome.curves[DISTANCE] for outcome in outcomes):
        plan = folder.plan
        figure = draw_outcomes(outcomes, plan.base.training.steps, plan.definition.reference)
        save_figure(figure, figures / "curves.png")
        paths["curves"] = "figures/curves.png"
    samples = draw_samples(outcomes)
    if samples is not None:
        save(samples, figures / "samples.png")
        paths["samples"] = "figures/samples.png"
    return paths


def _facts(folder: StudyFolder, outcomes: list[Outcome], images: dict[str, str]) -> dict[str, Any]:
    """Return the template's variables."""
    plan = folder.plan
    main = main_metric(outcomes)
    names = list(dict.fromkeys(name for outcome in outcomes for name in outcome.metrics))
    rows = [(name, [_spread(outcome.metrics.get(name, [])) for outcome in outcomes]) for name in names]
    rows.append(("during training, best", [_spread(outcome.best) for outcome in outcomes]))
    rows.append(("during training, at the end", [_spread(outcome.last) for outcome in outcomes]))
    for network in ("generator", "discriminator"):
        if any(network in outcome.gammas for outcome in outcomes):
            values = [_spread(outcome.gammas.get(network, [])) for outcome in outcomes]
            rows.append((f"magnitude of gamma at the end, {network}", values))
    differences = [d for name in compared_metrics(outcomes) for d in find_differences(plan, outcomes, name)]
    evaluations = [e for outcome in outcomes for job in outcome.jobs if (e := job.evaluation())]
    return {
        "title": plan.definition.title,
        "about": plan.definition.about,
        "plan": plan,
        "source": plan.base.data.source,
        "outcomes": outcomes,
        "measured": len(evaluations),
        "runs": sum(len(outcome.jobs) for outcome in outcomes),
        "unfinished": [_unfinished(job) for o in outcomes for job in o.jobs if job.evaluation() is None],
        "features": evaluations[0]["features"]["network"] if evaluations else "",
        "rows": rows,
        "main": main,
        "differences": [_sentence(d) for d in differences],
        "pilot": [_pilot(d) for d in differences],
        "pilot_shares": [f"{share:.0%}" for share in PILOT_SHARES],
        "clear": [_sentence(d) for d in differences if d.is_larger_than_spread],
        "costs": [_cost(outcome) for outcome in outcomes],
        "hours": f"{sum(outcome.seconds for outcome in outcomes) / 3600:.2f}",
        "images": images,
        "attention": list(_attention(folder, outcomes)),
        "paper": plan.definition.paper,
        "command": command(folder),
        "train": train_command(plan.base, "runs/base"),
    }


def command(folder: StudyFolder) -> str:
    """Return the command that repeats the study: that of its base's training, with other first words."""
    plan = folder.plan
    words = shlex.split(train_command(plan.base, str(folder.path.name)))[2:]
    own = ["--seeds", str(len(plan.seeds)), "--count", str(plan.count)]
    if plan.features != "auto":
        own += ["--features", plan.features]
    if plan.measured_at != "best":
        own += ["--measured-at", plan.measured_at]
    if plan.variants != tuple(v.name for v in plan.definition.variants(plan.base) if not v.by_name_only):
        own += ["--only", *plan.variants]
    return shlex.join(["sagan", "study", plan.study, *words, *own])


def _spread(values: list[float]) -> str:
    """Return the mean and the standard deviation over seeds, in words."""
    if not values:
        return "-"
    text = _number(statistics.fmean(values))
    return f"{text} ± {_number(statistics.stdev(values))}" if len(values) > 1 else text


def _number(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def _sentence(d: Difference) -> str:
    verdict = "larger than the spread" if d.is_larger_than_spread else "not larger than the spread"
    mean = d.mean
    interval = f"{mean.low:+.3g} to {mean.high:+.3g}, {d.pairs} pairs"
    return f"{_comparison(d)}: {mean.value:+.3g} ({interval}): {verdict}"


def _comparison(d: Difference) -> str:
    return f"{d.metric}, {d.first.title} against {d.second.title}"


def _pilot(d: Difference) -> tuple[str, ...]:
    """Return a row of the pilot's table."""
    spread = d.spread
    needed = [" to ".join(map(_pairs, d.pairs_needed(share))) for share in PILOT_SHARES]
    interval = f"{_number(spread.value)} ({_number(spread.low)} to {_number(spread.high)})"
    return _comparison(d), _number(d.base), str(d.pairs), interval, *needed


def _pairs(count: int | None) -> str:
    return f"above {MOST_PAIRS:,}" if count is None else f"{count:,}"


def _unfinished(job: Job) -> str:
    done, total = job.steps_done(), job.config.training.steps
    reason = f": {job.last_line()}" if job.output_path.exists() else ""
    return f"{job.variant.title}, seed {job.seed}, {done:,} of {total:,} steps{reason}"


def _cost(outcome: Outcome) -> tuple[str, ...]:
    model, training = outcome.variant.config.model, outcome.variant.config.training
    speed = outcome.images_per_second
    updates = f"{training.discriminator_steps} to 1"
    rates = f"{training.generator_lr:.3g}, {training.discriminator_lr:.3g}"
    numbers = (f"{n / 1e6:.3f} M" for n in count_parameters(model))
    return (
        outcome.variant.title,
        *numbers,
        updates,
        rates,
        f"{training.steps:,}",
        f"{speed:.1f}",
        f"{outcome.seconds:.0f}",
    )


def _attention(folder: StudyFolder, outcomes: list[Outcome]) -> Iterator[tuple[str, str]]:
    """Copy the attention figures of the first seed's runs into the report; yields the title and path of each."""
    for outcome in outcomes:
        source = outcome.jobs[0].path / "attend.png"
        if source.exists():
            path = f"figures/attend-{outcome.variant.name}.png"
            write_atomically(folder.path / path, partial(shutil.copyfile, source))
            yield outcome.variant.title, path
