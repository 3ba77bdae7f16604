"""The page in one file: its bytes against attention_maps, and the page itself in a browser without a server."""

import base64
import io
import json
import re
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.runs import make_run
from sagan import attention_maps, draw_latents, load, observe_attention
from sagan.attention_effect import attention_effect
from sagan.explorer import saved_page

HOSTILE = (
    "</script><script>document.title='taken'</script>",
    '"><img src=x onerror=document.title=1>',
    "</script a & b <!--",
)


class Elements(HTMLParser):
    """Elements with their attributes and text, as a browser would find them."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes), []))

    def handle_data(self, data):
        if self.found:
            self.found[-1][2].append(data)


def write(command, run, out):
    status, output, errors = command("explore", run, "--save", out)
    assert (status, errors) == (0, "")
    return output, Elements(out.read_text(encoding="utf-8")).found


def texts(elements, identifier):
    (found,) = ("".join(text) for _, attributes, text in elements if attributes.get("id") == identifier)
    return found


def test_it_has_every_row_of_every_map_and_the_image_without_attention(command, tmp_path):
    run = make_run(tmp_path / "run", generator_attention=((8, "self"), (16, "self"))).path
    out = tmp_path / "page.html"
    output, elements = write(command, run, out)
    assert output == f"{out}: 24 images with their maps, {out.stat().st_size / 1e6:.1f} MB, in one file\n"
    data = json.loads(texts(elements, "data"))
    generator, z, y = load(run), draw_latents(24, 8, seed=0), torch.arange(3).repeat_interleave(8)
    effect = attention_effect(generator, z, y)
    assert [image["name"].partition(",")[0] for image in data["images"]] == [
        n for n in ("cats", "dogs", "white mice") for _ in range(8)
    ]
    for i in (0, 13, 23):
        for key, wanted in (("on", effect.on[i]), ("off", effect.off[i])):
            png = base64.b64decode(data["images"][i][key].removeprefix("data:image/png;base64,"))
            assert np.abs(np.asarray(Image.open(io.BytesIO(png))).astype(int) - wanted).max() <= 1
        assert data["images"][i]["size"] == str(effect.each[i])
        packed = zlib.decompress(base64.b64decode(texts(elements, f"maps-{i}")))
        maps = attention_maps(generator, z[i : i + 1], y[i : i + 1], queries="all")
        shares = observe_attention(generator, z[i : i + 1], y[i : i + 1]).shares("all")
        assert list(maps) == [layer["name"] for layer in data["layers"]]
        for layer in data["layers"]:
            queries, keys = layer["grid"] ** 2, layer["keys"] ** 2
            peaks, share = (np.frombuffer(packed[4 * queries * j : 4 * queries * (j + 1)], "<f4") for j in (0, 1))
            rows = np.frombuffer(packed[8 * queries : queries * (8 + keys)], np.uint8).reshape(queries, keys)
            packed = packed[queries * (8 + keys) :]
            wanted = maps[layer["name"]][0].flatten(1).numpy() * keys
            assert np.allclose(peaks, wanted.max(1), rtol=1e-4)
            assert np.allclose(share, shares[layer["name"]][0], rtol=1e-4)
            assert np.abs(np.sqrt(wanted / peaks[:, None]) - rows / 255).max() < 0.6 / 255
        assert packed == b""


def test_hostile_names_stay_text_and_nothing_is_loaded(command, tmp_path):
    run = make_run(tmp_path / "run <b>&", HOSTILE).path
    _, elements = write(command, run, tmp_path / "page.html")
    assert [tag for tag, *_ in elements].count("script") == 24 + 2
    assert not any(name.startswith("on") for _, attributes, _ in elements for name in attributes)
    names = [image["name"] for image in json.loads(texts(elements, "data"))["images"]]
    assert {name.rpartition(", seed")[0] for name in names} == {*HOSTILE}
    (title,) = ("".join(text) for tag, _, text in elements if tag == "h1")
    assert "run <b>&" in title
    (policy,) = (a["content"] for tag, a, _ in elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert re.findall(r"https?://", page) == []


def test_fewer_images_where_maps_are_large_and_other_runs(command, tmp_path, monkeypatch):
    run = make_run(tmp_path / "grey", (), image_channels=1).path
    output, elements = write(command, run / "generator.safetensors", tmp_path / "deep" / "a.html")
    assert "24 images" in output
    monkeypatch.setattr(saved_page, "MAX_MAP_BYTES", 2 * 16**2 * (8**2 + 8))
    output, elements = write(command, run, tmp_path / "a.html")
    assert "2 images" in output
    assert len(json.loads(texts(elements, "data"))["images"]) == 2
    many = make_run(tmp_path / "many", [f"class {i}" for i in range(30)], image_channels=4).path
    output, elements = write(command, many, tmp_path / "many.html")
    assert [i["name"].partition(",")[0] for i in json.loads(texts(elements, "data"))["images"]] == [
        "class 0",
        "class 1",
    ]


def test_a_page_that_cannot_be_written_leaves_the_old_one(command, tmp_path):
    run = make_run(tmp_path / "run", (), generator_attention=((8, "channel"),)).path
    old = tmp_path / "old.html"
    old.write_text("old")
    for arguments, message in (
        ((run, "--save", old), r"no self-attention layer\b.*8\.0"),
        ((tmp_path / "none", "--save", old), r"none\b.*\brun\b"),
        ((run, "--save", tmp_path / "x.pdf"), r"\.html\b.*x\.pdf"),
    ):
        status, output, errors = command("explore", *arguments)
        assert (status, output, errors.count("\n")) == (2, "", 1)
        assert re.search(message, errors)
    assert old.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["old.html", "run"]


@pytest.mark.parametrize("names", [("cats", "dogs"), HOSTILE])
def test_in_a_browser_from_the_file(command, tmp_path, names):
    pytest.importorskip("selenium")
    from helpers.chromium import BROWSER, DRIVER, Chromium

    if not (BROWSER and DRIVER):
        pytest.skip("no browser here: apt-get install chromium chromium-driver")
    run = make_run(tmp_path / "run", names, generator_attention=((8, "self"), (16, "self"))).path
    write(command, run, tmp_path / "page.html")
    with Chromium(1366, 768) as page:
        page.open((tmp_path / "page.html").as_uri())
        canvases = "document.querySelectorAll('#maps canvas').length"
        page.until(f"{canvases} === 2")
        title = page.run("document.title")
        page.click("#stage", 0.7, 0.2)
        page.until(f"{canvases} === 4")
        image = page.run("document.querySelector('#image').src")
        page.click("[value=off]")
        page.until(f"document.querySelector('#image').src !== {image!r}")
        assert "grey levels of 255" in page.text("#effect")
        page.click("#grid button:nth-child(24)")
        page.until(f"document.getElementById('title').textContent.startsWith({json.dumps(names[-1])})")

        # The pixels of a map, against the map itself: the brightest key is the peak.
        page.click("#clear")
        page.until(f"{canvases} === 0")
        page.click("#stage", 0.51, 0.51)
        page.until(f"{canvases} === 2")
        pixels = page.run("""[...document.querySelectorAll('#maps canvas')].map((canvas) =>
            [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data])""")
        classes = len(names)
        z, y = draw_latents(24, 8, seed=0)[23:], torch.tensor([classes - 1])
        maps = attention_maps(load(run), z, y, queries=[(16, 16)])
        for drawn, (name, wanted) in zip(pixels, maps.items(), strict=True):
            side = int(name.partition(".")[0]) // 2
            green = np.array(drawn).reshape(side, side, 4)[..., 1]
            assert green.argmax() == wanted[0, 0].argmax() or green.max() == green.flatten()[wanted[0, 0].argmax()]
            assert green.argmin() == wanted[0, 0].argmin() or green.min() == green.flatten()[wanted[0, 0].argmin()]
        assert page.nameless() == []
        assert page.run("document.documentElement.scrollWidth") <= 1366
        assert page.run("document.title") == title
        assert [url for url in page.requests() if not url.startswith(("data:", "file:", "blob:"))] == []
        assert page.errors() == []


def test_on_a_phone_a_click_shows_its_map_without_scrolling(command, tmp_path):
    pytest.importorskip("selenium")
    from helpers.chromium import BROWSER, DRIVER, Chromium

    if not (BROWSER and DRIVER):
        pytest.skip("no browser here: apt-get install chromium chromium-driver")
    run = make_run(tmp_path / "run", generator_attention=((16, "self"),)).path
    write(command, run, tmp_path / "page.html")
    with Chromium(375, 812) as page:
        page.open((tmp_path / "page.html").as_uri())
        page.click("#stage", 0.7, 0.2)
        page.until("document.querySelectorAll('#maps canvas').length === 2")
        place = "document.querySelector('#maps canvas').getBoundingClientRect()"
        assert 0 < page.run(f"{place}.bottom") <= 812
        assert page.run("document.documentElement.scrollWidth") <= 375
