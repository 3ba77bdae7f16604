"""The command `sagan list`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class List:
    """List the trained models that come with the package, and the runs under a folder."""

    folder: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[FOLDER]", help_behavior_hint="")] = (
        None
    )
    """Where to look for runs; default: runs, if there is such a folder."""


def list_(options: List) -> None:
    """Run `sagan list`."""
    from sagan.render.listing import list_models

    print(list_models(options.folder))
