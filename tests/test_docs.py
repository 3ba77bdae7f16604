"""The code in the documentation runs as it stands there."""

import contextlib
import re
import shlex
import sys
import types
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sagan
from sagan import Generator, ModelConfig, draw_latents
from sagan.cli import COMMANDS, main

DOCS = Path(__file__).parent.parent / "docs"
DOT, SQUARE = slice(2, 6), slice(22, 30)


def code_with(text, page):
    """The one block of Python of a page that holds the text."""
    blocks = re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (found,) = (block for block in blocks if text in block)
    return found


def scenes(count, rng):
    """Images of a square, and a dot in the opposite corner whose colour is the square's class (count,)."""
    images = 0.1 * torch.randn(count, 3, 32, 32, generator=rng)
    classes = torch.randint(2, (count,), generator=rng)
    images[torch.arange(count), classes, DOT, DOT] += 1
    images[:, 2, SQUARE, SQUARE] += 1
    masks = torch.zeros(count, 32, 32, dtype=torch.int64)
    masks[:, SQUARE, SQUARE] = classes[:, None, None]
    return images, masks


def test_twins():
    """Code of the page on attention, on a generator that was not trained."""
    model = ModelConfig(resolution=32, base_channels=4, latent_dim=8, num_classes=2)
    namespace = {
        "generator": Generator(model),
        "z": draw_latents(8, 8, seed=0),
        "y": torch.arange(8) % 2,
    }
    code = code_with("count_twin_hits", "attention.md").splitlines()
    exec("\n".join(line for line in code if not line.startswith(("count_", "measure_"))), namespace)
    hits, agreement = (eval(line, namespace) for line in code if line.startswith(("count_", "measure_")))
    assert (hits.maps, hits.chance) == (8 * 9, 1 / 64)
    assert agreement.images == 8


@pytest.mark.parametrize("with_attention", [True, False])
def test_segmentation(with_attention):
    namespace = {"__name__": "docs"}
    exec(code_with("class Segmenter", "attention.md"), namespace)
    torch.manual_seed(0)
    segmenter, rng = namespace["Segmenter"](), torch.Generator().manual_seed(0)
    assert segmenter(torch.zeros(2, 3, 32, 48)).shape == (2, 2, 32, 48)
    if not with_attention:
        segmenter.position = segmenter.channel = nn.Identity()
    optimizer = torch.optim.Adam(segmenter.parameters(), lr=1e-2)
    for _ in range(150):
        images, masks = scenes(16, rng)
        loss = F.cross_entropy(segmenter(images), masks, weight=torch.tensor([0.1, 1.0]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    images, masks = scenes(200, rng)
    with torch.no_grad():
        found = segmenter.eval()(images).argmax(1)
    share = (found == masks)[:, SQUARE, SQUARE].float().mean().item()
    if not with_attention:  # 7 x 7 pixels that a location sees do not hold the dot
        assert share < 0.65
        return
    assert share > 0.9
    assert segmenter.position.gamma != 0
    assert segmenter.channel.gamma != 0
    maps = segmenter.position.attention_rows(segmenter.encoder(images), torch.tensor([[6 + 8 * 6]]).expand(200, 1))
    assert maps.shape == (200, 1, 8, 8)


TINY = {
    "resolution": 32, "base_channels": 4, "latent_dim": 8, "batch_size": 4, "precision": "fp32", "device": "cpu",
    "log_every": 1, "checkpoint_every": 2, "evaluate_every": 2, "evaluate_count": 8,
}  # fmt: skip
DISTANCE = "frechet_distance/EfficientNet-Lite0"


@pytest.mark.parametrize("page", [pytest.param("docs/python.md", marks=pytest.mark.slow), "README.md"])
def test_python(page, image_folder, tmp_path, monkeypatch):
    """All Python of a page, in its order, with tiny networks and few steps; a stand-in for wandb notes its calls."""
    train, evaluate = sagan.train, sagan.evaluate

    def train_tiny(*arguments, **options):
        steps = {"steps": options.get("steps", 20_000) // 10_000}
        return train(*arguments, **options | steps | ({} if "resume" in options else TINY))

    logged = []
    wandb = types.ModuleType("wandb")
    wandb.init = lambda project: contextlib.nullcontext(wandb)
    wandb.log = lambda metrics, step: logged.append({"step": step, **metrics})
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setattr(sagan, "train", train_tiny)
    monkeypatch.setattr(sagan, "evaluate", lambda *a, **options: evaluate(*a, **options | {"count": 8}))
    monkeypatch.chdir(tmp_path)
    text = (DOCS.parent / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    space = {"features": torch.zeros(1, 256, 8, 8)}  # as of "any network"
    for block in blocks:
        exec(block, space)
    assert (tmp_path / "runs" / "mine" / "generator.safetensors").is_file()
    if page == "README.md":
        assert [tuple(rows.shape[:2]) for rows in space["maps"].values()] == [(8, 1)]
        return
    assert space["watch"](1, {DISTANCE: 59.9}) is True
    assert not space["watch"](1, {"loss/generator": 1.0})
    assert sagan.Run("runs/watched").info.config.training.steps == 3
    assert (tmp_path / "cat.png").is_file()
    assert space["maps"]["16.0"].shape == (8, 1, 8, 8)
    assert logged == sagan.Run("runs/logged").metrics()


def test_every_key_of_the_log_is_documented(image_folder, tmp_path):
    """Those of a run with all that logs keys of its own, and no key in the table that no run writes."""
    run = sagan.train(
        image_folder,
        tmp_path / "run",
        **TINY
        | {"class_head": "classifier", "r1": 1.0, "lecam": 0.1, "guide": 0.1}
        | {"checkpoint_every": 1, "evaluate_count": 12},
        steps=2,
    )
    written = {key for row in run.metrics() for key in row}
    section = (DOCS / "evaluation.md").read_text(encoding="utf-8").split("## The metrics log")[1].split("\n## ")[0]
    documented = {
        key
        for line in section.splitlines()
        if line.startswith("| `")
        for key in re.findall("`(.*?)`", line.split("|")[1])
    }
    assert {
        re.sub(r"(gamma)/.*", r"\1/NETWORK.LAYER", key.replace(DISTANCE, "frechet_distance/FEATURES"))
        for key in written
    } | {"fid", "peak_share"} == documented  # the latter on GPUs whose peak is known


def commands_of(page):
    """The words of every `sagan` command in the fenced blocks of a page, comments removed."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^ *```(?:sh)?\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = [re.search(r"(?:^ *|-m )(sagan [a-z].*)", line) for line in lines]
    return [shlex.split(match[1], comments=True)[1:] for match in found if match]


PAGES = [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_exists(page, capsys):
    for words in commands_of(page):
        name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
        assert name in COMMANDS, words
        with pytest.raises(SystemExit):
            main([*name.split(), "--help"])
        known = set(re.findall(r"--[a-z][a-z0-9-]*", capsys.readouterr().out))
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert options <= known, f"{page.name}: {' '.join(words)}"


def test_the_pages_show_commands():
    assert sum(len(commands_of(page)) for page in PAGES) > 35


LINKING = [*PAGES, *(DOCS.parent / name for name in ("CONTRIBUTING.md", "CHANGELOG.md"))]


def anchors_of(page):
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors_of(target), f"{page.name}: {link}"


def test_the_api_reference_has_every_module_that_the_pages_name():
    makefile = (DOCS.parent / "Makefile").read_text(encoding="utf-8").replace("\\\n", "")
    reference = set(re.search(r"^API := (.*)", makefile, re.MULTILINE)[1].split())
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"^from (sagan[\w.]*) import", "\n".join(blocks), re.MULTILINE))
    assert named > {"sagan"}
    assert named <= reference


def test_the_index_lists_every_page():
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    assert {page.name for page in DOCS.glob("*.md")} - set(re.findall(r"\]\(([^)/]+\.md)\)", index)) == {"README.md"}


def test_every_file_of_the_architecture_exists():
    """Paths from the root, from src/sagan, or of a file next to one of them, in backticks. NAME is the reader's."""
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    named = {name for name in re.findall(r"`([\w./-]+(?:\.py|/))`", text) if "NAME" not in name}
    source = DOCS.parent / "src" / "sagan"
    places = [DOCS.parent, source, *(path for path in source.rglob("*") if path.is_dir())]
    assert len(named) > 50
    assert not {name for name in named if not any((place / name).exists() for place in places)}
