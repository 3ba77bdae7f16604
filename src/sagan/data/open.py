"""Open any source of images: a built-in set, files that are packed into a store, or shards that are read in place."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from sagan.config import DataConfig
from sagan.data.builtin.open import open_built_in
from sagan.data.decode import Unreadable, decode
from sagan.data.packing import pack_built_in, pack_files, quiet
from sagan.data.shards.listing import is_shards, open_shards
from sagan.data.shards.reader import ShardImages
from sagan.data.source import Skipped, no_usable_image
from sagan.data.sources import BUILT_IN, open_source
from sagan.data.store import FORMAT, Store, cache_folder
from sagan.errors import UserError
from sagan.files import digest_of, expand_home, sweep
from sagan.text import is_text, printable


def prepare(
    config: DataConfig, *, resolution: int, image_channels: int, progress: bool = True, samples: bool = False
) -> Store:
    """Decode a source into a packed store in the cache, or open the store if it exists.

    A source whose files have the same names, sizes and modification times as before is not read again. Shards are
    not decoded into a store, but every time their images are needed.

    Args:
        config: source, labels, background, and cache folder.
        resolution: side of the images in pixels.
        image_channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        progress: show a progress bar while decoding, if standard error is a terminal.
        samples: also use images that `sagan sample` wrote. Otherwise they are skipped, unless there are no others.

    Raises:
        UserError: the source cannot be found, has no usable image, or the cache cannot be written.
    """
    # Check the arguments.
    if not config.source:
        raise UserError(
            "no source of images is given (and an imported run has none of its own): name a folder, a .zip, "
            "hf:USER/NAME, robots, twins or digits"
        )
    if image_channels not in (1, 3, 4):
        raise UserError(f"image_channels is {image_channels}: must be 1 (grey), 3 (RGB) or 4 (RGBA)")
    path = str(expand_home(config.source).absolute()) if is_path(config.source) else ""
    if not is_text(config.source + path):
        raise UserError(
            f"data source '{printable(config.source)}' has a name (or lies in a folder) that is not UTF-8, so a run "
            "could not record it: rename it"
        )
    if resolution < 1:
        raise UserError(f"resolution is {resolution}: must be the side of the images in pixels, 1 or more")
    if len(config.background) != 3 or not all(0 <= value <= 255 for value in config.background):
        raise UserError(f"background is {config.background}: must be red, green and blue from 0 to 255")
    options: dict[str, Any] = {
        "format": FORMAT,
        "resolution": resolution,
        "image_channels": image_channels,
        "background": list(config.background) if image_channels != 4 else None,
        "labels": config.labels,
    }
    if config.crop != "centre":  # so that the keys of stores from before there was a choice stay
        options |= {"crop": config.crop, "background": list(config.background)}
    # Open the source in the way of its kind.
    cache = cache_folder(config)
    try:
        (cache / "stores").mkdir(parents=True, exist_ok=True)
        (cache / "index").mkdir(exist_ok=True)
        for folder in ("stores", "index"):
            sweep(cache / folder)
        with quiet():
            if built_in := open_built_in(config, resolution=resolution, image_channels=image_channels):
                return pack_built_in(built_in, config, cache, options, progress)
            if is_shards(config.source):
                return _open_shards(config, cache, options, progress)
            return replace(pack_files(config, cache, options, progress, samples), crop=config.crop)
    except OSError as error:  # of the cache: sources raise UserError
        raise UserError(
            f"cannot write the packed images to {cache}: {error.strerror or error}; "
            "make room there, or choose another folder with --cache"
        ) from error


def is_path(source: str) -> bool:
    """Return whether a source is a file or folder that exists, not a built-in set, a pattern, a URL or 'hf:...'."""
    return source not in BUILT_IN and expand_home(source).exists()


def first_size(name: str) -> int:
    """Return the shorter side, in pixels, of the first usable image of a source.

    Raises:
        UserError: the source does not exist, has no usable image, or has no image size of its own.
    """
    if name in BUILT_IN:
        raise UserError(f"--resolution is missing: {name} can be drawn at any size; pass the side in pixels")
    if is_shards(name):
        raise UserError(f"--resolution is missing: pass the side, in pixels, at which to compare {printable(name)}")
    source = open_source(name, labels=False)
    problems = list(source.problems)
    for number, (image_name, _) in enumerate(source.entries):
        try:
            with quiet():
                _, size = decode(source.read(number), resolution=8, image_channels=3, background=(255, 255, 255))
            return min(size)
        except Unreadable as error:
            problems.append(Skipped(image_name, str(error)))
    raise no_usable_image(name, problems)


def _open_shards(config: DataConfig, cache: Path, options: dict[str, Any], progress: bool) -> Store:
    """Open shards, with their table in the cache."""
    shards = open_shards(config.source, config.labels, cache, progress=progress)
    images = ShardImages(shards, options["resolution"], options["image_channels"], config.background, config.crop)
    return Store(
        path=cache / "shards" / f"{shards.key}.npy",
        key=digest_of([options, shards.key]),
        source=shards.title,
        images=images,
        labels=shards.table["label"],
        class_names=shards.class_names,
        names=(),
        sizes=shards.table["sides"],
        skipped=shards.skipped,
        crop=config.crop,
    )
