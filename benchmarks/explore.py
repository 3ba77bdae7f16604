"""Measure the latency of a run's page: from the command to the first images, and of each action on the page.

    python benchmarks/explore.py runs/demo [--repeats 30]

Medians over HTTP on loopback, in milliseconds, without the time that the browser takes to draw.
"""

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
import urllib.request


def request(base: str, path: str, body: dict | None = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    http_request = urllib.request.Request(f"{base}/{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(http_request) as response:
        return response.read()


def milliseconds(repeats: int, task) -> float:
    times = []
    for i in range(repeats):
        start = time.perf_counter()
        task(i)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    start = time.perf_counter()
    command = [sys.executable, "-m", "sagan", "explore", options.run, "--port", "0", "--open", "False"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            base = re.search(r"http://\S+:\d+", process.stdout.readline())[0]
            about = json.loads(request(base, "api/about"))
            labels = list(range(min(8, len(about["classes"]))))
            grid = {"labels": labels, "count": 6 if labels else 24, "seed": 0}
            request(base, "")
            images = len(json.loads(request(base, "api/grid", grid))["images"])
            startup = time.perf_counter() - start

            def sample(i: int) -> dict:
                return {"kind": "sample", "seed": 1000 + i, "index": i}

            def click(i: int) -> None:
                points = [[(7 * j + i) % about["resolution"], i % about["resolution"]] for j in range(5)]
                request(base, "api/look", {"image": sample(0), "points": points, "only": [4]})

            def slide(i: int) -> None:
                walk = {"kind": "walk", "start": sample(0), "end": sample(1), "latent": (i + 1) / 100, "label": 0}
                request(base, "api/look", {"image": walk, "points": [[j, j] for j in range(5)]})

            click(0)
            repeats = options.repeats
            print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {len(about['layers'])} layers with maps")
            print(f"from the command to the page and its first images    {startup:8.2f} s")
            print(f"a new point's maps                                   {milliseconds(repeats, click):8.1f} ms")
            five = milliseconds(repeats, lambda i: request(base, "api/look", {"image": sample(i), "choose": True}))
            print(f"another image, five points chosen, their maps        {five:8.1f} ms")
            print(f"a step of the slider, with the maps of five points   {milliseconds(repeats, slide):8.1f} ms")
            new_grid = milliseconds(repeats, lambda i: request(base, "api/grid", grid | {"seed": i + 1}))
            print(f"a new seed's grid of {images:3} images                       {new_grid:8.1f} ms")
        finally:
            process.send_signal(signal.SIGINT)


if __name__ == "__main__":
    main()
