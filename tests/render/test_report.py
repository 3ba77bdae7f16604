"""sagan report: one file that says what the run is, needs nothing else and lets nothing from outside run."""

import base64
import io
import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image, ImageFile

from helpers.runs import make_run
from sagan import Generator
from sagan.cli import main
from sagan.figures.grid import animate, draw_grid, save
from sagan.run import Run

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> & \u202e {{ 7 * 7 }}"
VOID = {"meta", "img", "wbr"}


class Page(HTMLParser):
    """A page taken apart: its tags and their attributes, the text outside of style, and that tags are closed."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.text, self.style, self.open = [], "", "", []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["style"]:
            self.style += data
        else:
            self.text += data

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def read(path):
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    page.headings = re.findall(r"<h2>(.*?)</h2>", html)
    return page


def assert_self_contained(page):
    """Every address is a data URI, nothing can run, and nothing within the images points elsewhere."""
    known = {"html", "head", "meta", "title", "style", "body", "main", "header", "footer", "section", "figure"}
    known |= {"figcaption", "h1", "h2", "h3", "p", "dl", "dt", "dd", "div", "img", "video", "table", "tr", "th", "td"}
    known |= {"details", "summary", "code", "pre", "wbr"}
    assert {tag for tag, _ in page.tags} <= known
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") or name in ("href", "srcset", "style", "action") for name in attributes)
        if "src" in attributes:
            assert re.match(r"data:(image/(png|gif|svg\+xml)|video/mp4);base64,[A-Za-z0-9+/=]+$", attributes["src"]), (
                tag
            )
    assert "url(" not in page.style
    assert "@import" not in page.style
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; ")
    assert "http" not in policy
    for svg in embedded(page, "image/svg+xml"):
        for element in ElementTree.fromstring(svg).iter():
            assert not element.tag.endswith(("script", "image", "foreignObject"))
            assert all(value.startswith("#") for name, value in element.attrib.items() if name.endswith("href"))


def embedded(page, mime):
    found = (a["src"].partition(";base64,") for _, a in page.tags if "src" in a)
    return [base64.b64decode(data) for head, _, data in found if head == f"data:{mime}"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run on noise, of which each test takes a copy."""
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        for i in range(8):
            save(
                Image.fromarray(rng.integers(256, size=(32, 32, 3), dtype=np.uint8)),
                folder / "data" / name / f"{i}.png",
            )
    options = "--resolution 32 --base-channels 4 --latent-dim 8 --batch-size 4 --precision fp32 --device cpu --steps 6"
    rhythm = "--log-every 2 --sample-every 3 --evaluate-every 0"
    places = ["--data", str(folder / "data"), "--cache", str(folder / "cache"), "--out", str(folder / "run")]
    assert main(["train", *options.split(), *rhythm.split(), *places]) == 0
    return folder / "run"


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    return Run(tmp_path / "run")


EVALUATION = {
    "generated": {"path": "/home/me/run", "step": 6, "pictures": 2000, "truncation": None, "checksum": "abc"},
    "reference": {"source": "robots", "pictures": 3000},
    "features": {"network": "EfficientNet-Lite0"},
    "figures": [
        {"name": "Frechet distance (EfficientNet-Lite0)", "value": 121.9095, "spread": None, "about": "0 is best"},
        {"name": "kernel distance", "value": 0.111407, "spread": 0.00129},
    ],
    "classes": {"cats": 133.3186},
    "remarks": ["few images"],
}


def write_evaluation(run, content, name="step-00000006"):
    run.evaluations_path.mkdir(exist_ok=True)
    path = run.evaluations_path / f"{name}.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_finished_run(command, run):
    status, output, errors = command("report", run.path)
    assert (status, output, errors) == (0, f"{run.report_path}\n", "")
    page = read(run.report_path)
    assert_self_contained(page)
    assert len(page.headings) == 8
    assert {"Samples", "Curves", "Configuration"} <= set(page.headings)
    assert re.search(r"6 of 6 steps\b.*\b24\b", page.text)
    assert re.search(r"step 6\b.*\baveraged\b", page.text)
    count = sum(p.numel() for p in Generator(run.info.config.model).parameters())
    assert re.search(rf"{count:,} parameters\b.*self-attention\b.*\breleased\b.*16\u00a0×\u00a016", page.text)
    assert embedded(page, "image/png")[0] == run.samples_path.read_bytes()
    assert len(embedded(page, "image/svg+xml")) == 8
    assert all(attributes["alt"] for attributes in page.all("img"))
    assert [p.name for p in run.path.iterdir() if p.name.startswith(".")] == []


def test_everything_that_the_run_has_is_in_it(command, run):
    first = {"step": 6, "frechet_distance/EfficientNet-Lite0": 21.5, "diversity": 0.5}
    with open(run.metrics_path, "a") as file:
        file.write(json.dumps(first) + "\n" + json.dumps(first | {"frechet_distance/EfficientNet-Lite0": 30.25}) + "\n")
    images = np.zeros((2, 32, 32, 3), np.uint8)
    of_evaluation = ("evaluations/step-00000006.png", "evaluations/step-00000006-patch-correlation.png")
    for number, name in enumerate(("attend.png", "interpolation.png", *of_evaluation)):
        save(draw_grid(images + number, columns=2), run.path / name)
    animate([draw_grid(images + i, columns=2) for i in (0, 90)], run.path / "interpolation.gif", 0.1)
    write_evaluation(run, EVALUATION)
    assert command("report", run.path)[0] == 0
    page = read(run.report_path)
    assert_self_contained(page)
    assert len(page.headings) == 10
    assert {"Samples", "Curves", "Evaluations", "Configuration"} <= set(page.headings)
    images_of_page = embedded(page, "image/png") + embedded(page, "image/gif")
    for name in ("attend.png", "interpolation.png", "interpolation.gif", *of_evaluation):
        assert (run.path / name).read_bytes() in images_of_page
    for text in (
        r"21\.5 .*step 6",
        r"121\.9",
        r"0\.1114 ± 0\.00129",
        "0 is best",
        "few images",
        r"133\.3",
        r"EfficientNet-Lite0, .*step 6",
    ):
        assert re.search(text, page.text), text
    assert re.search(r"step 6\b.*\b2,000", page.text)
    assert re.search(r"robots\b.*\b3,000", page.text)
    assert "/home/me" not in page.text


def test_a_film_is_embedded(command, tmp_path):
    run = make_run(tmp_path / "run", weights=False)
    run.interpolation_path.with_suffix(".mp4").write_bytes(b"film")
    assert command("report", run.path)[0] == 0
    page = read(run.report_path)
    assert_self_contained(page)
    assert embedded(page, "video/mp4") == [b"film"]


def test_a_run_that_has_only_begun(command, tmp_path):
    run = make_run(tmp_path / "run", (), weights=False)
    assert command("report", run.path)[0] == 0
    page = read(run.report_path)
    assert_self_contained(page)
    assert len(page.headings) == 4
    assert re.search(r"0 of 100,000 steps\b", page.text)
    assert "metrics.jsonl" in page.text


def test_nothing_from_outside_is_markup(command, tmp_path):
    run = make_run(tmp_path / "a<b>&'c", (HOSTILE, "dogs"), source="hf:" + HOSTILE, weights=False)
    run.metrics_path.write_text(json.dumps({"step": 1, HOSTILE: 2.0, "fid": 1.0}) + "\n")
    images = np.zeros((16, 32, 32, 3), np.uint8)
    save(draw_grid(images, columns=8, row_labels=run.info.class_names), run.sample_path(1))
    figure = {"name": HOSTILE, "value": 1.0, "about": HOSTILE}
    content = {"generated": HOSTILE, "reference": {HOSTILE: HOSTILE}, "features": {"network": HOSTILE}}
    write_evaluation(run, content | {"figures": [figure], "classes": {HOSTILE: 1.0}, "remarks": [HOSTILE]})
    write_evaluation(run, {"figures": [{"name": HOSTILE, "value": HOSTILE}]}, "wrong")
    assert command("report", run.path)[0] == 0
    page = read(run.report_path)
    assert_self_contained(page)
    assert page.text.count(HOSTILE) >= 12
    assert "a<b>&'c" in page.text
    assert "49" not in page.text


def test_many_classes_and_other_layers(command, tmp_path):
    layers = ((8, "channel"), (32, "residual"))
    run = make_run(tmp_path / "run", [f"class {i}" for i in range(40)], weights=False, generator_attention=layers)
    assert command("report", run.path)[0] == 0
    page = read(run.report_path)
    assert re.search(r"class 11\b.*\b28 more\b", page.text)
    assert "class 38, class 39" in page.text
    assert re.search(r"channel attention\b.*\b8\u00a0×\u00a08\b.*\bresidual\b.*32\u00a0×\u00a032", page.text)


def test_an_evaluation_that_is_none_is_skipped_by_name(command, tmp_path):
    run = make_run(tmp_path / "run", weights=False)
    write_evaluation(run, EVALUATION)
    wrong = [
        "",
        "{",
        "[]",
        "7",
        "{}",
        '{"figures": 3}',
        '{"figures": [{}]}',
        '{"figures": [{"name": "x", "value": "y"}]}',
    ]
    for number, content in enumerate([*wrong, "\xff"]):
        (run.evaluations_path / f"wrong{number}.json").write_bytes(content.encode("latin-1"))
    assert command("report", run.path)[0] == 0
    page = read(run.report_path)
    assert [f"evaluations/wrong{i}.json" in page.text for i in range(9)] == [True] * 9
    assert "121.9" in page.text


def test_a_figure_without_more_than_its_value(command, tmp_path):
    run = make_run(tmp_path / "run", weights=False)
    run.metrics_path.write_text('{"step": 1, "fid": 13.0}\n')
    write_evaluation(run, {"figures": [{"name": "fid", "value": 12.5}]})
    assert command("report", run.path)[0] == 0
    page = read(run.report_path)
    assert "12.5" in page.text
    assert len(page.headings) == 6


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n cut off"])
def test_a_damaged_image_is_skipped_by_name(command, tmp_path, content):
    run = make_run(tmp_path / "run", weights=False)
    names = ["samples/step-00000006.png", "attend.png", "interpolation.gif"]
    for name in names:
        (run.path / name).parent.mkdir(exist_ok=True)
        (run.path / name).write_bytes(content)
    assert command("report", run.path)[0] == 0
    page = read(run.report_path)
    assert_self_contained(page)
    assert len(page.headings) == 4
    assert all(name.rpartition("/")[2] in page.text for name in names)
    assert str(run.sample_path(6)) in page.text  # what the film strip is cut from


def test_where_it_cannot_be_written(command, tmp_path):
    run = make_run(tmp_path / "run", weights=False)
    (tmp_path / "file").write_text("")
    for out, message in ((tmp_path / "file" / "x.html", r"x\.html\b"), (tmp_path / "x.pdf", r"x\.pdf\b.*\.html\b")):
        status, _, errors = command("report", run.path, "--out", out)
        assert (status, errors.count("\n")) == (2, 1)
        assert re.search(message, errors)
    assert command("report", tmp_path)[0] == 2
    assert command("report", run.path, "--out", tmp_path / "new" / "x.html")[0] == 0


def test_folders_of_the_training_machine_are_not_in_it(command, tmp_path):
    run = make_run(tmp_path / "run", source="/home/me/robots", weights=False)
    assert command("report", run.path)[0] == 0
    page = read(run.report_path)
    assert "/home/me" not in page.text
    assert page.text.count("robots") >= 3  # as data, in the command, in the configuration


def test_the_weights_step_is_that_of_the_file(command, tmp_path):
    run = make_run(tmp_path / "run", step=3)
    assert command("report", run.path)[0] == 0
    assert re.search(r"step 3\b.*\baveraged\b", read(run.report_path).text)


def test_images_that_would_fill_the_memory_are_skipped_by_name(command, tmp_path, monkeypatch, recwarn):
    """A PNG of a few kilobytes can hold a hundred megapixels; a sparse file has any size."""
    run = make_run(tmp_path / "run", weights=False)
    bomb = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(bomb, "PNG")
    for name in ("samples.png", "attend.png", "samples/step-00000006.png"):
        (run.path / name).parent.mkdir(exist_ok=True)
        (run.path / name).write_bytes(bomb.getvalue())
    with (run.path / "interpolation.gif").open("wb") as file:
        file.truncate(2**40)
    loaded = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: loaded.append(self.size))
    assert command("report", run.path)[0] == 0
    assert loaded == []
    assert not recwarn.list  # Pillow's own would be more lines
    page = read(run.report_path)
    assert page.text.count("12,000 x 12,000") == 3
    assert re.search(r"interpolation\.gif\b.*\b128 MiB", page.text)
