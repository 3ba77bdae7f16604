"""The command line: what it says, its exit status, and its commands from one end to the other."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sagan.cli import COMMANDS, main
from sagan.run import Run, only_training


def run(capsys, *arguments):
    """Exit status, standard output and errors of a command."""
    try:
        status = main([str(a) for a in arguments])
    except SystemExit as error:  # --help
        status = error.code
    output = capsys.readouterr()
    return status, output.out, output.err


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []])
def test_help_lists_the_commands(capsys, arguments):
    status, output, _ = run(capsys, *arguments)
    assert status == 0
    assert all(f"sagan {command} " in output for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(capsys, command):
    status, output, _ = run(capsys, command, "--help")
    assert not status
    assert f"usage: sagan {command}" in output


def test_help_shows_the_preset_s_defaults(capsys):
    _, output, _ = run(capsys, "train", "--preset", "imagenet128", "--help")
    assert "--batch-size INT" in output
    assert "(default: 256)" in output


def test_version(capsys):
    assert run(capsys, "--version")[:2] == (0, "0.1.0\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("trian", "trian: no such command; did you mean train?"),
        ("train --preset smal", "'smal'"),
        ("train --preset", "--preset"),
        ("train --resolutoin 64", "--resolutoin, 64; did you mean --resolution?"),
        ("train --resolution 48", "resolution must be 32, 64, 128 or 256, got 48"),
        ("train --batch-size x", "--batch-size: invalid literal"),
        ("train --loss hing", "'hing'"),
        ("train --accumulate 3", "accumulate must be a divisor of batch_size 32, got 3"),
        ("train --evaluate-count 1", "evaluate_count must be 2 or more, got 1"),
        ("train", "--data is missing"),
        ("train --data nothing-here", "nothing-here"),
        ("train --freeze-discriminator 2", "freeze_discriminator must be 0 without --from, got 2"),
        ("train --data robots --device cuda:99", "--device cuda:99: not available here"),
        ("train --resume nothing-here", "nothing-here is not a run"),
        ("sample nothing-here", "nothing-here is not a run"),
        ("sample x --count 0", "count must be 1 or more, got 0"),
        ("sample x --truncation -1", "truncation must be above 0, got -1"),
        ("evaluate nothing-here", "nothing-here does not exist: give a run, or two folders of pictures"),
        ("evaluate x --count 1", "count must be 2 or more, got 1"),
        ("evaluate x --features y --resize legacy", "resize legacy is what the Inception network does by itself"),
        ("evaluate x --out figures.txt", "--out figures.txt: give a .json file"),
        ("export nothing-here", "nothing-here is not a run"),
        ("export x --to safetensors --uint8 True", "truncation and uint8"),
        ("export x --to torch-export --opset 18", "opset"),
        ("push nothing-here a/b", "nothing-here is not a run"),
        ("push x", "USER/NAME"),
        ("data nothing-here", "nothing-here"),
        ("data", "SOURCE"),
    ],
)
def test_bad_input_is_one_clear_line(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAGAN_CACHE", str(tmp_path / "cache"))
    status, output, errors = run(capsys, *arguments.split())
    assert status == 2
    assert output == ""
    assert errors.count("\n") == 1, errors
    assert errors.startswith("sagan: ")
    assert message in errors
    assert [p for p in tmp_path.iterdir() if p.name != "cache"] == []


def test_from_a_folder_to_pictures(capsys, tmp_path, train_options, pictures):
    folder = tmp_path / "run"
    (pictures / "cats" / "broken.png").write_bytes(b"not a picture")
    status, output, errors = run(capsys, "train", *train_options, "--steps", 8, "--out", folder)
    assert status == 0, errors
    assert "24 pictures, 2 classes" in output
    assert "broken.png" in errors

    trained = Run(folder)
    assert trained.info.class_names == ("cats", "dogs")
    assert trained.info.config.model.num_classes == 2
    assert [p.name for p in trained.checkpoints()] == ["step-00000006.safetensors", "step-00000008.safetensors"]
    assert [p.name for p in trained.samples()] == ["step-00000004.png", "step-00000008.png"]
    assert trained.samples_path.read_bytes() == trained.sample_path(8).read_bytes()
    assert Image.open(trained.animation_path).n_frames == 2
    assert Image.open(folder / "attend.png").width > 300

    rows = trained.metrics()
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    wanted = {"loss/discriminator", "loss/generator", "logits/real", "logits/fake", "gamma/generator.16.0"}
    wanted |= {"gamma/discriminator.16.0", "gradient_norm/generator", "gradient_norm/discriminator"}
    wanted |= {"learning_rate/generator", "learning_rate/discriminator", "images_per_second", "step"}
    assert set(rows[0]) == wanted

    for out in ("a.npz", "b.npz"):
        status, output, _ = run(capsys, "sample", folder, "--out", tmp_path / out, "--classes", "dogs", "--count", 5)
        assert (status, output.strip()) == (0, str(tmp_path / out))
    a, b = (np.load(tmp_path / out) for out in ("a.npz", "b.npz"))
    assert a["images"].shape == (5, 32, 32, 3)
    assert a["labels"].tolist() == [1] * 5
    assert np.array_equal(a["images"], b["images"])

    run(capsys, "sample", folder, "--out", tmp_path / "c.npz", "--classes", "1", "--count", 5, "--seed", 1)
    assert not np.array_equal(a["images"], np.load(tmp_path / "c.npz")["images"])

    assert run(capsys, "sample", folder)[0] == 0
    assert Image.open(folder / "samples-0.png").width > 8 * 32

    assert run(capsys, "sample", folder, "--out", tmp_path / "singles", "--count", 2)[0] == 0
    names = sorted(p.name for p in (tmp_path / "singles").iterdir())
    assert names == ["cats-00000.png", "cats-00001.png", "dogs-00000.png", "dogs-00001.png"]
    assert Image.open(tmp_path / "singles" / names[0]).size == (32, 32)

    status, _, errors = run(capsys, "sample", folder, "--classes", "fish")
    assert (status, errors.count("\n")) == (2, 1)
    assert "0 cats, 1 dogs" in errors
    assert run(capsys, "sample", folder, "--out", tmp_path / "x.jpeg")[0] == 2

    status, _, errors = run(capsys, "train", *train_options, "--out", folder)
    assert status == 2
    assert "holds a run already" in errors


def test_tensorboard_reads_the_events(capsys, tmp_path, train_options):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert run(capsys, "train", *train_options, "--steps", 4, "--out", tmp_path / "run")[0] == 0
    events = EventAccumulator(str(tmp_path / "run" / "events")).Reload()
    rows = Run(tmp_path / "run").metrics()
    for name in set(rows[0]) - {"step"}:
        scalars = [(e.step, e.value) for e in events.Scalars(name)]
        assert scalars == [(row["step"], pytest.approx(row[name], rel=1e-6)) for row in rows]


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_transparent_pictures_without_classes(capsys, tmp_path, train_options, channels):
    arguments = [*train_options, "--image-channels", channels, "--labels", "False", "--steps", 2]
    assert run(capsys, "train", *arguments, "--out", tmp_path / "run")[0] == 0
    assert Run(tmp_path / "run").info.class_names == ()
    assert run(capsys, "sample", tmp_path / "run", "--out", tmp_path / "x.npz", "--count", 3)[0] == 0
    assert np.load(tmp_path / "x.npz")["images"].shape == (3, 32, 32, channels)


def test_the_best_checkpoint_is_kept(capsys, tmp_path, train_options, monkeypatch):
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
    assert run(capsys, "train", *train_options, *options)[0] == 0
    trained = Run(tmp_path / "run")
    assert trained.best_step() == 4
    assert [int(p.stem.removeprefix("step-")) for p in trained.checkpoints()] == [4, 8, 10]
    from sagan.files import load_tensors

    assert load_tensors(trained.generator_path)[1]["step"] == 4


def test_without_the_packages_of_evaluation_training_goes_on_and_says_what_to_install(
    capsys, tmp_path, train_options, monkeypatch
):
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite_pytorch", None)
    options = ["--steps", 2, "--evaluate-every", 2, "--out", tmp_path / "run"]
    status, _, errors = run(capsys, "train", *train_options, *options)
    assert status == 0
    assert "training goes on without evaluations" in errors
    assert "pip install 'sagan[metrics]'" in errors


def test_features_asked_for_that_are_missing_are_an_error(capsys, tmp_path, train_options):
    options = ["--evaluate-every", 2, "--evaluate-features", "nothing.pt", "--out", tmp_path / "run"]
    status, _, errors = run(capsys, "train", *train_options, *options)
    assert status == 2
    assert "--features nothing.pt: no such file" in errors


def test_training_evaluates_and_draws_the_curve(capsys, tmp_path, train_options):
    pytest.importorskip("efficientnet_lite_pytorch")
    options = ["--steps", 4, "--evaluate-every", 2, "--evaluate-count", 8, "--out", tmp_path / "run"]
    assert run(capsys, "train", *train_options, *options)[0] == 0
    rows = [row for row in Run(tmp_path / "run").metrics() if "frechet_distance/EfficientNet-Lite0" in row]
    assert [row["step"] for row in rows] == [2, 4]
    assert all(row["frechet_distance/EfficientNet-Lite0"] > 0 and row["diversity"] > 0 for row in rows)
    assert Image.open(Run(tmp_path / "run").curve_path).size > (500, 300)


def test_training_warns_once_of_what_goes_wrong(capsys, tmp_path, train_options, monkeypatch):
    """Evaluations whose values are given here, since a training that collapses takes hours to come by."""
    from sagan.training import recorder

    class Given:
        distance_key = "fid"

        def __init__(self, store, features, count, device, **_):
            self.values = iter([(9, 1.0), (5, 0.9), (6, 0.9), (7, 0.8), (8, 0.3), (9, 0.3)])

        def __call__(self, generator, seed):
            return dict(zip(("fid", "diversity"), next(self.values), strict=True))

    monkeypatch.setattr(recorder, "Monitor", Given)
    options = ["--steps", 12, "--evaluate-every", 2, "--out", tmp_path / "run"]
    errors = run(capsys, "train", *train_options, *options)[2]
    assert errors.count("fid has risen 3 times in a row, to 8 (best: 5 at step 4") == 1
    assert errors.count("diversity 0.30, at step 2 1.00") == 1
    assert errors.count("step 10: ") == 2
    assert errors.count("step 12: ") == 0


def test_changed_data_are_noticed(capsys, tmp_path, train_options, pictures):
    folder = tmp_path / "run"
    assert run(capsys, "train", *train_options, "--steps", 2, "--out", folder)[0] == 0
    (pictures / "cats" / "0.png").unlink()
    status, _, errors = run(capsys, "train", "--resume", folder)
    assert status == 2
    assert "has changed since" in errors
    assert "gone: cats/0.png" in errors


def test_a_second_training_in_the_same_folder_is_refused(capsys, tmp_path, train_options):
    folder = tmp_path / "run"
    with only_training(folder):
        for options in (["--steps", 2, "--out", folder], ["--steps", 2, "--out", folder, "--seed", 1]):
            status, _, errors = run(capsys, "train", *train_options, *options)
            assert status == 2
            assert f"{folder} is being trained by process" in errors.splitlines()[-1]
        assert [path.name for path in folder.iterdir()] == [".lock"]
    assert run(capsys, "train", *train_options, "--steps", 2, "--out", folder)[0] == 0
    assert not (folder / ".lock").exists()


def test_an_absurd_learning_rate_ends_in_words(capsys, tmp_path, train_options):
    options = ["--generator-lr", "1e30", "--discriminator-lr", "1e30", "--discriminator-spectral-norm", "False"]
    status, _, errors = run(capsys, "train", *train_options, *options, "--steps", 50, "--out", tmp_path / "run")
    assert status == 2
    assert "training has come apart 4 times after step 0" in errors.splitlines()[-1]


def test_the_log_is_json_lines(capsys, tmp_path, train_options):
    assert run(capsys, "train", *train_options, "--steps", 2, "--out", tmp_path / "run")[0] == 0
    lines = Run(tmp_path / "run").metrics_path.read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2]


def test_import_makes_a_run_that_the_other_commands_take(capsys, tmp_path):
    data, out = Path(__file__).parent / "importers" / "data" / "studiogan", tmp_path / "run"
    files = (data / "G.pth", "--discriminator", data / "D.pth", "--out", out)
    status, output, errors = run(capsys, "import", *files)
    assert (status, errors) == (0, "")
    assert "studiogan: a generator of 32 px images, 5 classes, attention at 16, and its discriminator" in output
    assert "batch_norm_eps 0.0001" in output  # what no tensor tells is said
    assert run(capsys, "sample", out, "--count", "1")[0] == 0
    assert run(capsys, "attend", out)[0] == 0
    assert "no source of pictures" in run(capsys, "evaluate", out)[2]
    assert "no source of pictures" in run(capsys, "attend", out, "--network", "discriminator")[2]
    assert (
        f"was imported, so has no training to resume: start from it with --from {out}"
        in (run(capsys, "train", "--resume", out)[2])
    )
    again = run(capsys, "import", *files)
    assert again[0] == 2
    assert "holds a run already" in again[2]
    assert run(capsys, "import", data / "D.pth")[0] == 2
    assert "batch_norm_eps must be above 0" in run(capsys, "import", data / "G.pth", "--batch-norm-eps", "0")[2]
