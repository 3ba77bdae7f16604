"""Exported generators: run where sagan is not, they draw the run's images."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import sagan
from helpers.runs import NAMES, STEP, make_run
from sagan.errors import UserError
from sagan.exporters import export as module
from sagan.exporters.export import export
from sagan.files import load_tensors
from sagan.run import read_generator
from sagan.sampling import draw_latents, sample

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    """A run with classes and both kinds of extra layers, exported with truncation."""
    run = make_run(tmp_path_factory.mktemp("c") / "run", generator_attention=((16, "self"), (8, "channel")))
    return run, export(run.path, "onnx", truncation=0.7)


@pytest.fixture(scope="module")
def unconditional(tmp_path_factory):
    """A run without classes, exported in another opset; the graph draws bytes."""
    run = make_run(tmp_path_factory.mktemp("u") / "run", names=(), attention_variant="paper")
    return run, export(run.path, "onnx", uint8=True, opset=21)


@pytest.fixture(scope="module")
def program(conditional):
    """The run with classes as a program of PyTorch, with truncation, that draws bytes."""
    run, _ = conditional
    return export(run.path, "torch-export", truncation=0.7, uint8=True)


def drawn(path, **inputs):
    return onnxruntime.InferenceSession(path).run(None, {name: t.numpy() for name, t in inputs.items()})[0]


def test_draws_the_images_of_the_run_in_batches_of_any_size(conditional):
    run, exported = conditional
    assert exported.path == run.path / "generator-truncation0.7.onnx"
    for count in (1, 2, 33):
        z = draw_latents(count, 8, seed=5)
        y = torch.arange(count) % 3
        wanted = sagan.load(run.path)(draw_latents(count, 8, seed=5, truncation=0.7), y)
        found = drawn(exported.path, z=z, y=y)
        assert found.dtype == np.float32
        assert np.abs(found - wanted.numpy()).max() < 1e-5
        assert wanted.std() > 0.05  # images that differ, so that being near them says something
    assert 0 < exported.difference < 1e-5
    assert f"{exported.difference:.2g}" in str(exported)


@pytest.mark.parametrize("y", [[-1, 0, 1], [0, -3, 1], [0, 3, 1], [1], [0, 1], [0, 1, 2, 0]])
def test_classes_that_do_not_exist_or_are_too_few_are_an_error(conditional, program, y):
    """Not wrapped, nor broadcast: of every format that takes them."""
    _, exported = conditional
    z, y = draw_latents(3, 8, seed=1), torch.tensor(y)
    session = onnxruntime.InferenceSession(exported.path)
    with pytest.raises(Exception, match=r"[Rr]eshape|out of data bounds|indices element"):
        session.run(None, {"z": z.numpy(), "y": y.numpy()})
    with pytest.raises((RuntimeError, IndexError, AssertionError)):
        torch.export.load(program.path).module()(z, y)


def test_the_graph_says_what_it_takes_and_gives(conditional):
    _, exported = conditional
    model = onnx.load(exported.path)
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]

    def described(values):
        for value in values:
            sizes = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
            yield value.name, value.type.tensor_type.elem_type, sizes

    kinds = onnx.TensorProto
    assert list(described(model.graph.input)) == [("z", kinds.FLOAT, ["batch", 8]), ("y", kinds.INT64, ["batch"])]
    assert list(described(model.graph.output)) == [("pictures", kinds.FLOAT, ["batch", 3, 32, 32])]
    about = {p.key: p.value for p in model.metadata_props}
    assert json.loads(about["class_names"]) == list(NAMES)
    assert json.loads(about["truncation"]) == 0.7
    assert about["inputs"] == "z (N, 8) float32, standard normal and y (N,) int64 in [0, 3), of the same N"


def test_the_graph_is_free_of_training_and_of_spectral_norms(conditional):
    run, exported = conditional
    graph = onnx.load(exported.path).graph
    weights = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    assert not any(name.endswith(".u") for name in weights)
    made = {output for node in graph.node for output in node.output}
    for node in graph.node:
        training = {a.name: a.i for a in node.attribute}.get("training_mode", 0)
        assert node.op_type != "Dropout"
        assert training == 0
        if node.op_type in ("Conv", "Gemm"):  # weights that lie in the file, not computed ones
            assert node.input[1] not in made
    assert "Pad" not in {node.op_type for node in graph.node}  # nor what only a fused kernel wants
    products = [n for n in graph.node if n.op_type == "MatMul"]
    assert len(products) == 4  # two for each attention layer
    # No more numbers than the generator has, but for the truncation's table and a few constants.
    ours = sum(p.numel() for p in sagan.load(run.path).parameters())
    assert ours < sum(w.size for w in weights.values() if w.shape[-1:] != (4,)) < ours + 200


def test_the_graph_tells_nothing_of_the_machine_it_was_written_on(conditional, program):
    run, exported = conditional
    for path in (exported.path, program.path):
        data = path.read_bytes()
        assert b"standalone.py" not in data
        assert str(run.path.parent).encode() not in data


def test_bytes_as_torch_fidelity_takes_them(unconditional):
    """torch-fidelity calls a file with noise float32 (N, z) alone where there are no classes, and wants uint8 back."""
    run, exported = unconditional
    z = draw_latents(9, 8, seed=1)
    found = drawn(exported.path, z=z)
    assert found.dtype == np.uint8
    assert found.shape == (9, 3, 32, 32)
    wanted = sample(sagan.load(run.path), z, torch.zeros(9, dtype=torch.int64)).transpose(0, 3, 1, 2)
    assert np.abs(found.astype(int) - wanted).max() <= 1
    assert (found != wanted).mean() < 1e-3
    assert [i.name for i in onnx.load(exported.path).graph.input] == ["z"]


def test_another_opset(unconditional, tmp_path):
    run, exported = unconditional
    assert exported.path == run.path / "generator-uint8-opset21.onnx"
    assert [o.version for o in onnx.load(exported.path).opset_import] == [21]
    assert re.search(r"\bopset 21\b", str(exported))
    with pytest.raises(UserError, match=r"--opset 15\b"):
        export(run.path, "onnx", tmp_path / "y.onnx", opset=15)
    assert list(tmp_path.iterdir()) == []


def test_the_program_runs_where_sagan_is_not(conditional, program, tmp_path):
    run, _ = conditional
    z, y = draw_latents(5, 8, seed=2), torch.tensor([0, 1, 2, 1, 0])
    torch.save({"z": z, "y": y}, tmp_path / "inputs.pt")
    code = """
import sys, torch
sys.modules["sagan"] = None  # importing it fails
inputs = torch.load(sys.argv[1] + "/inputs.pt", weights_only=True)
images = torch.export.load(sys.argv[2]).module()(inputs["z"], inputs["y"])
torch.save(images, sys.argv[1] + "/images.pt")
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path), str(program.path)], check=True)
    found = torch.load(tmp_path / "images.pt", weights_only=True)
    wanted = sample(sagan.load(run.path), draw_latents(5, 8, seed=2, truncation=0.7), y).transpose(0, 3, 1, 2)
    assert found.dtype == torch.uint8
    assert np.abs(found.numpy().astype(int) - wanted).max() <= 1
    assert program.difference < 1e-5


def test_plain_weights_read_back_bit_for_bit(conditional):
    run, _ = conditional
    exported = export(run.path, "safetensors")
    assert exported.path == run.path / "generator-plain.safetensors"
    assert "bit for bit" in str(exported)
    ours, theirs = sagan.load(run.path), sagan.load(exported.path)
    assert not theirs.config.generator_spectral_norm
    weights = load_tensors(exported.path)[0]
    assert not any(name.endswith(".u") for name in weights)
    assert all(torch.equal(weights[name], t) for name, t in ours.state_dict().items())
    z, y = draw_latents(6, 8, seed=0), torch.arange(6) % 3
    assert torch.equal(ours(z, y), theirs(z, y))


UNLIKE_THE_PAPER_S = {  # what other generators have that the paper's has not
    "linear upsampling": {"upsampling": "linear"},
    "bilinear, class tables under spectral norm": {
        "architecture": "imported",
        "class_spectral_norm": True,
        "upsampling": "bilinear",
    },
    "dcgan": {"architecture": "dcgan", "attention_variant": "direct"},
}


@pytest.mark.parametrize("options", UNLIKE_THE_PAPER_S.values(), ids=UNLIKE_THE_PAPER_S)
def test_networks_unlike_the_paper_s(tmp_path, options):
    run = make_run(tmp_path / "run", **options)
    as_trained = read_generator(run.path)[0].eval()
    z, y = draw_latents(6, 8, seed=0), torch.arange(6) % 3
    with torch.no_grad():
        wanted = as_trained(z, y)
    assert wanted.std() > 0.02
    path = export(run.path, "onnx").path
    graph = onnx.load(path).graph
    made = {output for node in graph.node for output in node.output}
    assert not any(n.op_type in ("Conv", "ConvTranspose", "Gemm") and n.input[1] in made for n in graph.node)
    assert not any("sn" in i.name.split(".") and i.name.endswith((".u", ".v")) for i in graph.initializer)
    assert np.abs(drawn(path, z=z, y=y) - wanted.numpy()).max() < 2e-5
    plain = read_generator(export(run.path, "safetensors").path)[0]
    assert not plain.config.generator_spectral_norm
    assert not any(name.endswith((".u", ".v")) for name in plain.state_dict())
    assert torch.equal(plain.eval()(z, y), sagan.load(run.path)(z, y))
    assert (plain(z, y) - wanted).abs().max() < 2e-5


def test_a_graph_that_draws_other_images_is_not_kept(conditional, tmp_path, monkeypatch):
    """Something that went wrong in exporting: here a graph whose truncation is not the one that was asked for."""
    run, _ = conditional
    standalone = module.StandaloneGenerator
    monkeypatch.setattr(
        module,
        "StandaloneGenerator",
        lambda generator, truncation, uint8: standalone(generator, truncation=1.0, uint8=uint8),
    )
    for uint8 in (False, True):
        with pytest.raises(UserError, match=r"x\.pt2\b.*\bdiffer\b.*\d"):
            export(run.path, "torch-export", tmp_path / "x.pt2", truncation=0.7, uint8=uint8)
    assert list(tmp_path.iterdir()) == []


def test_images_that_are_no_numbers_are_not_kept(tmp_path):
    run = make_run(tmp_path / "run")
    generator = read_generator(run.path)[0]
    with torch.no_grad():
        generator.bn.shift[0] = torch.nan
    run.save_generator(generator, 8)
    with pytest.raises(UserError, match=r"\bdiffer\b.*\bnan\b"):
        export(run.path, "safetensors")
    assert not (run.path / "generator-plain.safetensors").exists()


def test_what_cannot_be_exported(conditional, tmp_path, monkeypatch):
    run, _ = conditional
    with pytest.raises(UserError, match=r"x\.pt\b.*\.onnx\b"):
        export(run.path, "onnx", Path("x.pt"))
    with pytest.raises(UserError, match=r"nothing\b.*\brun\b"):
        export(tmp_path / "nothing", "onnx")
    with pytest.raises(ValueError, match=r"uint8\b.*\bonnx\b"):
        export(run.path, "safetensors", uint8=True)
    with pytest.raises(ValueError, match="opset"):
        export(run.path, "torch-export", opset=18)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"onnxscript\b.*pip install 'sagan-torch\[export\]'"):
        export(run.path, "onnx")


def test_files_of_other_options_have_names_of_their_own(tmp_path, conditional, program):
    """Neither a graph with truncation nor one of an older checkpoint replaces the run's own."""
    assert program.path == conditional[0].path / "generator-truncation0.7-uint8.pt2"
    run = make_run(tmp_path / "run", checkpoint=True)
    weights, old = run.path, run.checkpoint_path(STEP)
    wanted = {
        "generator-plain.safetensors": (weights, "safetensors"),
        "generator.pt2": (weights, "torch-export"),
        "generator-plain-step-00000007.safetensors": (old, "safetensors"),
    }
    for name, (source, to) in wanted.items():
        assert export(source, to).path == run.path / name
    assert wanted.keys() <= {path.name for path in run.path.iterdir()}
