"""The page under many clients: requests served, failures, latency, and the server's memory.

    python benchmarks/page_load.py [RUN] [--clients 50] [--seconds 120]

Starts `sagan explore` on RUN (default: a run of the demo's networks, untrained) and lets every client, a thread with a
connection of its own, ask for one thing after another as fast as it is answered: mostly grids and looks with maps, as
people's clicks do, and now and then a figure, an upload, a strip, the page itself, a wrong request, or a connection
that is dropped within a request. Memory is the resident set of the server's process, from /proc.
"""

import argparse
import base64
import http.client
import io
import json
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sagan.config import Config
from sagan.presets import PRESETS
from sagan.run import Run, RunInfo
from sagan.training.checkpoint import save_checkpoint
from sagan.training.step import Trainer

JSON, BYTES = "application/json", "application/octet-stream"


def make_run(path: Path) -> Path:
    config: Config = PRESETS["demo"]
    run = Run.create(path, RunInfo(config, tuple("abcde"), "key"))
    trainer = Trainer(config.model, config.training, torch.device("cpu"))
    labels = torch.arange(config.training.batch_size) % 5
    pictures = torch.zeros(len(labels), 3, config.model.resolution, config.model.resolution, dtype=torch.uint8)
    trainer.train_step(0, lambda number: (pictures, labels))
    save_checkpoint(run.checkpoint_path(1), trainer, 1)
    run.save_generator(trainer.ema.network, 1)
    return run.path


def photo(rng: random.Random) -> bytes:
    pixels = np.random.default_rng(rng.getrandbits(32)).integers(256, size=(900, 1200, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG")
    return file.getvalue()


class Client:
    """Asks until the time is over; keeps what came of it."""

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
            kind, path, body, expected = self.wish()
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

    def wish(self) -> tuple[str, str, bytes | None, int]:
        """Kind, path and body of the next request, and the status that it should get."""
        share, points = self.rng.random(), [[self.rng.uniform(0, self.side - 1) for _ in "xy"] for _ in range(3)]
        if share < 0.50:
            body = {"picture": self.sample(), "points": points}
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
            return "figure", "/api/figure", json.dumps({"picture": self.sample(), "points": points}).encode(), 200
        if share < 0.92:
            own = base64.b64encode(self.own()).decode()
            return "own", "/api/look", json.dumps({"picture": {"kind": "own", "png": own}}).encode(), 200
        if share < 0.96:
            return "page", "/", None, 200
        if share < 0.98:
            return "wrong", "/api/look", b'{"picture": {"kind": "sample", "seed": -1}}', 400
        return "dropped", "", None, 0

    def own(self) -> bytes:
        pixels = np.random.default_rng(self.rng.getrandbits(32)).integers(256, size=(self.side, self.side, 3))
        file = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(file, format="PNG")
        return file.getvalue()

    def drop(self) -> None:
        """A request of 10 MB of which one arrives."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            head = f"POST /api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {BYTES}\r\nContent-Length: 10000000"
            connection.sendall(head.encode() + b"\r\n\r\n" + bytes(1_000_000))


def ask_about(port: int) -> dict:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/api/about")
    return json.loads(connection.getresponse().read())


def memory(process: int) -> float:
    """The resident set of a process, MiB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def row(kind: str, seconds: list[float]) -> str:
    ordered = sorted(seconds)
    median, high = statistics.median(ordered), ordered[int(0.99 * (len(ordered) - 1))]
    return f"| {kind} | {len(ordered):,} | {median * 1000:.0f} | {high * 1000:.0f} | {ordered[-1] * 1000:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        run = options.run or make_run(Path(name) / "run")
        command = [sys.executable, "-m", "sagan", "explore", run, "--port", "0", "--open", "False", "--device", "cpu"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                measure(process, options.clients, options.seconds)
            finally:
                process.send_signal(signal.SIGINT)


def measure(process: subprocess.Popen, count: int, seconds: float) -> None:
    port = int(re.search(r"http://\S+?:(\d+)", process.stdout.readline())[1])
    about = ask_about(port)
    upload = photo(random.Random(0))
    clients = [Client(number, port, about, upload) for number in range(count)]
    first = memory(process.pid)
    begin = time.monotonic()
    threads = [threading.Thread(target=client.work, args=[begin + seconds]) for client in clients]
    for thread in threads:
        thread.start()
    grown = []
    while any(thread.is_alive() for thread in threads):
        time.sleep(min(1.0, seconds / 10))
        grown.append(memory(process.pid))
    took = time.monotonic() - begin
    ask_about(port)  # it answers still
    time.sleep(2)
    everything: dict[str, list[float]] = defaultdict(list)
    failures: Counter[str] = Counter()
    for client in clients:
        failures += client.failures
        for kind, found in client.seconds.items():
            everything[kind] += found
    served = sum(map(len, everything.values()))
    print(f"{count} clients for {took:.0f} s: {served:,} requests, {served / took:.0f} a second; ", end="")
    print(f"{failures.total()} failures {dict(failures) or ''}")
    middle = grown[len(grown) // 2]
    print(f"memory at the start {first:.0f} MiB, half way {middle:.0f}, largest {max(grown):.0f}, ", end="")
    print(f"at the end {memory(process.pid):.0f} MiB\n")
    print("| request | served | median, ms | 99 %, ms | longest, ms |\n|---|---|---|---|---|")
    print(row("all", [value for found in everything.values() for value in found]))
    for kind in sorted(everything):
        print(row(kind, everything[kind]))


if __name__ == "__main__":
    main()
