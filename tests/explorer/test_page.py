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
def browser(request):
    with Chromium(*request.param) as browser:
        browser.width = request.param[0]
        yield browser


@pytest.fixture
def page(address, browser):
    """The page as it is when it was just opened."""
    browser.open("about:blank")  # the address alone would keep the page and change its state
    browser.open(address)
    browser.until(READY)
    browser.layers = len(browser.run("fetch('api/about').then((answer) => answer.json())")["layers"])
    yield browser
    # Whatever the test did: nothing left the server, no script failed, nothing stuck out of the window.
    assert [url for url in browser.requests() if not re.match(rf"{re.escape(address)}|data:|blob:|about:", url)] == []
    assert browser.errors() == []
    assert browser.run("document.documentElement.scrollWidth") <= browser.width


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


def test_a_click_shows_its_map_without_scrolling(page):
    page.click("#stage", 0.5, 0.5)
    page.until(f"{MAPS} === {page.layers}")
    assert page.run("document.querySelector('#maps img').getBoundingClientRect().bottom") <= page.run("innerHeight")
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


def test_every_control_has_a_name(page):
    page.click("#stage", 0.3, 0.3)
    page.until(f"{MAPS} === {page.layers}")
    page.until("document.querySelectorAll('#pair img').length === 3")
    page.run("document.getElementById('commands').open = true")
    assert page.nameless() == []
    page.click("#clear")
    page.until(f"{MAPS} === 0")


def test_gamma_changes_the_image_and_back_undoes_it(page):
    page.until("document.querySelectorAll('#pair img').length === 3")
    page.run("new Promise((done) => setTimeout(done, 500))")  # a change of its own in the history
    image, grid = page.run("document.querySelector('#image').src"), page.run("document.querySelector('#grid img').src")
    assert "grey levels of 255" in page.text("#effect-text")
    page.click("#gamma-off")
    page.until(f"document.querySelector('#image').src !== {image!r}")
    page.until(f"document.querySelector('#grid img').src !== {grid!r}")
    page.until("document.querySelector('#image').src === document.querySelector('#pair figure:nth-child(2) img').src")
    page.until("document.getElementById('gamma-effect').textContent.includes('grey levels')")
    page.until('decodeURIComponent(location.hash).includes(\'"gammas":{"generator/16.0":0}\')')
    page.run("history.back()")
    page.until(f"document.querySelector('#image').src === {image!r}")
    page.until(f"document.querySelector('#grid img').src === {grid!r}")
    assert page.run("document.getElementById('gamma-0').value") == "1"
    page.run("history.forward()")
    page.until(f"document.querySelector('#image').src !== {image!r}")
    page.click("#gamma-trained")
    page.until(f"document.querySelector('#image').src === {image!r}")


def test_back_undoes_a_point(page):
    page.run("new Promise((done) => setTimeout(done, 500))")
    page.click("#stage", 0.4, 0.6)
    page.until("decodeURIComponent(location.hash).includes('\"points\":[[')")
    page.run("history.back()")
    page.until(f"document.querySelectorAll('.point').length === 0 && {MAPS} === 0")


def test_images_are_enlarged_smoothly_by_choice(page):
    rendering = "getComputedStyle(document.getElementById('image')).imageRendering"
    assert page.run(rendering) == "pixelated"
    page.click("#smooth-image")
    assert page.run(rendering) == "auto"
    page.click("#smooth-image")


def test_maps_are_in_sight_of_a_click(address):
    """On a laptop's screen, the maps of two layers and their colour bar lie right of the image, without scrolling."""
    with Chromium(1366, 768) as page:
        page.open(address)
        page.until(READY)
        page.click("#five")
        page.until(f"{MAPS} === 15")
        page.run("scrollTo(0, 0)")
        box = "JSON.parse(JSON.stringify(document.querySelector({!r}).getBoundingClientRect()))"
        stage, bar, tiles = (
            page.run(box.format(name)) for name in ("#stage", "#bar", "#maps h3:nth-of-type(2) ~ .tiles")
        )
        for part in (bar, tiles):
            assert part["left"] > stage["right"]
            assert part["bottom"] <= 768


def test_a_phone_s_targets_are_large_enough(address):
    """44 px, and at least 24 px with room around them for markers and ticks (WCAG 2.2, 2.5.8)."""
    with Chromium(375, 812) as page:
        page.open(address)
        page.until(READY)
        page.click("#stage", 0.5, 0.5)
        page.until(f"{MAPS} > 0")
        page.run("document.getElementById('commands').open = true")
        heights = """Object.fromEntries([...document.querySelectorAll(
            "#options input, select, .tools button, input[type=range], .tick, .code button, summary"
          )].filter((e) => e.offsetParent).map((e, i) => [`${e.id || e.textContent} ${i}`, e.offsetHeight]))"""
        assert {name: height for name, height in page.run(heights).items() if height < 44} == {}
        assert page.run("document.querySelector('.point').offsetHeight") >= 32
        assert page.run("document.querySelector('.tick input').offsetHeight") >= 24
