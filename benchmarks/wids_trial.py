"""Try wids, the indexed reader of WebDataset's shards, on what the tests of sagan.data.shards hold.

    pip install wids==0.1.11
    python benchmarks/wids_trial.py [--save wids_trial]

Every case runs in a process of its own, for at most ten seconds, and says what wids did. wids would have replaced
`data/shards` if every case held.
"""

import multiprocessing
import os
import pickle
import random
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path

from wids.wids import IndexedTarSamples, ShardListDataset, ShardListSampler

from machine import Table, argument_parser

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from helpers.shards import add, serve, write_shards

LIMIT = 10  # seconds of a case
IMAGE = b"x" * 600
HOLDS = "holds"


def dataset(folder: Path, urls: list[str], count: int, **options: object) -> ShardListDataset:
    """Open shards of `count` samples each, as bytes."""
    shards = [{"url": url, "nsamples": count} for url in urls]
    return ShardListDataset(shards, cache_dir=str(folder / "cache"), transformations=[dict], **options)


def made(folder: Path) -> list[str]:
    """Write 90 images of 600 bytes in three shards."""
    return [str(path) for path in write_shards(folder / "made", [IMAGE] * 90, 30, labels=[0] * 90)]


def images(path: Path) -> list[int]:
    """Return the sizes of the images that wids finds in a tar file."""
    samples = IndexedTarSamples(path=str(path))
    return [len(samples[i][".png"].read()) for i in range(len(samples)) if ".png" in samples[i]]


def order(folder: Path) -> str:
    data = dataset(folder, made(folder), 30)
    first, again = list(ShardListSampler(data, seed=1)), list(ShardListSampler(data, seed=1))
    return HOLDS if first == again and sorted(first) == list(range(90)) else "the order changes"


def batch_mixes_shards(folder: Path) -> str:
    data = dataset(folder, made(folder), 30)
    batch = list(ShardListSampler(data, seed=1, shufflefirst=True))[:16]
    shards = {i // 30 for i in batch}
    return HOLDS if len(shards) > 1 else "all images of a batch come from one shard"


def resume(folder: Path) -> str:
    data = dataset(folder, made(folder), 30)
    before, after = ShardListSampler(data, seed=1), ShardListSampler(data, seed=1)
    _, second = list(before), list(before)
    after.epoch = 1
    return HOLDS if list(after)[40:] == second[40:] else "the order changes"


def ranges(folder: Path) -> str:
    made(folder)
    with serve(folder) as (url, server):
        data = dataset(folder, [f"{url}/made/set-{i:06d}.tar" for i in range(3)], 30, lru_size=1)
        for i in range(0, 90, 30):
            data[i]
        kept = sum(path.stat().st_size for path in (folder / "cache").iterdir())
        asked = [part for _, part in server.requests if part]
    there = sum(path.stat().st_size for path in (folder / "made").iterdir())
    if asked:
        return HOLDS
    return f"no range is requested: for 3 images, {kept:,} of {there:,} bytes are on the disk, and stay there"


def refused_once(folder: Path) -> str:
    made(folder)
    with serve(folder) as (url, server):
        data = dataset(folder, [f"{url}/made/set-000000.tar"], 30)
        once = [True]
        server.refuses = lambda path: bool(once and once.pop())
        answers = []
        for _ in range(3):
            try:
                data[0]
                answers.append("read")
            except Exception as error:
                answers.append(type(error).__name__)
    return HOLDS if answers[-1] == "read" else f"one answer 503, then a healthy server: {', '.join(answers)}"


def lost_connection(folder: Path) -> str:
    """The connection ends once in the middle of the shard."""
    whole = Path(made(folder)[0]).read_bytes()
    lengths = [len(whole), len(whole) // 2 // 512 * 512]  # sent from the last to the first

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(whole)))
            self.end_headers()
            self.wfile.write(whole[: lengths.pop()])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    data = dataset(folder, [f"http://127.0.0.1:{server.server_port}/x.tar"], 30)
    found, errors = 0, []
    for i in range(30):
        try:
            found += len(data[i][".png"].read()) == len(IMAGE)
        except Exception as error:
            errors.append(type(error).__name__)
    counts = ", ".join(f"{errors.count(name)} {name}" for name in dict.fromkeys(errors))
    return HOLDS if found == 30 else f"{found} of 30 images ({counts}): half a file stays in the cache"


def damaged(folder: Path) -> str:
    path = Path(made(folder)[0])
    data = bytearray(path.read_bytes())
    data[7168 : 7168 + 512] = random.Random(0).randbytes(512)  # the header of the third image
    path.write_bytes(data)
    found = len(images(path))
    return HOLDS if found == 2 else f"{found} images in place of 2"


def truncated(folder: Path) -> str:
    path = Path(made(folder)[0])
    path.write_bytes(path.read_bytes()[: 512 + 100])
    sizes = images(path)
    return f"an image of {sizes[0]} bytes in place of 600, without a word" if sizes and sizes[0] < 600 else HOLDS


def endless(folder: Path) -> str:
    """A header whose size is negative leads back to one before it."""
    path = folder / "back.tar"
    member = tarfile.TarInfo("1.png")
    member.size = 512
    header = bytearray(member.tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = b"-0000003000\0"
    path.write_bytes(member.tobuf(tarfile.USTAR_FORMAT) + bytes(512) + bytes(header) + bytes(1024))
    return HOLDS if images(path) else "no image"


def long_names(folder: Path) -> str:
    path = folder / "long.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for i in range(5):
            add(tar, f"{'a' * 120}{i}.png", IMAGE)
    found = len(images(path))
    return HOLDS if found == 5 else f"{found} of 5 images, names of 125 characters"


def equal_names(folder: Path) -> str:
    path = folder / "same.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in (("a.png", b"1" * 10), ("b.png", b"2" * 20), ("a.png", b"3" * 30), ("c.png", b"4" * 40)):
            add(tar, name, data)
    samples = IndexedTarSamples(path=str(path))
    found = {samples[i]["__key__"]: len(samples[i][".png"].read()) for i in range(len(samples))}
    return HOLDS if found.get("c") == 40 else f"a name that occurs twice: sizes {found}, of 10, 20, 30 and 40"


def apart(folder: Path) -> str:
    path = folder / "apart.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in (("a.png", IMAGE), ("b.png", IMAGE), ("a.cls", b"1"), ("b.cls", b"2")):
            add(tar, name, data)
    samples = IndexedTarSamples(path=str(path))
    keys = [sorted(key for key in samples[i] if key[0] == ".") for i in range(len(samples))]
    return HOLDS if [".cls", ".png"] in keys else f"{len(samples)} samples in place of 2"


class Hostile:
    """A pickle that creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.mkdir, (str(self.path),)


def pickled(folder: Path) -> str:
    path = folder / "hostile.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        add(tar, "a.pkl", pickle.dumps(Hostile(folder / "ran")))
    data = ShardListDataset([{"url": str(path), "nsamples": 1}], cache_dir=str(folder / "cache"))
    data[0]
    return "a .pkl of the shard runs its code (the default decoder)" if (folder / "ran").exists() else HOLDS


def shell(folder: Path) -> str:
    url = f"http://127.0.0.1:1/'; mkdir '{folder}/ran'; echo '/x.tar"
    with suppress(Exception):
        dataset(folder, [url], 1)[0]
    return "a quote in a URL runs a shell command" if (folder / "ran").exists() else HOLDS


def braces(folder: Path) -> str:
    made(folder)
    try:
        data = ShardListDataset(f"{folder}/made/set-{{000000..000002}}.tar", cache_dir=str(folder / "cache"))
    except Exception as error:
        return f"a pattern is no source ({type(error).__name__}): an index with the count of every shard is needed"
    return HOLDS if len(data) == 90 else f"{len(data)} of 90 images"


def lying_count(folder: Path) -> str:
    data = dataset(folder, made(folder), 31)
    try:
        data[30]
    except Exception as error:
        return f"an index that counts one image too many: {type(error).__name__} when that image is drawn"
    return HOLDS


CASES = {
    "the order of an epoch is fixed by its seed": order,
    "a run continues in the middle of an epoch": resume,
    "a batch mixes shards": batch_mixes_shards,
    "parts of a shard are read (HTTP ranges)": ranges,
    "a server that fails once": refused_once,
    "a connection lost in the middle of a shard": lost_connection,
    "a damaged header": damaged,
    "a truncated shard": truncated,
    "a header that points back": endless,
    "names longer than 100 characters": long_names,
    "a name twice": equal_names,
    "image and class that are not adjacent": apart,
    "a pickle in a sample": pickled,
    "a hostile URL": shell,
    "a pattern with braces": braces,
    "an index that lies": lying_count,
}


def attempt(case: Callable[[Path], str]) -> str:
    """Run a case in a process of its own, and return what happened."""

    def run(folder: str) -> None:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            try:
                answer = case(Path(folder))
            except BaseException as error:
                answer = f"{type(error).__name__}: {str(error)[:80]}"
        sender.send(answer)

    receiver, sender = multiprocessing.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        process = multiprocessing.get_context("fork").Process(target=run, args=(folder,))
        process.start()
        answer = receiver.recv() if receiver.poll(LIMIT) else f"does not end within {LIMIT} s"
        process.kill()
        process.join()
    return answer


def main() -> None:
    options = argument_parser(__doc__, save=True).parse_args()
    version = metadata.version("wids")
    table = Table(f"wids {version} on the cases of sagan.data.shards", ["case", "wids"], save=options.save)
    for name, case in CASES.items():
        table.row(name, attempt(case))


if __name__ == "__main__":
    main()
