"""Measure the page under many clients: requests served, failures, latency, and the server's memory.

    python benchmarks/page_load.py [RUN] [--clients 50] [--seconds 120] [--save page_load]

`sagan explore` serves RUN (default: a run of the demo's networks, untrained). Every client, a thread with its own
connection, sends its next request as soon as the last is answered: mostly grids and looks with maps, as clicks do, and
sometimes a figure, an upload, a strip, the page itself, a wrong request, or a connection that is dropped within a
request. Memory is the resident set of the server's process, from /proc.
"""

import base64
import http.client
import io
import json
import random
import re
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from machine import Table, argument_parser
from pages import serve_page
from sagan.config import Config
from sagan.presets import PRESETS
from sagan.run import Run, RunInfo
from sagan.training.checkpoint import take_snapshot, write_checkpoint
from sagan.training.step import Trainer

JSON, BYTES = "application/json", "application/octet-stream"


def make_run(path: Path) -> Path:
    config: Config = PRESETS["demo"]
    run = Run.create(path, RunInfo(config, tuple("abcde"), "key"))
    trainer = Trainer(config.model, config.training, torch.device("cpu"))
    labels = torch.arange(config.training.batch_size) % 5
    images = torch.zeros(len(labels), 3, config.model.resolution, config.model.resolution, dtype=torch.uint8)
    trainer.train_step(0, lambda number: (images, labels))
    write_checkpoint(run.checkpoint_path(1), take_snapshot(trainer, 1))
    run.save_generator(trainer.ema.network, 1)
    return run.path


def photo(rng: random.Random) -> bytes:
    pixels = np.random.default_rng(rng.getrandbits(32)).integers(256, size=(900, 1200, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG")
    return file.getvalue()


class Client:
    """Send requests until the time is over, and collect latencies and failures."""

    def __init__(self, number: int, port: int, about: dict, upload: bytes):
        self.rng, self.port, self.upload = random.Random(number), port, upload
        self.classes, self.side = len(about["classes"]), about["resolution"]
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.failures: Counter[str] = Counter()
        self.connection = self.connect()

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def work(self, until: float) -> None:
        while time.monotonic() < until:
            kind, path, body, expected = self.choose_request()
            begin = time.monotonic()
            try:
                if kind == "dropped":
                    self.drop()
                    continue
                headers = {"Content-Type": BYTES if kind == "upload" else JSON}
                self.connection.request("POST" if body else "GET", path, body, headers)
                answer = self.connection.getresponse()
                answer.read()
                if answer.status != expected:
                    self.failures[f"{kind}: status {answer.status}"] += 1
                    continue
            except (OSError, http.client.HTTPException) as error:
                self.failures[f"{kind}: {type(error).__name__}"] += 1
                self.connection.close()
                self.connection = self.connect()
                continue
            self.seconds[kind].append(time.monotonic() - begin)
        self.connection.close()

    def sample(self) -> dict:
        number = self.rng.randrange
        return {"kind": "sample", "seed": number(200), "index": number(8), "label": number(max(1, self.classes))}

    def choose_request(self) -> tuple[str, str, bytes | None, int]:
        """Return kind, path and body of the next request, and the status that it should get."""
        share, points = self.rng.random(), [[self.rng.uniform(0, self.side - 1) for _ in "xy"] for _ in range(3)]
        if share < 0.50:
            body = {"image": self.sample(), "points": points}
            return "look", "/api/look", json.dumps(body).encode(), 200
        if share < 0.80:
            body = {"labels": list(range(self.classes)), "count": 4, "seed": self.rng.randrange(2**32)}
            return "grid", "/api/grid", json.dumps(body).encode(), 200
        if share < 0.85:
            body = {"walk": {"kind": "walk", "start": self.sample(), "end": self.sample(), "latent": 0, "label": 0}}
            return "strip", "/api/strip", json.dumps(body | {"steps": 8}).encode(), 200
        if share < 0.88:
            return "upload", "/api/upload", self.upload, 200
        if share < 0.90:
            return "figure", "/api/figure", json.dumps({"image": self.sample(), "points": points}).encode(), 200
        if share < 0.92:
            own = base64.b64encode(self.own()).decode()
            return "own", "/api/look", json.dumps({"image": {"kind": "own", "png": own}}).encode(), 200
        if share < 0.96:
            return "page", "/", None, 200
        if share < 0.98:
            return "wrong", "/api/look", b'{"image": {"kind": "sample", "seed": -1}}', 400
        return "dropped", "", None, 0

    def own(self) -> bytes:
        pixels = np.random.default_rng(self.rng.getrandbits(32)).integers(256, size=(self.side, self.side, 3))
        file = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(file, format="PNG")
        return file.getvalue()

    def drop(self) -> None:
        """Start a request of 10 MB, and close the connection after 1 MB."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            head = f"POST /api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {BYTES}\r\nContent-Length: 10000000"
            connection.sendall(head.encode() + b"\r\n\r\n" + bytes(1_000_000))


def ask_about(port: int) -> dict:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/api/about")
    return json.loads(connection.getresponse().read())


def resident_mib(process: int) -> float:
    """Return the resident set of a process, MiB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def add_row(table: Table, kind: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    median, high = statistics.median(ordered), ordered[int(0.99 * (len(ordered) - 1))]
    table.row(kind, f"{len(ordered):,}", *(f"{1000 * s:.0f}" for s in (median, high, ordered[-1])))


def main() -> None:
    parser = argument_parser(__doc__, save=True)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        run = options.run or make_run(Path(name) / "run")
        columns = ("request", "served", "median, ms", "99 %, ms", "longest, ms")
        table = Table("The page under load", columns, save=options.save)
        with serve_page(run, "--device", "cpu") as (process, address):
            measure(table, process, int(address.rpartition(":")[2]), options.clients, options.seconds)


def measure(table: Table, process: subprocess.Popen, port: int, count: int, seconds: float) -> None:
    about = ask_about(port)
    upload = photo(random.Random(0))
    clients = [Client(number, port, about, upload) for number in range(count)]
    first = resident_mib(process.pid)
    begin = time.monotonic()
    threads = [threading.Thread(target=client.work, args=[begin + seconds]) for client in clients]
    for thread in threads:
        thread.start()
    sizes = []
    while any(thread.is_alive() for thread in threads):
        time.sleep(min(1.0, seconds / 10))
        sizes.append(resident_mib(process.pid))
    took = time.monotonic() - begin
    ask_about(port)  # the server still answers
    time.sleep(2)
    everything: dict[str, list[float]] = defaultdict(list)
    failures: Counter[str] = Counter()
    for client in clients:
        failures += client.failures
        for kind, latencies in client.seconds.items():
            everything[kind] += latencies
    served = sum(map(len, everything.values()))
    failed = f"{failures.total()} failures {dict(failures) or ''}".strip()
    table.note(f"{count} clients for {took:.0f} s: {served:,} requests, {served / took:.0f}/s; {failed}.")
    middle = sizes[len(sizes) // 2]
    last = resident_mib(process.pid)
    table.note(f"Memory, MiB: {first:.0f} first, {middle:.0f} half way, {max(sizes):.0f} at most, {last:.0f} last.")
    add_row(table, "all", [value for latencies in everything.values() for value in latencies])
    for kind in sorted(everything):
        add_row(table, kind, everything[kind])


if __name__ == "__main__":
    main()
