"""Write any source as WebDataset tar shards with an index, for `sagan data pack`.

Image files are kept byte for byte. Shards appear one by one under their final names, and a journal lists the finished
ones, so that interrupted packing resumes after the last finished shard. The index is written last.
"""

import io
import json
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sagan.config import DataConfig
from sagan.data.builtin.open import BuiltIn, open_built_in
from sagan.data.decode import SAMPLED, Unreadable, decode, format_of
from sagan.data.hints import consist_of_samples
from sagan.data.packing import map_in_order, progress_bar, quiet
from sagan.data.shards.index import MAX_BYTES, ROW
from sagan.data.shards.listing import COUNT, FORMAT, is_shards, open_shards
from sagan.data.shards.tables import INDEX, TABLE
from sagan.data.source import Skipped, Source, no_usable_image
from sagan.data.sources import open_source, refuse_data_folder
from sagan.data.store import cache_folder
from sagan.errors import UserError
from sagan.files import digest_of, sha256, sweep, write_atomically, write_npy_header
from sagan.marks import is_sample
from sagan.text import printable

_JOURNAL_FORMAT = 2  # version of the journal and of the rows next to it
_JOURNAL = ".packing.jsonl"  # a line for the options, then one for each finished shard
_ROWS = ".packing.rows"  # the table of the finished shards, without a header
_OPEN = ".packing.tar"  # the unfinished shard
_MAX_SKIPPED_LISTED = 1000  # in the index
_SUFFIXES = {
    "JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tif",
    "AVIF": ".avif", "HEIF": ".heic",
}  # fmt: skip


@dataclass(frozen=True)
class Packed:
    """The result of `pack`."""

    folder: Path
    shards: int
    """Number of shards."""
    images: int
    """Number of images."""
    size: int
    """Bytes of all shards."""
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True)
class _Work:
    """The images of a source, in the order in which they are packed."""

    title: str
    count: int
    class_names: tuple[str, ...]
    fingerprint: str
    """Changes with the source, its state and the options."""
    problems: tuple[Skipped, ...]
    images: Callable[[int], Iterator["_ImageFile"]]
    """`images(first)` yields the images from number `first` on."""


@dataclass(frozen=True)
class _ImageFile:
    name: str
    data: bytes
    label: int
    sides: tuple[int, int]
    """Width and height, in pixels."""
    reason: str = ""
    """Why the image is skipped; empty if it is not."""


@dataclass
class _Progress:
    """The content of the journal."""

    next: int = 0
    """Number of the next image."""
    shards: list[dict[str, Any]] = field(default_factory=list)
    """Finished shards, as in the index."""
    skipped: list[Skipped] = field(default_factory=list)


def pack(
    config: DataConfig, out: Path, *, shard_size: int, resolution: int, image_channels: int, progress: bool = True
) -> Packed:
    """Write a source as shards, or resume writing it.

    Every image is decoded once as a check, and its file is kept as it is. The images are written in a random order,
    always the same, so that each shard is a sample of all classes.

    Args:
        config: source, labels, and cache folder.
        out: folder of the shards. It receives NAME-000000.tar and so on, index.json and index.npy; NAME is the name of
            the folder.
        shard_size: bytes after which a shard is full; a shard has at least one image.
        resolution: side in pixels at which the built-in sets are drawn; not used for other sources.
        image_channels: 1, 3 or 4 channels of the built-in sets, which are written as PNG; not used for other sources.
        progress: show a progress bar, if standard error is a terminal.

    Raises:
        UserError: the source cannot be used, the folder has other content, or it cannot be written.
    """
    refuse_data_folder(out, config.source)
    built_in = open_built_in(config, resolution=resolution, image_channels=image_channels)
    work = _built_in_work(built_in, config, [resolution, image_channels]) if built_in else _file_work(config)
    if (out / INDEX).exists():
        raise UserError(f"{out} contains shards already: choose another --out, or remove the folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        sweep(out)
        done = _resume(out, work, shard_size)
        with quiet(), progress_bar(work.count, progress, f"packing {printable(work.title)[-60:]}") as bar:
            bar.update(done.next)
            _write_shards(out, work, done, shard_size, bar)
        return _finish(out, work, done)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt("finished shards are kept, and the same command resumes") from stop
    except OSError as error:
        raise UserError(
            f"{out} cannot be written: {error.strerror or error}; finished shards are kept: make room, and repeat the "
            "command"
        ) from error
    finally:
        (out / _OPEN).unlink(missing_ok=True)


def _file_work(config: DataConfig) -> _Work:
    """Return the images of files or shards, mixed by a fixed permutation."""
    if is_shards(config.source):
        shards = open_shards(config.source, config.labels, cache_folder(config))
        source = Source(
            title=shards.title,
            entries=cast(Sequence[tuple[str, int]], _Entries(shards.name, shards.table["label"])),
            read=lambda position: shards.check(position, shards.read(position)),
            class_names=shards.class_names,
            stamp=[shards.key],
            problems=shards.skipped,
        )
    else:
        source = open_source(config.source, config.labels)
    count = len(source.entries)
    order = np.random.Generator(np.random.Philox(0)).permutation(count)
    only_samples = consist_of_samples(source.read, len(source.entries))

    def read(place: int) -> _ImageFile:
        number = int(order[place])
        name, label = source.entries[number]
        try:
            data = source.read(number)
            if len(data) > MAX_BYTES:
                raise Unreadable(f"more than the limit of {MAX_BYTES // 2**20} megabytes")
            if is_sample(data) and not only_samples:
                raise Unreadable(SAMPLED)
            _, sides = decode(data, resolution=8, image_channels=3, background=(255, 255, 255))
        except Unreadable as error:
            return _ImageFile(name, b"", 0, (0, 0), str(error))
        return _ImageFile(name, data, label, sides)

    return _Work(
        title=source.title,
        count=count,
        class_names=source.class_names,
        fingerprint=digest_of([_JOURNAL_FORMAT, source.title, source.class_names, count, source.stamp]),
        problems=source.problems,
        images=lambda first: map_in_order(lambda place: read(first + place), count - first),
    )


def _built_in_work(built_in: BuiltIn, config: DataConfig, shape: list[int]) -> _Work:
    """Return the images of a built-in set, whose classes are mixed already."""

    def files(first: int) -> Iterator[_ImageFile]:
        number = 0
        for images, labels in built_in.batches:
            for image, label in zip(images, labels.tolist(), strict=True):
                if number >= first:
                    yield _ImageFile(f"{number:08d}", _png(image), label * config.labels, image.shape[:2])
                number += 1

    options = [built_in.name, built_in.version, built_in.count, shape, config.background, config.labels]
    return _Work(
        title=built_in.name,
        count=built_in.count,
        class_names=built_in.class_names if config.labels else (),
        fingerprint=digest_of([_JOURNAL_FORMAT, *options]),
        problems=(),
        images=files,
    )


class _Entries:
    """A sequence of the names and labels of the images in shards. Names are computed on access."""

    def __init__(self, name: Callable[[int], str], labels: NDArray[np.int64]) -> None:
        self._name, self._labels = name, labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, number: int) -> tuple[str, int]:
        return self._name(number), int(self._labels[number])


def _resume(out: Path, work: _Work, shard_size: int) -> _Progress:
    """Read which shards are finished from the journal, and truncate journal and rows to those shards."""
    journal, start = out / _JOURNAL, {"fingerprint": work.fingerprint, "shard_size": shard_size}
    if not journal.exists():
        if any(out.glob("*.tar")):
            raise UserError(f"{out} contains other .tar files: choose another --out")
        journal.write_text(json.dumps(start) + "\n", encoding="utf-8")
        (out / _ROWS).write_bytes(b"")
        return _Progress()
    first, *lines = journal.read_text(encoding="utf-8").splitlines(keepends=True)
    if first != json.dumps(start) + "\n":
        raise UserError(
            f"{out} contains the start of another packing (another source or size, or the source has changed): remove "
            "the folder, or choose another --out"
        )
    done, kept = _Progress(), first
    for line in lines:
        shard = json.loads(line) if line.endswith("\n") else None  # the last line may be truncated
        if shard is None or (out / shard["name"]).stat().st_size != shard["bytes"]:
            break
        done.next = shard.pop("next")
        done.skipped += [Skipped(*pair) for pair in shard.pop("left_out")]
        done.shards.append(shard)
        kept += line
    write_atomically(journal, lambda temporary: temporary.write_text(kept, encoding="utf-8"))
    with (out / _ROWS).open("rb+") as rows:
        rows.truncate(sum(shard[COUNT] for shard in done.shards) * ROW.itemsize)
    return done


def _write_shards(out: Path, work: _Work, done: _Progress, shard_size: int, bar: Any) -> None:
    """Write the shards that are not finished, and record each in the journal."""
    images = work.images(done.next)
    with (out / _JOURNAL).open("a", encoding="utf-8") as journal, (out / _ROWS).open("ab") as rows:
        while done.next < work.count:
            # Fill a shard.
            with _Shard(out / _OPEN) as shard:
                skipped: list[Skipped] = []
                while done.next < work.count and (shard.size < shard_size or not shard.rows):
                    image = next(images)
                    done.next += 1
                    bar.update()
                    if image.reason:
                        skipped.append(Skipped(image.name, image.reason))
                    else:
                        shard.add(f"{done.next - 1:08d}", image, labelled=bool(work.class_names))
                name = f"{_stem(out)}-{len(done.shards):06d}.tar"
                entry = shard.finish(out / name)
            # Record it: the rows first, since the journal decides what is finished.
            rows.write(np.array(shard.rows, ROW).tobytes())
            rows.flush()
            line = {**entry, "next": done.next, "left_out": [(one.name, one.reason) for one in skipped]}
            journal.write(json.dumps(line) + "\n")
            journal.flush()
            done.shards.append(entry)
            done.skipped += skipped


def _finish(out: Path, work: _Work, done: _Progress) -> Packed:
    """Write the table and the index, and remove the journal."""
    shards = [shard for shard in done.shards if shard[COUNT]]
    for shard in done.shards:
        if not shard[COUNT]:  # the last shard, if all of its images were skipped
            (out / shard["name"]).unlink(missing_ok=True)
    skipped = (*work.problems, *done.skipped)
    if not shards:
        (out / _JOURNAL).unlink()
        (out / _ROWS).unlink()
        raise no_usable_image(work.title, skipped)
    image_count = sum(shard[COUNT] for shard in shards)

    def write_table(temporary: Path) -> None:
        with temporary.open("wb") as file, (out / _ROWS).open("rb") as rows:
            write_npy_header(file, ROW, (image_count,))
            while block := rows.read(2**20):
                file.write(block)

    write_atomically(out / TABLE, write_table)
    counts = np.bincount(np.load(out / TABLE, mmap_mode="r")["label"], minlength=len(work.class_names))
    index = {
        "sagan_shards": FORMAT,
        "source": Path(work.title).name,
        COUNT: image_count,
        "class_names": work.class_names,
        "class_counts": counts.tolist() if work.class_names else [],
        "table_sha256": sha256(out / TABLE),
        "left_out": [(one.name, one.reason) for one in skipped[:_MAX_SKIPPED_LISTED]],
        "shards": shards,
    }
    write_atomically(out / INDEX, lambda temporary: temporary.write_text(json.dumps(index, indent=1), encoding="utf-8"))
    (out / _JOURNAL).unlink()
    (out / _ROWS).unlink()
    return Packed(out, len(shards), image_count, sum(shard["bytes"] for shard in shards), skipped)


class _Shard:
    """Write one tar file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.rows: list[tuple[int, int, int, tuple[int, int], int]] = []

    def __enter__(self) -> "_Shard":
        self._file = self.path.open("wb+")
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, key: str, image: _ImageFile, *, labelled: bool) -> None:
        """Append an image, and its class if `labelled`, as the members of a sample."""
        offset = self._add_member(key + _SUFFIXES[format_of(image.data) or "TIFF"], image.data)
        if labelled:
            self._add_member(f"{key}.cls", str(image.label).encode())
        self.rows.append((offset, len(image.data), image.label, image.sides, zlib.crc32(image.data)))

    def finish(self, path: Path) -> dict[str, Any]:
        """Move the shard to its final path, and return its entry in the index."""
        self._tar.close()
        self._file.close()
        checksum, size = sha256(self.path), self.path.stat().st_size
        write_atomically(path, lambda temporary: self.path.rename(temporary))
        return {"name": path.name, "bytes": size, COUNT: len(self.rows), "sha256": checksum}

    def _add_member(self, name: str, data: bytes) -> int:
        """Append a member, and return the offset of its content."""
        member = tarfile.TarInfo(name)
        member.size = len(data)
        member.mode = 0o644
        self._tar.addfile(member, io.BytesIO(data))
        self.size = self._tar.offset
        blocks = -(-len(data) // tarfile.BLOCKSIZE)
        return self.size - blocks * tarfile.BLOCKSIZE


def _png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


def _stem(out: Path) -> str:
    """Return the name of the folder, with characters replaced that not every file system or URL allows."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in out.absolute().name) or "shards"
