"""What BigGAN-PyTorch's files leave open, and what its options do to the batch norms."""

import re
from pathlib import Path

import pytest
import torch

from sagan.cli import main
from sagan.errors import UserError
from sagan.importers.importer import import_networks
from sagan.run import read_generator

FILE = Path(__file__).parent / "data" / "biggan-pytorch" / "G_ema.pth"


def with_counters(tmp_path, *counts):
    """The recorded generator as --mybn stores it, its statistics unchanged, and counters."""
    state = torch.load(FILE)
    for i, key in enumerate([key for key in state if key.endswith("stored_mean")]):
        stem = key.removesuffix("stored_mean")
        for name in ("stored_mean", "stored_var"):
            state[f"{stem}bn.{name}"] = state.pop(f"{stem}{name}")
        state[f"{stem}bn.accumulation_counter"] = torch.tensor([float(counts[i % len(counts)])])
    torch.save(state, tmp_path / "G.pth")
    return tmp_path / "G.pth"


def variances(path, **options):
    state = import_networks(path, **options).average.state_dict()
    return torch.cat([t for name, t in state.items() if name.endswith("running_var")])


def test_an_epsilon_is_folded_into_the_variances_but_not_that_of_the_output_layer(tmp_path):
    """--BN_eps does not reach it in their code: its batch norm divides by sqrt(var + 1e-5) all the same."""
    assert main(["import", str(FILE), "--batch-norm-eps", "0.5", "--out", str(tmp_path / "run")]) == 0
    generator = read_generator(tmp_path / "run")[0].eval()
    inputs = {}
    for name in ("blocks.0.bn1", "bn"):
        generator.get_submodule(name).register_forward_hook(
            lambda module, x, y, name=name: inputs.update({name: (x[0], y.clone())})
        )
    with torch.no_grad():
        generator(torch.randn(2, generator.config.latent_dim), torch.tensor([0, 0]))
    state = torch.load(FILE)
    for ours, theirs, eps in (("blocks.0.bn1", "blocks.0.0.bn1", 0.5), ("bn", "output_layer.0", 1e-5)):
        mean, var = (state[f"{theirs}.{name}"][:, None, None] for name in ("stored_mean", "stored_var"))
        if ours == "bn":
            gain, bias = (state[f"{theirs}.{name}"][:, None, None] for name in ("gain", "bias"))
        else:
            gain, bias = (state[f"{theirs}.{name}.weight"][0][:, None, None] for name in ("gain", "bias"))
            gain = 1 + gain
        x, y = inputs[ours]
        assert torch.allclose(y, (x - mean) / (var + eps).sqrt() * gain + bias, atol=1e-5), ours


def test_an_epsilon_below_ours_needs_a_variance_that_makes_up_for_it(tmp_path, command):
    state = torch.load(FILE)
    state["blocks.1.0.bn2.stored_var"][0] = 9e-6
    torch.save(state, tmp_path / "G.pth")
    status, _, errors = command("import", tmp_path / "G.pth", "--batch-norm-eps", "5e-7", "--out", tmp_path / "run")
    assert (status, errors.count("\n")) == (2, 1)
    assert re.search(r"G\.pth\b.*blocks\.1\.0\.bn2\b.*\b9e-06\b.*\b5e-07\b.*\b1e-05\b", errors)
    assert not (tmp_path / "run").exists()
    assert command("import", tmp_path / "G.pth", "--batch-norm-eps", "2e-6", "--out", tmp_path / "run")[0] == 0
    assert variances(tmp_path / "G.pth", overrides={"batch_norm_eps": 2e-6}).min() == pytest.approx(1e-6, rel=1e-4)


def test_a_counter_is_told_and_can_be_overruled(tmp_path, capsys):
    path, plain = with_counters(tmp_path, 16), variances(FILE)
    assert torch.allclose(variances(path), plain / 16)
    assert torch.equal(variances(path, standing_statistics=False), plain)
    assert import_networks(path, standing_statistics=True).notes == ()
    assert main(["import", str(path), "--out", str(tmp_path / "a")]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "--standing-statistics" in line]
    assert re.search(r"\b16 batches\b", line)
    assert main(["import", str(path), "--standing-statistics", "False", "--out", str(tmp_path / "b")]) == 0
    assert "--standing-statistics" not in capsys.readouterr().out


def test_a_counter_of_0_is_of_running_averages(tmp_path):
    path = with_counters(tmp_path, 0)
    assert torch.equal(variances(path), variances(FILE))
    assert import_networks(path).notes == ()
    with pytest.raises(UserError, match=r"--standing-statistics True\b.*accumulation_counter\b.*\b0\b"):
        import_networks(path, standing_statistics=True)


@pytest.mark.parametrize("count", [2.5, -1.0])
def test_a_counter_that_counts_nothing_is_refused(tmp_path, count):
    path = with_counters(tmp_path, 16, count)
    with pytest.raises(UserError, match=r"accumulation_counter\b.*--standing-statistics\b"):
        import_networks(path)
    assert torch.equal(variances(path, standing_statistics=False), variances(FILE))


def test_the_option_is_for_files_with_counters():
    with pytest.raises(UserError, match=r"--standing-statistics\b.*accumulation_counter\b"):
        import_networks(FILE, standing_statistics=True)


def test_the_reading_of_cross_replica_is_told(tmp_path):
    state = torch.load(FILE)
    for key in [key for key in state if key.endswith(("stored_mean", "stored_var"))]:
        stem, _, name = key.rpartition("stored_")
        state[f"{stem}bn.running_{name}"] = state.pop(key)
    torch.save(state, tmp_path / "G.pth")
    (note,) = import_networks(tmp_path / "G.pth").notes
    assert re.search(r"--cross_replica\b.*\bfactors\b.*docs/import\.md", note)
    assert "\n" not in note
    assert torch.equal(variances(tmp_path / "G.pth"), variances(FILE))


@pytest.mark.parametrize("value", ["inf", "nan", "0", "-1e-5"])
def test_an_epsilon_is_finite_and_above_0(tmp_path, command, value):
    status, _, errors = command("import", FILE, "--batch-norm-eps", value, "--out", tmp_path / "run")
    assert (status, errors.count("\n")) == (2, 1)
    assert "batch" in errors
    assert not (tmp_path / "run").exists()
