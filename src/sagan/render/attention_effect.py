"""Draw what a run's self-attention does to its images: with the layers, without them, and the difference."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch

from sagan.attention_effect import attention_effect
from sagan.attention_maps import describe_small_share, observe_attention
from sagan.device import CPU
from sagan.figures.attention import save_figure
from sagan.figures.attention_effect import draw_effect
from sagan.model.generator import Generator
from sagan.render.attention import attention_path, check_rows, choose_layers, generated_subject, magnify
from sagan.render.outputs import check_writable

MEASURED = 64  # images that the average is over, beside those that are drawn


def write_attention_effect(
    path: Path,
    out: Path | None,
    *,
    layer: str = "last",
    count: int | None = None,
    classes: Sequence[str] = (),
    seed: int = 0,
    seeds: Sequence[int] = (),
    latents: Path | None = None,
    truncation: float | None = None,
    scale: int | None = None,
    device: torch.device = CPU,
) -> tuple[Path, str]:
    """Draw images of a run's generator with and without self-attention layers, and write the figure.

    Args:
        path: the run's folder, or its generator.safetensors.
        out: .png or .svg file to write; None: attend-off.png in the run, with other options in its name.
        layer: the layers that are turned off together: 'last', 'all', a name ('16.0') or a size ('16').
        count: images of each class and seed, or in total without classes; None: 1, or 6 without classes and `seeds`.
        classes: names or numbers; none: the first eight.
        seed: seed of the latents, as for `sagan sample`.
        seeds: several seeds, instead of `seed`.
        latents: a .npy file of latents (N, latent_dim) to show for each class, instead of those of a seed.
        truncation: magnitude to which latents are truncated.
        scale: magnification of the whole .png; None: 1.
        device: where the generator runs.

    Returns:
        The file, and sentences on the size of the effect.

    Raises:
        UserError: there is no such run, class or layer, or the file cannot be written.
    """
    if out is None:
        values: dict[str, Any] = {"layer": layer, "count": count, "_classes": tuple(classes), "seed": seed}
        values |= {"seeds": tuple(seeds), "_latents": latents, "truncation": truncation, "scale": scale}
        out = attention_path(path, values, "attend-off")
    check_writable(out)
    subject = generated_subject(
        path, count, classes, seed, truncation, device, seeds=seeds, latents=latents, measured=MEASURED
    )
    check_rows(len(subject.inputs))
    generator = cast(Generator, subject.network)
    names = choose_layers(generator, layer)

    # Measure over a fixed number of images of all classes, so that the size does not depend on what is drawn.
    measured = attention_effect(generator, *subject.measured, layers=names)
    lines = [f"attention off changes the images by {measured.total} ({len(measured.on)} images)"]
    strengths = observe_attention(generator, *subject.measured, layers=names).strengths()
    for name, strength in strengths.items():
        share = strength.mean().item()
        small = describe_small_share(share)
        lines.append(f"layer {name}: |gamma o| / |x| {share:.4f}" + (f": {small}" if small else ""))

    drawn = attention_effect(generator, subject.inputs, subject.y, layers=names)
    title = f"Generator, layer{'s' if len(names) > 1 else ''} {', '.join(names)}: as trained and off"
    subtitle = [f"The images change by {measured.total}"]
    subtitle += [line.replace("gamma o", "γ·o").capitalize() for line in lines[1:]]
    figure = draw_effect(drawn, title=title, subtitle="\n".join(subtitle), labels=subject.labels)
    magnify(figure, scale, out)
    save_figure(figure, out, step=subject.step)
    return out, "\n".join(lines)
