"""Compiled networks train like the networks themselves, under the same names; where none can be, a line says so."""

import copy

import pytest
import torch

from sagan import ModelConfig, TrainingConfig
from sagan.distributed import Processes
from sagan.files import load_tensors
from sagan.model.spectral_norm import SNLinear
from sagan.run import Run
from sagan.training import compiled
from sagan.training.checkpoint import load_checkpoint, state, take_snapshot, write_checkpoint
from sagan.training.compiled import why_not_compiled
from sagan.training.graphs import WARM_UP, StepGraphs
from sagan.training.step import Trainer

CPU = torch.device("cpu")
MODEL = ModelConfig(resolution=32, num_classes=3, latent_dim=8, base_channels=4, discriminator_widths=(4, 4))
SMALLEST = ModelConfig(
    architecture="dcgan", resolution=32, latent_dim=8, base_channels=4,
    generator_attention=(), discriminator_attention=(),
)  # fmt: skip
EVERYTHING = {
    "loss": "relativistic",
    "r1": 0.5,
    "penalty_every": 2,
    "lecam": 0.1,
    "augment": ("color", "translation"),
    "accumulate": 2,
}


@pytest.fixture(autouse=True)
def _nothing_compiled_before():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def trainer(model=SMALLEST, **options):
    t = Trainer(model, TrainingConfig(**{"batch_size": 4, "precision": "fp32", "steps": 20} | options), CPU)
    for network in (t.generator, t.discriminator):
        for name, parameter in network.named_parameters():
            if name.endswith("gamma"):
                torch.nn.init.constant_(parameter, 0.5)
    return t


def batch(number):
    rng = torch.Generator().manual_seed(number)
    x = torch.randint(256, (4, 32, 32, 3), generator=rng, dtype=torch.uint8).permute(0, 3, 1, 2)
    return x, torch.randint(3, (4,), generator=rng)


def train(t, start, stop):
    logs = [t.train_step(step, batch) for step in range(start, stop)]
    return torch.tensor([[log["loss/discriminator"], log["loss/generator"]] for log in logs])


def is_compiled(t):
    return isinstance(t.passes.generate, torch._dynamo.eval_frame.OptimizedModule)


def compare(tmp_path, **options):
    """Train four steps with and without, the last two from each other's checkpoint."""
    plain, fast = trainer(MODEL, **options), trainer(MODEL, compile=True, **options)
    assert torch.allclose(train(plain, 0, 2), train(fast, 0, 2), rtol=1e-6, atol=2e-5)
    assert is_compiled(fast)
    for t in (plain, fast):
        write_checkpoint(tmp_path / f"{t.config.compile}.safetensors", take_snapshot(t, 2))
    tensors = {compiles: load_tensors(tmp_path / f"{compiles}.safetensors")[0] for compiles in (False, True)}
    assert tensors[True].keys() == tensors[False].keys()
    assert all(torch.allclose(tensors[True][name], t, atol=1e-3) for name, t in tensors[False].items())
    for t in (plain, fast):
        assert load_checkpoint(tmp_path / f"{not t.config.compile}.safetensors", t) == 2
    later = train(plain, 2, 4), train(fast, 2, 4)
    assert torch.allclose(*later, rtol=0, atol=1e-3)
    return later


@pytest.mark.slow
def test_they_train_like_the_networks(tmp_path, monkeypatch, capsys):
    """With PyTorch's tracer and derivatives, which decide what is computed, without the code generator's minutes."""
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    later = compare(tmp_path, **EVERYTHING)
    assert not torch.equal(*later)  # another way was taken: attention is PyTorch's own
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("--compile: compiling both networks")
    assert lines[1].startswith("--compile: done after ")


@pytest.mark.slow
def test_they_train_like_the_networks_in_generated_code(tmp_path):
    compare(tmp_path, **EVERYTHING)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 4])
def test_a_pass_between_a_compiled_one_and_its_backward_pass_leaves_its_gradient(rows):
    """As a penalty's pass does; PyTorch's compiler would compute a few short vectors again from the moved u."""
    plain = SNLinear(3, rows, spectral_norm=True)
    layer = copy.deepcopy(plain)
    compiled_layer = torch.compile(layer, dynamic=False, fullgraph=True)
    x = torch.randn(5, 3)
    for network, call in ((plain, plain), (layer, compiled_layer)):
        for _ in range(2):
            loss = call(x).square().sum()
            (loss + 0 * network(x).sum()).backward()
    assert torch.allclose(layer.weight.grad, plain.weight.grad, rtol=1e-5, atol=1e-7)
    assert torch.allclose(layer.sn.u, plain.sn.u)


@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["plain", "everything"])
def test_the_rehearsal_leaves_nothing(options, monkeypatch):
    """Spectral vectors, running statistics and LeCam's averages are what they were."""
    monkeypatch.setattr(compiled, "BACKEND", "eager")
    t = trainer(compile=True, **options)
    before = {name: value.clone() for name, value in state(t).items()}
    t.update = lambda inputs, *, measure: {}
    t.ema.update = lambda network, index: None
    t.train_step(0, batch)
    assert is_compiled(t)
    after = state(t)
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_without_a_compiler_one_line_says_so(monkeypatch, capsys):
    """The attempt is real, and so is its failure."""
    from torch._inductor import config, cpp_builder

    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    cpp_builder.cpp_compiler_search.cache_clear()
    plain, fast = trainer(), trainer(compile=True)
    try:
        assert torch.equal(train(plain, 0, 2), train(fast, 0, 2))
    finally:
        cpp_builder.cpp_compiler_search.cache_clear()
    assert not is_compiled(fast)
    assert all(torch.equal(a, b) for a, b in zip(state(plain).values(), state(fast).values(), strict=True))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("--compile: the networks cannot be compiled (InvalidCxxCompiler")
    assert lines[1].endswith("; training continues without")


def test_a_graph_is_captured_around_it(monkeypatch, capsys):
    """On the CPU the capture fails, and the compiled step continues."""
    monkeypatch.setattr(compiled, "BACKEND", "eager")
    plain, fast = trainer(), trainer(compile=True)
    fast.graphs = StepGraphs(CPU)
    steps = WARM_UP + 2
    assert torch.allclose(train(plain, 0, steps), train(fast, 0, steps), rtol=0, atol=2e-5)
    assert fast.graphs.failed
    assert is_compiled(fast)
    assert [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()] == 2 * ["--compile"] + [
        "--cuda-graph"
    ]


def test_not_with_messages_inside_of_a_pass():
    one, two = Processes(CPU), Processes(CPU, 0, 2)
    assert why_not_compiled(TrainingConfig(sync_batch_norm=True, lecam=0.1), one) is None
    assert why_not_compiled(TrainingConfig(), two) is None
    for options in ({"sync_batch_norm": True}, {"lecam": 0.1}):
        assert why_not_compiled(TrainingConfig(**options), two).startswith("--compile: ignored")


@pytest.mark.slow
def test_the_command_line_compiles(command, tmp_path, train_options, monkeypatch):
    monkeypatch.setattr(compiled, "BACKEND", "eager")
    options = [*train_options, "--architecture", "dcgan", "--steps", 2, "--compile", "True"]
    status, _, error = command("train", *options, "--out", tmp_path / "run")
    assert status == 0
    assert [line[:15] for line in error.splitlines() if "--compile" in line] == ["--compile: comp", "--compile: done"]
    assert Run(tmp_path / "run").checkpoint_path(2).exists()
