"""`sagan report`: all that a run shows, gathered into one HTML file that needs nothing else."""

import base64
import io
import json
import platform
import shlex
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, StrictUndefined
from PIL import Image
from torch import nn

from sagan.errors import UserError
from sagan.figures.curves import arrange, draw_curves, to_svg
from sagan.files import read_json, write_atomically
from sagan.metric_names import FACT_NAMES, is_distance
from sagan.model.build import build_discriminator, build_generator
from sagan.model.config import ModelConfig
from sagan.presets import compare_with_preset, train_command
from sagan.render.curves import read_film_strip, read_rows
from sagan.run import Run, RunInfo, read_generator
from sagan.text import short

FEW_CLASSES = 12  # are named at once


_FOR_MACHINES = ("path", "key", "checksum", "class counts")  # of an evaluation's facts
_MIME = {"PNG": "image/png", "GIF": "image/gif", "JPEG": "image/jpeg", "WEBP": "image/webp"}


@dataclass(frozen=True)
class Shown:
    """A picture or film, embedded."""

    uri: str
    alt: str
    caption: str = ""
    width: int = 0
    height: int = 0
    is_video: bool = False


def write_report(path: Path, out: Path | None = None) -> Path:
    """Gathers a run's pictures, curves, figures and configuration; returns where to, by default report.html in the run.

    What the run does not have is left out; what cannot be read is left out and named at the end of the page.

    Raises:
        UserError: no such run, or no place to write.
    """
    run = Run(path)
    out = out or run.report_path
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {out}: give a .html file")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    source = resources.files("sagan.render").joinpath("report.html").read_text(encoding="utf-8")
    template = environment.from_string(source)
    page = template.render(gather(run))
    write_atomically(out, lambda temporary: temporary.write_bytes(page.encode("utf-8", "replace")))
    return out


def gather(run: Run) -> dict[str, Any]:
    """What the page says, by the names that its template uses; plain text, escaped there."""
    problems: list[str] = []
    info, rows = run.info, read_rows(run)
    preset, differences = compare_with_preset(info.config)
    name = run.path.resolve().name
    evaluations = [
        found for path in sorted(run.evaluations_path.glob("*.json")) if (found := read_evaluation(path, problems))
    ]
    if not rows:
        problems.append(f"Curves: {run.metrics_path.name} holds nothing yet.")
    return {
        "name": name,
        "lead": describe(info),
        "facts": list(facts(run, rows)),
        "class_names": info.class_names,
        "few_classes": FEW_CLASSES,
        "galleries": _galleries(run, problems),
        "charts": _charts(rows),
        "evaluations": evaluations,
        "latest": list(_latest(rows)),
        "preset": preset,
        "differences": differences,
        "configuration": json.dumps(asdict(info.config), indent=2, ensure_ascii=False),
        "commands": _commands(info, run.path),
        "versions": _versions(),
        "data_key": info.data_key,
        "problems": problems,
    }


def _commands(info: RunInfo, path: Path) -> list[str]:
    place = path.resolve().name if path.is_absolute() else str(path)  # nobody else has this machine's folders
    folder = shlex.quote(place)
    return [
        *([] if info.origin else [train_command(info.config, place)]),
        f"sagan sample {folder} --count 8 --seed 0",
        f"sagan interpolate {folder}",
        f"sagan plot {folder}",
        f"sagan report {folder}",
    ]


def _versions() -> str:
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in ("sagan", "torch", "numpy", "pillow"))
    return f"{packages} and Python {platform.python_version()}"


def describe(info: RunInfo) -> str:
    """What a run is, in a line without an end."""
    model, number = info.config.model, len(info.class_names)
    kind = {1: "grey ", 3: "", 4: "RGBA "}[model.image_channels]
    classes = f" of {number} classes" if number > 1 else f" of {info.class_names[0]}" if number else ""
    return f"A self-attention GAN for {kind}pictures{classes}, {model.resolution} × {model.resolution} pixels"


def facts(run: Run, rows: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Terms and what they are in this run."""
    config, names = run.info.config, run.info.class_names
    training = config.training
    if run.info.origin:
        yield "Imported from", run.info.origin
    else:
        yield "Data", config.data.source
    if names:
        more = f" and {len(names) - FEW_CLASSES} more" if len(names) > FEW_CLASSES else ""
        yield f"{len(names)} classes" if len(names) > 1 else "Class", ", ".join(names[:FEW_CLASSES]) + more
    if not run.info.origin:
        done = max((row["step"] for row in rows), default=0)
        yield "Trained", f"{done:,} of {training.steps:,} steps, {done * training.batch_size:,} pictures seen"
    seconds = _training_seconds(rows, training.batch_size)
    if seconds:
        yield "Time in training steps", _duration(seconds)
    model = config.model
    yield "Generator", f"{_parameters(build_generator, model)} parameters; {_attention(model, 'generator')}"
    count = _parameters(build_discriminator, model)
    yield "Discriminator", f"{count} parameters; {_attention(model, 'discriminator')}"
    try:
        step = read_generator(run.path)[2]
    except UserError:
        return
    yield (
        "Weights kept for drawing",
        f"those of step {step:,}" + (" (averaged)" if training.ema_decay and not run.info.origin else ""),
    )


def _parameters(build: Callable[[ModelConfig], nn.Module], model: ModelConfig) -> str:
    with torch.device("meta"):  # shapes alone
        count = sum(p.numel() for p in build(model).parameters())
    return f"{count / 1e6:.2f} M" if count >= 1e6 else f"{count:,}"


def _attention(model: ModelConfig, network: Any) -> str:
    named = {
        "self": f"self-attention ({model.attention_variant})",
        "channel": "channel attention",
        "residual": "residual",
    }
    layers = [f"{named[kind]} at {size}\u00a0×\u00a0{size}" for size, kind in model.attention_at(network)]
    return ", ".join(layers) or "no attention"


def _training_seconds(rows: list[dict[str, Any]], batch_size: int) -> float:
    """From the logged speeds; pauses between resumed parts are not in it."""
    seconds, before = 0.0, 0
    for row in rows:
        speed = row.get("images_per_second")
        if isinstance(speed, int | float) and speed > 0:
            seconds += (row["step"] - before) * batch_size / speed
            before = row["step"]
    return seconds


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def _galleries(run: Run, problems: list[str]) -> list[tuple[str, list[Shown]]]:
    """Titles and pictures, in the order of the page."""
    samples = run.samples()[-1:] or [run.samples_path]
    about = "Drawn from fixed latents, none picked by hand"
    sample_grid = _embed(samples[0], about, problems)
    strip: list[Shown] = []
    try:
        drawn = read_film_strip(run)
        if drawn is not None:
            buffer = io.BytesIO()
            drawn.save(buffer, format="PNG")
            caption = "The same latents at several steps of training, closer together in the beginning"
            strip = [Shown(_uri("image/png", buffer.getvalue()), caption, caption, *drawn.size)]
    except UserError as error:
        problems.append(str(error))
    stem = run.interpolation_path
    gif, film = stem.with_suffix(".gif"), stem.with_suffix(".mp4")
    caption = "From one latent to another within each class, and from class to class"
    walks = [_embed(path, caption, problems) for path in (stem, gif if gif.exists() else film)]
    attention = "Pictures with query points, and what the attention layer draws on for each of them"
    return [
        ("Samples", [shown for shown in (sample_grid,) if shown]),
        ("Over training", strip),
        ("What it attends to", [shown for shown in (_embed(run.path / "attend.png", attention, problems),) if shown]),
        ("Walks", [shown for shown in walks if shown]),
    ]


def _embed(path: Path, caption: str, problems: list[str]) -> Shown | None:
    """A picture file or .mp4 of the run, if it has it; a line among the problems if it cannot be read."""
    if not path.exists():
        return None
    try:
        data = path.read_bytes()
        if path.suffix == ".mp4":
            return Shown(_uri("video/mp4", data), caption, caption, is_video=True)
        with Image.open(io.BytesIO(data), formats=list(_MIME)) as image:
            image.load()
            return Shown(_uri(_MIME[image.format or ""], data), caption, caption, *image.size)
    except Exception as error:  # a decoder may raise anything on a damaged file
        problems.append(f"{path.name} could not be read: {error}")
        return None


def _uri(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def _charts(rows: list[dict[str, Any]]) -> list[Shown]:
    """A chart for each panel, so that they find their own places on a narrow page."""
    return [
        Shown(
            _uri("image/svg+xml", to_svg(draw_curves(rows, panel.keys), transparent=True)),
            f"{panel.title} over the steps of training",
        )
        for panel in arrange(rows)
    ]


def _latest(rows: list[dict[str, Any]]) -> Iterator[dict[str, str]]:
    """The newest value of everything logged, and the best of the distances."""
    for key in (key for panel in arrange(rows) for key in panel.keys):
        logged = [(row[key], row["step"]) for row in rows if isinstance(row.get(key), int | float)]
        value, step = logged[-1]
        finite = [pair for pair in logged if abs(pair[0]) < float("inf")]
        best = min(finite) if is_distance(key) and finite else None
        yield {
            "name": key,
            "value": short(value),
            "step": f"{step:,}",
            "best": f"best: {short(best[0])} at step {best[1]:,}" if best else "",
        }


def read_evaluation(path: Path, problems: list[str]) -> dict[str, Any] | None:
    """What the page says of a file that sagan evaluate wrote; a line among the problems if it is none."""
    try:
        found = read_json(path)
        network, step = (_fact(found, *keys) for keys in (("features", "network"), ("generated", "step")))
        title = ", ".join(str(part) for part in (network, step and f"step {step:,}") if part)
        told = tell_evaluation(found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problems.append(f"{path.parent.name}/{path.name} could not be read: {type(error).__name__}: {error}")
        return None
    caption = "Samples above, the real pictures nearest to them below"
    return {"title": title or path.stem, "nearest": _embed(path.with_suffix(".png"), caption, problems), **told}


def tell_evaluation(found: dict[str, Any]) -> dict[str, Any]:
    """The content of such a file as text: its metrics, what was compared, remarks, and values by class.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is not one.
    """
    metrics = [
        {
            "name": str(metric["name"]),
            "value": short(metric["value"])
            + (f" ± {short(metric['spread'])}" if metric.get("spread") is not None else ""),
            "about": str(metric.get("about") or ""),
        }
        for metric in found["figures"]
    ]
    sets = [(name, text) for name in ("generated", "reference", "features") if (text := _sentence(found.get(name)))]
    return {
        "sets": sets,
        "metrics": metrics,
        "remarks": [str(remark) for remark in found.get("remarks") or ()],
        "classes": [(str(name), short(value)) for name, value in (found.get("classes") or {}).items()],
    }


def _fact(found: dict[str, Any], name: str, key: str) -> Any:
    about = found.get(name)
    return about.get(key) if isinstance(about, dict) else None


def _sentence(about: Any) -> str:
    """Facts of one set, without those that only a machine wants; the first one is its name."""
    if not isinstance(about, dict):
        return "" if about is None else str(about)
    facts = [(key, value) for key, value in about.items() if key not in _FOR_MACHINES and value not in (None, "none")]
    return ", ".join(
        f"{FACT_NAMES.get(key, key)} {value:,}"
        if isinstance(value, int)
        else str(value)
        if key in ("source", "network")
        else f"{FACT_NAMES.get(key, key)} {value}"
        for key, value in facts
    )
