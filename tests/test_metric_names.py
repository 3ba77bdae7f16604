from sagan.metric_names import best_step, distance_key, is_distance, join_facts

NAME = "frechet_distance/EfficientNet-Lite0"


def test_the_distance_is_that_of_the_newest_evaluation():
    rows = [{"step": 1, "fid": 3.0}, {"step": 2, NAME: 90.0}, {"step": 3, NAME: 80.0}, {"step": 4, "loss": 0.1}]
    assert distance_key(rows) == NAME
    assert best_step(rows) == 3  # not step 1, whose distance is in other features
    assert best_step(rows[:1]) == 1
    assert distance_key(rows[3:]) is None
    assert best_step([]) is None


def test_names_of_distances():
    assert all(is_distance(name) for name in ("fid", "distance", NAME))
    assert not any(is_distance(name) for name in ("diversity", "loss/generator", "fid/x", "step"))


def test_facts_in_a_line():
    facts = {"source": "robots", "pictures": 3000, "left out": 0, "truncation": None, "resize": "none", "key": "abc"}
    assert join_facts(facts, hidden=("key",)) == "robots, images 3,000, skipped 0"
    assert join_facts({"network": "Inception", "side": "299 px"}) == "Inception, side 299 px"
    assert join_facts({"path": "runs/a", "step": 6}, hidden=("path",)) == "step 6"
    assert join_facts({}) == ""
