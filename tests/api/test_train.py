"""`sagan.train` is `sagan train`: the same run, options by name, a callback, and nothing that a notebook minds."""

import re
import signal
import threading

import numpy as np
import pytest
import torch

import sagan
from sagan.files import load_tensors
from sagan.training.loop import StopSignals

TINY = {
    "resolution": 32, "base_channels": 4, "latent_dim": 8, "batch_size": 4, "precision": "fp32", "device": "cpu",
    "log_every": 2, "sample_every": 4, "checkpoint_every": 3, "evaluate_every": 0,
}  # fmt: skip


def test_it_trains_as_the_command_does(command, train_options, image_folder, tmp_path, capsys):
    words = "--steps 5 --augment color cutout --generator-attention 8 self 16 channel --flips True"
    assert command("train", *train_options, *words.split(), "--out", tmp_path / "a")[0] == 0
    attention = [(8, "self"), (16, "channel")]
    options = TINY | {"augment": ["color", "cutout"], "generator_attention": attention, "batch_size": np.int64(4)}
    run = sagan.train(image_folder, tmp_path / "b", steps=5, flips=True, **options)
    assert capsys.readouterr().out == ""
    other = sagan.Run(tmp_path / "a")
    assert run.path == tmp_path / "b"
    assert run.info == other.info
    ours, theirs = (load_tensors(r.generator_path)[0] for r in (run, other))
    assert all(torch.equal(t, theirs[name]) for name, t in ours.items())
    for name in ("samples.png", "attend.png", "config.json"):
        assert (run.path / name).read_bytes() == (other.path / name).read_bytes(), name
    measured = re.compile(r"images_per_second|memory_gib|seconds/.*")  # of the machine: they differ from run to run
    rows = [[{k: v for k, v in row.items() if not measured.fullmatch(k)} for row in r.metrics()] for r in (run, other)]
    assert rows[0] == rows[1]
    assert "loss/generator" in rows[0][0]
    assert run.load().sample(1, "dogs", seed=3)[0].size == (32, 32)


def test_a_callback_sees_the_log_and_stops(image_folder, tmp_path):
    seen = []

    def callback(step, metrics):
        seen.append({"step": step} | metrics)
        return step == 4

    run = sagan.train(image_folder, tmp_path / "run", steps=9, callback=callback, **TINY)
    assert seen == run.metrics()
    assert [row["step"] for row in seen] == [2, 4]
    assert run.checkpoints()[-1] == run.checkpoint_path(5)
    assert "steps 5 of 9: sagan.train(resume=" in repr(run)
    again = sagan.train(resume=run, steps=8, callback=lambda step, metrics: step)  # not True: no stop
    assert again.path == run.path
    assert again.info.config.training.steps == 8
    assert [row["step"] for row in again.metrics()] == [2, 4, 6, 8]
    assert "steps 8" in repr(again)
    assert "continues" not in repr(again)


def test_in_a_thread_it_leaves_signals_alone(image_folder, tmp_path, monkeypatch):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    seen = []
    monkeypatch.setattr(StopSignals, "handle", lambda *_: seen.append("handled"))

    def work():
        options = TINY | {"log_every": 1}
        seen.append(sagan.train(image_folder, tmp_path / "run", steps=2, callback=look, **options))

    def look(step, metrics):
        seen.append([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen[:-1] == [before, before]
    assert isinstance(seen[-1], sagan.Run)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batchsize": 3}, "^batchsize is not an option of sagan.train: did you mean batch_size"),
        ({"generator_atention": ()}, "did you mean generator_attention"),
        ({"batch_size": "many"}, "^batch_size: Input should be a valid integer"),
        ({"batch_size": 0}, "^batch_size must be 1 or more, got 0"),
        ({"loss": "hing"}, "^loss: Input should be 'hinge'"),
        ({"generator_attention": [(32, "selfish")]}, "^generator_attention: Input should be 'self', "),
        ({"preset": "smal"}, "preset must be one of demo, small"),
        ({"budget": "1h", "steps": 3}, "pass either --budget or --steps"),
        ({"data": None}, "--data is missing"),
        ({"data": "nothing-here"}, "'nothing-here' does not exist"),
        ({"from_": "nothing-here"}, "nothing-here is not a run"),
        ({"resume": "nothing-here", "data": None}, "nothing-here is not a run"),
        ({"device": "cuda:99"}, "cuda:99"),
    ],
)
def test_what_makes_no_sense_is_a_value_error(image_folder, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        sagan.train(**{"data": image_folder} | options)
    assert not (tmp_path / "runs").exists()


def test_options_next_to_resume_are_refused_and_networks_are_taken_over(image_folder, tmp_path):
    run = sagan.train(image_folder, tmp_path / "run", steps=1, **TINY)
    with pytest.raises(ValueError, match=r"^--batch-size: --resume continues a run as it was configured"):
        sagan.train(resume=run, batch_size=8)
    few = {name: TINY[name] for name in ("batch_size", "precision", "device", "evaluate_every")}
    new = sagan.train(image_folder, tmp_path / "new", from_=run, steps=1, **few)
    assert new.info.config.model == run.info.config.model  # not the preset's
    assert new.info.config.training.start == str(run.path)


def test_the_summary_of_a_run(tmp_path, image_folder):
    run = sagan.train(image_folder, tmp_path / "<a> & b", steps=2, **TINY)
    assert sagan.load(run).class_names == sagan.load(str(run.path)).class_names == ("cats", "dogs")
    html = run._repr_html_()
    assert "&lt;a&gt; &amp; b" in html
    assert "<a>" not in html
    assert "32 px, 2 classes" in html
    assert "data:image/png;base64," in html
    run.metrics_path.write_text('{"step": 1, "fid": 30.25}\n{"step": 2, "fid": 20.5}\n')
    assert "best distance 20.5 at step 2" in repr(run)
