"""Paths that a command line or a run names: '~' expanded, and absolute where another folder must find them again."""

import os
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from sagan.config import BUILT_IN_FEATURES, Config
from sagan.errors import UserError
from sagan.files import expand_home
from sagan.text import printable

T = TypeVar("T")


def expand_options(options: T) -> T:
    """Replace a leading '~' in every path of a command's options, nested ones included.

    Lists of names, such as --classes, are not paths.
    """
    changes: dict[str, Any] = {}
    for field in fields(options):  # type: ignore[arg-type]
        value = getattr(options, field.name)
        if is_dataclass(value):
            expanded: Any = expand_options(value)
        elif isinstance(value, str | Path) and str(value).startswith("~"):
            expanded = type(value)(str(expand_home(value)))
        else:
            continue
        if expanded != value:
            changes[field.name] = expanded
    return replace(options, **changes) if changes else options  # type: ignore[type-var]


def absolute_paths(config: Config) -> Config:
    """Make the files and folders that a configuration names absolute: its run is resumed and evaluated from anywhere.

    Built-in names, URLs, 'hf:...', and names of files that do not exist stay as they are.
    """
    features = config.output.evaluate_features
    return replace(
        config,
        data=replace(config.data, source=absolute_source(config.data.source)),
        training=replace(config.training, start=_absolute(config.training.start)),
        output=replace(config.output, evaluate_features=absolute_features(features)),
    )


def absolute_source(source: str) -> str:
    """Make the path of a source, or its pattern of tar shards, absolute."""
    from sagan.data.shards.listing import is_shards
    from sagan.data.shards.remote import is_url
    from sagan.data.sources import BUILT_IN

    if source in ("", *BUILT_IN) or is_url(source):
        return source
    path = expand_home(source)
    return str(path.absolute()) if path.exists() or is_shards(source) else source


def absolute_features(features: str) -> str:
    """Make the path of a TorchScript file absolute; the name of built-in features is returned unchanged."""
    return features if features in BUILT_IN_FEATURES else _absolute(features)


def check_present(source: str, advice: str) -> None:
    """Check that a source that a run stored as a path still exists.

    Raises:
        UserError: there is nothing at the path; the message ends with the advice.
    """
    from sagan.data.shards.listing import is_shards

    if os.path.isabs(source) and not os.path.exists(source) and not is_shards(source):
        raise UserError(f"{printable(source)} is gone: restore it, or {advice}")


def _absolute(name: str) -> str:
    path = expand_home(name)
    return str(path.absolute()) if name and path.exists() else name
