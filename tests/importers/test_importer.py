"""Networks of other codebases, recorded by benchmarks/imports.py from their own code, and what imports make of them."""

import dataclasses
import os
import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from sagan.commands.import_ import CodebaseName
from sagan.errors import UserError
from sagan.files import load_tensors
from sagan.importers.importer import CODEBASES, import_networks, write_import
from sagan.importers.mmgeneration import NotLiteral, parse_model_config
from sagan.importers.networks import ImportedConfig
from sagan.model.config import ModelConfig
from sagan.model.spectral_norm import has_spectral_norm
from sagan.run import read_discriminator, read_generator

DATA = Path(__file__).parent / "data"
FILES = {
    "biggan-pytorch": ("G_ema.pth", "D.pth"),
    "heykeetae": ("7_G.pth", "7_D.pth"),
    "mimicry": ("netG.pth", "netD.pth"),
    "mmgeneration": ("iter_9.pth", None),
    "studiogan": ("G.pth", "D.pth"),
}


def recorded(codebase):
    generator, discriminator = FILES[codebase]
    folder = DATA / codebase
    with np.load(folder / "expected.npz") as arrays:
        expected = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    return folder / generator, discriminator and folder / discriminator, expected | {"x": expected["x"].float()}


def relative(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def test_the_names_of_codebases_are_those_of_the_option():
    assert get_args(CodebaseName) == tuple(CODEBASES)


@torch.no_grad()
@pytest.mark.parametrize("codebase", FILES)
def test_the_function_is_its_own_code_s_in_float64(codebase):
    path, discriminator, expected = recorded(codebase)
    imported = import_networks(path, discriminator=discriminator, dtype=torch.float64)
    assert imported.codebase == codebase
    z, y, x = expected["z"].double(), expected["y"], expected["x"].double()
    assert relative(imported.average.eval()(z, y), expected["images64"]) < 1.2e-14
    assert relative(imported.discriminator.eval()(x, y), expected["logits64"]) < 3e-14


@pytest.fixture(params=FILES)
def run(request, tmp_path):
    """A run of a recorded checkpoint and what its own code computed."""
    path, discriminator, expected = recorded(request.param)
    return write_import(tmp_path / "run", import_networks(path, discriminator=discriminator), path), expected


@torch.no_grad()
def test_a_run_computes_what_its_own_code_does(run):
    run, expected = run
    z, y, x = expected["z"], expected["y"], expected["x"]
    assert relative(read_generator(run.path)[0].eval()(z, y), expected["images"]) < 1e-5
    assert relative(read_discriminator(run.path).eval()(x, y), expected["logits"]) < 1e-5


@torch.no_grad()
def test_storing_in_float32_changes_no_image_by_more_than_their_own_rounding(run):
    """Both against their networks in float64: our stored weights in float64, and their networks in float32."""
    run, expected = run
    images = read_generator(run.path)[0].double().eval()(expected["z"].double(), expected["y"])
    for ours, theirs, exact in zip(images, expected["images"], expected["images64"], strict=True):
        assert (ours - exact).abs().max() <= (theirs - exact).abs().max()


def test_what_is_stored_has_no_spectral_norm_and_says_where_there_was_one(run):
    run, _ = run
    for network in (read_generator(run.path)[0], read_discriminator(run.path)):
        assert not has_spectral_norm(network)
        assert not any(name.endswith((".u", ".v")) for name in network.state_dict())
        assert getattr(network.config, f"{network.role}_spectral_norm")
    assert all(load_tensors(path)[1]["folded"] is True for path in (run.generator_path, run.checkpoints()[-1]))


@pytest.mark.parametrize(
    ("codebase", "fields"),
    [
        ("biggan-pytorch", {"discriminator_halvings": 2}),
        ("heykeetae", {}),
        (
            "mimicry",
            {
                "discriminator_halvings": 2,
                "shortcut": "rectified",
                "discriminator_inner": "in",
                "upsampling": "bilinear",
            },
        ),
        ("mmgeneration", {"discriminator_halvings": 2, "shortcut": "rectified", "class_spectral_norm": True}),
        ("studiogan", {"discriminator_halvings": 2, "shortcut": "rectified", "class_spectral_norm": True}),
    ],
)
def test_a_configuration_has_the_fields_of_what_cannot_be_folded(codebase, fields):
    path, discriminator, _ = recorded(codebase)
    config = import_networks(path, discriminator=discriminator).config
    assert type(config) is (ImportedConfig if fields else ModelConfig)
    if fields:
        own = [field.name for field in dataclasses.fields(ImportedConfig)[len(dataclasses.fields(ModelConfig)) :]]
        own.append("upsampling")  # which has other values than ours
        defaults = ImportedConfig()
        assert {name: getattr(config, name) for name in own} == {name: getattr(defaults, name) for name in own} | fields


@pytest.mark.parametrize(("codebase", "step"), [("studiogan", 7), ("mimicry", 11), ("mmgeneration", 9)])
def test_steps_are_those_of_the_file(codebase, step):
    path, discriminator, _ = recorded(codebase)
    assert import_networks(path, discriminator=discriminator).step == step


def test_facts_of_a_configuration_in_the_file_go_before_the_codebase_s_defaults():
    found = import_networks(recorded("mmgeneration")[0])
    assert found.config.shortcut == "rectified"  # the default is plain
    assert "shortcut" not in found.assumed_fields
    path, discriminator, _ = recorded("studiogan")
    given = import_networks(path, discriminator=discriminator, overrides={"batch_norm_eps": 0.5})
    assert given.batch_norm_eps == 0.5
    assert "batch_norm_eps" not in given.assumed_fields


def test_average_and_generator_are_kept_apart():
    path, discriminator, _ = recorded("biggan-pytorch")
    found = import_networks(path, discriminator=discriminator, average=path)
    with torch.no_grad():
        found.generator.head.bias.add_(1)
    assert not torch.equal(found.generator.head.bias, found.average.head.bias)


def test_standing_statistics_are_sums_over_their_counter(tmp_path):
    state = torch.load(recorded("biggan-pytorch")[0])
    for key in [key for key in state if key.endswith("stored_mean")]:
        stem = key.removesuffix("stored_mean")
        mean, var = state.pop(key), state.pop(f"{stem}stored_var")
        state |= {f"{stem}bn.stored_mean": 16 * mean, f"{stem}bn.stored_var": 16 * var}
        state[f"{stem}bn.accumulation_counter"] = torch.full((1,), 16.0)
    torch.save(state, tmp_path / "G.pth")
    a, b = (import_networks(path).average for path in (tmp_path / "G.pth", recorded("biggan-pytorch")[0]))
    assert all(torch.equal(t, b.state_dict()[name]) for name, t in a.state_dict().items())


def test_a_parallel_wrapper_s_prefix_does_not_matter(tmp_path):
    path = recorded("biggan-pytorch")[0]
    torch.save({f"module.{key}": t for key, t in torch.load(path).items()}, tmp_path / "G.pth")
    a, b = (import_networks(p).average.state_dict() for p in (path, tmp_path / "G.pth"))
    assert all(torch.equal(t, b[name]) for name, t in a.items())


def test_a_configuration_is_read_and_not_run():
    text = "model = dict(generator=dict(norm_eps=1e-5, act_cfg={'inplace': True}), type='X')\nother = open('f')"
    assert parse_model_config(text) == {"generator": {"norm_eps": 1e-5, "act_cfg": {"inplace": True}}, "type": "X"}
    code = "__import__('os').getcwd()"
    assert parse_model_config(f"model = dict(a={code}, b=[2])") == {"a": NotLiteral(code), "b": [2]}
    assert parse_model_config("nothing = 1") is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("model = dict(generator=dict(init_cfg=dict(type='SAGAN')))", r"init_cfg\b.*\bSAGAN\b"),
        ("model = dict(discriminator=dict(act_cfg=dict(type='LeakyReLU')))", "LeakyReLU"),
        ("model = dict(discriminator=dict(downsample_cfg=[True]))", "downsample_cfg"),
    ],
)
def test_a_configuration_that_is_not_covered_is_refused(tmp_path, config, message):
    found = torch.load(recorded("mmgeneration")[0])
    torch.save(found | {"meta": {"config": config}}, tmp_path / "iter.pth")
    with pytest.raises(UserError, match=message):
        import_networks(tmp_path / "iter.pth")


class Code:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def damaged(tmp_path, change):
    """BigGAN-PyTorch's recorded generator, changed."""
    state = torch.load(recorded("biggan-pytorch")[0])
    change(state)
    torch.save(state, tmp_path / "G.pth")
    return tmp_path / "G.pth"


WRONG = {
    "missing key": (lambda s: s.pop("blocks.1.0.conv2.weight"), r"blocks\.1\.0\.conv2\.weight\b"),
    "missing vector": (lambda s: s.pop("blocks.1.0.conv2.u0"), r"blocks\.1\.0\.conv2\.u0\b"),
    "missing block": (lambda s: [s.pop(k) for k in list(s) if k.startswith("blocks.1.")], r"blocks\.1\.0\b"),
    "extra key": (lambda s: s.update(novel=torch.zeros(1)), r"\bnovel\b"),
    "shape": (lambda s: s.update({"output_layer.2.weight": torch.zeros(3, 7, 3, 3)}), r"output_layer\.2\b.*\bshape\b"),
    "a BigGAN": (lambda s: s.update({"shared.weight": torch.zeros(5, 20)}), r"\bBigGAN\b.*\bSAGAN\b"),
    "first layer": (
        lambda s: s.update(
            {key: s[key][..., :-1] for key in ("linear.u0", "linear.bias")},
            **{"linear.weight": s["linear.weight"][:-1]},
        ),
        r"linear\b.*\b127 outputs\b",
    ),
    "singular values": (lambda s: s.update({"linear.u1": torch.zeros(1, 9)}), r"\bsingular values\b"),
    "nothing known": (lambda s: s.pop("linear.weight"), r"\bcodebases\b"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_sagan_is_refused_with_the_key(tmp_path, wrong):
    change, message = WRONG[wrong]
    with pytest.raises(UserError, match=r"^[^\n]*$") as error:
        import_networks(damaged(tmp_path, change))
    assert re.search(message, str(error.value))
    assert "G.pth" in str(error.value)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_that_would_run_code_is_not_opened(tmp_path, legacy):
    path, hacked = tmp_path / "G.pth", tmp_path / "hacked"
    state = torch.load(recorded("biggan-pytorch")[0]) | {"extra": Code(hacked)}
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UserError, match=r"posix\.mkdir\b.*torch\.save\b") as error:
        import_networks(path)
    assert not hacked.exists()
    assert "\n" not in str(error.value)


def test_truncated_and_other_files_are_named(tmp_path):
    source = recorded("studiogan")[0]
    path = tmp_path / "G.pth"
    for size in (0, 100, source.stat().st_size // 2, source.stat().st_size - 1):
        path.write_bytes(source.read_bytes()[:size])
        with pytest.raises(UserError, match=r"G\.pth\b.*damaged"):
            import_networks(path)
    for name, message in (
        ("G.npz", r"G\.npz\b.*damaged"),
        ("G.safetensors", r"G\.safetensors\b.*damaged"),
        ("gone.pth", r"gone\.pth\b"),
    ):
        if name != "gone.pth":
            (tmp_path / name).write_text("a letter, not a network")
        with pytest.raises(UserError, match=message):
            import_networks(tmp_path / name)
    with pytest.raises(UserError, match=r"\bfolder\b"):
        import_networks(tmp_path)


def test_files_in_each_other_s_place():
    generator, discriminator, _ = recorded("studiogan")
    with pytest.raises(UserError, match=r"D\.pth\b.*\bdiscriminator\b.*\bgenerator\b"):
        import_networks(discriminator)
    with pytest.raises(UserError, match=r"--discriminator\b.*G\.pth\b.*\bgenerator\b"):
        import_networks(generator, discriminator=generator)
    with pytest.raises(UserError, match=r"G\.pth\b.*\bmimicry\b"):
        import_networks(generator, codebase="mimicry")
    with pytest.raises(UserError, match=r"netD\.pth\b.*\bstudiogan\b"):
        import_networks(generator, discriminator=recorded("mimicry")[1])


def test_a_discriminator_of_other_classes_is_refused(tmp_path):
    generator, discriminator, _ = recorded("biggan-pytorch")
    state = torch.load(discriminator)
    state |= {"embed.weight": torch.zeros(9, 8), "embed.u0": torch.ones(1, 9)}
    torch.save(state, tmp_path / "D.pth")
    with pytest.raises(UserError, match=r"discriminator\b.*\bnum_classes\b.*\b9\b.*\b5\b"):
        import_networks(generator, discriminator=tmp_path / "D.pth")


@torch.no_grad()
def test_heykeetae_s_networks_without_spectral_norm(tmp_path):
    """As their README wants them for WGAN-GP: the same keys without `module` and the vectors."""
    for name in ("7_G.pth", "7_D.pth"):
        state = torch.load(DATA / "heykeetae" / name)
        plain = {key.replace(".module.weight_bar", ".weight").replace(".module.", "."): t for key, t in state.items()}
        torch.save({k: t for k, t in plain.items() if not k.endswith(("_u", "_v"))}, tmp_path / name)
    plain_weight = torch.load(DATA / "heykeetae" / "7_G.pth")["l1.0.module.weight_bar"]
    found = import_networks(tmp_path / "7_G.pth", discriminator=tmp_path / "7_D.pth")
    assert not found.config.generator_spectral_norm
    assert not found.config.discriminator_spectral_norm
    assert torch.equal(found.generator.stem.conv.weight, plain_weight)
    assert found.generator(torch.randn(2, 6)).shape == (2, 3, 64, 64)


def test_heykeetae_s_networks_of_another_size_are_refused(tmp_path):
    state = torch.load(recorded("heykeetae")[0])
    more = {f"l5{key[2:]}": t for key, t in state.items() if key.startswith("l4.")}
    torch.save(state | more, tmp_path / "G.pth")
    with pytest.raises(UserError, match=r"l5\.0"):
        import_networks(tmp_path / "G.pth")
    torch.save(state | {"l1.0.module.weight_bar": torch.zeros(6)}, tmp_path / "G.pth")
    with pytest.raises(UserError, match=r"\bdimensions\b"):
        import_networks(tmp_path / "G.pth")


def test_nothing_is_written_over_a_run(tmp_path):
    path, discriminator, _ = recorded("studiogan")
    found = import_networks(path, discriminator=discriminator)
    write_import(tmp_path / "run", found, path)
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "run"))):
        write_import(tmp_path / "run", found, path)
    assert before == {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
