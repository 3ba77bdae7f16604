"""Open a data set of the Hugging Face Hub."""

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sagan.compat import few_seconds_of_hub
from sagan.data.decode import Unreadable
from sagan.data.source import (
    MAX_BYTES,
    Skipped,
    Source,
    limited,
    name_order,
    numbered_classes,
)
from sagan.errors import UserError
from sagan.text import printable

_TEXT_LABELS = ("label", "labels", "class", "class_name", "category")  # columns that may hold classes as text or number
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def hub_source(name: str, labels: bool) -> Source:
    """Open 'hf:USER/NAME' or 'hf:USER/NAME@SPLIT': a data set of the Hugging Face Hub, or a folder `datasets` reads.

    The images are in its first image column, the classes in its first ClassLabel column, an integer column 'label', or
    a column of texts that is named like a label.
    """
    where, _, split = name.removeprefix("hf:").partition("@")
    split = split or "train"
    # Anything else would be looked for, for minutes, in whatever lies there and on the network.
    if not (_HUB_NAME.fullmatch(where) and ".." not in where) and not (os.path.isabs(where) and os.path.isdir(where)):
        raise UserError(
            f"data source '{printable(name)}' is not hf:USER/NAME (or hf: and the absolute path of a folder that "
            "`datasets` reads): check the name"
        )
    try:
        import datasets
    except ImportError:
        raise UserError(f"data source '{name}' needs the package datasets: pip install 'sagan-torch[hub]'") from None
    # Load the table and find the column of images.
    try:
        with contextlib.nullcontext() if os.path.isabs(where) else few_seconds_of_hub():
            table = datasets.load_dataset(where, split=split)
    except Exception as error:  # `datasets` raises many types: network, access, name, split
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"data source '{printable(name)}' cannot be loaded ({printable(reason)}): check the name, the split after "
            "'@', and the network"
        ) from error
    columns = table.features
    image_columns = [column for column, feature in columns.items() if isinstance(feature, datasets.Image)]
    if not image_columns:
        raise UserError(
            f"data source '{printable(name)}' has no column of images (its columns: {', '.join(columns)}): "
            "choose a data set of images"
        )
    column = image_columns[0]
    table = table.cast_column(column, datasets.Image(decode=False))  # leave the bytes to our own decoder

    # Find the classes. Rows without a class are skipped.
    numbers, class_names, remarks = _hub_classes(table, columns, name) if labels else ([0] * len(table), (), ())
    has_label = [number is not None and number >= 0 for number in numbers] if class_names else [True] * len(numbers)
    rows = [row for row, labelled in enumerate(has_label) if labelled]

    def read(number: int) -> bytes:
        cell = table[rows[number]][column]
        if cell is None:
            raise Unreadable("no image in this row")
        if cell["bytes"] is not None:
            return limited(cell["bytes"], MAX_BYTES)
        try:
            with open(cell["path"], "rb") as file:
                return limited(file.read(MAX_BYTES + 1), MAX_BYTES)
        except (OSError, TypeError) as error:
            raise Unreadable(f"cannot be read: {error}") from None

    files = [Path(file["filename"]) for file in table.cache_files]
    return Source(
        title=name,
        entries=[(f"{row:08d}", (numbers[row] if class_names else 0) or 0) for row in rows],
        read=read,
        class_names=class_names,
        stamp=[labels, column, [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]],
        problems=tuple(Skipped(f"{row:08d}", "has no label") for row, known in enumerate(has_label) if not known),
        remarks=remarks,
    )


def _hub_classes(
    table: Any, columns: Mapping[str, Any], name: str
) -> tuple[list[int | None], tuple[str, ...], tuple[Skipped, ...]]:
    """Return the class of every row of a data set of the Hub, the class names, and a remark if there are none."""
    # Look for a column of named classes, of numbers, or of texts.
    for column, feature in columns.items():
        if hasattr(feature, "names") and hasattr(feature, "int2str"):  # datasets.ClassLabel
            return table[column][:], tuple(feature.names), ()
    source = f"data source '{printable(name)}'"
    if str(getattr(columns.get("label"), "dtype", "")).startswith(("int", "uint")):
        numbers = table["label"][:]
        known = [number for number in numbers if number is not None]
        return numbers, numbered_classes(max(known, default=-1), min(known, default=0), source), ()
    for column in _TEXT_LABELS:
        if getattr(columns.get(column), "dtype", "") not in ("string", "large_string"):
            continue
        texts = table[column][:]
        names = sorted({text for text in texts if text}, key=name_order)
        if 2 * len(names) <= len(texts) or len(names) == 1:  # else captions rather than classes
            number_of = {text: number for number, text in enumerate(names)}
            return [number_of.get(text) for text in texts], tuple(names), ()
    listed = ", ".join(f"{printable(column)} ({_kind(feature)})" for column, feature in columns.items())
    remark = f"has no classes that are recognised; its columns: {listed}"
    return [0] * len(table), (), (Skipped(name, remark),)


def _kind(feature: Any) -> str:
    kind = type(feature).__name__
    return str(feature.dtype) if kind == "Value" else kind
