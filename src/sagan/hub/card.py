"""Write a model card from a run."""

from contextlib import suppress
from typing import Any

from sagan.files import read_json, sha256
from sagan.presets import train_command
from sagan.render.public import public_info, public_name
from sagan.render.report import describe_run, format_evaluation, list_facts, weights_step
from sagan.run import Run
from sagan.templates.environment import render
from sagan.text import one_line

MAX_CLASSES = 100  # that the card lists


def write_card(run: Run, repo: str, *, licence: str, samples: str, attention: bool) -> str:
    """Write the README.md of a repository on the Hub: front matter, usage, data, sizes, evaluations and licence.

    The card lists only evaluations of the weights in generator.safetensors, each with its protocol.

    Args:
        run: the run to publish.
        repo: USER/NAME.
        licence: a Hub identifier, such as cc-by-4.0, or 'unknown'.
        samples: the caption of samples.png.
        attention: whether the repository has an attend.png.
    """
    from huggingface_hub import ModelCardData

    licence = one_line(licence)
    info = public_info(run.info)
    model = info.config.model
    name = repo.rpartition("/")[2]
    front = ModelCardData(
        license=licence,
        library_name="sagan",
        pipeline_tag="unconditional-image-generation",
        tags=["gan", "sagan", "self-attention", "image-generation"],
    )
    rows = run.metrics()
    step = weights_step(run)
    text = render(
        "card.md",
        name=name,
        repo=repo,
        lead=describe_run(info),
        samples=samples,
        shape=f"(8, {model.image_channels}, {model.resolution}, {model.resolution})",
        facts=[(term, value) for term, value in list_facts(run, rows, step) if not term.endswith(("classes", "Class"))],
        class_names=info.class_names,
        max_classes=MAX_CLASSES,
        origin=info.origin,
        command=train_command(info.config, f"runs/{name}"),
        evaluations=read_evaluations(run),
        attention=attention,
        step=step,
        licence=licence,
    )
    return f"---\n{front.to_yaml()}\n---\n\n{text}"


def read_evaluations(run: Run) -> list[dict[str, Any]]:
    """Return, as text, the results of `sagan evaluate` for the weights in generator.safetensors, not for others."""
    evaluations = []
    for path in sorted(run.evaluations_path.glob("*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):  # not a file of ours
            evaluation = read_json(path)
            if evaluation["generated"]["checksum"] == sha256(run.generator_path):
                reference = evaluation["reference"]
                reference["source"] = public_name(str(reference["source"]))
                evaluations.append(format_evaluation(evaluation))
    return evaluations
