"""Measure how long a user waits: the page of a run in a real Chromium, at two widths.

    python benchmarks/explore_page.py runs/demo [--out FOLDER] [--save explore_page]

The table shows milliseconds from an event to the decoded images on the page. --out saves screenshots. Requires Debian's
packages chromium and chromium-driver. tests/explorer/test_page.py tests the page's behaviour.
"""

import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from helpers.chromium import Chromium
from machine import Table, argument_parser
from pages import serve_page

WIDTHS = ((1280, 900), (390, 844))
READY = "document.querySelector('#image')?.naturalWidth && document.querySelectorAll('#strip img').length"
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
    document.getElementById("image").dispatchEvent(
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
    const image = document.getElementById("image"), old = image.src, slider = document.getElementById("latent");
    slider.value = 4 * i;
    const start = performance.now();
    slider.dispatchEvent(new Event("input"));
    slides.push(await until(() => image.src !== old && image.complete) - start);
    await pause(50);
  }
  return [clicks, seeds, slides];
})()"""


def measure(table: Table, address: str, width: int, height: int, out: Path | None) -> None:
    with Chromium(width, height) as page:
        page.open(address)
        page.until(READY)
        times = page.run(TIMES)
        for name, values in zip(("click to maps", "seed to grid", "slider to image"), times, strict=True):
            table.row(width, name, f"{statistics.median(values):.0f}", f"{max(values):.0f}")
        if out:
            page.screenshot(out / f"explore-{width}.png")


def main() -> None:
    parser = argument_parser(__doc__, save=True)
    parser.add_argument("run")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    columns = ("page width, px", "from", "median, ms", "longest, ms")
    table = Table("How long a user of the page waits", columns, save=options.save)
    with serve_page(options.run) as (_, address):
        for width, height in WIDTHS:
            measure(table, address, width, height, options.out)


if __name__ == "__main__":
    main()
