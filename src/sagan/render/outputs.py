"""Where drawings of a run are written: names that no other options have, and checks before any work begins."""

import os
import re
import shutil
import unicodedata
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from sagan.data.names import SUFFIXES, UNSUPPORTED
from sagan.errors import UserError
from sagan.files import sha256
from sagan.run import Run, default_output, read_generator
from sagan.sampling import find_classes
from sagan.text import canonical
from sagan.trained import find

_OTHER_FILES = (
    ".npy", ".pt", ".pth", ".h5", ".hdf5", ".tar", ".gz", ".tgz", ".7z", ".rar", ".mp4", ".webm", ".mov", ".avi",
    ".pkl", ".mkv", ".pdf", ".csv", ".tsv", ".txt", ".json", ".html", ".safetensors", ".parquet", ".apng", ".ppm",
)  # fmt: skip
_OPTION = re.compile(  # what options, or other networks, add to a name
    r"(^|-)(seeds?|truncation|scale|count|layer|points|steps?|step-|data)\d|(^|-)latents?(-|$)"
    r"|^(both|discriminator|off|cells|own-scale)$"
)
_NAME_LENGTH = 60  # bytes of a class name, or of a value of an option, in the name of a file


def default_path(run: Path, stem: str, suffix: str, options: Mapping[str, object], end: str = "") -> Path:
    """Return where a drawing is written by default: in the run, under a name that tells its options.

    Args:
        run: the run's folder, its generator.safetensors, or one of its checkpoints.
        stem: start of the name.
        suffix: end of the name, with a dot.
        options: options that differ from their defaults: name -> value. A name that begins with '_' is not written.
        end: written after the options.
    """
    parts = [stem]
    if run.parent.name == "checkpoints":
        parts.append(run.stem)
        run = run.parent.parent
    for name, value in options.items():
        text = "+".join(map(str, value)) if isinstance(value, list | tuple) else f"{value}"
        cleaned = _clean(text, also="+,.")
        if len(cleaned.encode()) > _NAME_LENGTH:
            cleaned = f"{zlib.crc32(repr(value).encode()):08x}"
        elif cleaned != text:  # other values may look the same
            cleaned += f"-{zlib.crc32(text.encode()):08x}"
        parts.append(cleaned if name.startswith("_") else f"{name}{cleaned}")
    return default_output(run, "-".join([*parts, *([end] if end else [])]) + suffix)


def class_stems(run: Path, classes: Sequence[str]) -> list[str]:
    """Return what names of files call these classes of a run, given by name or number."""
    run = find(run)
    folder = run if run.is_dir() else run.parent.parent if run.parent.name == "checkpoints" else run.parent
    names = Run(folder).info.class_names if (folder / "config.json").is_file() else read_generator(run)[1]
    stems = file_names(names)
    return [stems[number] for number in find_classes(classes, names)]


def latents_stem(latents: Path) -> str:
    """Return what names of files call a file of latents: its name, and a checksum of its content."""
    return f"latents-{latents.stem}-{sha256(latents)[:8]}" if latents.is_file() else f"latents-{latents.stem}"


def number_text(value: float) -> str:
    """Format a number for the name of a file, without loss: '0.5', '1'."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def file_names(class_names: Sequence[str]) -> list[str]:
    """Return a name for the files of each class: its letters, digits and marks, '-' for every other character.

    If a file system could confuse two names (equal but for case, punctuation or their ends), or a name is empty or like
    the options in names of files, all of them get the numbers of their classes.
    """
    names = [_clean(name).encode()[:_NAME_LENGTH].decode(errors="ignore") for name in class_names]
    alike = Counter(unicodedata.normalize("NFKC", name).casefold() for name in names)
    if any(count > 1 or not name.strip("-") or _OPTION.search(name) for name, count in alike.items()):
        return [f"{number}-{name.strip('-')}".rstrip("-") for number, name in enumerate(names)]
    return names


def is_folder(out: Path, suffixes: Sequence[str], accepted: str) -> bool:
    """Return whether an output is a folder: one that exists, or a name without an ending that files have.

    Args:
        out: the output.
        suffixes: endings of files that can be written.
        accepted: what can be written, in words.

    Raises:
        UserError: the ending is that of another kind of file.
    """
    suffix = out.suffix.lower()
    if out.is_dir():
        return True
    if suffix in suffixes:
        return False
    if suffix in (*SUFFIXES, *UNSUPPORTED, *_OTHER_FILES, ".png", ".npz", ".zip", ".svg"):
        raise UserError(f"--out {out}: {suffix} is not written; pass {accepted}")
    return True


def check_writable(out: Path, *, folder: bool = False) -> None:
    """Check that a file or folder can be written, without creating anything.

    Raises:
        UserError: it cannot.
    """
    if not folder and out.is_dir():
        raise UserError(f"--out {out} is a folder: pass a file")
    place = out if folder else out.parent
    try:
        while not place.exists() and place != place.parent:
            place = place.parent
    except OSError as error:  # a name that is too long
        raise UserError(f"--out {out}: {error.strerror or error}") from error
    if not place.is_dir():
        raise UserError(f"--out {out}: {place} is a file, not a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"--out {out}: the folder {place} is not writable")


def check_space(out: Path, needed: int) -> None:
    """Check that a disk has room for an output.

    Raises:
        UserError: it has not.
    """
    place = out
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise UserError(f"--out {out}: about {needed / 1e9:,.1f} GB are needed, {free / 1e9:,.1f} GB are free")


def _clean(text: str, also: str = "") -> str:
    """Replace all characters but letters, digits, marks and those in `also` by '-'."""
    return "".join(c if unicodedata.category(c)[0] in "LMN" or c in also else "-" for c in canonical(text))
