"""Make a trained model of the package from a run: float16 weights, what they measure, and the model card.

    python benchmarks/ship.py runs/robots robots64 --about "Trained in two hours on two CPU cores."
    python benchmarks/ship.py runs/emoji emoji64 --credits emoji --count 1892

Writes src/sagan/trained/NAME in the layout of a run: config.json without this machine's folders, the averaged generator
and the newest discriminator (matrices and kernels in float16, vectors in float32, at most 10 MB together), the log, a
grid of samples, the evaluations in both networks' features, which are measured on the stored weights, and README.md.
"""

import argparse
import json
import re
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

import sagan
from sagan import trained
from sagan.data.sources import BUILT_IN
from sagan.errors import UserError
from sagan.files import load_tensors, save_tensors
from sagan.hub.card import public_info, public_name, write_card
from sagan.metrics.evaluation import default_path
from sagan.render.samples import write_samples
from sagan.run import Run, read_discriminator, read_generator

MAX_BYTES = 10_000_000  # of both networks
JUDGES = ("efficientnet-lite0", "efficientnet-lite2")
COLUMNS = 8

CREDITS = {
    "robots": """The training images are composed of the parts in the package
[robohash](https://github.com/e1ven/Robohash) (code: MIT), by these artists:

* robots (set 1): Zikri Kader, CC-BY 3.0 or 4.0
* monsters (set 2): Hrvoje Novakovic, CC-BY 3.0
* robot heads (set 3): Julian Peter Arias, CC-BY 3.0
* cats (set 4): David Revoy, CC-BY 4.0, https://www.peppercarrot.com/extras/html/2016_cat-generator/
* people (set 5): Pablo Stanley, https://avataaars.com, free for personal and commercial use
""",
    "emoji": """The training images are [Noto Emoji](https://github.com/googlefonts/noto-emoji) by Google, Apache
License 2.0. `python examples/emoji.py --out emoji.zip` in sagan's repository makes the same data set.
""",
}
LICENCES = {"robots": "cc-by-4.0", "emoji": "apache-2.0"}


def halve(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return matrices and kernels in float16. Vectors, such as statistics of batch norms, are few and stay.

    Raises:
        UserError: a weight is too large for float16.
    """
    halved = {name: t.half() if t.ndim > 1 and t.is_floating_point() else t for name, t in tensors.items()}
    for name, t in halved.items():
        if t.is_floating_point() and not t.isfinite().all():
            raise UserError(f"{name} is not finite in float16")
    return halved


def store_networks(run: Run, folder: Path) -> None:
    """Write the run's networks into a folder.

    Raises:
        UserError: the run has no networks, or they are too large.
    """
    generator, class_names, step = read_generator(run.path)
    metadata = {"step": step, "model": asdict(generator.config), "class_names": class_names}
    save_tensors(folder / "generator.safetensors", halve(generator.state_dict()), metadata)
    newest = run.checkpoints()[-1:] or [run.discriminator_path]
    discriminator = read_discriminator(run.path)
    metadata = {"step": load_tensors(newest[0])[1].get("step", 0)}
    save_tensors(folder / "discriminator.safetensors", halve(discriminator.state_dict()), metadata)
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if size > MAX_BYTES:
        raise UserError(f"the networks have {size / 1e6:.1f} MB in float16, more than {MAX_BYTES / 1e6:.0f} MB")


def shorten(value: object) -> object:
    """Round the numbers of a log to five digits."""
    return float(f"{value:.5g}") if isinstance(value, float) else value


def measure(folder: Path, name: str, source: str, counts: dict[str, int], cache: str) -> None:
    """Evaluate the stored weights in the features of each judge."""
    for judge in JUDGES:
        evaluation = sagan.evaluate(folder, source, features=judge, cache=cache, **counts)
        evaluation.generated["path"] = name
        evaluation.reference["source"] = public_name(evaluation.reference["source"])
        path = default_path(folder, evaluation)
        assert path is not None
        # Not its figures, which show real images: they are the work of others.
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(evaluation.as_json(), indent=2) + "\n", encoding="utf-8")
        print(evaluation, end="\n\n")


def write_readme(folder: Path, name: str, licence: str, about: str, credits_: str) -> None:
    caption = "Uncurated samples from random latents without truncation; one class per row"
    text = write_card(Run(folder), name, licence=licence, samples=caption, attention=False)
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    stored = (
        f"Matrices and kernels are stored in float16, {size / 1e6:.1f} MB with the discriminator; everything above was "
        "measured on these weights."
    )
    title, rest = text.split("\n![", 1)
    paragraphs = [title, about + "\n", f"![{rest}"] if about else [title, f"![{rest}"]
    tail = f"\n\n{stored}\n\n## Training images\n\n{credits_}"
    (folder / "README.md").write_text("\n".join(paragraphs) + tail, encoding="utf-8")


def ship(run: Run, name: str, options: argparse.Namespace) -> Path:
    """Write the trained model, and return its folder.

    Raises:
        UserError: the name is not usable, or the run lacks what is needed.
    """
    target = trained.FOLDER / name
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name) or name in BUILT_IN:
        raise UserError(f"{name}: a name consists of small letters, digits and '-', and is not that of a data set")
    if target.exists() and not options.replace:
        raise UserError(f"{target} exists already: pass --replace")
    credited = options.credits or run.info.config.data.source
    if credited not in CREDITS:
        raise UserError(f"--credits is missing: one of {', '.join(CREDITS)}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / name
        Run.create(folder, public_info(run.info))
        store_networks(run, folder)
        rows = [{key: shorten(value) for key, value in row.items()} for row in run.metrics()]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        count = COLUMNS if run.info.class_names else COLUMNS**2
        write_samples(folder, folder / "samples.png", count=count, classes=(), seed=0, truncation=None)
        counts = {"count": options.count, "reference_count": options.reference_count}
        measure(folder, name, options.data or run.info.config.data.source, counts, options.cache)
        licence = options.licence or LICENCES[credited]
        write_readme(folder, name, licence, options.about, CREDITS[credited])
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target)
    return target


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--credits", choices=CREDITS, help="whose art it was trained on; default: the run's data")
    parser.add_argument("--licence", help="of the weights, a Hub identifier; default: that of the art")
    parser.add_argument("--about", default="", help="sentences for the card: machine, time, what to expect")
    parser.add_argument("--data", help="real images; default: the run's data")
    parser.add_argument("--count", type=int, default=2000, help="generated images in the evaluations")
    parser.add_argument("--reference-count", type=int, default=2000, help="real images in the evaluations")
    parser.add_argument("--cache", default="", help="as in sagan evaluate")
    parser.add_argument("--replace", action="store_true", help="replace the model of this name")
    options = parser.parse_args(arguments)
    try:
        print(ship(Run(options.run), options.name, options))
    except UserError as error:
        print(f"ship.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
