"""Every command in README and docs/ runs, on small images and networks (slow), and every file and target exists."""

import json
import re
import shlex
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sagan.cli import COMMANDS, main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
IMPORTED = ROOT / "tests" / "importers" / "data" / "mimicry"

NOT_RUN = {
    r"hf:|https:": "needs a network",
    r"^sagan push": "uploads; tests/hub",
    r"--features inception": "needs Inception's weights; tests/metrics",
    r"^sagan explore(?!.* --save)": "serves until it is stopped; tests/explorer",
    r"^sagan study": "hours; tests/study runs small ones",
    r"torchrun|sbatch": "many processes; tests/test_distributed.py",
    r"\{000000\.\.": "needs ten shards; tests/data/shards",
    r"gpu-bundle": "needs the bundle; tests/test_gpu_parts.py",
}
"""Commands that this does not run, and why."""
SMALL = {
    "train": "--resolution 32 --base-channels 4 --latent-dim 8 --batch-size 4 --steps 4 --log-every 1 --sample-every 2 "
    "--checkpoint-every 2 --evaluate-every 0 --precision fp32 --device cpu",
    "evaluate": "--count 12 --reference-count 12 --features efficientnet-lite0",
    "data pack": "--shard-size 16",
}
"""Options that make a command small, instead of its own."""
CLASSES = ("cats", "dogs", "flags", "objects", "people-body")
SHAPE = ("--resolution", "--base-channels", "--latent-dim")  # with --from, the networks' own


def shell_lines(page):
    """The lines of a page's fenced blocks without a language, or of a shell, continued ones joined."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^ *```(?:sh)?\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    return "\n".join(blocks).replace("\\\n", " ").splitlines()


def commands(page):
    """The words of every command of sagan in a page, and why it is not run, if so."""
    for line in shell_lines(page):
        if re.match(r" *sagan [a-z]", line) or " -m sagan " in line:
            reason = next((reason for pattern, reason in NOT_RUN.items() if re.search(pattern, line.strip())), None)
            yield shlex.split(line, comments=True), reason


def shortened(words):
    """The arguments of a command, without 'sagan' and what stands before it, and its options of SMALL at the end."""
    words = words[words.index("sagan") + 1 :]
    name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
    small = [] if "--resume" in words else shlex.split(SMALL.get(name, ""))
    if "--from" in words:
        small = [part for pair in zip(small[::2], small[1::2], strict=True) if pair[0] not in SHAPE for part in pair]
    return ["robots64" if word == "NAME" else word for word in [*words, *small]]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder with all that the pages' commands read: images in several forms, runs, files of networks."""
    folder = tmp_path_factory.mktemp("workspace")
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(folder / "emoji.zip", "w") as archive:
        for name in CLASSES:
            (folder / "images" / name).mkdir(parents=True)
            for i in range(6):
                path = folder / "images" / name / f"{i}.png"
                Image.fromarray(rng.integers(256, size=(40, 40, 3), dtype=np.uint8)).save(path)
                archive.write(path, f"{name}/{i}.png")
    for name in ("held-out", "generated", "real"):
        shutil.copytree(folder / "images", folder / name)
    shutil.copy(IMPORTED / "netG.pth", folder / "G_ema.pth")
    shutil.copy(IMPORTED / "netD.pth", folder / "D.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SAGAN_CACHE", str(folder / "cache"))
        start = shortened(["sagan", "train", "--data", "images", "--out", "runs/mine"])
        assert main(start) == 0
        assert main(["import", "G_ema.pth", "--discriminator", "D.pth", "--out", "runs/imported"]) == 0
        info = json.loads(Path("runs/imported/config.json").read_text())
        info["class_names"] = CLASSES  # as a user names the folders of --data
        Path("runs/imported/config.json").write_text(json.dumps(info))
        assert main(["sample", "runs/mine", "--out", "samples.npz"]) == 0
        shutil.copytree("runs/mine", "runs/emoji")
        shutil.copy(
            "runs/mine/checkpoints/step-00000004.safetensors", "runs/mine/checkpoints/step-00020000.safetensors"
        )
        shutil.copy("runs/mine/generator.safetensors", "generator.safetensors")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if list(commands(page))], ids=lambda page: page.name)
def test_every_command_runs(page, workspace, tmp_path, monkeypatch, capsys):
    """In the order of the page, in one folder; an output that the folder has already is removed first."""
    shutil.copytree(workspace, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("SAGAN_CACHE", str(workspace / "cache"))
    for words, reason in commands(page):
        if reason:
            continue
        arguments = shortened(words)
        if "--out" in arguments and arguments[0] in ("train", "import", "data"):
            shutil.rmtree(arguments[arguments.index("--out") + 1], ignore_errors=True)
        assert main(arguments) == 0, f"{shlex.join(arguments)}: {capsys.readouterr().err}"


@pytest.mark.slow
def test_the_code_of_the_first_page_runs(workspace, tmp_path, monkeypatch):
    shutil.copytree(workspace, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("SAGAN_CACHE", str(workspace / "cache"))
    text = PAGES[0].read_text(encoding="utf-8")
    small = {
        "steps=20_000": "steps=4, resolution=32, base_channels=4, batch_size=4, evaluate_every=0, device='cpu'",
        "count=2000": "count=12",
        "runs/mine": "runs/new",
    }
    for code in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for own, instead in small.items():
            code = code.replace(own, instead)
        exec(code, {})


def test_every_reason_is_needed():
    lines = [line.strip() for page in PAGES for line in shell_lines(page)]
    assert not [pattern for pattern in NOT_RUN if not any(re.search(pattern, line) for line in lines)]


def test_every_script_and_target_exists():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    scripts = set(re.findall(r"\b(?:python3?|sh) ((?:benchmarks|examples)/[\w./]+)", text))
    assert len(scripts) > 10
    assert not [name for name in scripts if not (ROOT / name).is_file()]
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"[`\n]make ([a-z-]+)", text))
    assert len(named) > 5
    assert named <= targets
