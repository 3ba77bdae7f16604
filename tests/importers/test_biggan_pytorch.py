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


def test_the_output_layer_keeps_its_epsilon(tmp_path):
    """--BN_eps does not reach it in their code: its batch norm divides by sqrt(var + 1e-5) all the same."""
    found = import_networks(FILE, overrides={"batch_norm_eps": 0.5})
    assert (found.config.batch_norm_eps, found.config.output_norm_eps) == (0.5, 1e-5)
    assert import_networks(FILE).config.output_norm_eps is None  # as of our own runs
    assert main(["import", str(FILE), "--batch-norm-eps", "0.5", "--out", str(tmp_path / "run")]) == 0
    generator = read_generator(tmp_path / "run")[0].eval()
    inputs = []
    last = [m for m in generator.modules() if getattr(m, "eps", None) == 1e-5 and hasattr(m, "running_var")]
    assert len(last) == 1
    last[0].register_forward_hook(lambda module, x, y: inputs.append((x[0], y.clone())))
    with torch.no_grad():
        generator(torch.randn(2, generator.config.latent_dim), torch.tensor([0, 1]))
    state = torch.load(FILE)
    (x, y), layer = inputs[0], "output_layer.0"
    mean, var, gain, bias = (
        state[f"{layer}.{name}"][:, None, None] for name in ("stored_mean", "stored_var", "gain", "bias")
    )
    assert torch.allclose(y, (x - mean) / (var + 1e-5).sqrt() * gain + bias, atol=1e-5)


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
