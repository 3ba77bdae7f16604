"""Generators on the Hugging Face Hub: pushed with a model card, loaded by name."""

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sagan import run as runs
from sagan.errors import UserError
from sagan.files import save_tensors
from sagan.model.config import baked
from sagan.model.generator import Generator
from sagan.model.spectral_norm import SpectralNorm
from sagan.run import Run, read_generator

WEIGHTS = "generator.safetensors"
ROWS, COLUMNS = 12, 8  # of the grid of samples
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def load(source: str | Path, *, revision: str | None = None, endpoint: str | None = None) -> Generator:
    """The averaged generator of a run, a file or a repository on the Hugging Face Hub, ready to use.

    In evaluation mode, its spectral norms worked into the weights: `load("runs/demo")(z, y)` gives pictures
    (N, C, H, W) in [-1, 1] of latents z (N, latent_dim) and classes y (N,).

    Args:
        source: a run's folder, its generator.safetensors, or USER/NAME on the Hub; a path that exists wins. Of a
            repository the weights alone are fetched, once, and checked; nothing of it is unpickled or run.
        revision: the repository's branch, tag or commit; None: the newest.
        endpoint: another Hub than the public one.

    Raises:
        UserError: nothing to load there, or the file is damaged.
    """
    name = str(source)
    if (Path(source) / WEIGHTS).is_file():  # a run's folder, or one that save_pretrained wrote
        return runs.load(Path(source) / WEIGHTS)
    if Path(source).exists() or not _NAME.fullmatch(name) or name.endswith(".safetensors"):
        return runs.load(source)
    hub = _import_hub(f"{name} does not exist here, and to load it from the Hub")
    with _in_words(f"{name} does not exist here, and could not be loaded from the Hub"):
        path = hub.hf_hub_download(name, WEIGHTS, revision=revision, endpoint=endpoint, library_name="sagan")
    return runs.load(path)


def save_pretrained(generator: Generator, folder: str | Path, *, class_names: tuple[str, ...] = ()) -> Path:
    """Writes a generator into a folder that `load` and `from_pretrained` read back bit for bit; returns the file.

    Raises:
        UserError: the folder is not writable.
        ValueError: not as many class names as classes; without any, classes are called by their numbers.
    """
    config = generator.config
    class_names = class_names or tuple(map(str, range(config.num_classes)))
    if len(class_names) != config.num_classes:
        raise ValueError(f"class_names must be {config.num_classes}, one for each class, got {len(class_names)}")
    if not any(isinstance(module, SpectralNorm) for module in generator.modules()):
        config = baked(config)  # a loaded generator's norms are worked in: its weights are plain
    path = Path(folder) / WEIGHTS
    save_tensors(path, generator.state_dict(), {"step": 0, "model": asdict(config), "class_names": class_names})
    return path


def push(
    path: str | Path,
    repo: str,
    *,
    licence: str = "unknown",
    private: bool = False,
    dry_run: bool = False,
    endpoint: str | None = None,
    say: Callable[[str], None] = print,
) -> str | None:
    """Publishes a run's averaged generator on the Hugging Face Hub, in one commit; returns its address.

    What goes: the weights, the configuration without this machine's folders, a grid of samples drawn from these very
    weights, the attention figure if the run has one, and a model card. `say` gets a line for each before any goes.

    Args:
        path: the run's folder.
        repo: USER/NAME; made if it is not there.
        licence: an identifier of the Hub's, such as cc-by-4.0; the card says plainly if it is unknown.
        private: make a new repository that nobody else sees.
        dry_run: only say what would go; nothing is sent.
        endpoint: another Hub than the public one.

    Raises:
        UserError: no such run, its weights are damaged, huggingface_hub is missing, or the Hub refuses.
    """
    if not _NAME.fullmatch(repo):
        raise UserError(f"{repo}: give the repository as USER/NAME")
    run = Run(path)
    _, _, step = read_generator(run.path)  # whole, and of this configuration
    hub = _import_hub("sagan push")
    api = hub.HfApi(endpoint=endpoint, library_name="sagan")
    with tempfile.TemporaryDirectory() as folder:
        files = gather(run, repo, Path(folder), licence=licence)
        say(f"{'would go' if dry_run else 'to go'} to {api.endpoint}/{repo}, licence {licence}:")
        for name, file in files.items():
            say(f"  {name:<22} {file.stat().st_size / 1e6:8.2f} MB")
        if dry_run:
            return None
        operations = [hub.CommitOperationAdd(name, file) for name, file in files.items()]
        with _in_words(f"{repo} was not pushed, nothing of it is there"):
            api.create_repo(repo, private=private, exist_ok=True)
            message = f"A generator of sagan, step {step}"
            done: Any = api.create_commit(repo, operations, commit_message=message)
        return str(done.repo_url)


def gather(run: Run, repo: str, folder: Path, *, licence: str) -> dict[str, Path]:
    """The files of a repository, by their names there; those that are made for it are written into `folder`."""
    from sagan.hub.card import published, write_card  # matplotlib and jinja2 take their time to import
    from sagan.render.samples import write_samples

    names = run.info.class_names[:ROWS]
    count = COLUMNS if names else COLUMNS**2
    samples = write_samples(run.path, folder / "samples.png", count=count, classes=names, seed=0, truncation=None)
    config = folder / "config.json"
    config.write_text(json.dumps(asdict(published(run.info)), indent=2) + "\n", encoding="utf-8")
    attention = run.path / "attend.png"
    about = "Drawn from random latents, none picked by hand, without truncation"
    about += "; a class a row" if len(names) > 1 else ""
    card = folder / "README.md"
    text = write_card(run, repo, licence=licence, samples=about, attention=attention.exists())
    card.write_text(text, encoding="utf-8")
    files = {"README.md": card, "config.json": config, WEIGHTS: run.generator_path, "samples.png": samples}
    return files | ({"attend.png": attention} if attention.exists() else {})


def _import_hub(needed_for: str) -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(f"{needed_for} huggingface_hub is needed: pip install 'sagan[hub]'") from error
    return huggingface_hub


@contextmanager
def _in_words(what: str) -> Iterator[None]:
    """Raises what the Hub, or the way to it, refuses as a UserError of one line."""
    from huggingface_hub.errors import HFValidationError, HTTPError  # type: ignore[attr-defined]

    try:
        yield
    except (HTTPError, HFValidationError, OSError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        hint = "; log in with: hf auth login" if "401" in lines[0] or "Token" in type(error).__name__ else ""
        raise UserError(f"{what}: {lines[0][:200]}{hint}") from error
