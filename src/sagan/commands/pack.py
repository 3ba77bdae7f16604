"""The command `sagan data pack`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sagan.commands.arguments import SourceArgument
from sagan.config import CacheOption, DataConfig, check_ranges
from sagan.text import format_count


@dataclass(frozen=True)
class Pack:
    """Write a source as WebDataset tar shards, from which runs train without a local copy.

    The image files are kept byte for byte. If packing is interrupted, the same command resumes it.
    """

    source: SourceArgument
    """A folder, a .zip, tar shards, hf:USER/NAME, robots, twins or digits."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
    """Folder of the shards. Shards are named after it."""
    shard_size: int = 256
    """Size of a shard, in MiB."""
    labels: bool = True
    """Use the classes that the source names."""
    resolution: Literal[32, 64, 128, 256] = 64
    """Side of the images of robots, twins or digits, in pixels; other images keep their size."""
    cache: CacheOption = ""
    """Folder of the packed image stores; default: $SAGAN_CACHE, or the user's cache folder."""

    def __post_init__(self) -> None:
        check_ranges(self, minimum={"shard_size": 1})


def pack(options: Pack) -> None:
    """Run `sagan data pack`."""
    from sagan.data.shards.pack import pack
    from sagan.data.summary import list_skipped

    config = DataConfig(options.source, options.labels, cache=options.cache)
    packed = pack(
        config, options.out, shard_size=options.shard_size * 2**20, resolution=options.resolution, image_channels=3
    )
    if packed.skipped:
        print(list_skipped(packed.skipped), file=sys.stderr)
    images = format_count(packed.images, "image", "images")
    shards = format_count(packed.shards, "shard", "shards")
    print(f"{images} in {shards}, {packed.size / 2**20:,.0f} MiB: {packed.folder}")
