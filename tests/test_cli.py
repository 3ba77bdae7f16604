"""The command line: what it says, its exit status, and its commands from one end to the other."""

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sagan
from sagan.cli import COMMANDS, _parse
from sagan.figures.curves import draw_curves, save_figure
from sagan.figures.grid import cut_grid
from sagan.marks import step_of
from sagan.run import Run, discriminator_step, lock_for_training, read_discriminator, read_generator


def test_without_a_command_it_says_what_to_do_next(command):
    status, output, errors = command()
    assert (status, errors) == (0, "")
    lines = output.splitlines()
    assert len(lines) == 5
    commands = [re.split("   +", line.strip())[0].split()[1:] for line in lines if line.startswith("  sagan ")]
    assert [words[0] for words in commands] == ["explore", "sample", "train"]
    for words in commands:  # they are parsed; what they do is tested elsewhere
        _parse(COMMANDS[words[0]][0], words[0], words[1:])


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_help_lists_the_commands(command, arguments):
    status, output, _ = command(*arguments)
    assert status == 0
    assert all(f"sagan {name} " in output for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command(command, name):
    status, output, _ = command(name, "--help")
    assert not status
    assert f"usage: sagan {name}" in output


def test_help_shows_the_preset_s_defaults(command):
    _, output, _ = command("train", "--preset", "imagenet128", "--help")
    assert "--batch-size INT" in output
    assert "(default: 256)" in output


def test_version(command):
    assert command("--version") == (0, f"{sagan.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("trian", r"trian\b.*\btrain\b"),
        ("train --preset smal", "'smal'"),
        ("train --preset", "--preset"),
        ("train --resolutoin 64", r"--resolutoin\b.*--resolution\b"),
        ("train --resolution 48", r"resolution\b.*\b48\b"),
        ("train --batch-size x", r"--batch-size\b"),
        ("train --loss hing", "'hing'"),
        ("train --accumulate 3", r"accumulate\b.*\b3\b"),
        ("train --evaluate-count 1", r"evaluate.count\b.*\b1\b"),
        ("train", "--data"),
        ("train --data nothing-here", "nothing-here"),
        ("train --freeze-discriminator 2", r"freeze.discriminator\b.*--from\b.*\b2\b"),
        ("train --data robots --device cuda:99", r"--device cuda:99\b"),
        ("train --resume nothing-here", r"nothing-here\b.*\brun\b"),
        ("sample nothing-here", r"nothing-here\b.*\brun\b"),
        ("sample x --count 0", r"count\b.*\b0\b"),
        ("sample x --truncation -1", r"truncation\b.*-1\b"),
        ("evaluate nothing-here", r"nothing-here\b.*\brun\b"),
        ("evaluate x --count 1", r"count\b.*\b1\b"),
        ("evaluate x --count 1000000001", r"count\b.*\b1,000,000\b.*\b1000000001\b"),
        ("evaluate x --standing-batches 1000000001", r"standing.batches\b.*\b1000000001\b"),
        ("evaluate x --feature-size 1000000001", r"feature.size\b.*\b1000000001\b"),
        ("evaluate x --resolution 1000000001", r"resolution\b.*\b1000000001\b"),
        ("study attention --data robots --seeds 1000000001", r"seeds\b.*\b1000000001\b"),
        ("study attention --data robots --jobs 1000000001", r"jobs\b.*\b1000000001\b"),
        ("evaluate x --features y --resize legacy", r"resize\b.*legacy\b.*Inception"),
        ("evaluate x --out figures.txt", r"figures\.txt\b.*\.json\b"),
        ("export nothing-here", r"nothing-here\b.*\brun\b"),
        ("export x --to safetensors --uint8 True", r"uint8\b.*\bonnx\b"),
        ("export x --to torch-export --opset 18", r"opset\b.*torch-export"),
        ("push nothing-here a/b", r"nothing-here\b.*\brun\b"),
        ("push x", "USER/NAME"),
        ("data nothing-here", "nothing-here"),
        ("data", "SOURCE"),
    ],
)
def test_bad_input_is_one_clear_line(command, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAGAN_CACHE", str(tmp_path / "cache"))
    status, output, errors = command(*arguments.split())
    assert status == 2
    assert output == ""
    assert errors.count("\n") == 1, errors
    assert errors.startswith("sagan: ")
    assert not re.search(r"Error parsing (\w*[A-Z]|config|root)", errors)  # a class of ours says nothing to a user
    assert re.search(message, errors)
    assert [p for p in tmp_path.iterdir() if p.name != "cache"] == []


def test_a_tyro_without_events_says_itself_what_is_wrong(command, monkeypatch):
    monkeypatch.delattr("tyro._errors.on_parse_error")
    status, output, errors = command("train", "--resolutoin", "64")
    assert (status, output) == (2, "")
    assert re.search(r"--resolutoin\b", errors)
    assert "Traceback" not in errors


def test_from_a_folder_to_images(command, tmp_path, train_options, image_folder):
    folder = tmp_path / "run"
    (image_folder / "cats" / "broken.png").write_bytes(b"not an image")
    status, output, errors = command("train", *train_options, "--steps", 8, "--out", folder)
    assert status == 0, errors
    assert re.search(r"\b24\b.*\b2 classes\b", output)
    assert "broken.png" in errors

    trained = Run(folder)
    assert trained.info.class_names == ("cats", "dogs")
    assert trained.info.config.model.num_classes == 2
    assert [p.name for p in trained.checkpoints()] == ["step-00000006.safetensors", "step-00000008.safetensors"]
    assert [p.name for p in trained.samples()] == ["step-00000004.png", "step-00000008.png"]
    assert trained.samples_path.read_bytes() == trained.sample_path(8).read_bytes()
    assert Image.open(trained.animation_path).n_frames == 2
    default = np.asarray(Image.open(folder / "attend.png"))
    assert command("attend", folder, "--out", tmp_path / "attend.png")[0] == 0
    assert np.array_equal(default, Image.open(tmp_path / "attend.png"))

    rows = trained.metrics()
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    wanted = {"loss/discriminator", "loss/generator", "logits/real", "logits/fake", "gamma/generator.16.0"}
    wanted |= {"gamma/discriminator.16.0", "gradient_norm/generator", "gradient_norm/discriminator"}
    wanted |= {"learning_rate/generator", "learning_rate/discriminator", "images_per_second", "step"}
    wanted |= {"seconds/step", "seconds/data", "memory_gib"}
    assert set(rows[0]) == wanted

    for out in ("a.npz", "b.npz"):
        status, output, _ = command("sample", folder, "--out", tmp_path / out, "--classes", "dogs", "--count", 5)
        assert (status, output.strip()) == (0, str(tmp_path / out))
    a, b = (np.load(tmp_path / out) for out in ("a.npz", "b.npz"))
    assert a["images"].shape == (5, 32, 32, 3)
    assert a["labels"].tolist() == [1] * 5
    assert np.array_equal(a["images"], b["images"])

    command("sample", folder, "--out", tmp_path / "c.npz", "--classes", "1", "--count", 5, "--seed", 1)
    assert not np.array_equal(a["images"], np.load(tmp_path / "c.npz")["images"])

    assert command("sample", folder)[0] == 0
    page = Image.open(folder / "samples-0.png")
    command("sample", folder, "--out", tmp_path / "d.npz")
    drawn = np.load(tmp_path / "d.npz")["images"]
    assert np.array_equal(cut_grid(page, 32, columns=8).reshape(drawn.shape), drawn)

    assert command("sample", folder, "--out", tmp_path / "singles", "--count", 2)[0] == 0
    names = sorted(p.name for p in (tmp_path / "singles").iterdir())
    assert names == ["cats-00000.png", "cats-00001.png", "dogs-00000.png", "dogs-00001.png"]
    assert Image.open(tmp_path / "singles" / names[0]).size == (32, 32)

    status, _, errors = command("sample", folder, "--classes", "fish")
    assert (status, errors.count("\n")) == (2, 1)
    assert re.search(r"fish\b.*\bcats\b.*\bdogs\b", errors)
    assert command("sample", folder, "--out", tmp_path / "x.jpeg")[0] == 2

    status, _, errors = command("train", *train_options, "--out", folder)
    assert status == 2
    assert re.search(rf"{re.escape(str(folder))}\b.*--resume\b", errors)


def test_tensorboard_reads_the_events(command, tmp_path, train_options):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert command("train", *train_options, "--steps", 4, "--out", tmp_path / "run")[0] == 0
    events = EventAccumulator(str(tmp_path / "run" / "events")).Reload()
    rows = Run(tmp_path / "run").metrics()
    for name in set(rows[0]) - {"step"}:
        scalars = [(e.step, e.value) for e in events.Scalars(name)]
        assert scalars == [(row["step"], pytest.approx(row[name], rel=1e-6)) for row in rows]


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_transparent_images_without_classes(command, tmp_path, train_options, channels):
    arguments = [*train_options, "--image-channels", channels, "--labels", "False", "--steps", 2]
    assert command("train", *arguments, "--out", tmp_path / "run")[0] == 0
    assert Run(tmp_path / "run").info.class_names == ()
    assert command("sample", tmp_path / "run", "--out", tmp_path / "x.npz", "--count", 3)[0] == 0
    assert np.load(tmp_path / "x.npz")["images"].shape == (3, 32, 32, channels)


def test_the_best_checkpoint_is_kept(command, tmp_path, train_options, monkeypatch):
    """Evaluations whose values are given here: the smallest, at step 4, outlives the newer ones."""
    from sagan.training import recorder

    class Given:
        distance_key = "fid"

        def __init__(self, store, features, count, device, **_):
            self.values = iter([9.0, 3.0, 5.0, 4.0, 6.0])

        def __call__(self, generator, seed):
            return {"fid": next(self.values), "diversity": 1.0}

    monkeypatch.setattr(recorder, "Monitor", Given)
    options = ["--steps", 10, "--evaluate-every", 2, "--checkpoint-every", 100, "--out", tmp_path / "run"]
    assert command("train", *train_options, *options)[0] == 0
    trained = Run(tmp_path / "run")
    assert trained.best_step() == 4
    assert [int(p.stem.removeprefix("step-")) for p in trained.checkpoints()] == [4, 8, 10]
    from sagan.files import load_tensors

    assert load_tensors(trained.generator_path)[1]["step"] == 4


def test_samples_maps_and_the_command_that_repeats_them_are_of_the_best_step(
    command, tmp_path, train_options, monkeypatch
):
    from sagan.training import recorder

    class Given:
        distance_key = "fid"

        def __init__(self, store, features, count, device, **_):
            self.values = iter([9.0, 3.0, 5.0])

        def __call__(self, generator, seed):
            return {"fid": next(self.values), "diversity": 1.0}

    monkeypatch.setattr(recorder, "Monitor", Given)
    options = ["--steps", 6, "--evaluate-every", 2, "--seed", 3, "--out", tmp_path / "run"]
    output = command("train", *train_options, *options)[1]
    assert re.search(r"samples\.png \(step 4, the best of 6\)", output)
    assert re.search(r"attend\.png \(step 4, the best of 6\)", output)
    assert re.search(r"^done: 6 steps; the best is step 4, at distance 3$", output, re.MULTILINE)
    run = Run(tmp_path / "run")
    assert step_of(run.samples_path.read_bytes()) == step_of((run.path / "attend.png").read_bytes()) == 4
    assert run.samples_path.read_bytes() != run.sample_path(6).read_bytes()

    assert command("interpolate", run.path)[0] == 0
    assert command("report", run.path)[0] == 0
    page = html.unescape(run.report_path.read_text(encoding="utf-8"))
    assert len(re.findall(r"<figcaption>[^<]*; step 4</figcaption>", page)) == 3
    (repeat,) = re.findall(r"sagan (sample .*)", page)
    words = repeat.split()
    assert command(words[0], run.path, *words[2:], "--out", tmp_path / "again.png")[0] == 0
    pages = [np.asarray(Image.open(path)).astype(int) for path in (run.samples_path, tmp_path / "again.png")]
    assert np.abs(pages[0] - pages[1]).max() <= 1  # spectral norms are folded into the weights: rounding

    (best,) = (read_discriminator(path) for path in [run.checkpoint_path(4)])
    chosen = read_discriminator(run.path)
    assert all(torch.equal(t, best.state_dict()[name]) for name, t in chosen.state_dict().items())
    assert read_generator(run.path, averaged=False)[2] == discriminator_step(run.path) == 4
    out = command("attend", run.path, "--network", "discriminator")[1].splitlines()[-1]
    assert step_of(Path(out).read_bytes()) == 4
    assert command("attend", run.path, "--out", run.path / "attend.png")[0] == 0
    run.save_generator(read_generator(run.path)[0], 6)
    assert command("report", run.path)[0] == 0
    page = html.unescape(run.report_path.read_text(encoding="utf-8"))
    assert len(re.findall(r"; step 4, other than the saved weights' 6</figcaption>", page)) == 3


def test_without_the_packages_of_evaluation_training_goes_on_and_says_what_to_install(
    command, tmp_path, train_options, monkeypatch
):
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite_pytorch", None)
    options = ["--steps", 2, "--evaluate-every", 2, "--out", tmp_path / "run"]
    status, _, errors = command("train", *train_options, *options)
    assert status == 0
    assert "evaluations" in errors
    assert "pip install 'sagan-torch[metrics]'" in errors


def test_features_asked_for_that_are_missing_are_an_error(command, tmp_path, train_options):
    options = ["--evaluate-every", 2, "--evaluate-features", "nothing.pt", "--out", tmp_path / "run"]
    status, _, errors = command("train", *train_options, *options)
    assert status == 2
    assert "nothing.pt" in errors


def test_training_evaluates_and_draws_the_curve(command, tmp_path, train_options):
    pytest.importorskip("efficientnet_lite_pytorch")
    options = ["--steps", 4, "--evaluate-every", 2, "--evaluate-count", 8, "--out", tmp_path / "run"]
    assert command("train", *train_options, *options)[0] == 0
    rows = [row for row in Run(tmp_path / "run").metrics() if "frechet_distance/EfficientNet-Lite0" in row]
    assert [row["step"] for row in rows] == [2, 4]
    assert all(row["frechet_distance/EfficientNet-Lite0"] > 0 and row["diversity"] > 0 for row in rows)
    save_figure(draw_curves(rows, ["frechet_distance/EfficientNet-Lite0", "diversity"]), tmp_path / "curve.png")
    assert Run(tmp_path / "run").curve_path.read_bytes() == (tmp_path / "curve.png").read_bytes()


def test_training_warns_once_of_what_goes_wrong(command, tmp_path, train_options, monkeypatch):
    """Evaluations whose values are given here, since a training run that collapses would take hours."""
    from sagan.training import recorder

    class Given:
        distance_key = "fid"

        def __init__(self, store, features, count, device, **_):
            self.values = iter([(9, 1.0), (5, 0.9), (6, 0.9), (7, 0.8), (8, 0.3), (9, 0.3)])

        def __call__(self, generator, seed):
            return dict(zip(("fid", "diversity"), next(self.values), strict=True))

    monkeypatch.setattr(recorder, "Monitor", Given)
    options = ["--steps", 12, "--evaluate-every", 2, "--out", tmp_path / "run"]
    errors = command("train", *train_options, *options)[2]
    lines = [line for line in errors.splitlines() if re.search(r"\bstep \d", line)]
    evaluations = [line for line in lines if "(FID)" in line]
    assert [re.search(r"step (\d+): distance (\d)", line).groups() for line in evaluations] == [
        ("2", "9"), ("4", "5"), ("6", "6"), ("8", "7"), ("10", "8"), ("12", "9"),
    ]  # fmt: skip
    assert [("the best so far" in line, "best: step 4" in line) for line in evaluations[:3]] == [
        (True, False), (True, False), (False, True),
    ]  # fmt: skip
    warnings = [line for line in lines if "(FID)" not in line]
    rising, collapsing = sorted(warnings, key=lambda line: "diversity" in line)
    assert re.search(r"step 10\b.*\bfid\b.*\b3\b.*\b8\b.*\b5\b.*\bstep 4\b", rising)
    assert re.search(r"step 10\b.*\bdiversity 0\.30\b.*\bstep 2\b.*1\.00", collapsing)


def test_changed_data_are_noticed(command, tmp_path, train_options, image_folder):
    folder = tmp_path / "run"
    assert command("train", *train_options, "--steps", 2, "--out", folder)[0] == 0
    (image_folder / "cats" / "0.png").unlink()
    status, _, errors = command("train", "--resume", folder)
    assert status == 2
    assert re.search(r"changed\b.*\bcats/0\.png", errors)


def test_a_second_training_in_the_same_folder_is_refused(command, tmp_path, train_options):
    folder = tmp_path / "run"
    with lock_for_training(folder):
        for options in (["--steps", 2, "--out", folder], ["--steps", 2, "--out", folder, "--seed", 1]):
            status, _, errors = command("train", *train_options, *options)
            assert status == 2
            assert re.search(rf"{re.escape(str(folder))}\b.*\banother process\b", errors.splitlines()[-1])
        assert [path.name for path in folder.iterdir()] == [".lock"]
    assert command("train", *train_options, "--steps", 2, "--out", folder)[0] == 0
    assert not (folder / ".lock").exists()


def test_an_absurd_learning_rate_ends_in_words(command, tmp_path, train_options):
    options = ["--generator-lr", "1e30", "--discriminator-lr", "1e30", "--discriminator-spectral-norm", "False"]
    status, _, errors = command("train", *train_options, *options, "--steps", 50, "--out", tmp_path / "run")
    assert status == 2
    assert re.search(r"\b4 times\b.*\bstep 0\b", errors.splitlines()[-1])


def test_the_log_is_json_lines(command, tmp_path, train_options):
    assert command("train", *train_options, "--steps", 2, "--out", tmp_path / "run")[0] == 0
    lines = Run(tmp_path / "run").metrics_path.read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2]


def test_import_makes_a_run_that_the_other_commands_take(command, tmp_path):
    data, out = Path(__file__).parent / "importers" / "data" / "studiogan", tmp_path / "run"
    files = (data / "G.pth", "--discriminator", data / "D.pth", "--out", out)
    status, output, errors = command("import", *files)
    assert (status, errors) == (0, "")
    assert re.search(r"studiogan\b.*\b32 px\b.*\b5 classes\b.*\b16\b.*\bdiscriminator\b", output)
    assert re.search(r"batch.norm.eps\b.*\b0\.0001\b", output)  # what no tensor tells is said
    assert command("sample", out, "--count", "1")[0] == 0
    assert command("attend", out)[0] == 0
    assert re.search(r"\bimported\b", command("evaluate", out)[2])
    assert re.search(r"\bimported\b", command("attend", out, "--network", "discriminator")[2])
    assert f"--from {out}" in command("train", "--resume", out)[2]
    again = command("import", *files)
    assert again[0] == 2
    assert str(out) in again[2]
    assert command("import", data / "D.pth")[0] == 2
    assert re.search(r"batch.norm.eps\b.*\b0\b", command("import", data / "G.pth", "--batch-norm-eps", "0")[2])
