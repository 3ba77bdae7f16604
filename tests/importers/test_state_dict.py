"""Files that are damaged, odd or of another kind, and networks under other names."""

import gzip
import json
import pickle
import re
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from helpers.runs import make_run
from sagan.cli import main
from sagan.errors import UserError
from sagan.importers.importer import import_networks
from sagan.importers.state_dict import find_networks, find_problem

DATA = Path(__file__).parent / "data"
G, D = DATA / "biggan-pytorch" / "G_ema.pth", DATA / "biggan-pytorch" / "D.pth"


def refusal(path, **options):
    """The one line with which an import is refused."""
    with pytest.raises(UserError, match=r"^[^\n]*$") as error:
        import_networks(path, **options)
    assert path.name in str(error.value)
    return str(error.value)


def saved(path, state, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of quantised tensors
        torch.save(state, path, **options)
    return path


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(t, b[name]) for name, t in a.items())


def sparse(t):
    return t.to_sparse()


def quantised(t):
    return torch.quantize_per_tensor(t, 0.1, 0, torch.qint8)


def with_value(value):
    def change(t):
        t = t.clone()
        t.view(-1)[-1] = value
        return t

    return change


ODD = {
    "complex": (lambda t: t.to(torch.complex64), "complex64"),
    "int": (lambda t: t.to(torch.int64), "int64"),
    "bool": (lambda t: t > 0, r"torch\.bool"),
    "quantised": (quantised, "quantised"),
    "sparse": (sparse, "sparse"),
    "sparse rows": (lambda t: t.flatten(1).to_sparse_csr(), "sparse"),
    "meta": (lambda t: t.to("meta"), "meta"),
    "NaN": (with_value(float("nan")), "not finite"),
    "inf": (with_value(float("-inf")), "not finite"),
    "beyond float32": (lambda t: with_value(1e300)(t.double()), "not finite"),
    "empty": (lambda t: t[:0], "empty"),
    "without dimensions": (lambda t: t.sum(), r"shape \(\)"),
    "of one dimension": (lambda t: t.flatten(), "shape"),
    "a view of one number": (lambda t: t.view(-1)[:1].clone().expand(t.numel()).view(t.shape), "fewer numbers"),
}


@pytest.mark.parametrize("key", ["linear.weight", "blocks.1.0.conv2.weight", "blocks.1.1.theta.weight", "linear.u0"])
@pytest.mark.parametrize("odd", ODD)
def test_an_odd_tensor_is_one_line_and_writes_nothing(tmp_path, odd, key, capsys):
    change, message = ODD[odd]
    state = torch.load(G)
    path = saved(tmp_path / "G.pth", state | {key: change(state[key])})
    assert main(["import", str(path), "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error), error
    assert key.rpartition(".")[0] in error
    assert [p.name for p in tmp_path.iterdir()] == ["G.pth"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_floating_point_types_are_read(dtype):
    assert find_problem(torch.ones(3).to(dtype)) == ""


WRONG_VALUES = {
    "negative variance": ("biggan-pytorch/G_ema.pth", "blocks.1.0.bn1.stored_var", with_value(-0.5), "negative"),
    "u of zeros": ("biggan-pytorch/G_ema.pth", "linear.u0", torch.zeros_like, "zeros"),
    "v of zeros": ("studiogan/G.pth", "linear0.weight_v", torch.zeros_like, "zeros"),
    "weights of zeros": ("studiogan/G.pth", "linear0.weight_orig", torch.zeros_like, "not finite"),
    "a bias of NaN": ("mimicry/netG.pth", "c5.bias", lambda t: t + float("nan"), "not finite"),
    "gamma of two": ("biggan-pytorch/G_ema.pth", "blocks.1.1.gamma", lambda t: torch.ones(2), r"shape \(2,\)"),
    "heykeetae's gamma": ("heykeetae/7_G.pth", "attn1.gamma", lambda t: torch.ones(2), r"shape \(2,\)"),
    "first layer": ("biggan-pytorch/G_ema.pth", "linear.weight", lambda t: t[:-1], r"\bvector\b.*\b127\b"),
    "class tables": ("biggan-pytorch/G_ema.pth", "blocks.0.0.bn1.gain.weight", lambda t: t[None], "3|dimensions"),
    "class table of one dimension": (
        "studiogan/G.pth",
        "blocks.0.0.bn1.gain.weight_orig",
        lambda t: t[0],
        "dimensions",
    ),
    "scales and shifts": ("mimicry/netG.pth", "block2.b1.embed.weight", lambda t: t[:, 1:], "equal width"),
    "image": ("heykeetae/7_G.pth", "last.0.weight", lambda t: t[0], "dimensions"),
}


@pytest.mark.parametrize("wrong", WRONG_VALUES)
def test_wrong_sizes_and_values_are_one_line(tmp_path, wrong):
    name, key, change, message = WRONG_VALUES[wrong]
    checkpoint = torch.load(DATA / name, weights_only=False)
    state = next((checkpoint[k] for k in ("state_dict", "model_state_dict") if k in checkpoint), checkpoint)
    state[key] = change(state[key])
    assert re.search(message, refusal(saved(tmp_path / "G.pth", state)))


def test_every_flipped_byte_of_an_archive_is_found(tmp_path):
    """Of the tensors' data, wherever in the file, and of an .npz."""
    state = torch.load(G)
    np.savez(tmp_path / "G.npz", **{key: t.numpy() for key, t in state.items()})
    assert_same(import_networks(tmp_path / "G.npz").average.state_dict(), import_networks(G).average.state_dict())
    rng = np.random.default_rng(0)
    for source in (G, tmp_path / "G.npz"):
        with zipfile.ZipFile(source) as archive:
            members = [m for m in archive.infolist() if m.file_size > 500]
        content = source.read_bytes()
        for member in rng.choice(len(members), 8, replace=False):
            start = content.index(members[member].filename.encode(), members[member].header_offset)
            end = members[member].header_offset + 30 + members[member].file_size  # at the least
            at = int(rng.integers(start + len(members[member].filename) + 150, end))
            damaged = bytearray(content)
            damaged[at] ^= 1 << int(rng.integers(8))
            path = tmp_path / f"flipped{source.suffix}"
            path.write_bytes(damaged)
            assert "damaged" in refusal(path)


def test_an_archive_without_checksums_is_read(tmp_path):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(tmp_path / "G.pth", torch.load(G))
    finally:
        torch.serialization.set_crc32_options(before)
    assert_same(import_networks(path).average.state_dict(), import_networks(G).average.state_dict())


def wrapped(prefix):
    return lambda state: {f"{prefix}{key}": t for key, t in state.items()}


NAMES = {
    "torch.compile": wrapped("_orig_mod."),
    "parallel": wrapped("module."),
    "parallel, compiled": wrapped("module._orig_mod."),
    "compiled, parallel": wrapped("_orig_mod.module."),
    "a compiled part": lambda state: {key.replace("blocks.1.", "blocks.1._orig_mod."): t for key, t in state.items()},
    "netG": wrapped("netG."),
    "generator": wrapped("generator."),
    "generator, compiled": wrapped("generator._orig_mod."),
    "a compiled network of several": wrapped("_orig_mod.generator.module."),
    "a moving average of PyTorch": lambda state: {"n_averaged": torch.tensor(3), **wrapped("module.")(state)},
    "model": lambda state: {"model": state, "epoch": 3},
    "G": lambda state: {"G": state, "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}},
    "g_ema": lambda state: {"args": None, "g_ema": wrapped("module.")(state)},
    "deep": lambda state: {"checkpoint": {"networks": {"generator": state}}},
}


@pytest.mark.parametrize("name", NAMES)
def test_a_network_is_found_under_any_name(tmp_path, name):
    path = saved(tmp_path / "G.pth", NAMES[name](torch.load(G)))
    assert_same(import_networks(path).average.state_dict(), import_networks(G).average.state_dict())


@pytest.mark.parametrize(
    "join",
    [
        lambda g, ema, d: {"G": g, "G_ema": ema, "D": d},
        lambda g, ema, d: {"state_dict": wrapped("netG.")(g) | wrapped("netG_ema.")(ema) | wrapped("netD.")(d)},
        lambda g, ema, d: {"model": {"generator": g, "discriminator": d}, "averaged": ema},
    ],
)
def test_several_networks_in_a_file_are_told_apart(tmp_path, join):
    average, discriminator = torch.load(G), torch.load(D)
    generator = {key: t.clone() for key, t in average.items()}
    generator["output_layer.2.bias"] += 1
    path = saved(tmp_path / "all.pth", join(generator, average, discriminator))
    found = import_networks(path)
    expected = import_networks(saved(tmp_path / "G.pth", generator), discriminator=D, average=G)
    assert_same(found.generator.state_dict(), expected.generator.state_dict())
    assert_same(found.average.state_dict(), expected.average.state_dict())
    assert_same(found.discriminator.state_dict(), expected.discriminator.state_dict())
    alone = import_networks(G, discriminator=path)
    assert_same(alone.discriminator.state_dict(), expected.discriminator.state_dict())


def test_two_networks_of_one_kind_are_refused(tmp_path):
    state = torch.load(G)
    message = refusal(saved(tmp_path / "two.pth", {"first": state, "second": state}))
    assert "first, second" in message


def test_an_unknown_network_shows_some_of_its_keys(tmp_path):
    layer = torch.zeros(2, 2)
    unknown = {f"encoder.{i}.weight": layer for i in range(9)}
    message = refusal(saved(tmp_path / "other.pth", unknown))
    assert "encoder.0.weight, encoder.1.weight" in message
    assert "and 4 more" in message
    assert "net: tensors encoder.0.weight" in refusal(saved(tmp_path / "other.pth", {"net": unknown}))
    assert "keys epoch; no tensors" in refusal(saved(tmp_path / "other.pth", {"epoch": 3}))
    assert "\x1b" not in refusal(saved(tmp_path / "other.pth", {"\x1b[2J": layer}))


def test_dictionaries_are_searched_to_a_limited_depth():
    deep = {}
    deep["deeper"] = deep
    assert find_networks(deep, lambda keys: None) == []


def test_a_safetensors_file_is_known_by_its_content(tmp_path):
    for name in ("G.SAFETENSORS", "G.pth", "G.bin"):
        save_file(torch.load(G), tmp_path / name)
        assert_same(import_networks(tmp_path / name).average.state_dict(), import_networks(G).average.state_dict())


@pytest.mark.parametrize("kind", ["float64", "float32", "float16", "int16", "uint8", "bool", "complex64", "str"])
def test_numpy_scalars_next_to_the_tensors_do_not_matter(tmp_path, kind):
    path = saved(tmp_path / "G.pth", {"state_dict": torch.load(G), "score": np.dtype(kind).type(1)})
    assert_same(import_networks(path).average.state_dict(), import_networks(G).average.state_dict())


def write_script(path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(path)


def write_program(path):
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),)), path)


def write_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "no network")


OTHER_KINDS = {
    "x.pt": (write_script, "TorchScript"),
    "x.pt2": (write_program, r"torch\.export"),
    "x.zip": (write_zip, r"\bZIP\b.*notes\.txt"),
    "x.h5": (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50)), "HDF5"),
    "x.npy": (lambda p: np.save(p, np.zeros(3)), r"\bNumPy array\b"),
    "x.pth.gz": (lambda p: p.write_bytes(gzip.compress(G.read_bytes())), "gzip"),
    "x.png": (lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n"), "image"),
    "x.onnx": (lambda p: p.write_bytes(b"\x08\x08\x12\x07pytorch"), "ONNX"),
    "model.ckpt-5.data-00000-of-00001": (lambda p: p.write_bytes(bytes(99)), r"TensorFlow\b.*\.npz"),
    "page.pth": (lambda p: p.write_text("<!DOCTYPE html><title>404</title>"), "web page"),
    "lfs.pth": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "git lfs pull"),
    "x.json": (lambda p: p.write_text('{"a": 1}\x1b[2J'), r"text \(\{.a.: 1\}\?\[2J\)"),
    "x.pkl": (lambda p: p.write_bytes(pickle.dumps({"a": 1})), r"pickle that torch\.save did not write"),
    "empty.pth": (lambda p: p.write_bytes(b""), "empty"),
}


@pytest.mark.parametrize("name", OTHER_KINDS)
def test_a_file_of_another_kind_is_named(tmp_path, name):
    write, message = OTHER_KINDS[name]
    write(tmp_path / name)
    assert re.search(message, refusal(tmp_path / name))


def test_what_is_ours_already_says_so(tmp_path):
    run = make_run(tmp_path / "run", checkpoint=True)
    for path in (run.path, run.generator_path, run.checkpoints()[0]):
        assert re.search(r"\bsagan already\b", refusal(path))
    json.loads(run.config_path.read_text())  # untouched
