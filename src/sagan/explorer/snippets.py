"""Write code that computes what the page shows: command lines, and a Python program where no command can."""

import shlex
from collections.abc import Sequence

from sagan.explorer.networks import Networks
from sagan.explorer.schemas import Gammas, Grid, ImageSpec, Sample, Upload, Walk
from sagan.figures.attention import MOST_ROWS

UPLOAD_NAME = "own.png"  # the file name under which the page saves an uploaded image


def grid_command(networks: Networks, request: Grid) -> str:
    """Return the `sagan sample` command that writes the same grid; '' if gammas are scaled, which it cannot do."""
    if _changed(request.gammas):
        return ""
    all_classes = list(request.labels) == list(range(len(networks.class_names)))
    labels = () if all_classes else request.labels
    return _command("sample", networks, labels, request.count, request.seed, request.truncation, ["--out", "grid.png"])


def image_commands(
    networks: Networks, spec: ImageSpec, points: Sequence[tuple[float, float]], gammas: Gammas | None = None
) -> list[str]:
    """Return the commands that write the image and its maps, each as the last of its output.

    There are none unless the image is a sample with all gammas as trained.
    """
    if not isinstance(spec, Sample) or _changed(gammas):
        return []
    labels = (spec.label,) if networks.class_names else ()
    count = spec.index + 1
    options = labels, count, spec.seed, spec.truncation
    commands = [_command("sample", networks, *options, ["--out", "images"])]
    layers = networks.layers("generator")
    if points and layers and count * len(layers) <= MOST_ROWS:
        coordinates = [f"{x:g},{y:g}" for x, y in points]
        commands.append(
            _command("attend", networks, *options, ["--layer", "all", "--points", *coordinates, "--out", "attend.png"])
        )
    return commands


def python_program(
    networks: Networks, spec: ImageSpec, points: Sequence[tuple[float, float]], gammas: Gammas | None = None
) -> str:
    """Return a program that computes the same image, maps and scores."""
    changed = _changed(gammas)
    if isinstance(spec, Upload):
        lines = _upload_lines(networks)
    else:
        lines = _generator_lines(networks, spec, points, _gamma_lines("generator", changed))
    if networks.discriminator is not None and (points or isinstance(spec, Upload)):
        if not isinstance(spec, Upload):
            lines += ["", "x = generator(z, y)"]
        lines += _discriminator_lines(networks, points, _gamma_lines("discriminator", changed))
    return "\n".join(lines) + "\n"


def _upload_lines(networks: Networks) -> list[str]:
    """Return the lines that read x, an uploaded image."""
    model = networks.generator.config
    return [
        "from pathlib import Path",
        "",
        "import sagan",
        "import torch",
        "from sagan.data.decode import decode",
        "",
        f"options = {{'resolution': {model.resolution}, 'image_channels': {model.image_channels}, "
        f"'background': {networks.background}}}",
        f"pixels, _ = decode(Path({UPLOAD_NAME!r}).read_bytes(), **options)",
        "x = torch.tensor(pixels).permute(2, 0, 1)[None] / 127.5 - 1",
    ]


def _changed(gammas: Gammas | None) -> dict[str, float]:
    return {name: factor for name, factor in (gammas or {}).items() if factor != 1}


def _gamma_lines(network: str, changed: dict[str, float]) -> list[str]:
    """Return the lines that scale the gammas of a network."""
    return [
        f"sagan.attention_layers({network})[{key.partition('/')[2]!r}].gamma.data *= {factor!r}"
        for key, factor in changed.items()
        if key.startswith(f"{network}/")
    ]


def _generator_lines(
    networks: Networks, spec: Sample | Walk, points: Sequence[tuple[float, float]], scaling: Sequence[str]
) -> list[str]:
    """Return the lines that generate an image from z and y, and compute the generator's maps."""
    lines = ["import sagan", "import torch"]
    if isinstance(spec, Walk):
        lines += ["from sagan.figures.interpolation import slerp"]
    lines += ["", f"generator = sagan.load({str(networks.path)!r})", *scaling]
    if isinstance(spec, Sample):
        lines += [f"z = {_latent(networks, spec)}"]
    else:
        lines += [
            f"start = {_latent(networks, spec.start)}",
            f"end = {_latent(networks, spec.end)}",
            f"z = slerp(start, end, torch.tensor([{spec.latent!r}]))",
        ]
    lines += _class_lines(networks, spec)
    lines += ["image = sagan.sample(generator, z, y)[0]  # (R, R, C) uint8"]
    if points and networks.layers("generator"):
        lines += [f"maps = sagan.attention_maps(generator, z, y, queries={_tuples(points)})"]
    return lines


def _discriminator_lines(
    networks: Networks, points: Sequence[tuple[float, float]], scaling: Sequence[str]
) -> list[str]:
    """Return the lines that compute the discriminator's scores and maps of x."""
    count = max(1, len(networks.class_names))
    lines = [
        f"discriminator = sagan.run.read_discriminator({str(networks.path)!r}).eval().requires_grad_(False)",
        *scaling,
        f"scores = torch.cat([discriminator(x, torch.tensor([i])) for i in range({count})])",
    ]
    if points and networks.layers("discriminator"):
        lines += [
            "discriminator_maps = sagan.attention_maps(",
            f"    discriminator, x, torch.tensor([0]), queries={_tuples(points)}",
            ")",
        ]
    return lines


def _latent(networks: Networks, spec: Sample) -> str:
    options = [f"seed={spec.seed}", f"start={spec.index}"]
    if networks.class_names:
        options.append(f"label={spec.label}")
    if spec.truncation is not None:
        options.append(f"truncation={spec.truncation!r}")
    return f"sagan.draw_latents(1, {networks.generator.config.latent_dim}, {', '.join(options)})"


def _class_lines(networks: Networks, spec: Sample | Walk) -> list[str]:
    """Return the lines that define y: a class, or weights of two."""
    names = networks.class_names
    if not names:
        return ["y = torch.tensor([0])"]
    start, end = (spec, spec) if isinstance(spec, Sample) else (spec.start, spec.end)
    if start.label == end.label:
        return [f"y = torch.tensor([{start.label}])  # {_one_line(names[start.label])}"]
    assert isinstance(spec, Walk)
    return [
        f"y = torch.zeros(1, {len(names)})  # weights of the classes",
        f"y[0, {start.label}] = {1 - spec.label!r}  # {_one_line(names[start.label])}",
        f"y[0, {end.label}] = {spec.label!r}  # {_one_line(names[end.label])}",
    ]


def _command(
    name: str,
    networks: Networks,
    labels: Sequence[int],
    count: int,
    seed: int,
    truncation: float | None,
    options: Sequence[str],
) -> str:
    words = ["sagan", name, str(networks.path)]
    if labels:
        words += ["--classes", *(_class_argument(networks, label) for label in labels)]
    words += ["--count", str(count), "--seed", str(seed)]
    if truncation is not None:
        words += ["--truncation", f"{truncation:g}"]
    return shlex.join([*words, *options])


def _class_argument(networks: Networks, label: int) -> str:
    """Return the class's name, or its number if the command line would take the name for an option."""
    name = networks.class_names[label]
    return str(label) if name.startswith("-") else name


def _one_line(text: str) -> str:
    """Join the lines of a text, so that it can stand in a comment."""
    return " ".join(text.split())


def _tuples(points: Sequence[tuple[float, float]]) -> str:
    return "[" + ", ".join(f"({x:g}, {y:g})" for x, y in points) + "]"
