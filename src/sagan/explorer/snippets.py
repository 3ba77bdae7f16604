"""What draws the same again: command lines, and Python where no command line can say it."""

import shlex
from collections.abc import Sequence

from sagan.explorer.networks import Networks
from sagan.explorer.schemas import Grid, Own, Picture, Sample, Walk
from sagan.figures.attention import MOST_ROWS

OWN_NAME = "picture.png"  # as the page saves a picture of the user's own


def grid_command(networks: Networks, asked: Grid) -> str:
    """The `sagan sample` that writes the same grid."""
    whole = list(asked.labels) == list(range(len(networks.class_names)))
    labels = () if whole else asked.labels
    return _command("sample", networks, labels, asked.count, asked.seed, asked.truncation, ["--out", "grid.png"])


def picture_commands(networks: Networks, picture: Picture, points: Sequence[tuple[float, float]]) -> list[str]:
    """The commands that write the same picture and maps: the last picture of each. None for walks and own pictures."""
    if not isinstance(picture, Sample):
        return []
    labels = (picture.label,) if networks.class_names else ()
    count = picture.index + 1
    options = labels, count, picture.seed, picture.truncation
    commands = [_command("sample", networks, *options, ["--out", "pictures"])]
    if points and count * len(networks.layers("generator")) <= MOST_ROWS and networks.layers("generator"):
        shown = [f"{x:g},{y:g}" for x, y in points]
        commands.append(
            _command("attend", networks, *options, ["--layer", "all", "--points", *shown, "--out", "attend.png"])
        )
    return commands


def python(networks: Networks, picture: Picture, points: Sequence[tuple[float, float]]) -> str:
    """A program that computes the same picture, maps and scores."""
    model = networks.generator.config
    run = repr(str(networks.path))
    of_discriminator = networks.discriminator is not None and (bool(points) or isinstance(picture, Own))
    lines = []
    if isinstance(picture, Own):
        lines += [
            "from pathlib import Path",
            "",
            "import sagan",
            "import torch",
            "from sagan.data.decode import decode",
            "",
            f"options = {{'resolution': {model.resolution}, 'image_channels': {model.image_channels}, "
            f"'background': {networks.background}}}",
            f"pixels, _ = decode(Path({OWN_NAME!r}).read_bytes(), **options)",
            "x = torch.tensor(pixels).permute(2, 0, 1)[None] / 127.5 - 1",
        ]
    else:
        lines += ["import sagan", "import torch"]
        lines += ["from sagan.figures.interpolation import slerp"] if isinstance(picture, Walk) else []
        lines += ["", f"generator = sagan.load({run})"]
        if isinstance(picture, Sample):
            lines += [f"z = {_latent(picture, model.latent_dim)}"]
        else:
            lines += [
                f"start = {_latent(picture.start, model.latent_dim)}",
                f"end = {_latent(picture.end, model.latent_dim)}",
                f"z = slerp(start, end, torch.tensor([{picture.latent!r}]))",
            ]
        lines += _classes(networks, picture)
        lines += [
            "picture = sagan.sample(generator, z, y)[0]  # (R, R, C) uint8",
        ]
        if points and networks.layers("generator"):
            lines += [f"maps = sagan.attention_maps(generator, z, y, queries={_tuples(points)})"]
        if of_discriminator:
            lines += ["", "x = generator(z, y)"]
    if of_discriminator:
        score = "scores = torch.cat([discriminator(x, torch.tensor([i])) for i in range(classes)])"
        count = max(1, len(networks.class_names))
        lines += [
            f"discriminator = sagan.run.read_discriminator({run}).eval().requires_grad_(False)",
            score.replace("classes", str(count)),
        ]
        if points and networks.layers("discriminator"):
            lines += [
                "seen = sagan.attention_maps(",
                f"    discriminator, x, torch.tensor([0]), queries={_tuples(points)}",
                ")",
            ]
    return "\n".join(lines) + "\n"


def _latent(picture: Sample, latent_dim: int) -> str:
    truncation = "" if picture.truncation is None else f", truncation={picture.truncation!r}"
    return f"sagan.draw_latents({picture.index + 1}, {latent_dim}, seed={picture.seed}{truncation})[-1:]"


def _classes(networks: Networks, picture: Sample | Walk) -> list[str]:
    names = networks.class_names
    if not names:
        return ["y = torch.tensor([0])"]
    start, end = (picture, picture) if isinstance(picture, Sample) else (picture.start, picture.end)
    if start.label == end.label:
        return [f"y = torch.tensor([{start.label}])  # {_plain(names[start.label])}"]
    assert isinstance(picture, Walk)
    return [
        f"y = torch.zeros(1, {len(names)})  # weights of the classes",
        f"y[0, {start.label}] = {1 - picture.label!r}  # {_plain(names[start.label])}",
        f"y[0, {end.label}] = {picture.label!r}  # {_plain(names[end.label])}",
    ]


def _command(
    name: str,
    networks: Networks,
    labels: Sequence[int],
    count: int,
    seed: int,
    truncation: float | None,
    more: Sequence[str],
) -> str:
    classes = [_class_name(networks, label) for label in labels]
    words = ["sagan", name, str(networks.path)]
    words += ["--classes", *classes] if classes else []
    words += ["--count", str(count), "--seed", str(seed)]
    words += [] if truncation is None else ["--truncation", f"{truncation:g}"]
    return shlex.join([*words, *more])


def _class_name(networks: Networks, label: int) -> str:
    """The name, or the number where a name would be read as an option."""
    name = networks.class_names[label]
    return str(label) if name.startswith("-") else name


def _plain(text: str) -> str:
    """On one line, so that it can stand in a comment."""
    return " ".join(text.split())


def _tuples(points: Sequence[tuple[float, float]]) -> str:
    return "[" + ", ".join(f"({x:g}, {y:g})" for x, y in points) + "]"
