"""A step as a CUDA graph where there is none: refused in one line, or given up in one line with nothing lost."""

import pytest
import torch

from sagan import ModelConfig, TrainingConfig
from sagan.distributed import Processes
from sagan.files import load_tensors
from sagan.run import Run
from sagan.training.checkpoint import load_checkpoint, state, take_snapshot, write_checkpoint
from sagan.training.graphs import WARM_UP, StepGraphs, why_not
from sagan.training.step import Trainer

CPU = torch.device("cpu")
MODEL = ModelConfig(resolution=32, num_classes=3, latent_dim=8, base_channels=4)


def trainer(**options):
    return Trainer(MODEL, TrainingConfig(batch_size=4, precision="fp32", steps=20, **options), CPU)


def batch(number):
    rng = torch.Generator().manual_seed(number)
    x = torch.randint(256, (4, 32, 32, 3), generator=rng, dtype=torch.uint8).permute(0, 3, 1, 2)
    return x, torch.randint(3, (4,), generator=rng)


@pytest.mark.parametrize(
    "options",
    [{}, {"r1": 0.5, "penalty_every": 2, "lecam": 0.1}, {"guide": 0.1}],
    ids=["plain", "penalties", "guided"],
)
def test_a_capture_that_fails_costs_one_line_and_no_step(options, capsys):
    """No CUDA graph can be made on the CPU: the attempt is real, and so is its failure."""
    plain, captured = trainer(**options), trainer(**options)
    captured.graphs = StepGraphs(CPU)
    for step in range(2 * WARM_UP + 3):
        measure = step % 2 == 0
        logs = [t.train_step(step, batch, measure=measure) for t in (plain, captured)]
        assert logs[0].keys() == logs[1].keys()
        assert all(torch.equal(logs[0][name], logs[1][name]) for name in logs[0])
        assert captured.graphs.failed == (step >= (2 * WARM_UP if options else WARM_UP))
    assert captured.graphs.count == 0
    assert all(torch.equal(a, b) for a, b in zip(state(plain).values(), state(captured).values(), strict=True))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("--cuda-graph: a step cannot be captured (")


def test_an_error_of_the_step_itself_is_raised(capsys):
    t = trainer()
    t.graphs = StepGraphs(CPU)

    def wrong(inputs, *, measure):
        raise RuntimeError("of the step")

    t.update = wrong
    for _ in range(WARM_UP + 1):
        with pytest.raises(RuntimeError, match="of the step"):
            t.train_step(0, batch)


def test_a_restored_checkpoint_drops_the_graphs(tmp_path):
    t = trainer()
    t.train_step(0, batch)
    write_checkpoint(tmp_path / "1.safetensors", take_snapshot(t, 1))
    t.graphs = StepGraphs(CPU)
    for step in range(1, 1 + WARM_UP):
        t.train_step(step, batch)
    load_checkpoint(tmp_path / "1.safetensors", t)
    for step in range(1, 1 + WARM_UP):  # warms up again: no capture is tried
        t.train_step(step, batch)
    assert not t.graphs.failed


def test_it_is_for_one_process_on_cuda():
    cuda = torch.device("cuda", 0)
    assert why_not(cuda, Processes(cuda)) is None
    assert "several processes" in why_not(cuda, Processes(cuda, 0, 2))
    assert "ignored on cpu" in why_not(CPU, Processes(CPU))
    assert trainer(cuda_graph=True).graphs is None


def test_on_the_cpu_it_is_ignored_with_one_line(command, tmp_path, train_options):
    errors = []
    for name, value in (("with", "True"), ("without", "False")):
        status, _, error = command(
            "train", *train_options, "--steps", 2, "--cuda-graph", value, "--out", tmp_path / name
        )
        assert status == 0
        errors.append([line for line in error.splitlines() if "--cuda-graph" in line])
    assert errors == [["--cuda-graph: ignored on cpu, as it is for CUDA"], []]
    one, other = (load_tensors(Run(tmp_path / name).checkpoint_path(2))[0] for name in ("with", "without"))
    assert all(torch.equal(one[name], other[name]) for name in one)
