"""Find what sagan wrote in a source, and images and classes that may not be used as the user meant."""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from sagan.data.decode import Unreadable
from sagan.data.names import is_image
from sagan.marks import is_figure, is_sample
from sagan.text import printable


def consist_of_samples(read: Callable[[int], bytes], count: int) -> bool:
    """Return whether all readable images are samples that sagan wrote; read up to the first that is not."""
    found = False
    for number in range(count):
        try:
            data = read(number)
        except Unreadable:
            continue
        if not is_sample(data):
            return False
        found = True
    return found


def find_drawn(files: Iterable[str], start: Callable[[str], bytes]) -> dict[str, bool]:
    """Return the images in folders of the first level that hold nothing but what sagan wrote, and such images next to
    the folders, each with whether it is a sample; none if there are no other images.

    Otherwise such a folder would be a class. Only PNG files are opened: the first of each folder, the others if that
    one is sagan's, and those next to the folders.

    Args:
        files: relative paths.
        start: read the first bytes of a file.
    """
    images_of: dict[str, list[str]] = {}
    for name in filter(is_image, files):
        images_of.setdefault(name.split("/", 1)[0] if "/" in name else "", []).append(name)
    if len(images_of) < 2:
        return {}
    drawn: dict[str, bool] = {}
    for folder, names in images_of.items():
        found: dict[str, bool] = {}
        for name in names:
            data = start(name) if name.lower().endswith(".png") else b""
            if is_sample(data) or is_figure(data):
                found[name] = is_sample(data)
            elif folder:
                found = {}
                break
        drawn |= found
    return drawn if len(drawn) < sum(map(len, images_of.values())) else {}


class Hint(NamedTuple):
    """A line about a tree that may have been read otherwise than the user meant."""

    text: str
    """What is read, and what to do if something else is meant."""
    refuses: bool
    """Whether training on the tree is refused: nobody reads a line above hours of training."""


def find_hints(title: str, images: Sequence[str], classes: Sequence[str]) -> list[Hint]:
    """Return hints for a tree in which images lie next to class folders, or class folders lie further down.

    Training is refused if most images would not be used, or if the folders that look like classes are not classes. The
    text names the option or path that makes either reading explicit.

    Args:
        title: path of the source.
        images: relative paths.
        classes: names of the class folders.
    """
    hints = []
    loose = sum("/" not in name for name in images)
    if classes and loose:
        folders = f"the class folder '{printable(classes[0])}'" if len(classes) == 1 else "the class folders"
        alone = "take them away"
        if len(classes) == 1 and os.path.isdir(os.path.join(title, classes[0])):
            alone = f"name {printable(os.path.join(title, classes[0]))} to use the others alone"
        text = (
            f"{loose:,} of {len(images):,} images lie next to {folders} and are not used: use all of them without "
            f"classes with --labels False, move them into a class folder, or {alone}"
        )
        hints.append(Hint(text, refuses=2 * loose > len(images)))
    # Descend through folders that hold one folder and nothing else.
    where, below = "", [name for name in images if "/" in name]
    while below and len(folders_here := {name.split("/", 1)[0] for name in below}) == 1:
        where += folders_here.pop() + "/"
        below = [name.split("/", 1)[1] for name in below]
        if any("/" not in name for name in below):
            below = []
    if len(classes) == 1 and not loose and below:
        inner = sorted({name.split("/", 1)[0] for name in below})
        listed = ", ".join(printable(name)[:40] for name in inner[:5]) + (", ..." if len(inner) > 5 else "")
        folder = printable(where.rstrip("/"))
        name_it = f"unpack it and name its folder '{folder}'"
        if os.path.isdir(title):
            name_it = f"name {printable(os.path.join(title, where.rstrip('/')))}"
        text = (
            f"all images lie in one folder, '{folder}', so there is only one class: to use the folders in it as "
            f"classes ({listed}), {name_it} as the source; --labels False trains without classes"
        )
        hints.append(Hint(text, refuses=True))
    return hints
