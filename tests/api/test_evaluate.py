"""`sagan.evaluate` has the options of the command line by name, and a result that a notebook shows as a table."""

import inspect
from dataclasses import fields

import sagan
from helpers.runs import make_run
from metrics.test_evaluation import Thumbnail
from sagan.config import EvaluationConfig


def test_its_options_are_those_of_the_command_line():
    parameters = dict(list(inspect.signature(sagan.evaluate).parameters.items())[2:])
    defaults = {field.name: field.default for field in fields(EvaluationConfig)}
    assert parameters.keys() == {*defaults, "device", "cache"}
    assert {name: parameters[name].default for name in defaults} == defaults


def test_a_run_against_images_is_a_table(image_folder, tmp_path):
    make_run(tmp_path / "<run>")
    run = sagan.Run(tmp_path / "<run>")
    found = sagan.evaluate(run, data=image_folder, features=Thumbnail(), count=12, seed=3, truncation=0.9)
    about = {name: found.options[name] for name in ("count", "seed", "truncation")}
    assert about == {"count": 12, "seed": 3, "truncation": 0.9}
    assert found.generated["pictures"] == 12
    html = found._repr_html_()
    assert "&lt;run&gt;" in html
    assert "<run>" not in html
    for metric in found.metrics:
        assert metric.name in html
        assert f">{metric.name}</th>" in html
    shown = str(found).splitlines()
    value = next(line for line in shown if line.startswith("Frechet distance")).split()[2]
    assert f">{value}</td>" in html
    assert all(remark.split("<")[0] in html for remark in found.remarks)
