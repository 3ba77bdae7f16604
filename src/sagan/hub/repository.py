"""Push generators to the Hugging Face Hub with a model card, and load them by name."""

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sagan.errors import UserError
from sagan.files import save_tensors
from sagan.generation import LoadedGenerator, as_loaded
from sagan.labels import names_of
from sagan.marks import SEARCHED, step_of
from sagan.model.config import baked
from sagan.model.generator import Generator
from sagan.model.spectral_norm import has_spectral_norm
from sagan.run import Run, load_generator, read_generator
from sagan.text import one_line
from sagan.trained import find

WEIGHTS = "generator.safetensors"
ROWS = 12  # of the grid of samples, at most
COLUMNS = 8
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def load(
    source: str | os.PathLike[str], *, revision: str | None = None, endpoint: str | None = None
) -> LoadedGenerator:
    """Load the averaged generator of a run, a file or a repository on the Hugging Face Hub, ready to use.

    It has `class_names`, and `sample`, which draws PIL images. It is in evaluation mode, with spectral norms folded
    into the weights: `load("runs/demo")(z, y)` maps latents z (N, latent_dim) and classes y to images (N, C, H, W)
    in [-1, 1]; y is a tensor (N,), a list of names or numbers, or one class for all.

    Args:
        source: a run's folder, its generator.safetensors, the name of a trained model that comes with the package
            (`sagan list`), or USER/NAME on the Hub; an existing path takes precedence.
            Of a repository only the weights are downloaded (once) and checked; nothing is unpickled or run.
        revision: the repository's branch, tag or commit; None: the newest.
        endpoint: URL of a Hub other than the public one.

    Raises:
        UserError: there is nothing to load, the download failed, or the file is damaged.
    """
    name = os.fspath(source)
    path = find(name)
    if (path / WEIGHTS).is_file():  # a run's folder, or one written by save_pretrained
        return as_loaded(*load_generator(path / WEIGHTS)[:2])
    if path.exists() or not _REPOSITORY.fullmatch(name) or name.endswith(".safetensors"):
        return as_loaded(*load_generator(path)[:2])
    hub = _import_hub(f"{name} does not exist locally; loading it from the Hub")
    with _one_line_errors(f"{name} does not exist locally and could not be loaded from the Hub"):
        file = hub.hf_hub_download(name, WEIGHTS, revision=revision, endpoint=endpoint, library_name="sagan")
    return as_loaded(*load_generator(file)[:2])


def save_pretrained(generator: Generator, folder: str | Path, *, class_names: tuple[str, ...] = ()) -> Path:
    """Write a generator into a folder that `load` and `from_pretrained` read back bit for bit, and return the file.

    Args:
        class_names: one for each class; (): the generator's own, or the classes' numbers.

    Raises:
        UserError: the folder is not writable.
        ValueError: the number of class names is not the number of classes.
    """
    config = generator.config
    class_names = class_names or names_of(generator)
    if len(class_names) != config.num_classes:
        raise ValueError(
            f"class_names must have one name for each of {config.num_classes} classes, got {len(class_names)}"
        )
    if not has_spectral_norm(generator):
        config = baked(config)  # as of a loaded generator: norms folded into the weights
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
    log: Callable[[str], None] = print,
) -> str | None:
    """Publish a run's averaged generator on the Hugging Face Hub in one commit, and return the repository's URL.

    Uploads the weights, the configuration without this machine's folders, a grid of samples of these weights, the
    attention figure if the run has one (drawn again if it is of other weights), and a model card.

    Args:
        path: the run's folder.
        repo: USER/NAME; created if it does not exist.
        licence: a Hub identifier, such as cc-by-4.0; the card states if it is unknown.
        private: create the repository as private.
        dry_run: only list the files; upload nothing and return None.
        endpoint: URL of a Hub other than the public one.
        log: called with each line of the list of files, before anything is uploaded.

    Raises:
        UserError: there is no such run, its weights are damaged, huggingface_hub is missing, or the Hub refuses.
    """
    if not _REPOSITORY.fullmatch(repo):
        raise UserError(f"{repo}: the repository must have the form USER/NAME")
    licence = one_line(licence)
    run = Run(path)
    _, _, step = read_generator(run.path)  # raises if the weights are damaged
    hub = _import_hub("sagan push")
    api = hub.HfApi(endpoint=endpoint, library_name="sagan")
    with tempfile.TemporaryDirectory() as folder:
        files = collect_files(run, repo, Path(folder), licence=licence)
        log(f"{'would upload' if dry_run else 'uploading'} to {api.endpoint}/{repo}, licence {licence}:")
        for name, file in files.items():
            log(f"  {name:<22} {file.stat().st_size / 1e6:8.2f} MB")
        if dry_run:
            return None
        operations = [hub.CommitOperationAdd(name, file) for name, file in files.items()]
        with _one_line_errors(f"{repo} was not pushed (nothing was uploaded)"):
            api.create_repo(repo, private=private, exist_ok=True)
            message = f"A generator of sagan, step {step}"
            commit: Any = api.create_commit(repo, operations, commit_message=message)
        return str(commit.repo_url)


def collect_files(run: Run, repo: str, folder: Path, *, licence: str) -> dict[str, Path]:
    """Return the files to upload, name -> local path; those that the run lacks are written into `folder`."""
    from sagan.hub.card import write_card  # imported here: matplotlib and jinja2 are slow to import
    from sagan.render.attention import write_attention
    from sagan.render.public import public_info
    from sagan.render.report import weights_step
    from sagan.render.samples import write_samples

    names = run.info.class_names[:ROWS]
    count = COLUMNS if names else COLUMNS**2
    samples = write_samples(run.path, folder / "samples.png", count=count, classes=names, seed=0, truncation=None)
    config = folder / "config.json"
    config.write_text(json.dumps(asdict(public_info(run.info)), indent=2) + "\n", encoding="utf-8")
    step = weights_step(run)
    attention = run.path / "attend.png"
    if attention.exists():
        with attention.open("rb") as file:
            shown = step_of(file.read(SEARCHED))
        if shown != step:
            attention, _ = write_attention(run.path, folder / "attend.png")
    caption = "Uncurated samples from random latents without truncation"
    if len(names) > 1:
        caption += "; one class per row"
    caption += f"; step {step:,}"
    card = folder / "README.md"
    text = write_card(run, repo, licence=licence, samples=caption, attention=attention.exists())
    card.write_text(text, encoding="utf-8")
    files = {"README.md": card, "config.json": config, WEIGHTS: run.generator_path, "samples.png": samples}
    if attention.exists():
        files["attend.png"] = attention
    return files


def _import_hub(needed_for: str) -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(f"{needed_for} requires huggingface_hub: pip install 'sagan-torch[hub]'") from error
    return huggingface_hub


@contextmanager
def _one_line_errors(problem: str) -> Iterator[None]:
    """Raise errors of the Hub or of the network as a UserError of one line that starts with `problem`."""
    from huggingface_hub.errors import HFValidationError, HTTPError  # type: ignore[attr-defined]

    try:
        yield
    except (HTTPError, HFValidationError, OSError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        hint = "; log in with: hf auth login" if "401" in lines[0] or "Token" in type(error).__name__ else ""
        raise UserError(f"{problem}: {lines[0][:200]}{hint}") from error
