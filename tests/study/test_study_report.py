"""The report of a study whose runs are made up."""

import json
import re
from dataclasses import replace

import pytest
from PIL import Image

from sagan.config import DataConfig
from sagan.presets import PRESETS
from sagan.study.paired import pairs_needed
from sagan.study.plan import Plan, StudyFolder
from sagan.study.report import write_study_report

DISTANCES = {"none": (30.0, 31.0, 32.0), "self-16": (20.0, 20.0, 23.0)}


@pytest.fixture
def folder(tmp_path):
    """A study of two variants with three seeds, evaluated; its source has a name that is HTML."""
    base = replace(PRESETS["demo"], data=DataConfig("<b>images</b>"))
    plan = Plan("attention", base, (0, 1, 2), tuple(DISTANCES), 8, "auto", "", tuple("abcde"), "key")
    folder = StudyFolder.create(tmp_path / "study", plan)
    for job in folder.jobs():
        job.path.parent.mkdir(parents=True, exist_ok=True)
        metrics = [{"name": "Frechet distance", "value": DISTANCES[job.variant.name][job.seed]}]
        job.evaluation_path.write_text(json.dumps({"figures": metrics, "features": {"network": "test"}}))
    return folder


def test_the_table_and_the_verdict(folder):
    write_study_report(folder)
    text = (folder.path / "report.md").read_text()
    assert "| Frechet distance | 31.0 ± 1 | 21.0 ± 1.73 |" in text
    # Differences of -10, -11 and -9: a standard error of 0.577, times 4.303.
    assert re.search(r"self-attention 16\b.*\bnone\b.*-10\b.*-12\.5\b.*-7\.52\b.*\b3 pairs\b.*\bspread\b", text)
    assert "6 of 6 runs" in text
    command = re.search(r"^sagan study attention .*$", text, re.MULTILINE)[0]
    assert "--only none self-16" in command
    assert "--seeds 3" in command


def test_the_pilot_says_how_many_pairs_a_difference_needs(folder):
    page = write_study_report(folder).read_text()
    text = (folder.path / "report.md").read_text()
    (row,) = re.findall(r"^\| Frechet distance, .* against none \|(.*)\|$", text, re.MULTILINE)
    base, pairs, spread, *needed = (cell.strip() for cell in row.split("|"))
    assert (base, pairs) == ("31.0", "3")
    # A standard deviation of 1 from three pairs: sqrt(2 / 7.3778) to sqrt(2 / 0.050636).
    assert spread == "1 (0.521 to 6.28)"
    expected = [f"{pairs_needed(31 * share, 1)} to {pairs_needed(31 * share, 6.2848)}" for share in (0.05, 0.1, 0.2)]
    assert needed == expected
    assert "<th>5%</th>" in page


def test_the_report_needs_its_figures_alone(folder):
    job = next(job for job in folder.jobs() if job.variant.name == "self-16")
    folder.start(job)
    Image.new("RGB", (8, 8), "red").save(job.path / "attend.png")
    page = write_study_report(folder).read_text()
    text = (folder.path / "report.md").read_text()
    (path,) = re.findall(r"!\[.*\]\((.*)\)", text)
    assert path == "figures/attend-self-16.png"
    assert (folder.path / path).read_bytes() == (job.path / "attend.png").read_bytes()
    assert page.count("data:image/png;base64,") == 1


def test_names_from_outside_are_text(folder):
    page = write_study_report(folder).read_text()
    assert "<b>" not in page
    assert "&lt;b&gt;images&lt;/b&gt;" in page
