"""Drives the page of a run in a real Chromium, at two widths, and says how long a person waits for what.

    python benchmarks/explore_page.py runs/demo [--out FOLDER]

Opens, clicks points and reads their maps back from the page, goes the same way with keys alone, interpolates, gives
files (good ones and bad ones), and checks that no request leaves the server. Times are in milliseconds, from the event
to the picture that is decoded on the page. --out keeps screenshots. Any failure ends it with a traceback.
"""

import argparse
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from chromium import Chromium

WIDTHS = ((1280, 900), (390, 844))

MAPS = "document.querySelectorAll('#maps img').length"
READY = "document.querySelector('#picture')?.naturalWidth && document.querySelectorAll('#strip img').length"
TIMES = """(async () => {
  const until = (test) => new Promise((done) => {
    const go = () => (test() ? done(performance.now()) : requestAnimationFrame(go));
    go();
  });
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  const all = (selector) => [...document.querySelectorAll(selector)];
  const loaded = (images) => images.length && images.every((image) => image.complete && image.naturalWidth);
  const clicks = [], seeds = [], slides = [];
  for (let i = 0; i < 24; i++) {
    if (i % 4 === 0) {
      document.getElementById("clear").click();
      await until(() => !all("#maps figure").length);
      await pause(50);
    }
    const before = all("#maps figure").length, box = document.getElementById("stage").getBoundingClientRect();
    const [x, y] = [0.2 + 0.2 * (i % 4), 0.1 + 0.03 * i];
    const at = { clientX: box.left + box.width * x, clientY: box.top + box.height * y, pointerId: 1 };
    const start = performance.now();
    document.getElementById("picture").dispatchEvent(
      new PointerEvent("pointerdown", { pointerType: "mouse", button: 0, bubbles: true, ...at }));
    clicks.push(await until(() => all("#maps figure").length > before && loaded(all("#maps img"))) - start);
    await pause(50);
  }
  for (let i = 0; i < 15; i++) {
    const old = document.querySelector("#grid img"), start = performance.now();
    document.getElementById("another").click();
    seeds.push(await until(() => document.querySelector("#grid img") !== old && loaded(all("#grid img"))) - start);
    await pause(300);
  }
  for (let i = 1; i <= 20; i++) {
    const image = document.getElementById("picture"), old = image.src, slider = document.getElementById("latent");
    slider.value = 4 * i;
    const start = performance.now();
    slider.dispatchEvent(new Event("input"));
    slides.push(await until(() => image.src !== old && image.complete) - start);
    await pause(50);
  }
  return [clicks, seeds, slides];
})()"""


def drive(base: str, width: int, height: int, out: Path | None) -> None:
    with Chromium(width, height) as page, tempfile.TemporaryDirectory() as folder:

        def keep(name: str) -> None:
            if out:
                page.screenshot(out / f"{name}-{width}.png")

        page.open(base)
        page.until(READY)
        assert page.run("document.documentElement.scrollWidth") <= width, "the page is wider than its window"

        page.click("#stage", 0.5, 0.5)
        page.click("#stage", 0.1, 0.1)
        layers = len(page.run("fetch('api/about').then((answer) => answer.json())")["layers"])
        page.until(f"{MAPS} === {2 * layers}")
        assert page.run("new Set([...document.querySelectorAll('#maps img')].map((image) => image.src)).size") > layers
        assert "×" in page.text("#maps figcaption")
        keep("points")
        first = "document.querySelector('#maps img').src"
        page.click("#maps button")
        page.until(f"document.querySelector('#picture').src === {first}")
        page.press("Escape")
        page.until(f"document.querySelector('#picture').src !== {first}")
        page.click("#clear")
        page.until(f"{MAPS} === 0")

        page.run("document.querySelector('#grid button').focus()")  # from here on with keys alone
        page.press("ArrowRight", "ArrowRight", "Enter")
        page.until("document.activeElement.id === 'stage'")
        page.press("ArrowUp", "Enter", "ArrowLeft", "ArrowLeft", "ArrowLeft", "Enter")
        page.until(f"{MAPS} === {2 * layers}")
        page.press("Tab")
        before = page.run(first)
        page.press(*["ArrowDown"] * 5)
        page.until(f"{first} !== {before!r}")
        page.press("Delete")
        page.until(f"{MAPS} === {layers}")
        page.press("Escape")
        page.until("document.getElementById('grid').contains(document.activeElement)")

        page.run("document.getElementById('latent').focus()")
        page.press(*["ArrowRight"] * 30)
        page.until("document.getElementById('title').textContent.startsWith('Between')")
        page.until("decodeURIComponent(location.hash).includes('\"latent\":0.3')")
        keep("walk")

        files = Path(folder)
        Image.fromarray(np.random.default_rng(0).integers(256, size=(50, 70, 3), dtype=np.uint8)).save(
            files / "mine.png"
        )
        (files / "text.png").write_bytes(b"no picture")
        (files / "cut.png").write_bytes((files / "mine.png").read_bytes()[:500])
        (files / "large.png").write_bytes(bytes(21_000_000))
        (files / "settings.json").write_text("{}")
        page.give("#file", files / "mine.png")
        page.until("document.getElementById('title').textContent === 'mine.png, 70 × 50 px'")
        keep("own")
        for name, words in (
            ("text.png", "text.png: the picture cannot be used: not a picture"),
            ("cut.png", "truncated or damaged"),
            ("large.png", "21 MB is too large; 20 MB at most"),
            ("settings.json", "not a settings file of this page"),
        ):
            page.give("#file", files / name)
            page.until(f"document.querySelector('#error p').textContent.includes({words!r})")
        assert page.run("document.documentElement.scrollWidth") <= width
        keep("error")

        page.click("#grid button")
        page.until("!document.getElementById('title').textContent.startsWith('mine')")
        times = page.run(TIMES)
        for name, found in zip(("click to maps", "seed to grid", "slider to picture"), times, strict=True):
            print(f"{width:5} px  {name:18} median {statistics.median(found):4.0f} ms, longest {max(found):4.0f} ms")
        outside = [url for url in page.requests if not re.match(rf"{re.escape(base)}|data:|blob:|about:", url)]
        assert not outside, f"requests that leave the server: {outside}"
        assert not page.errors, page.errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "sagan", "explore", options.run, "--port", "0", "--open", "False"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            base = re.search(r"http://\S+:\d+", process.stdout.readline())[0]
            for width, height in WIDTHS:
                drive(base, width, height, options.out)
        finally:
            process.send_signal(signal.SIGINT)


if __name__ == "__main__":
    main()
