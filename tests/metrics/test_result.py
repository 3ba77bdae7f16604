"""The result of an evaluation: as text, as HTML and as JSON, and the file in which a run keeps it."""

import json
import re

import pytest

from helpers.runs import make_run
from sagan.metrics.evaluation import default_path
from sagan.metrics.measurement import Measurement
from sagan.metrics.result import Evaluation


def evaluation(network="thumbnail"):
    metrics = (
        Measurement("Frechet distance", 12.5, None, "0 is best"),
        Measurement("kernel distance", 0.25, 0.125, "0 is best, at any count"),
    )
    return Evaluation(
        {"step": 7, "path": "a<b>\x1b[31m"}, {"source": "robots"}, {"network": network}, metrics, {}, ("few",), {}, None
    )


def test_a_metric_is_found_by_its_name():
    assert evaluation()["kernel distance"] == 0.25
    with pytest.raises(KeyError, match="FID"):
        evaluation()["FID"]


def test_text_and_html_hold_every_metric_with_its_spread_and_no_control_codes():
    text, page = str(evaluation()), evaluation()._repr_html_()
    rows = [line for line in text.splitlines() if "distance" in line]
    assert [re.split(r"\s{2,}", row) for row in rows] == [
        ["Frechet distance", "12.5", "0 is best"],
        ["kernel distance", "0.25 ± 0.125", "0 is best, at any count"],
    ]
    assert text.splitlines()[-1] == "note: few"
    assert "\x1b" not in text
    assert "a&lt;b&gt;" in page
    assert "0.25 ± 0.125" in page


def test_json_holds_the_metrics_under_the_name_of_old_files():
    content = json.loads(json.dumps(evaluation().as_json()))
    assert content["figures"][1] == {
        "name": "kernel distance",
        "value": 0.25,
        "spread": 0.125,
        "about": "0 is best, at any count",
    }
    assert content["patch_correlation"] is None


def test_an_evaluation_in_features_of_a_long_name_is_kept(tmp_path):
    folder = make_run(tmp_path / "run", ("a", "b")).path
    paths = [default_path(folder, evaluation(name)) for name in ("猫" * 80 + "1.pt", "猫" * 80 + "2.pt")]
    assert paths[0] != paths[1]
    assert all(len(path.with_suffix("").name.encode()) < 200 for path in paths)
    assert re.fullmatch(r"step-00000007-猫+-[0-9a-f]{8}\.json", paths[0].name)
