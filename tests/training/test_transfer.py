"""Training that starts from another run: what is copied, what is matched, what is refused."""

import re
import shutil
import unicodedata
from dataclasses import replace

import pytest
import torch

from helpers.runs import make_run
from sagan.cli import main
from sagan.config import TrainingConfig
from sagan.errors import UserError
from sagan.files import load_tensors
from sagan.importers.networks import ImportedConfig, NormalisedTables
from sagan.model.build import build_discriminator, build_generator
from sagan.model.config import ModelConfig
from sagan.model.discriminator import Discriminator
from sagan.model.spectral_norm import SNLayer, SpectralNorm, bake_spectral_norm, to_rows
from sagan.run import Run, read_discriminator, read_generator
from sagan.training.finetune import check_source, copy_weights, read_source, start_from
from sagan.training.step import Trainer

CPU = torch.device("cpu")


@pytest.fixture
def source(trained_run):
    """A run of six steps, of cats and dogs, its last checkpoint at step 6."""
    return trained_run


def started(source, class_names, **training):
    """A trainer of networks for these classes that has started from `source`, and the line about it."""
    shape = {"resolution": 32, "base_channels": 4, "latent_dim": 8, "upsampling": "linear"}  # of train_options
    model = ModelConfig(**shape, num_classes=len(class_names))
    trainer = Trainer(model, TrainingConfig(start=str(source), batch_size=4, precision="fp32", **training), CPU)
    return trainer, start_from(trainer, source, class_names).describe()


def baked(network):
    return bake_spectral_norm(network.eval()).requires_grad_(False)


def test_the_same_classes_copy_everything(source):
    trainer, said = started(source.path, ("cats", "dogs"))
    wanted, _ = load_tensors(source.checkpoint_path(6))
    for prefix, network in (
        ("generator", trainer.generator),
        ("ema", trainer.ema.network),
        ("discriminator", trainer.discriminator),
    ):
        for name, t in network.state_dict().items():
            assert torch.equal(t, wanted[f"{prefix}/{name}"]), name
    assert not torch.equal(trainer.generator.stem.weight, trainer.ema.network.stem.weight)
    assert not trainer.generator_adam.state
    assert re.search(r"generator\b.*\baverage\b.*\bdiscriminator\b", said)
    assert re.search(r"\b2 of 2 classes\b", said)


def test_classes_are_matched_by_name(source):
    """Dogs draws what it drew, though its number is another; a new class has the mean of the tables."""
    names = ("birds", "dogs", "cats")
    trainer, said = started(source.path, names)
    assert re.search(r"\b2 of 3 classes\b.*\bmean\b", said)
    z, number = torch.randn(4, 8), torch.full((4,), 1)
    for averaged, network in ((True, trainer.ema.network), (False, trainer.generator)):
        theirs, _, _ = read_generator(source.checkpoint_path(6), averaged=averaged)
        ours_scale, theirs_scale = network.blocks[0].bn1.scale, theirs.blocks[0].bn1.scale
        assert torch.equal(ours_scale, torch.stack([theirs_scale.mean(0), theirs_scale[1], theirs_scale[0]]))
        ours, theirs = baked(network), baked(theirs)
        assert torch.equal(ours(z, number), theirs(z, number))  # dogs: 1 here and 1 there
        assert torch.equal(ours(z, number + 1), theirs(z, number - 1))  # cats: 2 here and 0 there
        mixed = theirs(z, torch.full((4, 2), 0.5))
        assert torch.allclose(ours(z, number - 1), mixed, atol=1e-6)
    theirs, ours = read_discriminator(source.path), trainer.discriminator
    rows = theirs.embed.weight
    assert torch.equal(ours.embed.weight, torch.stack([rows.mean(0), rows[1], rows[0]]))
    # Its spectral norm is right at once, for a table that the vector of the old one does not fit.
    normalised = ours.embed.sn.eval()(ours.embed.weight)
    assert torch.linalg.matrix_norm(normalised, 2).item() == pytest.approx(1, rel=1e-5)
    assert torch.equal(ours.blocks[0].conv1.weight, theirs.blocks[0].conv1.weight)


def test_from_classes_to_none_and_back(source, train_options, tmp_path):
    trainer, _ = started(source.path, ())
    theirs, _, _ = read_generator(source.checkpoint_path(6))
    assert torch.equal(trainer.ema.network.blocks[1].bn2.shift, theirs.blocks[1].bn2.shift.mean(0))
    assert trainer.discriminator.embed is None

    plain = tmp_path / "plain"
    assert main(["train", *train_options, "--labels", "False", "--steps", "3", "--out", str(plain)]) == 0
    trainer, said = started(plain, ("a", "b"))
    theirs, _, _ = read_generator(Run(plain).checkpoint_path(3))
    assert torch.equal(trainer.ema.network.blocks[1].bn2.shift, theirs.blocks[1].bn2.shift.expand(2, -1))
    assert trainer.discriminator.embed.weight.std() > 0  # nothing to take: as initialised
    assert re.search(r"\b0 of 2 classes\b", said)
    z = torch.randn(3, 8)
    wanted = baked(theirs)(z)
    assert torch.allclose(baked(trainer.ema.network)(z, torch.tensor([0, 1, 0])), wanted, atol=1e-6)


def test_a_generator_alone_starts_the_generator_alone(source):
    trainer, said = started(source.generator_path, ("cats", "dogs"))
    wanted, _ = load_tensors(source.generator_path)
    for name, t in wanted.items():
        assert torch.equal(trainer.generator.state_dict()[name], t)
        assert torch.equal(trainer.ema.network.state_dict()[name], t)
    untouched = Trainer(trainer.model, trainer.config, CPU).discriminator.state_dict()
    assert all(torch.equal(t, untouched[name]) for name, t in trainer.discriminator.state_dict().items())
    assert re.search(r"\bdiscriminator\b", said)


def test_what_does_not_fit_is_refused_before_a_run_is_made(source, train_options, tmp_path, capsys):
    out = tmp_path / "out"

    def refused(*options):
        assert main(["train", *train_options, "--steps", "2", "--out", str(out), *map(str, options)]) == 2
        assert not out.exists()
        errors = capsys.readouterr().err
        assert errors.count("\n") == 1, errors
        return errors

    errors = refused("--from", source.path, "--base-channels", 8, "--generator-attention", 8, "self", 16, "self")
    assert "--base-channels 4 --generator-attention None" in errors
    assert "8 blocks" not in errors
    assert re.search(r"\bdiscriminator\b.*\b3 blocks\b", refused("--from", source.path, "--freeze-discriminator", 4))
    errors = refused("--from", source.generator_path, "--freeze-discriminator", 1)
    assert re.search(r"generator\.safetensors\b.*\bdiscriminator\b", errors)
    assert re.search(r"\bnothing\b.*\brun\b", refused("--from", tmp_path / "nothing"))
    # What the message says to add is what it takes.
    options = ["--from", source.path, "--base-channels", 8, "--base-channels", 4, "--generator-attention", "None"]
    assert main(["train", *train_options, "--steps", "2", "--out", str(out), *map(str, options)]) == 0
    assert re.search(r"generator\b.*\baverage\b.*\bdiscriminator\b", capsys.readouterr().err)


def test_other_upsampling_takes_the_same_weights(source, train_options, tmp_path):
    out = tmp_path / "out"
    options = ["--steps", "1", "--out", str(out), "--from", str(source.path), "--upsampling", "nearest"]
    assert main(["train", *train_options, *options]) == 0
    assert read_generator(out)[0].config.upsampling == "nearest"
    theirs = Run(source.path).info.config.model
    assert theirs.upsampling == "linear"
    model = replace(theirs, upsampling="nearest")
    trainer = Trainer(model, TrainingConfig(start=str(source.path), batch_size=4), CPU)
    start_from(trainer, source.path, ("cats", "dogs"))
    wanted = read_generator(source.checkpoint_path(6), averaged=False)[0].state_dict()
    assert all(torch.equal(t, wanted[name]) for name, t in trainer.generator.state_dict().items())


def test_a_damaged_source_is_refused(source):
    checkpoint = source.checkpoint_path(6)
    checkpoint.write_bytes(checkpoint.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"step-00000006\.safetensors\b.*damaged"):
        check_source(source.path, source.info.config.model, 0)


def test_frozen_blocks_stay_and_a_resumed_run_ends_as_a_whole_one(source, train_options, tmp_path):
    options = [*train_options, "--steps", "6", "--from", str(source.path), "--freeze-discriminator", "2", "--r1", "1"]
    options += ["--lecam", "0.1", "--accumulate", "2"]
    whole = trained(tmp_path / "whole", options)
    resumed = Run(shutil.copytree(whole.path, tmp_path / "resumed"))
    wanted, _ = load_tensors(whole.checkpoint_path(6))

    first, _ = load_tensors(source.checkpoint_path(6))
    frozen = ("blocks.0.", "blocks.1.", "attention.16.", "attention.8.")
    for name in read_source(source.path).discriminator.state_dict():
        same = torch.equal(wanted[f"discriminator/{name}"], first[f"discriminator/{name}"])
        if wanted[f"discriminator/{name}"].numel() > 1:  # a vector of one number is always 1
            assert same == name.startswith(frozen), name
    assert not any(name.startswith("discriminator_adam/blocks.0") for name in wanted)

    for kept in (1, 0):  # from the checkpoint of step 3, then from none at all, so from the source again
        for path in resumed.checkpoints()[kept:]:
            path.unlink()
        assert main(["train", "--resume", str(resumed.path), "--device", "cpu"]) == 0
        found, _ = load_tensors(resumed.checkpoint_path(6))
        assert found.keys() == wanted.keys()
        assert all(torch.equal(t, found[name]) for name, t in wanted.items())


def trained(path, options):
    assert main(["train", *options, "--out", str(path)]) == 0
    return Run(path)


IMPORTED = ImportedConfig(resolution=32, num_classes=4, latent_dim=8, base_channels=4, class_spectral_norm=True)


@torch.no_grad()
@pytest.mark.parametrize("folded", [False, True])
def test_spectrally_normalised_class_tables_are_matched_too(folded):
    """Such tables come from imports; classes in another order draw the same images under their new numbers."""
    torch.manual_seed(0)
    source, target = build_generator(IMPORTED).eval(), build_generator(IMPORTED).eval()
    z, y, order = torch.randn(4, 8), torch.arange(4), [2, 0, 3, 1]
    for layer in source.modules():
        if hasattr(layer, "solve") and not isinstance(layer, SpectralNorm):  # random vectors would blow the images up
            layer.solve()
    before = source(z, torch.tensor(order))
    if folded:
        bake_spectral_norm(source)
    copy_weights(source, target, order)
    assert torch.allclose(target(z, y), before, atol=1e-4)
    assert not torch.allclose(target(z, torch.tensor(order)), before, atol=1e-2)


@torch.no_grad()
def test_normalised_tables_become_one_row_without_classes():
    torch.manual_seed(0)
    source, target = build_generator(IMPORTED), build_generator(replace(IMPORTED, num_classes=0))
    copy_weights(source, target, [])
    wanted = source.blocks[0].bn1.eval().tables()[0].mean(0)
    assert torch.allclose(target.blocks[0].bn1.scale, wanted)
    assert not torch.allclose(target.blocks[0].bn1.scale, source.blocks[0].bn1.scale.mean(0), atol=1e-3)


@torch.no_grad()
def test_spectral_norms_that_were_folded_are_put_back():
    """On every layer that the configuration names, with the singular value of the folded weight."""
    torch.manual_seed(0)
    for build in (build_generator, build_discriminator):
        source, target = build(IMPORTED).eval(), build(IMPORTED).eval()
        copy_weights(bake_spectral_norm(source), target, None)
        normed = [m for m in target.modules() if isinstance(m, SpectralNorm)]
        assert len(normed) == sum(isinstance(m, SpectralNorm) for m in build(IMPORTED).modules())
        for layer in target.modules():
            if isinstance(layer, SNLayer):
                assert torch.linalg.matrix_norm(to_rows(layer.sn(layer.weight)), 2).item() == pytest.approx(1, rel=1e-5)
            elif isinstance(layer, NormalisedTables):
                assert torch.linalg.matrix_norm(layer.tables()[1], 2).item() == pytest.approx(1, rel=1e-5)


@pytest.mark.filterwarnings("ignore:.*meta:UserWarning")  # copying there does nothing
@pytest.mark.parametrize("place", [torch.float64, torch.device("meta")], ids=str)
@pytest.mark.parametrize("head", ["projection", "classifier"])
@pytest.mark.parametrize("norm", [False, True])
def test_networks_on_another_device_or_in_another_dtype(place, head, norm):
    """What is computed on the way from a source on the CPU: 'meta' tells devices apart without a GPU."""
    config = replace(IMPORTED, num_classes=3, class_head=head, class_spectral_norm=norm)
    for build in (build_generator, build_discriminator):
        source, target = build(config), build(config).to(place)
        copy_weights(source, target, [2, None, 0])
        assert {t.device.type for t in target.state_dict().values()} == {target.head.weight.device.type}


def test_an_auxiliary_classifier_goes_by_its_classes():
    def discriminator(classes):
        shape = ModelConfig(resolution=32, base_channels=4, num_classes=classes, class_head="classifier")
        return Discriminator(shape)

    source, target = discriminator(2), discriminator(3)
    torch.nn.init.normal_(source.classifier.bias)
    copy_weights(source, target, [1, None, 0])
    for name in ("weight", "bias"):
        theirs = getattr(source.classifier, name)
        expected = torch.stack([theirs[1], theirs.mean(0), theirs[0]])
        assert torch.equal(getattr(target.classifier, name), expected)
    normalised = target.classifier.sn.eval()(target.classifier.weight)
    assert torch.linalg.matrix_norm(normalised.detach(), 2).item() == pytest.approx(1, abs=1e-5)
    without = Discriminator(ModelConfig(resolution=32, base_channels=4))
    copy_weights(source, without, [])
    assert torch.equal(without.head.weight, source.head.weight)


def test_classes_are_matched_whatever_form_their_names_have(tmp_path):
    """A folder on macOS has a decomposed name; an older run may have stored it so."""
    names = [unicodedata.normalize("NFD", name) for name in ("café", "naïve", "dogs")]
    source = make_run(tmp_path / "run", names, checkpoint=True)
    for wanted, found in ((("naïve", "café"), "2 of 2"), ((names[1], "birds"), "1 of 2")):
        assert re.search(rf"\b{found} classes\b", started(source.path, wanted)[1])
