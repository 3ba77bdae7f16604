"""From a run to the attention figure: sagan attend from one end to the other, and what can go wrong."""

import copy
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.runs import make_run
from sagan import Discriminator, Generator, ModelConfig, TrainingConfig, UserError, attention_statistics, load
from sagan.data import prepare
from sagan.render.attention import draw_attention, format_table, generated_subject, real_subject
from sagan.run import Run, read_discriminator
from sagan.sampling import draw_latents, sample
from sagan.training.checkpoint import take_snapshot, write_checkpoint
from sagan.training.step import Trainer


def test_from_a_run_to_the_figure(command, tmp_path, train_options, image_folder):
    folder = tmp_path / "run"
    options = ["--discriminator-attention", "4", "self", "16", "self", "--steps", 3, "--out", folder]
    assert command("train", *train_options, *options)[0] == 0

    status, output, errors = command("attend", folder)
    assert (status, errors) == (0, "")
    table, path = output.splitlines()[:-1], output.splitlines()[-1]
    assert path == str(folder / "attend.png")
    assert len(table) == 2
    assert table[1].split()[:8] == ["generator", "16.0", "16", "x", "16", "8", "x", "8"]
    gamma = load(folder).attention["16"][0].gamma.item()
    assert float(table[1].split()[8]) == pytest.approx(gamma, abs=1e-4)
    default = np.asarray(Image.open(folder / "attend.png"))

    command("attend", folder, "--out", tmp_path / "again.png", "--count", 1, "--classes", "0", "1")
    assert np.array_equal(default, Image.open(tmp_path / "again.png"))
    for number, other in enumerate(["--seed 1", "--smooth False", "--own-scale True"]):
        assert command("attend", folder, "--out", tmp_path / f"{number}.png", *other.split())[0] == 0
        assert not np.array_equal(default, Image.open(tmp_path / f"{number}.png"))

    both = ["--network", "both", "--layer", "all", "--points", "0,0", "31,31"]
    status, output, _ = command("attend", folder, *both, "--out", tmp_path / "both.svg")
    assert status == 0
    assert [line.split()[:2] for line in output.splitlines()[1:-1]] == [
        ["generator", "16.0"],
        ["discriminator", "16.0"],
        ["discriminator", "4.0"],
    ]
    assert (tmp_path / "both.svg").read_text().count("<image") == 3 * 2 * 3 + 1  # layers x classes x images, a scale

    subject = real_subject(folder, 3, ["dogs", "cats"], seed=5)
    assert subject.labels == ["dogs"] * 3 + ["cats"] * 3
    assert subject.y.tolist() == [1] * 3 + [0] * 3
    store = prepare(Run(folder).info.config.data, resolution=32, image_channels=3)
    shown = ((subject.inputs + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    found = [np.flatnonzero((np.asarray(store.images) == image).all((1, 2, 3))).tolist() for image in shown]
    assert [store.labels[at].tolist() for at in found] == [[1]] * 3 + [[0]] * 3  # of the data, each once
    assert len({at[0] for at in found}) == 6
    assert torch.equal(subject.inputs, real_subject(folder, 3, ["dogs", "cats"], seed=5).inputs)
    assert not torch.equal(subject.inputs, real_subject(folder, 3, ["dogs", "cats"], seed=6).inputs)
    assert len(real_subject(folder, 99, [], seed=0).inputs) == 24

    status, _, errors = command("attend", folder, "--network", "both", "--layer", "8")
    assert (status, errors.count("\n")) == (2, 1)
    assert re.search(r"layer 8\b.*\bgenerator\b.*16\.0", errors)
    shutil.rmtree(image_folder / "dogs")
    assert command("attend", folder, "--out", tmp_path / "alone.png")[0] == 0
    status, _, errors = command("attend", folder, "--network", "discriminator")
    assert status == 2
    assert re.search(rf"classes\b.*{re.escape(str(folder))}\b", errors)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("attend nothing-here", r"nothing-here\b.*\brun\b"),
        ("attend run --points 3;4", r"points\b.*3;4"),
        ("attend run --points 3,4,5", "got 3,4,5"),
        ("attend run --points 3,32", r"point 3,32\b.*\b32 x 32\b.*\b31\b"),
        ("attend run --points " + "1,1 " * 9, r"points\b.*\b9\b"),
        ("attend run --count 0", r"count\b.*\b0\b"),
        ("attend run --count 34", r"\b102 rows\b.*--count\b"),
        ("attend run --classes d", r"--classes d\b.*\ba\b.*\bb\b.*\bc\b"),
        ("attend run --truncation 0", r"truncation\b.*\b0\b"),
        ("attend run --network x", "'x'"),
        ("attend run --off --points 1,1", r"off\b.*points"),
        ("attend run --off --network both", r"off\b.*both"),
        ("attend run --off --layer 32", r"layer 32\b.*16\.0"),
        ("attend run --off --count 34", r"\b102 rows\b.*--count\b"),
        ("attend run --layer 32", r"layer 32\b.*\bgenerator\b.*16\.0"),
        ("attend run --out x.jpeg", r"\.png\b.*\.svg\b.*x\.jpeg"),
        ("attend run --network discriminator", r"\brun\b.*checkpoint"),
        ("attend run/generator.safetensors --network both", r"generator\.safetensors\b.*\brun\b"),
    ],
)
def test_bad_input_is_one_clear_line(command, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAGAN_CACHE", str(tmp_path / "cache"))
    before = sorted(make_run(tmp_path / "run", "abc").path.iterdir())
    status, output, errors = command(*arguments.split())
    assert (status, output) == (2, "")
    assert errors.startswith("sagan: ")
    assert errors.count("\n") == 1, errors
    assert re.search(message, errors)
    assert sorted((tmp_path / "run").iterdir()) == before
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_off_draws_images_with_and_without_the_layer(command, tmp_path):
    folder = make_run(tmp_path / "run", generator_attention=((8, "self"), (16, "self"))).path
    status, output, errors = command("attend", folder, "--off", "--classes", "1", "0")
    assert (status, errors) == (0, "")
    *lines, path = output.splitlines()
    assert path == str(folder / "attend-off-dogs+cats.png")
    assert Image.open(path).format == "PNG"
    generator, z, y = load(folder), draw_latents(64, 8, seed=0), torch.arange(64) % 3
    off = copy.deepcopy(generator)
    with torch.no_grad():
        off.attention["16"][0].gamma.zero_()
    apart = np.abs(sample(generator, z, y).astype(int) - sample(off, z, y))
    mean, largest = re.fullmatch(
        r"attention off changes the images by (\S+) grey levels.*, (\d+) at most.*", lines[0]
    ).groups()
    assert (float(mean), int(largest)) == (pytest.approx(apart.mean(), abs=0.05), apart.max())
    share = attention_statistics(generator, z, y)["16.0"].strength
    assert re.match(rf"layer 16\.0: .* {share:.4f}", lines[1])
    assert len(lines) == 2
    status, output, _ = command("attend", folder, "--off", "--layer", "all", "--out", tmp_path / "all.svg")
    assert (status, len(output.splitlines())) == (0, 4)
    assert output.splitlines()[0] != lines[0]
    assert (tmp_path / "all.svg").read_text().count("<image") == 3 * 3  # a row per class


def test_a_run_without_maps(command, tmp_path):
    folder = make_run(tmp_path / "run", (), generator_attention=((8, "channel"),)).path
    status, _, errors = command("attend", folder)
    assert (status, errors.count("\n")) == (2, 1)
    assert re.search(r"generator\b.*\bself-attention\b.*8\.0", errors)


def test_without_classes_and_from_the_weights_alone(command, tmp_path):
    folder = make_run(tmp_path / "run", (), image_channels=1).path
    assert command("attend", folder / "generator.safetensors", "--points", "4,4")[0] == 0
    default = (folder / "attend-points4,4.png").read_bytes()
    for count in (6, 7):  # 6 rows by default
        command("attend", folder, "--points", "4,4", "--count", count)
        assert ((folder / f"attend-points4,4-count{count}.png").read_bytes() == default) == (count == 6)
    assert not (folder / "attend.png").exists()
    command("attend", folder, "--points", "4,4", "--out", tmp_path / "x.svg")
    assert (tmp_path / "x.svg").read_text().count("<image") == 6 * (1 + 1) + 1  # an image and a map a row, a scale


def test_the_discriminator_is_that_of_the_newest_checkpoint(tmp_path):
    made = make_run(tmp_path / "run", ("cats", "dogs"))
    model = made.info.config.model
    trainers = [Trainer(model, TrainingConfig(seed=seed), torch.device("cpu")) for seed in (0, 1)]
    noise, y = torch.randint(256, (64, 3, 32, 32), dtype=torch.uint8), torch.arange(64) % 2
    for step, trainer in enumerate(trainers, 1):
        trainer.train_step(0, lambda _: (noise, y))
        write_checkpoint(made.checkpoint_path(step), take_snapshot(trainer, step))
    discriminator = read_discriminator(made.path)
    assert isinstance(discriminator, Discriminator)
    wanted = trainers[1].discriminator.state_dict()
    assert all(torch.equal(t, wanted[name]) for name, t in discriminator.state_dict().items())
    x = torch.randn(4, 3, 32, 32)
    assert torch.equal(discriminator.eval()(x, y[:4]), trainers[1].discriminator.eval()(x, y[:4]))

    made.checkpoint_path(2).write_bytes(made.checkpoint_path(2).read_bytes()[:-1])
    with pytest.raises(UserError, match=r"step-00000002\.safetensors.*damaged"):
        read_discriminator(made.path)


def test_draw_attention_is_the_figure_of_a_generator_in_memory(tmp_path):
    torch.manual_seed(0)
    generator = Generator(ModelConfig(resolution=32, latent_dim=8, base_channels=4, num_classes=2))
    z, y = draw_latents(3, 8, seed=0), torch.tensor([0, 1, 1])
    before = {name: t.clone() for name, t in generator.state_dict().items()}
    page = draw_attention(generator, z, y, labels=["a", "b", "b"])
    assert page.mode == "RGB"
    assert np.array_equal(page, draw_attention(generator, z, y, labels=["a", "b", "b"]))
    assert generator.training
    assert all(torch.equal(t, before[name]) for name, t in generator.state_dict().items())
    each = draw_attention(generator, z, y, points=[[(1, 1)], [(2, 2)], [(31, 0)]])
    assert not np.array_equal(each, draw_attention(generator, z, y, points=[(1, 1)]))
    for points, message in (([[(1, 1)]] * 2, r"points\b.*\b2\b.*\b3\b"), ([(1, 40)], r"point 1,40\b")):
        with pytest.raises(UserError, match=message):
            draw_attention(generator, z, y, points=points)


def test_the_table_s_columns_stand_under_their_heads():
    generator = Generator(ModelConfig(resolution=32, latent_dim=8, base_channels=4)).eval()
    (name, found), *_ = attention_statistics(generator, torch.randn(1, 8)).items()
    found = replace(found, gamma=-0.123456, strength=0.5, distance=7.0, uniform_distance=16.61, variation=0.25)
    lines = format_table([("generator", {name: found}), ("discriminator", {"32.10": found})]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert re.sub(r"\s{2,}", "|", lines[2].strip()) == (
        "discriminator|32.10|16 x 16|8 x 8|-0.1235|0.5000|7.0 px|16.6 px|0.25"
    )


def test_seeds_latents_and_scale(command, tmp_path):
    folder = make_run(tmp_path / "run", ("cats", "dogs")).path
    subject = generated_subject(folder, None, ["dogs"], 0, None, seeds=(4, 9))
    wanted = torch.cat([draw_latents(1, 8, seed=seed, label=1) for seed in (4, 9)])
    assert torch.equal(subject.inputs, wanted)
    assert subject.y.tolist() == [1, 1]
    np.save(tmp_path / "z.npy", wanted.numpy())
    pages = []
    for options in (["--seeds", "4,9"], ["--latents", tmp_path / "z.npy"]):
        status, output, _ = command("attend", folder, "--classes", "dogs", *options)
        assert status == 0
        pages.append(np.asarray(Image.open(output.splitlines()[-1])))
    assert np.array_equal(*pages)
    assert command("attend", folder, "--classes", "dogs", "--seeds", "4,9", "--scale", 2)[0] == 0
    large = Image.open(folder / "attend-dogs-seeds4+9-scale2.png")
    assert large.size == tuple(2 * side for side in Image.open(output.splitlines()[-1]).size)
    for options in (["--scale", 60], ["--seeds", "1-200"], ["--seeds", "1,2", "--network", "both"]):
        status, _, errors = command("attend", folder, *options)
        assert (status, errors.count("\n")) == (2, 1)
        assert re.search(r"\bpixels\b|\brows\b|\bnetwork\b", errors)
