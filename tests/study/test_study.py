"""`sagan study` from end to end."""

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pytest
import torch

from helpers.features import save_means
from sagan.cli import main
from sagan.config import Config, DataConfig, TrainingConfig
from sagan.data import prepare
from sagan.distributed import Processes
from sagan.errors import UserError
from sagan.metric_names import is_distance
from sagan.model.config import ModelConfig
from sagan.presets import PRESETS
from sagan.study import runner
from sagan.study.plan import Plan, StudyFolder
from sagan.training import speed
from sagan.training.speed import seconds

TINY = "--resolution 32 --base-channels 4 --latent-dim 8 --batch-size 4 --evaluate-count 8 --precision fp32".split()


@pytest.fixture
def arguments(image_folder, tmp_path):
    """Arguments of a study with eight steps per run."""
    file = save_means(tmp_path / "means.pt")
    features = ["--features", str(file), "--evaluate-features", str(file), "--count", "16"]
    common = ["--data", str(image_folder), "--device", "cpu", "--out", str(tmp_path / "study"), "--steps", "8"]
    return ["study", "stability", "--seeds", "2", "--only", "sn-d", *common, *features, *TINY]


def test_a_study_from_its_plan_to_its_report_and_to_more_seeds(arguments, tmp_path, capsys):
    assert main([*arguments, "--seeds", "1"]) == 0
    folder = StudyFolder(tmp_path / "study")
    assert folder.plan.seeds == (0,)
    (job,) = folder.jobs()
    first_evaluated = job.evaluation_path.stat().st_mtime_ns
    assert main(arguments) == 0
    folder = StudyFolder(tmp_path / "study")
    assert folder.plan.seeds == (0, 1)
    assert job.evaluation_path.stat().st_mtime_ns == first_evaluated
    report = (folder.path / "report.md").read_text()
    # The table shows the mean of the evaluations.
    values = [job.evaluation()["figures"][0]["value"] for job in folder.jobs()]
    (line,) = re.findall(r"^\| Frechet distance \|(.*)\|$", report, re.MULTILINE)
    assert float(line.split("±")[0]) == pytest.approx(statistics.fmean(values), rel=0.01)
    assert "2 of 2 runs" in report
    page = (folder.path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert not re.search(r"(src|href)=.(?!data:)", page)
    assert "of the last step is measured" not in report
    for job in folder.jobs():
        assert job.steps_done() == 8
        assert job.run().info.config.training.seed == job.seed
        distances = distances_by_step(job)
        assert len(distances) == 8
        assert job.evaluation()["generated"]["step"] == min(distances, key=distances.get)
    # Seeds differ; the same command does nothing again.
    first, second = ((job.path / "generator.safetensors").read_bytes() for job in folder.jobs())
    assert first != second
    before = {job.output_path: job.output_path.stat().st_mtime_ns for job in folder.jobs()}
    assert main(arguments) == 0
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    # Another study does not fit in the same folder.
    capsys.readouterr()
    assert main([*arguments, "--seed", "5"]) == 2
    assert re.search(r"\bstudy\b.*--seed\b.*\bseeds\b", capsys.readouterr().err)
    # Fewer seeds, or other options together with more seeds, are refused and change nothing.
    for change, name in ((["--seeds", "1"], "seeds"), (["--seeds", "3", "--count", "15"], "count")):
        assert main([*arguments, *change]) == 2
        assert re.search(rf"\({name}\)", capsys.readouterr().err)
        assert StudyFolder(tmp_path / "study").plan.seeds == (0, 1)


def distances_by_step(job):
    """The distances measured while a job trained."""
    return {row["step"]: next(v for k, v in row.items() if is_distance(k)) for row in job.rows() if "diversity" in row}


def test_stopping_a_study_stops_and_saves_all_its_runs(arguments, tmp_path):
    arguments = [*arguments, "--steps", "400"]
    with subprocess.Popen([sys.executable, "-m", "sagan", *arguments], stderr=subprocess.PIPE, text=True) as process:
        folder, deadline = tmp_path / "study", time.monotonic() + 100
        logs = [folder / "runs" / "sn-d" / f"seed-{seed}" / "metrics.jsonl" for seed in (0, 1)]
        while time.monotonic() < deadline and not all(log.exists() and log.stat().st_size for log in logs):
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        errors = process.communicate(timeout=100)[1]
    assert process.returncode == 0, errors
    assert "stopping" in errors
    jobs = StudyFolder(folder).jobs()
    assert all(0 < job.steps_done() < 400 for job in jobs)
    assert all(job.run().checkpoints() for job in jobs)
    assert "0 of 2 runs" in (folder / "report.md").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--budget", "soon"], r"--budget soon\b"),
        (["--only", "self-16"], r"--only self-16\b.*\bsn-d\b"),
        (["--features", "no.pt"], "no.pt"),
        (["--seeds", "0"], r"seeds\b.*\b0\b"),
        (["--budget", "0.001s"], r"--budget 0\.001s\b"),
    ],
)
def test_bad_options(arguments, tmp_path, capsys, change, message):
    assert main([*arguments, *change]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "study").exists()


def test_a_comparison_needs_classes(arguments, capsys):
    arguments[1] = "comparison"
    arguments[4:6] = []
    assert main([*arguments, "--labels", "False"]) == 2
    assert "class folders" in capsys.readouterr().err


@pytest.mark.slow
def test_the_generator_of_the_last_step_is_measured(arguments, tmp_path):
    assert main([*arguments, "--seeds", "1", "--measured-at", "end"]) == 0
    folder = StudyFolder(tmp_path / "study")
    (job,) = folder.jobs()
    assert len(distances_by_step(job)) == 8
    assert job.evaluation()["generated"]["step"] == 8
    report = (folder.path / "report.md").read_text()
    assert "of the last step is measured" in report
    assert "--measured-at end" in report


@pytest.mark.parametrize(
    ("seconds", "settled"),
    [
        ([], False),
        ([1.0], False),
        ([3.0, 1.0], False),
        ([1.0, 3.0], False),
        ([3.0, 1.0, 1.04], True),
        ([1, 1, 2], False),
    ],
)
def test_a_speed_counts_when_two_blocks_agree(seconds, settled):
    assert speed.has_settled(seconds) is settled


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_trial_trains_whole_blocks_after_a_warm_up(image_folder, monkeypatch, every):
    """Steps 0 to `every` are not timed; then every block has the same number of penalties."""
    steps = []
    train = speed.Trainer.train_step
    monkeypatch.setattr(
        speed.Trainer, "train_step", lambda self, step, *rest: (steps.append(step), train(self, step, *rest))
    )
    model = ModelConfig(resolution=32, base_channels=4, latent_dim=8)
    training = TrainingConfig(batch_size=4, precision="fp32", r1=0.1, penalty_every=every)
    config = Config(model=model, training=training, data=DataConfig(source=str(image_folder)))
    store = prepare(config.data, resolution=32, image_channels=3, progress=False)
    started = time.perf_counter()
    seconds = speed.seconds_per_step(config, store, Processes(torch.device("cpu")))
    elapsed = time.perf_counter() - started
    assert steps == list(range(len(steps)))
    block = {1: 8, 3: 9}[every]
    blocks, rest = divmod(len(steps) - (every + 1), block)
    assert rest == 0
    assert 2 <= blocks <= speed.TRIAL_BLOCKS
    assert 0 < seconds * 2 * block < elapsed


def test_a_budget_decides_the_steps(arguments, tmp_path, monkeypatch):
    features, source = (arguments[arguments.index(name) + 1] for name in ("--features", "--data"))
    monkeypatch.setattr(runner, "seconds_per_step", lambda *_: 0.5)
    base = replace(PRESETS["demo"], data=replace(PRESETS["demo"].data, source=source))
    options = {"budget": "30s", "seeds": 3, "jobs": 2, "features": features}
    folder = runner.open_study(tmp_path / "budget", "stability", base, **options)
    # Three variants of half a second a step, and one with a third of the steps; two runs at a time.
    assert folder.plan.base.training.steps == int(30 * 2 / (3 * (3 * 0.5 + 0.5 / 3)))


def test_variants_of_the_same_time_get_their_share_of_the_steps(arguments, tmp_path, monkeypatch):
    features, source = (arguments[arguments.index(name) + 1] for name in ("--features", "--data"))
    monkeypatch.setattr(runner, "seconds_per_step", lambda config, *_: config.model.base_channels / 24)
    base = replace(PRESETS["demo"], data=replace(PRESETS["demo"].data, source=source))
    only = ("base", "double-rates", "narrow", "wide")
    options = {"seeds": 2, "jobs": 2, "features": features, "only": only}
    folder = runner.open_study(tmp_path / "shares", "settings", base, **options)
    steps = {job.variant.name: job.config.training.steps for job in folder.jobs()}
    assert steps == {"base": 1700, "double-rates": 1700, "narrow": 2550, "wide": 1275}
    # A resumed study keeps its steps, whatever the speed is by then.
    monkeypatch.setattr(runner, "seconds_per_step", lambda *_: 1.0)
    assert runner.open_study(tmp_path / "shares", "settings", base, **options).plan == folder.plan
    # A budget holds for all of them together: four variants of the same time.
    within = runner.open_study(tmp_path / "budget", "settings", base, **options, budget="80s")
    assert within.plan.base.training.steps == 80 * 2 // (2 * 4)


def test_a_damaged_plan_is_named(tmp_path):
    (tmp_path / "study.json").write_text(json.dumps({"study": "attention"}))
    with pytest.raises(UserError, match=r"study\.json\b.*\bbase\b"):
        StudyFolder(tmp_path)


def test_a_plan_of_an_earlier_version_is_read(tmp_path):
    plan = Plan("settings", PRESETS["demo"], (0,), ("base",), 10, "auto", "", (), "the key")
    content = asdict(plan)
    content["base"]["model"] |= {"spectral_norm_eps": 1e-8, "shortcut": "plain", "batch_norm_eps": 1e-5}
    (tmp_path / "study.json").write_text(json.dumps(content))
    assert StudyFolder(tmp_path).plan == plan


def test_times():
    assert [seconds(text) for text in ("45s", "90m", "1.5h", "2d")] == [45, 5400, 5400, 172800]
