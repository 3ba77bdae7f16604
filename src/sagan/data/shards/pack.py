"""`sagan data pack`: any source as WebDataset tar shards with an index, its pictures byte for byte as they came.

Shards appear one by one under their final names, and what was done is noted, so a packing that was stopped or killed
goes on where it was; the index comes last.
"""

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sagan.config import DataConfig
from sagan.data.builtin.open import BuiltIn, open_built_in
from sagan.data.decode import Unreadable, decode
from sagan.data.shards.index import MAX_BYTES, ROW
from sagan.data.shards.reader import FORMAT, INDEX, TABLE, is_shards, open_shards
from sagan.data.sources import Skipped, Source, nothing_left, open_source
from sagan.data.store import cache_folder, in_order, progress_bar, quiet
from sagan.errors import UserError
from sagan.files import digest_of, sha256, sweep, write_atomically
from sagan.text import printable

_NOTES, _ROWS, _OPEN = ".packing.jsonl", ".packing.rows", ".packing.tar"
_MOST_LEFT_OUT = 1000  # that the index names
_ENDINGS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tif"}
_SIGNATURES = {
    b"\xff\xd8": "JPEG", b"\x89PNG": "PNG", b"RIFF": "WEBP", b"GIF8": "GIF", b"BM": "BMP", b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}  # fmt: skip


@dataclass(frozen=True)
class Packed:
    """What a finished packing holds."""

    folder: Path
    shards: int
    pictures: int
    size: int
    """Bytes of all shards."""
    left_out: tuple[Skipped, ...]


@dataclass(frozen=True)
class _Work:
    """Pictures in the order in which they are packed."""

    title: str
    count: int
    class_names: tuple[str, ...]
    fingerprint: str
    """Another source or another state of it, another fingerprint."""
    problems: tuple[Skipped, ...]
    pictures: Callable[[int], Iterator["_Picture"]]
    """From this one on."""


@dataclass(frozen=True)
class _Picture:
    name: str
    data: bytes
    label: int
    sides: tuple[int, int]
    reason: str = ""
    """Why it is left out; empty: it is not."""


@dataclass
class _Done:
    """What is noted of the shards that are there."""

    next: int = 0
    shards: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[Skipped] = field(default_factory=list)


def pack(
    config: DataConfig, out: Path, *, shard_size: int, resolution: int, image_channels: int, progress: bool = True
) -> Packed:
    """Write a source as shards, or go on with writing it.

    Pictures are checked by decoding them, and kept as they are. They come in a random order, always the same, so that
    each shard holds a mixture.

    Args:
        config: source, labels, and cache folder.
        out: folder of the shards: NAME-000000.tar and so on, index.json, index.npy; NAME is the folder's.
        shard_size: bytes after which a shard is full; a single larger picture still gets one.
        resolution, image_channels: of the built-in sets, which are drawn and kept as PNG; else not used.
        progress: show a bar, where standard error is a terminal.

    Raises:
        UserError: the source cannot be used, the folder holds something else, or cannot be written.
    """
    drawn = open_built_in(config, resolution=resolution, image_channels=image_channels)
    work = _drawn(drawn, config, [resolution, image_channels]) if drawn else _read(config)
    if (out / INDEX).exists():
        raise UserError(f"{out} holds shards already: give another --out, or remove it")
    try:
        out.mkdir(parents=True, exist_ok=True)
        sweep(out)
        done = _resume(out, work, shard_size)
        with quiet(), progress_bar(work.count, progress, f"packing {printable(work.title)[-60:]}") as bar:
            bar.update(done.next)
            _write_shards(out, work, done, shard_size, bar)
        return _finish(out, work, done)
    except OSError as error:
        raise UserError(
            f"{out} cannot be written: {error.strerror or error}; what is done is kept: make room, and repeat it"
        ) from error
    finally:
        (out / _OPEN).unlink(missing_ok=True)


def _read(config: DataConfig) -> _Work:
    """A source of files: mixed by a fixed permutation."""
    if is_shards(config.source):
        shards = open_shards(config.source, config.labels, cache_folder(config))
        source = Source(
            title=shards.title,
            entries=cast(Sequence[tuple[str, int]], _Entries(shards.name, shards.table["label"])),
            read=shards.read,
            class_names=shards.class_names,
            stamp=[shards.key],
            problems=shards.skipped,
        )
    else:
        source = open_source(config.source, config.labels)
    count = len(source.entries)
    order = np.random.Generator(np.random.Philox(0)).permutation(count)

    def read(place: int) -> _Picture:
        number = int(order[place])
        name, label = source.entries[number]
        try:
            data = source.read(number)
            if len(data) > MAX_BYTES:
                raise Unreadable(f"more than the limit of {MAX_BYTES // 2**20} megabytes")
            _, sides = decode(data, resolution=8, image_channels=3, background=(255, 255, 255))
        except Unreadable as error:
            return _Picture(name, b"", 0, (0, 0), str(error))
        return _Picture(name, data, label, sides)

    return _Work(
        title=source.title,
        count=count,
        class_names=source.class_names,
        fingerprint=digest_of([FORMAT, source.title, source.class_names, count, source.stamp]),
        problems=source.problems,
        pictures=lambda first: in_order(lambda place: read(first + place), count - first),
    )


def _drawn(drawn: BuiltIn, config: DataConfig, shape: list[int]) -> _Work:
    """A built-in set: its classes come mixed."""

    def pictures(first: int) -> Iterator[_Picture]:
        number = 0
        for images, labels in drawn.batches:
            for image, label in zip(images, labels.tolist(), strict=True):
                if number >= first:
                    yield _Picture(f"{number:08d}", _png(image), label * config.labels, image.shape[:2])
                number += 1

    options = [drawn.name, drawn.version, drawn.count, shape, config.background, config.labels]
    class_names = drawn.class_names if config.labels else ()
    return _Work(drawn.name, drawn.count, class_names, digest_of([FORMAT, *options]), (), pictures)


class _Entries:
    """Name and label of the pictures of shards, looked up one by one."""

    def __init__(self, name: Callable[[int], str], labels: NDArray[np.int64]) -> None:
        self._name, self._labels = name, labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, number: int) -> tuple[str, int]:
        return self._name(number), int(self._labels[number])


def _resume(out: Path, work: _Work, shard_size: int) -> _Done:
    """What is done already, by the notes; all else that an earlier attempt left is gone."""
    notes, start = out / _NOTES, {"fingerprint": work.fingerprint, "shard_size": shard_size}
    if not notes.exists():
        if any(out.glob("*.tar")):
            raise UserError(f"{out} holds .tar files of something else: give another --out")
        notes.write_text(json.dumps(start) + "\n", encoding="utf-8")
        (out / _ROWS).write_bytes(b"")
        return _Done()
    first, *lines = notes.read_text(encoding="utf-8").splitlines(keepends=True)
    if first != json.dumps(start) + "\n":
        raise UserError(
            f"{out} holds the beginning of another packing (another source or size, or the source has changed): remove "
            "it, or give another --out"
        )
    done, kept = _Done(), first
    for line in lines:
        shard = json.loads(line) if line.endswith("\n") else None  # the last one may be cut off
        if shard is None or (out / shard["name"]).stat().st_size != shard["bytes"]:
            break
        done.next = shard.pop("next")
        done.left_out += [Skipped(*pair) for pair in shard.pop("left_out")]
        done.shards.append(shard)
        kept += line
    write_atomically(notes, lambda temporary: temporary.write_text(kept, encoding="utf-8"))
    with (out / _ROWS).open("rb+") as rows:
        rows.truncate(sum(one["pictures"] for one in done.shards) * ROW.itemsize)
    return done


def _write_shards(out: Path, work: _Work, done: _Done, shard_size: int, bar: Any) -> None:
    pictures = work.pictures(done.next)
    with (out / _NOTES).open("a", encoding="utf-8") as notes, (out / _ROWS).open("ab") as rows:
        while done.next < work.count:
            with _Shard(out / _OPEN) as shard:
                left_out: list[Skipped] = []
                while done.next < work.count and (shard.size < shard_size or not shard.rows):
                    picture = next(pictures)
                    done.next += 1
                    bar.update()
                    if picture.reason:
                        left_out.append(Skipped(picture.name, picture.reason))
                    else:
                        shard.add(f"{done.next - 1:08d}", picture, labelled=bool(work.class_names))
                name = f"{_stem(out)}-{len(done.shards):06d}.tar"
                about = shard.finish(out / name)
            rows.write(np.array(shard.rows, ROW).tobytes())
            rows.flush()
            note = {**about, "next": done.next, "left_out": [(one.name, one.reason) for one in left_out]}
            notes.write(json.dumps(note) + "\n")
            notes.flush()
            done.shards.append(about)
            done.left_out += left_out


def _finish(out: Path, work: _Work, done: _Done) -> Packed:
    shards = [one for one in done.shards if one["pictures"]]
    for one in done.shards:
        if not one["pictures"]:  # the last one, if all of its pictures were left out
            (out / one["name"]).unlink(missing_ok=True)
    left_out = (*work.problems, *done.left_out)
    if not shards:
        (out / _NOTES).unlink()
        (out / _ROWS).unlink()
        raise UserError(nothing_left(work.title, left_out))
    pictures = sum(one["pictures"] for one in shards)

    def write_table(temporary: Path) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(ROW), "fortran_order": False, "shape": (pictures,)}
        with temporary.open("wb") as file, (out / _ROWS).open("rb") as rows:
            np.lib.format.write_array_header_1_0(file, header)
            while block := rows.read(2**20):
                file.write(block)

    write_atomically(out / TABLE, write_table)
    counts = np.bincount(np.load(out / TABLE, mmap_mode="r")["label"], minlength=len(work.class_names))
    index = {
        "sagan_shards": FORMAT,
        "source": Path(work.title).name,
        "pictures": pictures,
        "class_names": work.class_names,
        "class_counts": counts.tolist() if work.class_names else [],
        "table_sha256": sha256(out / TABLE),
        "left_out": [(one.name, one.reason) for one in left_out[:_MOST_LEFT_OUT]],
        "shards": shards,
    }
    write_atomically(out / INDEX, lambda temporary: temporary.write_text(json.dumps(index, indent=1), encoding="utf-8"))
    (out / _NOTES).unlink()
    (out / _ROWS).unlink()
    return Packed(out, len(shards), pictures, sum(one["bytes"] for one in shards), left_out)


class _Shard:
    """One tar file in the making."""

    def __init__(self, path: Path) -> None:
        self.path, self.size = path, 0
        self.rows: list[tuple[int, int, int, tuple[int, int]]] = []

    def __enter__(self) -> "_Shard":
        self._file = self.path.open("wb+")
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, key: str, picture: _Picture, *, labelled: bool) -> None:
        kind = next((kind for start, kind in _SIGNATURES.items() if picture.data.startswith(start)), "TIFF")
        offset = self._add(key + _ENDINGS[kind], picture.data)
        if labelled:
            self._add(f"{key}.cls", str(picture.label).encode())
        self.rows.append((offset, len(picture.data), picture.label, picture.sides))

    def finish(self, place: Path) -> dict[str, Any]:
        """Puts the shard in its place; what the index says of it."""
        self._tar.close()
        self._file.close()
        checksum, size = sha256(self.path), self.path.stat().st_size
        write_atomically(place, lambda temporary: self.path.rename(temporary))
        return {"name": place.name, "bytes": size, "pictures": len(self.rows), "sha256": checksum}

    def _add(self, name: str, data: bytes) -> int:
        """Adds a member; returns where its content begins."""
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(data), 0o644
        self._tar.addfile(member, io.BytesIO(data))
        self.size = self._tar.offset
        return self.size - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


def _stem(out: Path) -> str:
    """What shards are called: as their folder, in characters that any file system and URL takes."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in out.absolute().name) or "shards"
