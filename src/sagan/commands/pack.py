"""The command sagan data pack."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sagan.commands.arguments import SourceArgument
from sagan.config import DataConfig, check_ranges


@dataclass(frozen=True)
class Pack:
    """Write a source as WebDataset tar shards, which train without a copy on this machine's disk.

    Pictures stay byte for byte as they are. Stopped, it goes on with the same command.
    """

    source: SourceArgument
    """A folder, a .zip, tar shards, hf:USER/NAME, robots or digits."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
    """Folder of the shards, which are named after it."""
    shard_size: int = 256
    """MiB after which a shard is full."""
    labels: bool = True
    """Use the classes that the source names."""
    resolution: Literal[32, 64, 128, 256] = 64
    """Side that robots or digits are drawn at; other pictures keep their size."""
    cache: str = ""
    """Folder of the packed picture stores; empty: $SAGAN_CACHE, or the user's cache folder."""

    def __post_init__(self) -> None:
        check_ranges(self, least={"shard_size": 1})


def pack(options: Pack) -> None:
    """Runs `sagan data pack`."""
    from sagan.data.shards.pack import pack
    from sagan.data.summary import list_left_out

    config = DataConfig(options.source, options.labels, cache=options.cache)
    made = pack(
        config, options.out, shard_size=options.shard_size * 2**20, resolution=options.resolution, image_channels=3
    )
    if made.left_out:
        print(list_left_out(made.left_out), file=sys.stderr)
    print(f"{made.pictures:,} pictures in {made.shards:,} shards, {made.size / 2**20:,.0f} MiB: {made.folder}")
