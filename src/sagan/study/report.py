"""A study's report: Markdown for people and repositories, and the same as one HTML file that needs nothing else."""

import base64
import os
import platform
import shlex
import shutil
import statistics
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, StrictUndefined

from sagan.errors import UserError
from sagan.figures.curves import save_figure
from sagan.figures.grid import save
from sagan.files import write_atomically
from sagan.model.build import count_parameters
from sagan.presets import train_command
from sagan.study.figures import draw_outcomes, draw_samples
from sagan.study.plan import Job, StudyFolder
from sagan.study.results import Difference, Outcome, find_differences, gather, main_figure


def write_study_report(folder: StudyFolder) -> Path:
    """Writes report.md, report.html and their pictures from what there is so far; returns the HTML's path.

    Raises:
        UserError: markdown-it-py or scipy is missing, or the disk refuses.
    """
    try:
        from markdown_it import MarkdownIt
    except ImportError as error:
        raise UserError("the report of a study needs markdown-it-py: pip install 'sagan[study]'") from error
    outcomes = gather(folder)
    pictures = _draw(folder, outcomes)
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    template = environment.from_string(_resource("study.md"))
    text = template.render(_facts(folder, outcomes, pictures))
    write_atomically(folder.path / "report.md", lambda temporary: temporary.write_text(text, encoding="utf-8"))
    # 'js-default' lets no HTML through: names of classes and files come from outside.
    parser = MarkdownIt("js-default")
    parser.add_render_rule("image", _embedded(folder.path))
    body = parser.render(text)
    page = _resource("study.html").replace("{{ title }}", folder.plan.study).replace("{{ body }}", body)
    out = folder.path / "report.html"
    write_atomically(out, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    return out


def _resource(name: str) -> str:
    return resources.files("sagan.study").joinpath(name).read_text(encoding="utf-8")


def _embedded(folder: Path) -> Any:
    """How the HTML's pictures are written: as data, so that the file can be mailed."""

    def render(self: Any, tokens: Any, i: int, options: Any, env: Any) -> str:
        data = base64.b64encode((folder / tokens[i].attrs["src"]).read_bytes()).decode()
        alt = self.renderInlineAsText(tokens[i].children, options, env)
        return f'<img alt="{alt}" src="data:image/png;base64,{data}">'

    return render


def _draw(folder: StudyFolder, outcomes: list[Outcome]) -> dict[str, str]:
    """Pictures by their captions, as paths within the folder."""
    found = {}
    figures = folder.path / "figures"
    if any(outcome.curves for outcome in outcomes):
        save_figure(draw_outcomes(outcomes, folder.plan.base.training.steps), figures / "curves.png")
        found["curves"] = "figures/curves.png"
    samples = draw_samples(outcomes)
    if samples is not None:
        save(samples, figures / "samples.png")
        found["samples"] = "figures/samples.png"
    return found


def _facts(folder: StudyFolder, outcomes: list[Outcome], pictures: dict[str, str]) -> dict[str, Any]:
    """What the template says, by its names."""
    plan = folder.plan
    main = main_figure(outcomes)
    names = list(dict.fromkeys(name for outcome in outcomes for name in outcome.figures))
    rows = [(_escape(name), [_spread(outcome.figures.get(name, [])) for outcome in outcomes]) for name in names]
    rows.append(("while training, best", [_spread(outcome.best) for outcome in outcomes]))
    rows.append(("while training, at the end", [_spread(outcome.last) for outcome in outcomes]))
    for network in ("generator", "discriminator"):
        if any(network in outcome.gammas for outcome in outcomes):
            values = [_spread(outcome.gammas.get(network, [])) for outcome in outcomes]
            rows.append((f"magnitude of gamma at the end, {network}", values))
    differences = [d for name in (main, _classwise(names)) if name for d in find_differences(plan, outcomes, name)]
    evaluations = [found for outcome in outcomes for job in outcome.jobs if (found := job.evaluation())]
    return {
        "title": plan.definition.title,
        "about": plan.definition.about,
        "plan": plan,
        "source": _escape(plan.base.data.source),
        "outcomes": outcomes,
        "measured": len(evaluations),
        "runs": sum(len(outcome.jobs) for outcome in outcomes),
        "unfinished": [_unfinished(job) for o in outcomes for job in o.jobs if job.evaluation() is None],
        "features": evaluations[0]["features"]["network"] if evaluations else "",
        "rows": rows,
        "main": main,
        "differences": [_sentence(d) for d in differences],
        "clear": [_sentence(d) for d in differences if d.is_larger_than_spread],
        "costs": [_cost(outcome) for outcome in outcomes],
        "hours": f"{sum(outcome.seconds for outcome in outcomes) / 3600:.2f}",
        "pictures": pictures,
        "attention": list(_attention(folder, outcomes)),
        "paper": plan.definition.paper,
        "command": command(folder),
        "train": train_command(plan.base, "runs/base"),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": _machine(),
        "versions": ", ".join(f"{name} {metadata.version(name)}" for name in ("sagan", "torch", "numpy")),
    }


def command(folder: StudyFolder) -> str:
    """The command that does the study again: that which trains its configuration, but for the first words."""
    plan = folder.plan
    words = shlex.split(train_command(plan.base, str(folder.path.name)))[2:]
    own = ["--seeds", str(len(plan.seeds)), "--count", str(plan.count)]
    if plan.features != "auto":
        own += ["--features", plan.features]
    if plan.variants != tuple(v.name for v in plan.definition.variants(plan.base)):
        own += ["--only", *plan.variants]
    return shlex.join(["sagan", "study", plan.study, *words, *own])


def _classwise(names: list[str]) -> str | None:
    return next((name for name in names if name in ("intra-FID", "class-wise Frechet distance")), None)


def _spread(values: list[float]) -> str:
    """Mean and standard deviation over seeds."""
    if not values:
        return "-"
    text = _number(statistics.fmean(values))
    return f"{text} ± {_number(statistics.stdev(values))}" if len(values) > 1 else text


def _number(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def _sentence(d: Difference) -> str:
    verdict = "larger than the spread" if d.is_larger_than_spread else "not larger than the spread"
    interval = f"{d.low:+.3g} to {d.high:+.3g}"
    return f"{d.figure}, {d.first.title} against {d.second.title}: {d.mean:+.3g} ({interval}): {verdict}"


def _unfinished(job: Job) -> str:
    done, total = job.steps_done(), job.config.training.steps
    words = f": {_escape(job.last_words())}" if job.output_path.exists() else ""
    return f"{job.variant.title}, seed {job.seed}, {done:,} of {total:,} steps{words}"


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
    """The attention figures of the first seed's runs that have them, beside the report's others: title and path."""
    for outcome in outcomes:
        found = outcome.jobs[0].path / "attend.png"
        if found.exists():
            path = f"figures/attend-{outcome.variant.name}.png"
            write_atomically(folder.path / path, partial(shutil.copyfile, found))
            yield outcome.variant.title, path


def _escape(text: str) -> str:
    """Text from outside, as Markdown shows it unchanged."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>()#+!|~" else c for c in text if c.isprintable())


def _machine() -> str:
    device = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} {platform.machine()} cores"
    )
    return f"{platform.system()}, {device}"
