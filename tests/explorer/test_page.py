"""The page in a real browser, by mouse and by keys, in a wide window and in a narrow one."""

import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("selenium")
pytest.importorskip("starlette")

from helpers.chromium import BROWSER, DRIVER, Chromium

pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="no browser here: apt-get install chromium chromium-driver"
)

MAPS = "document.querySelectorAll('#maps img').length"
READY = "document.querySelector('#image')?.naturalWidth && document.querySelectorAll('#strip img').length"
FIRST_MAP = "document.querySelector('#maps img').src"
TITLE = "document.getElementById('title').textContent"


@pytest.fixture(scope="module")
def address(run):
    """`sagan explore` on a free port."""
    command = [sys.executable, "-m", "sagan", "explore", str(run), "--port", "0", "--open", "False"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield re.search(r"http://\S+:\d+", process.stdout.readline())[0]
        process.send_signal(signal.SIGINT)


@pytest.fixture(scope="module", params=[(1280, 900), (390, 844)], ids=lambda size: f"{size[0]} px")
def page(address, request):
    width, height = request.param
    with Chromium(width, height) as page:
        page.open(address)
        page.until(READY)
        page.layers = len(page.run("fetch('api/about').then((answer) => answer.json())")["layers"])
        yield page
        # Whatever the tests did: nothing left the server, no script failed, nothing stuck out of the window.
        assert [url for url in page.requests() if not re.match(rf"{re.escape(address)}|data:|blob:|about:", url)] == []
        assert page.errors() == []
        assert page.run("document.documentElement.scrollWidth") <= width


def test_clicked_points_show_their_maps_in_every_layer(page):
    page.click("#stage", 0.5, 0.5)
    page.click("#stage", 0.1, 0.1)
    page.until(f"{MAPS} === {2 * page.layers}")
    assert page.run("new Set([...document.querySelectorAll('#maps img')].map((image) => image.src)).size") > page.layers
    assert "×" in page.text("#maps figcaption")
    page.click("#maps button")  # enlarged
    page.until(f"document.querySelector('#image').src === {FIRST_MAP}")
    page.press("Escape")
    page.until(f"document.querySelector('#image').src !== {FIRST_MAP}")
    page.click("#clear")
    page.until(f"{MAPS} === 0")


def test_keys_alone_do(page):
    page.run("document.querySelector('#grid button').focus()")
    page.press("ArrowRight", "ArrowRight", "Enter")
    page.until("document.activeElement.id === 'stage'")
    page.press("ArrowUp", "Enter", "ArrowLeft", "ArrowLeft", "ArrowLeft", "Enter")
    page.until(f"{MAPS} === {2 * page.layers}")
    page.press("Tab")
    before = page.run(FIRST_MAP)
    page.press(*["ArrowDown"] * 5)
    page.until(f"{FIRST_MAP} !== {before!r}")
    page.press("Delete")
    page.until(f"{MAPS} === {page.layers}")
    page.press("Escape")
    page.until("document.getElementById('grid').contains(document.activeElement)")


def test_another_seed_draws_other_images(page):
    before = page.run("document.querySelector('#grid img').src")
    page.click("#another")
    page.until(f"document.querySelector('#grid img').src !== {before!r}")


def test_the_slider_leads_from_one_image_to_another(page):
    before = page.run("document.querySelector('#image').src")
    page.run("document.getElementById('latent').focus()")
    page.press(*["ArrowRight"] * 30)
    page.until("decodeURIComponent(location.hash).includes('\"latent\":0.3')")
    page.until(f"document.querySelector('#image').src !== {before!r}")


def test_an_image_of_one_s_own_and_files_that_are_none(page, tmp_path):
    noise = np.random.default_rng(0).integers(256, size=(50, 70, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "mine.png")
    (tmp_path / "text.png").write_bytes(b"no image")
    (tmp_path / "cut.png").write_bytes((tmp_path / "mine.png").read_bytes()[:500])
    (tmp_path / "large.png").write_bytes(bytes(21_000_000))
    (tmp_path / "settings.json").write_text("{}")
    page.give("#file", tmp_path / "mine.png")
    page.until(f"{TITLE} === 'mine.png, 70 × 50 px'")
    for name, words in (
        ("text.png", "text.png"),
        ("cut.png", "damaged"),
        ("large.png", "20 MB"),
        ("settings.json", "settings file"),
    ):
        page.give("#file", tmp_path / name)
        page.until(f"document.querySelector('#error p').textContent.includes({words!r})")
    page.click("#grid button")
    page.until(f"!{TITLE}.startsWith('mine')")
