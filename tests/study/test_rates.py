"""`sagan study rates`: the search, its trials with real training, how it resumes, and its report."""

import math
import re
from dataclasses import replace

import pytest

from helpers.features import save_means
from sagan.cli import main
from sagan.presets import PRESETS
from sagan.study.rates import (
    FACTOR,
    FURTHEST,
    PRECISION,
    VARIANTS,
    RatesFolder,
    RatesPlan,
    Trial,
    Trials,
    bounds,
    next_rate,
    with_rate,
)
from sagan.study.rates_report import write_rates_report
from sagan.study.variants import equal_rate

TINY = "--resolution 32 --base-channels 4 --latent-dim 8 --batch-size 4 --evaluate-count 8 --precision fp32".split()


def trial(rate, survived, seconds=1.0):
    reason = "" if survived else "the loss is not a number"
    return Trial(rate, survived, reason, 8, 5.0 if survived else None, 0.5 if survived else None, 10.0, seconds)


def search(start, limit):
    """Search where rates up to a limit survive."""
    trials = []
    while (rate := next_rate(trials, start)) is not None:
        trials.append(trial(rate, rate <= limit))
        assert len(trials) < 20
    return trials


@pytest.mark.parametrize("limit", [1.3e-3, 0.9e-3, 0.0101, 0.39, 4e-5])
def test_a_search_brackets_the_limit(limit):
    trials = search(1e-3, limit)
    low, high = bounds(trials)
    assert low <= limit < high
    assert high / low <= PRECISION
    rates = [t.rate for t in trials]
    assert len(set(rates)) == len(rates)
    # The bisection is of logarithms: the last rate is the geometric mean of those around it.
    around = sorted(rates)
    i = around.index(rates[-1])
    assert rates[-1] ** 2 == pytest.approx(around[i - 1] * around[i + 1])


def test_a_search_gives_up_far_away():
    assert bounds(search(1e-3, math.inf)) == (pytest.approx(1e-3 * FACTOR**FURTHEST), None)
    assert bounds(search(1e-3, 0)) == (None, pytest.approx(1e-3 / FACTOR**FURTHEST))


def test_rates_that_survive_above_one_that_fails_do_not_count():
    assert bounds([trial(1, True), trial(2, False), trial(8, True)]) == (1, 2)


def test_a_rate_is_the_geometric_mean_and_stays_constant():
    base = PRESETS["demo"]
    assert base.training.lr_decay_from < 1
    changed = with_rate(base, 0.01)
    rates = changed.training.generator_lr, changed.training.discriminator_lr
    assert math.sqrt(rates[0] * rates[1]) == pytest.approx(0.01)
    assert rates[1] / rates[0] == pytest.approx(2)
    restored = {"generator_lr": base.training.generator_lr, "discriminator_lr": base.training.discriminator_lr}
    assert replace(changed.training, **restored, lr_decay_from=0.7) == base.training
    assert changed.training.lr_decay_from == 1


@pytest.fixture
def arguments(image_folder, tmp_path):
    """Arguments of a search for the rate at which numbers overflow: rates from 1,000 on, and no bound on the images."""
    file = save_means(tmp_path / "means.pt")
    common = ["--data", str(image_folder), "--device", "cpu", "--out", str(tmp_path / "rates"), "--steps", "6"]
    rates = ["--generator-lr", "1000", "--discriminator-lr", "1000"]
    bound = ["--max-distance", "1e9", "--min-diversity", "0"]
    seeds = ["--seeds", "1", "--jobs", "1"]
    only = ["--only", "sn-d"]
    return ["study", "rates", *common, *seeds, *only, *rates, *bound, "--evaluate-features", str(file), *TINY]


def without_seconds(folder):
    return [[replace(t, seconds=0) for t in s.trials()] for s in folder.searches()]


def test_a_search_with_real_training_resumes_where_it_was_stopped(arguments, tmp_path, monkeypatch, capsys):
    tries = []

    def interrupted(self, config, rate, try_rate=Trials.try_rate):
        tries.append(rate)
        if len(tries) == 4:
            raise KeyboardInterrupt
        return try_rate(self, config, rate)

    monkeypatch.setattr(Trials, "try_rate", interrupted)
    assert main(arguments) == 130
    folder = RatesFolder(tmp_path / "rates")
    (begun,) = without_seconds(folder)
    assert [t.rate for t in begun] == tries[:3]
    assert "Not finished" in (folder.path / "report.md").read_text()

    monkeypatch.undo()
    assert main(arguments) == 0
    (done,) = without_seconds(folder)
    assert done[:3] == begun
    low, high = bounds(done)
    assert 0 < low < high <= PRECISION * low
    failed = [t for t in done if not t.survived]
    # Losses above 1e5, or no numbers: found before the last step is evaluated.
    assert all(re.search("loss|numbers", t.reason) for t in failed)
    assert all(t.distance is None for t in failed)
    assert all(t.distance > 0 and t.steps == 6 for t in done if t.survived)

    # The same search without an interruption has the same trials, and a finished one makes none.
    other = [*arguments, "--out", str(tmp_path / "other")]
    assert main(other) == 0
    assert without_seconds(RatesFolder(tmp_path / "other")) == [done]
    monkeypatch.setattr(Trials, "try_rate", None)
    assert main(other) == 0
    report = (tmp_path / "other" / "report.md").read_text()
    assert f"{low:.2g} ({high:.2g})" in report
    assert report.count("| survives |") == len(done) - len(failed)
    assert re.search(r"^sagan study rates .*--steps 6 .*--only sn-d$", report, re.MULTILINE)


def test_a_search_is_resumed_where_other_things_lie_next_to_its_images(arguments, image_folder, tmp_path, capsys):
    arguments = [*arguments, "--generator-lr", "1e-3", "--discriminator-lr", "1e-3", "--max-distance", "1e-6"]
    arguments = [*arguments, "--steps", "1"]  # rates fail all the way down
    assert main(arguments) == 0
    line = r"^sn-d, seed 0, rate \S+ \(1 step, \d+ s\): fails: the distance is"
    assert len(re.findall(line, capsys.readouterr().out, re.MULTILINE)) == FURTHEST + 1
    (image_folder / "notes").mkdir()
    assert main(arguments) == 0
    (image_folder / "cats/0.png").unlink()
    assert main(arguments) == 2
    assert "images in its data" in capsys.readouterr().err


@pytest.mark.slow
def test_more_seeds_in_several_processes(arguments, tmp_path, capsys):
    assert main(arguments) == 0
    (first,) = without_seconds(RatesFolder(tmp_path / "rates"))
    assert main([*arguments, "--seeds", "2", "--jobs", "2"]) == 0
    both = without_seconds(RatesFolder(tmp_path / "rates"))
    assert both[0] == first
    assert both[1] != first
    assert not any(s.next_rate() for s in RatesFolder(tmp_path / "rates").searches())
    capsys.readouterr()
    for change, name in ((["--seeds", "1"], "seeds"), (["--steps", "7"], "--steps"), (["--max-distance", "1"], "max")):
        assert main([*arguments, "--seeds", "2", *change]) == 2
        assert name in capsys.readouterr().err


@pytest.mark.parametrize(
    ("bound", "reason"),
    [
        (["--max-distance", "1e-6"], r"distance is [\d.]+ of the untrained generator's, above 1e-06"),
        (["--min-diversity", "100"], r"diversity is [\d.]+, below 100"),
    ],
)
def test_what_has_learnt_nothing_or_has_collapsed_does_not_survive(arguments, tmp_path, bound, reason):
    """Rates at which numbers stay numbers fail all the way down, and the search gives up."""
    assert main([*arguments, "--generator-lr", "1e-3", "--discriminator-lr", "1e-3", "--steps", "2", *bound]) == 0
    (trials,) = without_seconds(RatesFolder(tmp_path / "rates"))
    assert len(trials) == FURTHEST + 1
    for t in trials:
        assert not t.survived
        assert re.search(reason, t.reason)
        assert t.steps == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--only", "self-16"], r"--only self-16\b.*\bsn-d\b"),
        (["--max-distance", "0"], r"max_distance\b.*\b0\b"),
        (["--evaluate-features", "no.pt"], r"no\.pt"),
    ],
)
def test_bad_options(arguments, tmp_path, capsys, change, message):
    assert main([*arguments, *change]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "rates").exists()


def test_the_report_s_means_and_ratios(tmp_path):
    """Rates of 1 and 2 e against 0.5 and 0.5: ratios of 2 and 4 e."""
    plan = RatesPlan(PRESETS["demo"], (0, 1), VARIANTS, 0.8, 0.1, "key")
    folder = RatesFolder.create(tmp_path / "rates", plan)
    found = {("sn-d", 0): 0.5, ("sn-d", 1): 0.5, ("sn-both", 0): 1.0, ("sn-both", 1): 2 * math.e}
    for s in folder.searches():
        rate = found.get((s.variant.name, s.seed))
        if rate:
            s.add(trial(1.2 * rate, survived=False))
            s.add(trial(rate, survived=True, seconds=899))
    write_rates_report(folder)
    text = (folder.path / "report.md").read_text()
    logs = math.log(2), math.log(4 * math.e)
    mean, half = sum(logs) / 2, 12.7062 * (logs[1] - logs[0]) / 2  # t of one degree of freedom
    ratio, low, high = (math.exp(x) for x in (mean, mean - half, mean + half))
    rows = {
        cells[1]: cells[2:-1]
        for cells in ([c.strip() for c in line.split("|")] for line in text.splitlines())
        if len(cells) == 8
    }
    assert rows["SN in D"] == ["0.5", "0.5, 0.5", "0.5 (0.6)", "0.5 (0.6)", "-"]
    mean_rate = math.sqrt(2 * math.e)
    assert rows["SN in G and D"] == [
        f"{mean_rate:.2g}", f"{mean_rate:.2g}, {mean_rate:.2g}", "1 (1.2)", "5.4 (6.5)",
        f"{ratio:.2f} ({low:.2g} to {high:.2g})",
    ]  # fmt: skip
    assert rows["SN in G and D, TTUR"] == ["-", "-", "not finished", "not finished", "-"]
    assert "SN in G and D, TTUR, seed 1" in text
    assert "1.00 hours" in text  # four trials of 899 s and four of 1 s


def test_where_a_search_gave_up_there_is_a_bound_and_no_mean(tmp_path):
    plan = RatesPlan(PRESETS["demo"], (0, 1), VARIANTS[:2], 0.8, 0.1, "key")
    folder = RatesFolder.create(tmp_path / "rates", plan)
    for s in folder.searches():
        largest = {("sn-d", 0): math.inf, ("sn-d", 1): 0}.get((s.variant.name, s.seed), 0.01)
        while (rate := s.next_rate()) is not None:
            s.add(trial(rate, rate <= largest))
    write_rates_report(folder)
    text = (folder.path / "report.md").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("| SN in D |") and "above" in line]
    start = equal_rate(plan.chosen()[0].config)
    furthest = f"above {start * FACTOR**FURTHEST:.2g}", f"below {start / FACTOR**FURTHEST:.2g}"
    assert [cell.strip() for cell in line.split("|")][2:-1] == ["-", "-", *furthest, "-"]
    (line,) = [line for line in text.splitlines() if line.startswith("| SN in G and D | 0.0")]
    assert line.split("|")[-2].strip() == "-"  # no pair has both rates


def test_the_demo_s_first_rate_is_the_preset_s():
    plan = RatesPlan(PRESETS["demo"], (0,), VARIANTS, 0.8, 0.1, "key")
    for variant in plan.chosen():
        assert next_rate([], equal_rate(variant.config)) == pytest.approx(math.sqrt(7e-4 * 1.4e-3))
        assert variant.config.training.lr_decay_from == 1
    ttur = plan.chosen()[2].config.training
    assert (ttur.generator_lr, ttur.discriminator_lr) == pytest.approx((7e-4, 1.4e-3))
