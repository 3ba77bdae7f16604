"""What the commands make of an imported run: of a network unlike ours (heykeetae's), as of one of our own."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import sagan
from sagan.cli import main
from sagan.config import TrainingConfig
from sagan.explorer.engine import Explorer
from sagan.explorer.networks import read_networks
from sagan.explorer.schemas import Sample
from sagan.hub.card import write_card
from sagan.importers.importer import import_networks, write_import
from sagan.model.spectral_norm import SNLayer, SpectralNorm, to_rows
from sagan.run import Run, read_discriminator, read_generator
from sagan.training.finetune import start_from
from sagan.training.step import Trainer

DATA = Path(__file__).parent / "data"


@pytest.fixture
def imported(tmp_path, capsys):
    files = DATA / "heykeetae"
    out = tmp_path / "imported"
    assert main(["import", str(files / "7_G.pth"), "--discriminator", str(files / "7_D.pth"), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"heykeetae\b.*\b64 px\b.*\bno classes\b.*\b16, 32\b.*\bdiscriminator\b", said)
    return Run(out)


def test_it_is_drawn_from_attended_to_walked_and_reported(imported, tmp_path):
    run = str(imported.path)
    assert main(["sample", run, "--count", "3", "--out", str(tmp_path / "x.npz")]) == 0
    assert np.load(tmp_path / "x.npz")["images"].shape == (3, 64, 64, 3)
    assert main(["attend", run, "--layer", "all", "--count", "2", "--out", str(tmp_path / "a.png")]) == 0
    assert main(["interpolate", run, "--steps", "3", "--out", str(tmp_path / "i.png")]) == 0
    assert main(["report", run, "--out", str(tmp_path / "r.html")]) == 0
    assert "heykeetae: 7_G.pth" in (tmp_path / "r.html").read_text()
    assert "sagan train" not in (tmp_path / "r.html").read_text()
    maps = sagan.attention_maps(sagan.load(run), torch.randn(2, 6), queries=[(3, 60)])
    assert {name: m.shape for name, m in maps.items()} == {"16.0": (2, 1, 16, 16), "32.0": (2, 1, 32, 32)}


def test_its_card_does_not_say_that_it_was_trained_here(imported):
    pytest.importorskip("huggingface_hub")
    card = write_card(imported, "someone/faces", licence="unknown", samples="Samples", attention=False)
    assert "imported" in card
    assert "heykeetae: 7\\_G.pth" in card
    assert "sagan train" not in card
    assert "| Trained |" not in card
    assert "| Data |" not in card


def test_the_page_shows_it(imported):
    explorer = Explorer(read_networks(imported.path))
    view = explorer.view(Sample(seed=1, index=2))
    with torch.no_grad():
        x = sagan.load(imported.path)(sagan.draw_latents(3, 6, seed=1)[2:])
        (logit,) = read_discriminator(imported.path).eval()(x).tolist()
    assert view.scores.by_class == pytest.approx((logit,), rel=1e-4)
    found = [(layer.network, layer.name) for layer in explorer.maps(Sample(seed=1, index=2), [(5.0, 9.0)])]
    assert found == [("generator", "16.0"), ("generator", "32.0"), ("discriminator", "8.0"), ("discriminator", "4.0")]


def test_a_run_with_classes_starts_from_it(imported, image_folder, tmp_path, capsys):
    """With networks of its shape; in another shape that is asked for, the message names what would fit."""
    rhythm = "--steps 2 --batch-size 4 --precision fp32 --device cpu --log-every 1 --evaluate-every 0"
    start = ["train", "--from", str(imported.path), "--data", str(image_folder), "--out", str(tmp_path / "new")]
    assert main([*start, *rhythm.split(), "--latent-dim", "7"]) == 2
    assert "--latent-dim 6\n" in capsys.readouterr().err
    assert main([*start, *rhythm.split(), "--freeze-discriminator", "2"]) == 0
    assert re.search(rf"generator\b.*\bdiscriminator\b.*{re.escape(str(imported.path))}", capsys.readouterr().err)
    theirs, ours = read_discriminator(imported.path), read_discriminator(tmp_path / "new")
    assert torch.equal(theirs.blocks[1].conv.weight, ours.blocks[1].conv.weight)
    assert not torch.equal(theirs.blocks[2].conv.weight, ours.blocks[2].conv.weight)
    generator = read_generator(tmp_path / "new")[0]
    assert generator.stem.bn.scale.shape == (2, 64)  # a row for each class, from the one that there was
    assert torch.isfinite(generator(torch.randn(2, 6), torch.tensor([0, 1]))).all()
    rows = [json.loads(line) for line in (tmp_path / "new" / "metrics.jsonl").read_text().splitlines()]
    assert {"gamma/generator.16.0", "gamma/discriminator.4.0"} <= rows[-1].keys()


NORMALISED = {  # layers under spectral norm in each codebase's 32 px (heykeetae's: 64 px) generator, discriminator
    # Stem, 3 blocks of 3 convolutions, attention of 4, head: 15. With 6 batch norms of 2 tables: 27.
    # 4 blocks of 2 convolutions and shortcuts where they need one, attention of 4, head, embedding: 12 to 16.
    "biggan-pytorch": ("G_ema.pth", "D.pth", 15, 12),
    "heykeetae": ("7_G.pth", "7_D.pth", 4, 4),
    "mimicry": ("netG.pth", "netD.pth", 15, 16),
    "mmgeneration": ("iter_9.pth", None, 27, 16),
    "studiogan": ("G.pth", "D.pth", 27, 16),
}


@torch.no_grad()
@pytest.mark.parametrize("codebase", NORMALISED)
def test_training_that_starts_from_it_has_spectral_norms_where_the_codebase_had_them(tmp_path, codebase):
    generator_file, discriminator_file, *expected = NORMALISED[codebase]
    path, discriminator = DATA / codebase / generator_file, discriminator_file and DATA / codebase / discriminator_file
    run = write_import(tmp_path / "run", import_networks(path, discriminator=discriminator), path)
    states = [torch.load(file, weights_only=False) for file in (path, discriminator) if file]
    theirs = [key for state in states for key in state.get("state_dict", state.get("model_state_dict", state))]
    assert sum(expected) == sum(key.endswith(("u0", "weight_u")) for key in theirs if "generator_ema" not in key)

    info = run.info
    trainer = Trainer(info.config.model, TrainingConfig(start=str(run.path), precision="fp32"), torch.device("cpu"))
    start_from(trainer, run.path, info.class_names)
    for network, count in zip((trainer.generator, trainer.discriminator), expected, strict=True):
        norms = [module for module in network.modules() if isinstance(module, SpectralNorm)]
        assert len(norms) == count
        for layer in network.modules():
            if isinstance(layer, SNLayer) and isinstance(layer.sn, SpectralNorm):
                weight = to_rows(layer.sn(layer.weight))
                assert torch.linalg.matrix_norm(weight, 2).item() == pytest.approx(1, rel=1e-5)
    # The weights are the folded ones, which a norm of 1 leaves as they are.
    folded = read_generator(run.checkpoints()[-1], averaged=False)[0].state_dict()
    assert all(torch.equal(t, trainer.generator.state_dict()[name]) for name, t in folded.items())


def test_its_discriminator_attends_to_images_that_are_named(imported, image_folder, command):
    status, _, errors = command("attend", imported.path, "--network", "discriminator")
    assert (status, errors.count("\n")) == (2, 1)
    assert re.search(r"\bimported\b.*--data\b", errors)
    status, output, errors = command(
        "attend", imported.path, "--network", "both", "--layer", "all", "--data", image_folder
    )
    assert status == 0, errors
    rows = [line.split()[:2] for line in output.splitlines()[1:-1]]
    assert [name for name in rows if name[0] == "discriminator"] == [["discriminator", "8.0"], ["discriminator", "4.0"]]


def test_a_discriminator_that_was_not_imported_is_missed(image_folder, command, tmp_path):
    assert command("import", DATA / "studiogan" / "G.pth", "--out", tmp_path / "imported")[0] == 0
    status, _, errors = command("attend", tmp_path / "imported", "--network", "discriminator", "--data", image_folder)
    assert (status, errors.count("\n")) == (2, 1)
    assert re.search(r"\bimport\b.*--discriminator\b", errors)


def test_its_discriminator_is_shown_no_images_of_other_classes(image_folder, command, tmp_path):
    files = DATA / "studiogan"
    out = tmp_path / "imported"
    assert command("import", files / "G.pth", "--discriminator", files / "D.pth", "--out", out)[0] == 0
    status, _, errors = command("attend", out, "--network", "discriminator", "--data", image_folder)
    assert (status, errors.count("\n")) == (2, 1)
    assert re.search(r"--data\b.*images\b.*\b0, 1, 2, 3, 4\b", errors)


def test_it_cannot_be_gone_on_with_only_started_from(imported, capsys):
    assert main(["train", "--resume", str(imported.path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"--from {imported.path}" in said
