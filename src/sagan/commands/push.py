"""The command `sagan push`."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from sagan.commands.arguments import RunArgument


@dataclass(frozen=True)
class Push:
    """Publish the generator on the Hugging Face Hub with a model card written from the run."""

    run: RunArgument
    """Folder of the run."""
    repo: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="USER/NAME")]
    """The repository; it is created if it does not exist."""
    licence: str = "unknown"
    """Licence of the weights, as a Hub identifier (e.g. cc-by-4.0). The model card states if it is unknown."""
    private: bool = False
    """Create the repository as private."""
    dry_run: bool = False
    """Only list what would be uploaded."""


def push(options: Push) -> None:
    """Run `sagan push`."""
    from sagan.hub.repository import push

    url = push(options.run, options.repo, licence=options.licence, private=options.private, dry_run=options.dry_run)
    if url:
        print(f'{url}; load it with sagan.load("{options.repo}")')
