"""The figure of the patch correlation error."""

import pytest

from sagan.figures.patch_correlation import draw_patch_correlation


def test_curves_and_floor():
    figure = draw_patch_correlation([1, 2, 6], {"a": [0.1, 0.2, 0.3], "b": [0.2, 0.2, 0.9]}, [0.02, 0.03, 0.04])
    (axes,) = figure.axes
    lines = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}
    assert lines["a"] == ([1, 2, 6], [0.1, 0.2, 0.3])
    assert lines["b"] == ([1, 2, 6], [0.2, 0.2, 0.9])
    assert lines["two real sets of this size"] == ([1, 2, 6], [0.02, 0.03, 0.04])
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] > 0.9
    assert not axes.texts


def test_near_and_far_are_marked():
    figure = draw_patch_correlation([1, 6], {"a": [0, 0]}, [0, 0], near_below=3, far_above=5)
    (axes,) = figure.axes
    assert [(text.get_text().strip(), text.get_position()[0]) for text in axes.texts] == [("near", 3), ("far", 5)]


@pytest.mark.parametrize(("distance", "errors", "floor"), [((), (), ()), ((1, 2), (1,), (1, 2)), ((1,), (1,), (1, 2))])
def test_values_that_do_not_match(distance, errors, floor):
    with pytest.raises(ValueError, match=f"{len(distance)} distances"):
        draw_patch_correlation(distance, {"a": errors}, floor)
