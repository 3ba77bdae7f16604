"""Open a source of images (folder, .zip, .npz, Hugging Face Hub): names, labels, and a reader of bytes."""

import difflib
from pathlib import Path

from sagan.data.arrays import ImageArrays, is_npz
from sagan.data.folders import folder_source, zip_source
from sagan.data.hub import hub_source
from sagan.data.source import Source, numbered_classes
from sagan.errors import UserError
from sagan.files import expand_home
from sagan.text import printable

BUILT_IN = ("robots", "twins", "digits")


def open_source(name: str, labels: bool, samples: bool = False) -> Source:
    """List the images of a source without reading them.

    Args:
        name: a folder, a .zip or .npz file, or 'hf:USER/NAME' with an optional '@SPLIT'.
        labels: find classes; otherwise the images have none.
        samples: include images that sagan wrote.

    Raises:
        UserError: the source does not exist, cannot be read, or has no images.
    """
    path = expand_home(name)
    if name.startswith("hf:") and not path.exists():
        return hub_source(name, labels)
    try:
        if path.is_dir():
            return folder_source(path.absolute(), labels, samples)
        if path.is_file() and is_npz(path):
            return npz_source(path.absolute(), labels)
        if path.is_file():
            return zip_source(path.absolute(), labels, samples)
    except OSError as error:
        raise UserError(
            f"data source '{printable(name)}' cannot be read: {error.strerror or error}; check its permissions"
        ) from error
    guess = difflib.get_close_matches(name, BUILT_IN, 1)
    hint = f"did you mean '{guess[0]}'? Otherwise name" if guess else "name"
    raise UserError(
        f"data source '{printable(name)}' does not exist: {hint} a folder, a .zip, .tar shards, 'hf:USER/NAME', "
        "'robots', 'twins' or 'digits'"
    )


def refuse_data_folder(out: Path, source: str) -> None:
    """Raise UserError if `out` is the folder of the source, which would then be read as a run or as shards."""
    if source not in BUILT_IN and Path(source).is_dir() and out.resolve() == Path(source).resolve():
        raise UserError(f"--out {printable(str(out))} is the folder of the images: choose another, such as one inside")


def npz_source(path: Path, labels: bool) -> Source:
    """Open a .npz of images and, if there are several classes, their numbers as `sagan sample` writes it."""
    arrays = ImageArrays(path)
    numbers, class_names = [0] * len(arrays), tuple[str, ...]()
    if labels and any(arrays.labels):
        numbers = arrays.labels
        class_names = numbered_classes(max(numbers), min(numbers), f"the labels in '{printable(str(path))}'")
    state = path.stat()
    return Source(
        title=str(path),
        entries=[(f"{number:08d}", label) for number, label in enumerate(numbers)],
        read=arrays.read,
        class_names=class_names,
        stamp=[labels, state.st_size, state.st_mtime_ns],
    )
