"""A model card, written from a run."""

import html
import re
from contextlib import suppress
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from sagan.files import read_json, sha256
from sagan.presets import train_command
from sagan.render.report import describe, facts, tell_evaluation
from sagan.run import Run, RunInfo

MOST_CLASSES = 100  # are named


def write_card(run: Run, repo: str, *, licence: str, samples: str, attention: bool) -> str:
    """README.md of a repository on the Hub: its front matter, then data, sizes, figures, licence and how to use it.

    Evaluations are those of the very weights in generator.safetensors, each with its protocol.

    Args:
        run: what is published.
        repo: USER/NAME.
        licence: an identifier of the Hub's, such as cc-by-4.0, or 'unknown'.
        samples: what samples.png shows.
        attention: whether there is an attend.png.
    """
    from huggingface_hub import ModelCardData

    info = published(run.info)
    model = info.config.model
    name = repo.rpartition("/")[2]
    front = ModelCardData(
        license=licence,
        library_name="sagan",
        pipeline_tag="unconditional-image-generation",
        tags=["gan", "sagan", "self-attention", "image-generation"],
    )
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"plain": plain, "fenced": lambda text: text.replace("`", "'")}
    template = environment.from_string(resources.files("sagan.hub").joinpath("card.md").read_text("utf-8"))
    rows = run.metrics()
    text = template.render(
        name=name,
        repo=repo,
        lead=describe(info),
        samples=samples,
        shape=f"(8, {model.image_channels}, {model.resolution}, {model.resolution})",
        facts=[
            (term, info.config.data.source if term == "Data" else value)
            for term, value in facts(run, rows)
            if not term.endswith(("classes", "Class"))
        ],
        class_names=info.class_names,
        most_classes=MOST_CLASSES,
        origin=info.origin,
        command=train_command(info.config, f"runs/{name}"),
        evaluations=evaluations_of(run),
        attention=attention,
        licence=licence,
    )
    return f"---\n{front.to_yaml()}\n---\n\n{text}"


def evaluations_of(run: Run) -> list[dict[str, Any]]:
    """What sagan evaluate measured of the weights in generator.safetensors; of other weights nothing."""
    told = []
    for path in sorted(run.evaluations_path.glob("*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):  # a file that is none of ours
            found = read_json(path)
            if found["generated"]["checksum"] == sha256(run.generator_path):
                reference = found["reference"]
                reference["source"] = public_name(str(reference["source"]))
                told.append(tell_evaluation(found))
    return told


def published(info: RunInfo) -> RunInfo:
    """A run's configuration as others may see it: without the folders of the machine that it was trained on."""
    config = info.config
    data = replace(config.data, source=public_name(config.data.source), cache="")
    training = replace(config.training, start=public_name(config.training.start))
    output = replace(config.output, evaluate_features=Path(config.output.evaluate_features).name)
    return replace(info, config=replace(config, data=data, training=training, output=output))


def public_name(source: str) -> str:
    """A source of pictures as others may see it: of a path the last name."""
    return source if source.startswith("hf:") else Path(source).name


def plain(text: object) -> str:
    """Text as Markdown that shows it as it is: a class name is no markup, no link and no HTML."""
    line = " ".join(str(text).split())
    return re.sub(r"([\\`*_{}\[\]|~$])", r"\\\1", html.escape(line, quote=False)).replace("://", ":\u200b//")
