"""Names in files: to and from those of the code without loss, and a run of version 0.1 that everything still reads.

fixtures/run-607b8dd is what commit 607b8dd left of

    sagan train --data robots --robots 40 --resolution 32 --base-channels 3 --latent-dim 8 --batch-size 4 --steps 4
        --precision fp32 --log-every 1 --sample-every 2 --checkpoint-every 2 --evaluate-every 0

without its images, its last checkpoint and the lines of the log after step 2. fixtures/run-607b8dd.npz holds what that
commit's networks made of two latents: `images` by sagan.load, `trained` by the checkpoint's generator, and the
checkpoint's `logits` of those images.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import sagan
from helpers.architectures import CONFIGS
from sagan.device import CPU
from sagan.errors import UserError
from sagan.files import load_tensors, save_tensors
from sagan.formats import from_disk, to_disk
from sagan.importers.importer import import_networks, write_import
from sagan.importers.networks import ImportedConfig
from sagan.model.build import build_discriminator, build_generator
from sagan.model.config import ModelConfig
from sagan.model.spectral_norm import has_spectral_norm
from sagan.run import Run, read_discriminator, read_generator
from sagan.training.checkpoint import state
from sagan.training.step import Trainer

FIXTURES = Path(__file__).parent / "fixtures"
DATA = Path(__file__).parent / "importers" / "data"
OLD_IMPORTS = FIXTURES / "imported-f7f56f4"  # importers/data, imported by commit f7f56f4, the last before folding


@pytest.mark.parametrize(
    ("code", "disk"),
    [
        ("blocks.0.bn1.scale", "blocks.0.norm1.scale"),
        ("generator_adam/blocks.2.bn2.shift/exp_avg", "generator_adam/blocks.2.norm2.shift/exp_avg"),
        ("bn.running_var", "norm.running_var"),
        ("ema/bn.scale", "ema/norm.scale"),
        ("generator_adam/bn.scale/step", "generator_adam/norm.scale/step"),
        ("stem.bn.running_mean", "stem.norm.running_mean"),
        ("stem.sn.u", "stem.norm.u"),
        ("discriminator/attention.16.0.query.sn.u", "discriminator/attention.16.0.query.norm.u"),
        ("blocks.0.bn1.scale_sn.u", "blocks.0.norm1.scale_sn.u"),
        ("attention.16.0.gamma", "attention.16.0.gamma"),
        ("lecam/real", "lecam/real"),
    ],
)
def test_names(code, disk):
    assert to_disk(code) == disk
    assert from_disk(disk) == code


def check_names(names):
    on_disk = [to_disk(name) for name in names]
    assert len(set(on_disk)) == len(on_disk)
    assert [from_disk(name) for name in on_disk] == list(names)
    parts = {part for name in on_disk for part in name.replace("/", ".").split(".")}
    assert not parts & {"bn", "bn1", "bn2", "sn"}


@pytest.mark.parametrize("name", CONFIGS)
def test_names_of_every_network_come_back(name):
    with torch.device("meta"):
        for build in (build_generator, build_discriminator):
            check_names(build(CONFIGS[name]).state_dict())


def test_names_of_a_checkpoint_come_back():
    model = CONFIGS["class norms"]
    trainer = Trainer(model, sagan.TrainingConfig(batch_size=4, precision="fp32"), CPU)
    trainer.train_step(0, lambda _: (torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.arange(4) % 3))
    check_names(state(trainer))


@pytest.mark.parametrize(
    ("codebase", "generator", "discriminator"),
    [
        ("biggan-pytorch", "G_ema.pth", "D.pth"),
        ("heykeetae", "7_G.pth", "7_D.pth"),
        ("mimicry", "netG.pth", "netD.pth"),
        ("mmgeneration", "iter_9.pth", None),
        ("studiogan", "G.pth", "D.pth"),
    ],
)
def test_names_of_imported_networks_come_back(codebase, generator, discriminator):
    folder = DATA / codebase
    imported = import_networks(folder / generator, discriminator=discriminator and folder / discriminator)
    check_names(imported.generator.state_dict())
    check_names(imported.discriminator.state_dict())


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A copy of the recorded run, with a cache of its own."""
    monkeypatch.setenv("SAGAN_CACHE", str(tmp_path / "cache"))
    return Run(shutil.copytree(FIXTURES / "run-607b8dd", tmp_path / "run"))


@torch.no_grad()
@pytest.mark.parametrize("metadata", ["all but the checksum", "none"])
@pytest.mark.parametrize("imported", [False, True])
def test_a_generator_that_another_tool_saved_again_loads(run, tmp_path, metadata, imported):
    if imported:
        folder = DATA / "studiogan"
        run = write_import(tmp_path / "imported", import_networks(folder / "G.pth"), folder / "G.pth")
    wanted = sagan.load(run.path).state_dict()
    with safe_open(run.generator_path, "pt") as file:
        kept = file.metadata() if metadata != "none" else {}
    kept.pop("crc32", None)
    save_file(load_file(run.generator_path), run.generator_path, kept | {"format": "pt"})
    loaded = sagan.load(run.path).state_dict()
    assert loaded.keys() == wanted.keys()
    assert all(torch.equal(t, wanted[name]) for name, t in loaded.items())
    save_file(load_file(run.generator_path), run.generator_path, kept | {"crc32": "1"})
    with pytest.raises(UserError, match=r"generator\.safetensors\b.*checksum"):
        sagan.load(run.path)


@torch.no_grad()
def test_an_imported_run_of_an_earlier_version_computes_the_same_where_it_still_can(tmp_path):
    old = read_generator(OLD_IMPORTS / "biggan-pytorch")[0].eval()
    folder = DATA / "biggan-pytorch"
    new = import_networks(folder / "G_ema.pth", dtype=torch.float64).average.eval()
    z, y = torch.randn(3, new.config.latent_dim), torch.tensor([0, 4, 2])
    assert has_spectral_norm(old)  # not folded then
    assert torch.allclose(old(z, y).double(), new(z.double(), y), atol=1e-5)


def test_an_imported_run_of_an_earlier_version_is_to_be_imported_again_where_it_cannot(tmp_path, command):
    status, _, errors = command("sample", OLD_IMPORTS / "studiogan")
    assert (status, errors.count("\n")) == (2, 1)
    assert re.search(r"config\.json\b.*\bearlier version\b.*\bspectral_norm_eps 1e-06\b.*\bsagan import\b", errors)
    model = json.loads((OLD_IMPORTS / "studiogan" / "config.json").read_text())["config"]["model"]
    metadata = {"step": 7, "model": model, "class_names": list("abcde")}
    save_tensors(tmp_path / "generator.safetensors", {"x": torch.zeros(1)}, metadata)
    status, _, errors = command("sample", tmp_path / "generator.safetensors")
    assert (status, errors.count("\n")) == (2, 1)
    assert re.search(r"generator\.safetensors\b.*\bearlier version\b.*\bsagan import\b", errors)


@pytest.mark.parametrize(
    ("old", "architecture"),
    [
        ({}, "residual"),
        ({"output_norm_eps": 1e-5, "spectral_norm_eps": 1e-12, "upsampling": "nearest"}, "residual"),
        ({"upsampling": "linear"}, "residual"),
        ({"upsampling": "bilinear"}, "imported"),
        ({"upsampling": "bilinear", "discriminator_halvings": 2}, "imported"),
        ({"architecture": "dcgan", "shortcut": "rectified"}, "dcgan"),  # which never had shortcuts
    ],
)
def test_fields_of_earlier_versions(run, old, architecture):
    content = json.loads(run.config_path.read_text())
    content["config"]["model"] |= old
    run.config_path.write_text(json.dumps(content))
    model = Run(run.path).info.config.model
    assert type(model) is (ImportedConfig if architecture == "imported" else ModelConfig)
    assert model.architecture == architecture
    fields = set(ModelConfig.__dataclass_fields__) & content["config"]["model"].keys() - {"architecture"}
    if architecture == "imported":
        fields |= old.keys()
    assert len(fields) > 10
    for name in fields:
        assert getattr(model, name) == content["config"]["model"][name], name


def test_a_dcgan_of_an_earlier_version_loses_the_upsampling_that_it_never_did(run):
    content = json.loads(run.config_path.read_text())
    content["config"]["model"] |= {"architecture": "dcgan", "upsampling": "bilinear"}
    run.config_path.write_text(json.dumps(content))
    assert Run(run.path).info.config.model.upsampling == "nearest"


@pytest.mark.parametrize(
    "old",
    [
        {"batch_norm_eps": 1e-4},
        {"output_norm_eps": 1e-4},
        {"spectral_norm_in_evaluation": "stored"},
        {"class_spectral_norm": "classes"},
    ],
)
def test_fields_that_only_earlier_versions_could_compute_are_refused(run, old):
    content = json.loads(run.config_path.read_text())
    content["config"]["model"] |= old
    run.config_path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"^[^\n]*{next(iter(old))}[^\n]*sagan import$"):
        Run(run.path)


def test_an_architecture_of_another_name_is_refused(run):
    run.config_path.write_text(run.config_path.read_text().replace('"residual"', '"vision-transformer"'))
    with pytest.raises(UserError, match=r"^[^\n]*residual, dcgan, imported\b[^\n]*vision-transformer[^\n]*$"):
        Run(run.path)


@torch.no_grad()
def test_an_old_run_generates_the_same_images(run):
    with np.load(FIXTURES / "run-607b8dd.npz") as arrays:
        recorded = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    z, y = recorded["z"], recorded["y"]
    images = sagan.load(run.path)(z, y)
    assert torch.allclose(images, recorded["images"], atol=1e-5)
    generator = read_generator(run.path, averaged=False)[0].eval()
    assert torch.allclose(generator(z[:1], y[:1]), recorded["trained"], atol=1e-5)
    assert torch.allclose(read_discriminator(run.path).eval()(images, y), recorded["logits"], atol=1e-4)


@pytest.mark.parametrize("name", ["generator.safetensors", "checkpoints/step-00000002.safetensors"])
def test_an_old_file_is_written_as_it_was(run, tmp_path, name):
    save_tensors(tmp_path / "x.safetensors", *load_tensors(run.path / name))
    before, after = load_file(run.path / name), load_file(tmp_path / "x.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(t, after[key]) for key, t in before.items())


def test_an_old_run_resumes(run, command):
    """From step 2 to step 4, to the average that commit 607b8dd came to."""
    recorded = load_tensors(run.generator_path)[0]
    start = read_generator(run.checkpoints()[-1])[0].state_dict()
    run.generator_path.unlink()
    status, _, errors = command("train", "--resume", run.path, "--device", "cpu")
    assert status == 0, errors
    assert [path.name for path in run.checkpoints()] == ["step-00000002.safetensors", "step-00000004.safetensors"]
    assert [row["step"] for row in run.metrics()] == [1, 2, 3, 4]
    tensors, metadata = load_tensors(run.generator_path)
    assert metadata["step"] == 4
    assert tensors.keys() == recorded.keys()
    error = sum((t - recorded[name]).square().sum() for name, t in tensors.items())
    way = sum((t - start[name]).square().sum() for name, t in recorded.items())
    assert error < 1e-4 * way


@pytest.mark.slow
def test_an_old_run_evaluates_to_the_same_distance(run):
    pytest.importorskip("efficientnet_lite_pytorch")
    evaluation = sagan.evaluate(run.path, features="efficientnet-lite0", count=40)
    distance = evaluation["Frechet distance"]
    assert distance == pytest.approx(327.739, rel=1e-3)
