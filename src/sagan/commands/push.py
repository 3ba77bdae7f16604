"""The command sagan push."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from sagan.commands.arguments import RunArgument


@dataclass(frozen=True)
class Push:
    """Publish the generator on the Hugging Face Hub, with a model card written from the run."""

    run: RunArgument
    """Folder of the run."""
    repo: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="USER/NAME")]
    """The repository; it is made if it is not there."""
    licence: str = "unknown"
    """Under what others may use the weights, as the Hub spells it (cc-by-4.0, ...); the card says so if unknown."""
    private: bool = False
    """Make a new repository that nobody else sees."""
    dry_run: bool = False
    """Only say what would be uploaded."""


def push(options: Push) -> None:
    """Runs `sagan push`."""
    from sagan.hub.repository import push

    url = push(options.run, options.repo, licence=options.licence, private=options.private, dry_run=options.dry_run)
    if url:
        print(f'{url}; load it with sagan.load("{options.repo}")')
