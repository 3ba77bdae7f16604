"""Write a run's report: images, curves, metrics and configuration in one self-contained HTML file."""

import base64
import io
import json
import platform
import shlex
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from sagan.errors import UserError
from sagan.figures.curves import arrange, draw_curves, to_svg
from sagan.figures.grid import GRID_COLUMNS, GRID_ROWS
from sagan.files import read_bytes, read_json, write_atomically
from sagan.marks import step_of
from sagan.metric_names import HIDDEN_FACTS, is_distance, join_facts
from sagan.model.build import count_parameters
from sagan.model.config import ModelConfig
from sagan.presets import compare_with_preset, train_command
from sagan.render.curves import read_film_strip
from sagan.render.public import public_info, public_name
from sagan.run import Run, RunInfo, default_output, read_generator
from sagan.templates.environment import render
from sagan.text import short
from sagan.version import versions

MAX_BYTES = 2**27
"""Largest image or film that a report contains."""
MAX_PIXELS = 100_000_000
"""Pixels of the largest image that a report contains."""
FEW_CLASSES = 12  # class names shown without unfolding the list

_MIME = {"PNG": "image/png", "GIF": "image/gif", "JPEG": "image/jpeg", "WEBP": "image/webp"}


@dataclass(frozen=True)
class Embedded:
    """An image or a film as a data URI."""

    uri: str
    alt: str
    caption: str = ""
    width: int = 0
    height: int = 0
    is_video: bool = False


def write_report(path: Path, out: Path | None = None) -> Path:
    """Write the report of a run, and return where. None: report.html in the run.

    Files that the run lacks are skipped. Files that cannot be read are skipped and listed at the end of the page.

    Raises:
        UserError: there is no such run, or the file cannot be written.
    """
    run = Run(path)
    out = out or default_output(run.path, run.report_path.name)
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {out}: pass a .html file")
    page = render("report.html", **collect_content(run))
    write_atomically(out, lambda temporary: temporary.write_bytes(page.encode("utf-8", "replace")))
    return out


def collect_content(run: Run) -> dict[str, Any]:
    """Return the content of the page by the names that the template uses, as plain text, which the template escapes."""
    problems: list[str] = []
    info = public_info(run.info)
    rows = run.metrics()
    preset, differences = compare_with_preset(info.config)
    paths = sorted(run.evaluations_path.glob("*.json"))
    step = weights_step(run)
    evaluations = [evaluation for path in paths if (evaluation := read_evaluation(path, problems, step))]
    evaluations.sort(key=lambda evaluation: evaluation["other"])
    if not rows:
        problems.append(f"Curves: {run.metrics_path.name} has no logged step yet.")
    return {
        "name": run.path.resolve().name,
        "lead": describe_run(info),
        "facts": list(list_facts(run, rows, step)),
        "class_names": info.class_names,
        "few_classes": FEW_CLASSES,
        "galleries": _galleries(run, step, problems),
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
    place = path.resolve().name if path.is_absolute() else str(path)  # readers do not have this machine's folders
    folder = shlex.quote(place)
    # The command that repeats samples.png.
    count = GRID_COLUMNS if info.class_names else GRID_COLUMNS**2
    many = len(info.class_names) > GRID_ROWS
    classes = f" --classes {' '.join(map(str, range(GRID_ROWS)))}" if many else ""
    commands = [
        f"sagan sample {folder} --count {count} --seed {info.config.training.seed}{classes}",
        f"sagan interpolate {folder}",
        f"sagan plot {folder}",
        f"sagan report {folder}",
    ]
    return commands if info.origin else [train_command(info.config, place), *commands]


def _versions() -> str:
    packages = ", ".join(f"{name} {version}" for name, version in versions("torch", "numpy", "pillow").items())
    return f"{packages} and Python {platform.python_version()}"


def describe_run(info: RunInfo) -> str:
    """Describe a run in one line, without a full stop."""
    model = info.config.model
    count = len(info.class_names)
    kind = {1: "grey ", 3: "", 4: "RGBA "}[model.image_channels]
    classes = f" of {count} classes" if count > 1 else f" of {info.class_names[0]}" if count else ""
    return f"A self-attention GAN for {kind}images{classes}, {model.resolution} × {model.resolution} pixels"


def list_facts(run: Run, rows: list[dict[str, Any]], step: int | None) -> Iterator[tuple[str, str]]:
    """Yield facts about a run: a term and its text.

    Args:
        run: the run.
        rows: its metrics log.
        step: `weights_step` of the run.
    """
    config, names = run.info.config, run.info.class_names
    training = config.training
    if run.info.origin:
        yield "Imported from", run.info.origin
    else:
        yield "Data", public_name(config.data.source)
    if names:
        more = f" and {len(names) - FEW_CLASSES} more" if len(names) > FEW_CLASSES else ""
        yield f"{len(names)} classes" if len(names) > 1 else "Class", ", ".join(names[:FEW_CLASSES]) + more
    if not run.info.origin:
        done = max((row["step"] for row in rows), default=0)
        yield "Trained", f"{done:,} of {training.steps:,} steps, {done * training.batch_size:,} images seen"
    seconds = _training_seconds(rows, training.batch_size)
    if seconds:
        yield "Training time", _duration(seconds)
    model = config.model
    for network, count in zip(("generator", "discriminator"), count_parameters(model), strict=True):
        parameters = f"{count / 1e6:.2f} M" if count >= 1e6 else f"{count:,}"
        yield network.capitalize(), f"{parameters} parameters; {_attention(model, network)}"
    if step is None:
        return
    averaged = " (averaged)" if training.ema_decay and not run.info.origin else ""
    yield "Saved weights", f"step {step:,}{averaged}"


def _attention(model: ModelConfig, network: Any) -> str:
    kinds = {
        "self": f"self-attention ({model.attention_variant})",
        "channel": "channel attention",
        "residual": "residual",
    }
    layers = [f"{kinds[kind]} at {size}\u00a0×\u00a0{size}" for size, kind in model.attention_at(network)]
    return ", ".join(layers) or "no attention"


def _training_seconds(rows: list[dict[str, Any]], batch_size: int) -> float:
    """Compute the training time from the logged speeds. Pauses before a run was resumed are not counted."""
    seconds, before = 0.0, 0
    for row in rows:
        speed = row.get("images_per_second")
        if speed and speed > 0:
            seconds += (row["step"] - before) * batch_size / speed
            before = row["step"]
    return seconds


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def weights_step(run: Run) -> int | None:
    """Return the step of the run's generator.safetensors; None if there is none, or it is damaged."""
    try:
        return read_generator(run.path)[2]
    except UserError:
        return None


def _galleries(run: Run, step: int | None, problems: list[str]) -> list[tuple[str, list[Embedded]]]:
    """Return titles and images, in the order of the page."""
    path = run.samples_path if run.samples_path.exists() else (run.samples() or [run.samples_path])[-1]
    samples = _embed(path, "Uncurated samples from fixed latents", problems, step)
    strip = _embed_film_strip(run, problems)
    caption = "Images with query points, and the attention map of each point"
    attention = _embed(run.path / "attend.png", caption, problems, step)
    png, gif, mp4 = (run.interpolation_path.with_suffix(suffix) for suffix in (".png", ".gif", ".mp4"))
    caption = "From one latent to another within each class, and from class to class"
    interpolations = [_embed(path, caption, problems, step) for path in (png, gif if gif.exists() else mp4)]
    galleries = [
        ("Samples", [samples]),
        ("During training", [strip]),
        ("Attention", [attention]),
        ("Interpolations", interpolations),
    ]
    return [(title, [image for image in images if image]) for title, images in galleries]


def _embed_film_strip(run: Run, problems: list[str]) -> Embedded | None:
    try:
        strip = read_film_strip(run)
    except UserError as error:
        problems.append(str(error))
        return None
    if strip is None:
        return None
    buffer = io.BytesIO()
    strip.save(buffer, format="PNG")
    caption = "The same latents at several steps of training, closer together at the beginning"
    return Embedded(_data_uri("image/png", buffer.getvalue()), caption, caption, *strip.size)


def _embed(path: Path, caption: str, problems: list[str], weights: int | None = None) -> Embedded | None:
    """Embed an image or an .mp4; None if it does not exist, or cannot be read, which is added to the problems.

    The caption ends with the step that a figure is marked with, and says if the saved weights are of another step.
    """
    if not path.exists():
        return None
    try:
        data = read_bytes(path, MAX_BYTES)
        if (step := step_of(data)) is not None:
            caption += f"; step {step:,}" + (
                f", other than the saved weights' {weights:,}" if weights != step and weights else ""
            )
        if path.suffix == ".mp4":
            return Embedded(_data_uri("video/mp4", data), caption, caption, is_video=True)
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=list(_MIME)) as image:
            if image.width * image.height > MAX_PIXELS:  # before any is decoded
                raise ValueError(f"{image.width:,} x {image.height:,} pixels are too many")
            image.load()
            return Embedded(_data_uri(_MIME[image.format or ""], data), caption, caption, *image.size)
    except Exception as error:  # a decoder may raise anything on a damaged file
        problems.append(f"{path.name} could not be read: {error}")
        return None


def _data_uri(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def _charts(rows: list[dict[str, Any]]) -> list[Embedded]:
    """Draw one chart per panel, so that the page arranges them by its width."""
    return [
        Embedded(
            _data_uri("image/svg+xml", to_svg(draw_curves(rows, panel.keys), transparent=True)),
            f"{panel.title} by training step",
        )
        for panel in arrange(rows)
    ]


def _latest(rows: list[dict[str, Any]]) -> Iterator[dict[str, str]]:
    """Yield the newest value of everything logged, and the best of the distances."""
    for key in (key for panel in arrange(rows) for key in panel.keys):
        logged = [(row[key], row["step"]) for row in rows if key in row]
        value, step = logged[-1]
        finite = [pair for pair in logged if abs(pair[0]) < float("inf")]
        best = min(finite) if is_distance(key) and finite else None
        yield {
            "name": key,
            "value": short(value),
            "step": f"{step:,}",
            "best": f"best: {short(best[0])} at step {best[1]:,}" if best else "",
        }


def read_evaluation(path: Path, problems: list[str], weights: int | None = None) -> dict[str, Any] | None:
    """Read a file that `sagan evaluate` wrote as text for the page; None if it is not one, added to the problems."""
    try:
        evaluation = read_json(path)
        network = _fact(evaluation, "features", "network")
        step = _fact(evaluation, "generated", "step")
        title = ", ".join(str(part) for part in (network, step and f"step {step:,}") if part)
        text = format_evaluation(evaluation)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problems.append(f"{path.parent.name}/{path.name} could not be read: {type(error).__name__}: {error}")
        return None
    caption = "Samples (above) and their nearest real images (below)"
    nearest = _embed(path.with_suffix(".png"), caption, problems)
    caption = "Patch correlation error over the distance between patches, and that between two real sets"
    structure = _embed(path.with_name(f"{path.stem}-patch-correlation.png"), caption, problems)
    other = bool(weights and step and step != weights)
    title = (title or path.stem) + (" (another checkpoint than the images above)" if other else "")
    return {"title": title, "other": other, "nearest": nearest, "structure": structure, **text}


def format_evaluation(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Format the JSON of an evaluation as text: the sets compared, the metrics, remarks, and values by class.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is not an evaluation.
    """
    metrics = []
    for metric in evaluation["figures"]:
        spread = f" ± {short(metric['spread'])}" if metric.get("spread") is not None else ""
        metrics.append(
            {
                "name": str(metric["name"]),
                "value": short(metric["value"]) + spread,
                "about": str(metric.get("about") or ""),
            }
        )
    sets = [(name, _format_set(evaluation.get(name))) for name in ("generated", "reference", "features")]
    return {
        "sets": [(name, text) for name, text in sets if text],
        "metrics": metrics,
        "remarks": [str(remark) for remark in evaluation.get("remarks") or ()],
        "classes": [(str(name), short(value)) for name, value in (evaluation.get("classes") or {}).items()],
    }


def _fact(evaluation: dict[str, Any], name: str, key: str) -> Any:
    facts = evaluation.get(name)
    return facts.get(key) if isinstance(facts, dict) else None


def _format_set(facts: Any) -> str:
    if isinstance(facts, dict):
        return join_facts(facts, ("path", *HIDDEN_FACTS))
    return "" if facts is None else str(facts)
