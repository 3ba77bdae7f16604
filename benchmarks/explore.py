"""Measure the latency of a run's page: from the command to the first images, and of each action on the page.

    python benchmarks/explore.py runs/demo [--repeats 30] [--save explore]

Medians over HTTP on loopback, in milliseconds, without the time that the browser takes to draw.
"""

import json
import os
import statistics
import time
import urllib.request

from machine import Table, argument_parser
from pages import serve_page


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
    parser = argument_parser(__doc__, save=True)
    parser.add_argument("run")
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    start = time.perf_counter()
    with serve_page(options.run) as (_, base):
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
        notes = [f"Load {os.getloadavg()[0]:.1f}; {len(about['layers'])} layers with maps; medians."]
        table = Table("The latency of the page", ("action", "ms"), save=options.save, notes=notes)
        table.row("from the command to the page and its first images", f"{1000 * startup:.0f}")
        table.row("a new point's maps", f"{milliseconds(repeats, click):.1f}")
        five = milliseconds(repeats, lambda i: request(base, "api/look", {"image": sample(i), "choose": True}))
        table.row("another image, five points chosen, their maps", f"{five:.1f}")
        table.row("a step of the slider, with the maps of five points", f"{milliseconds(repeats, slide):.1f}")
        new_grid = milliseconds(repeats, lambda i: request(base, "api/grid", grid | {"seed": i + 1}))
        table.row(f"a new seed's grid of {images} images", f"{new_grid:.1f}")


if __name__ == "__main__":
    main()
