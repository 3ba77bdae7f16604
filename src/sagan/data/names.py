"""Names of files in a source: which are images, which are companions, which are hidden, which were written by sagan.

Folders, archives and tar shards all ask here, so that a name means the same in each of them.
"""

import json
import re
from collections.abc import Callable

SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif",
)  # fmt: skip
"""Endings of image files."""
EXTRA_SUFFIXES = (("AVIF", ".avif"), ("HEIF", ".heic"), ("HEIF", ".heif"))
"""Endings of formats that are read where a decoder for them is installed."""
UNSUPPORTED = (".jxl", ".jp2", ".svg", ".psd", ".cr2", ".nef", ".dng", ".ico", ".tga")
"""Endings of images in formats that are not read."""
RUN_FILE = "config.json"
"""File that makes a folder a run."""

# Endings and names of files that lie next to images without being images: ignored without a word.
_COMPANIONS = (
    ".txt", ".md", ".rst", ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".xml", ".html", ".htm", ".yaml", ".yml",
    ".toml", ".ini", ".cfg", ".py", ".ipynb", ".sh", ".log", ".pdf", ".cls", ".caption", ".text", ".md5", ".sha1",
    ".sha256", ".db", ".url", ".xmp", ".aae", ".thm", ".parquet", ".arrow", ".safetensors", ".onnx", ".pt2", ".lock",
)  # fmt: skip
_COMPANION_NAMES = re.compile(r"readme|licen[sc]e|copying|notice|authors|changelog|makefile|md5sums|sha256sums", re.I)
_RUN_START = re.compile(rb'\s*\{\s*"config"\s*:\s*\{\s*"data"\s*:\s*\{')
_RUN_BYTES = 2**18  # larger configurations of runs (many class names) are recognised by their beginning


def normal(name: str) -> str:
    """Return a name in an archive or a dataset.json as a relative path with single slashes and no './'."""
    if "\\" in name:
        name = name.replace("\\", "/")
    if "//" in name or "./" in name or name[:1] == "/":
        name = "/".join(part for part in name.split("/")[:-1] if part not in ("", ".")) + "/" + name.split("/")[-1]
        name = name.lstrip("/")
    return name


def is_image(name: str) -> bool:
    """Return whether a name ends like an image file."""
    return name.lower().endswith(SUFFIXES)


def is_hidden(name: str) -> bool:
    """Return whether a normal name, or a folder in it, begins with a dot or is macOS's folder of doubles."""
    # The plain tests come first: an archive may have a million names.
    if name[:1] != "." and "/." not in name and "__MACOSX" not in name:
        return False
    # '..' is not hidden but an attack, to be refused by name.
    return any((part.startswith(".") and part != "..") or part == "__MACOSX" for part in name.split("/"))


def is_companion(name: str) -> bool:
    """Return whether a file that is not an image is expected next to images, such as a text or a table."""
    last = name.rsplit("/", 1)[-1]
    if last.lower().endswith(_COMPANIONS) or _COMPANION_NAMES.match(last):
        return True
    return last in ("Thumbs.db", "desktop.ini", "Icon\r")


def reason_unread(name: str) -> str:
    """Return why a file that is neither an image nor a companion is skipped."""
    last = name.rsplit("/", 1)[-1]
    ending = "." + last.rsplit(".", 1)[1] if "." in last else ""
    what = f"its ending {ending[:20]!r} is not that of an image" if ending else "its name has no ending"
    return f"{what} (.png, .jpg, ...): not read"


def is_run(read: Callable[[int], bytes]) -> bool:
    """Return whether a config.json is that of a run, which makes its folder something that sagan wrote.

    Args:
        read: `read(n)` returns at most n bytes from the start of the file.
    """
    text = read(_RUN_BYTES + 1)
    if _RUN_START.match(text):
        return True
    if len(text) > _RUN_BYTES:
        return False
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.keys() >= {"config", "data_key"}
