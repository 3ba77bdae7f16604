"""The curves of a metrics log: what is drawn is what was logged."""

import math
import xml.etree.ElementTree as ElementTree
from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from sagan.errors import UserError
from sagan.figures.curves import MARKERS, SERIES, arrange, draw_curves, save_figure


def log(count, gammas=(16,), every=20):
    """Rows as training writes them, random, with an evaluation for every fifth."""
    rng = np.random.default_rng(0)
    rows = []
    for step in range(every, (count + 1) * every, every):
        row = {"step": step, "loss/discriminator": 1.2, "logits/real": 1.0, "logits/fake": -1.0, "loss/generator": 0.5}
        row |= {"gradient_norm/discriminator": 24.0, "gradient_norm/generator": 7.0}
        row |= {f"gamma/{n}.{size}.0": 0.1 for n in ("generator", "discriminator") for size in gammas}
        row = {key: value if key == "step" else value * rng.lognormal(sigma=0.3) for key, value in row.items()}
        row |= {"learning_rate/generator": 2e-4, "learning_rate/discriminator": 4e-4, "images_per_second": 150.0}
        rows.append(row)
        if step % (5 * every) == 0:
            distance = 100 * rng.random() + 1000 / step
            rows.append({"step": step, "frechet_distance/EfficientNet-Lite0": distance, "diversity": rng.random()})
    return rows


def curves(figure):
    """The curves by the key that they show: (N, 2), steps and values."""
    return {
        line.get_gid(): np.stack(line.get_data(), 1) for axes in figure.axes for line in axes.lines if line.get_gid()
    }


def titles(figure):
    return [axes.get_title("left") for axes in figure.axes]


def marks(figure):
    """What is written inside of the panels."""
    return [text.get_text() for axes in figure.axes for text in axes.texts]


# Deuteranopia and protanopia, on linear RGB (Machado et al. 2009, severity 1).
BLINDNESS = {
    "none": np.eye(3),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
}


def seen(colour, kind):
    """CIE L*a*b* of a colour '#rrggbb', as it is seen."""
    value = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    linear = (BLINDNESS[kind] @ linear).clip(0, 1)
    xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]] @ linear
    x, y, z = np.cbrt(xyz / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def nearest(colours, kind):
    """The smallest difference (CIE 1976) of two of the colours."""
    return min(np.linalg.norm(seen(a, kind) - seen(b, kind)) for a, b in combinations(colours, 2))


@pytest.mark.parametrize("kind", BLINDNESS)
def test_colours_that_are_compared_can_be_told_apart(kind):
    assert nearest(SERIES, kind) > 15
    assert len({*MARKERS}) == len(MARKERS) == len(SERIES)


def test_every_value_is_drawn_where_it_was_logged():
    rows = log(20)
    figure = draw_curves(rows)
    drawn = curves(figure)
    assert set(drawn) == {key for row in rows for key in row} - {"step"}
    for key, points in drawn.items():
        np.testing.assert_array_equal(points, [(row["step"], row[key]) for row in rows if key in row])
    known = ["Losses", "Mean logits", "Gamma", "Gradient norms", "Learning rates", "Images per second"]
    assert titles(figure) == ["Frechet distance, EfficientNet-Lite0", "Diversity", *known]


def test_chosen_values_alone():
    figure = draw_curves(log(20), iter(["frechet_distance/EfficientNet-Lite0", "logits/real"]))
    assert titles(figure) == ["Frechet distance, EfficientNet-Lite0", "Mean logits"]
    assert set(curves(figure)) == {"frechet_distance/EfficientNet-Lite0", "logits/real"}


@pytest.mark.parametrize("key", ["fid", "distance", "frechet_distance/EfficientNet-Lite0"])
def test_the_best_distance_is_marked(key):
    rows = [{"step": s, key: v} for s, v in ((300, 40.0), (600, math.nan), (1200, 21.26), (1500, 22.0))]
    figure = draw_curves([*rows, {"step": 1500, "diversity": 0.1}])
    assert marks(figure) == ["best: 21.26 at step 1,200"]
    ring = figure.axes[0].lines[-1]
    assert (ring.get_xdata(), ring.get_ydata()) == ([1200], [21.26])
    # Below the point, where the curve cannot be.
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    box = figure.axes[0].texts[0].get_window_extent(renderer)
    assert box.y1 < figure.axes[0].transData.transform((1200, 21.26))[1]
    assert box.y0 > figure.axes[0].get_window_extent(renderer).y0


def test_no_text_lies_on_another():
    many = (8, 16, 32, 64, 128)
    for gammas in ((16,), many[:2], many):
        figure = draw_curves(log(100, gammas, every=10_000))
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        legends = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
        found = [axes._left_title for axes in figure.axes] + [t for legend in legends for t in legend.get_texts()]
        found += [text for axes in figure.axes for text in axes.texts]
        for axis in (a for axes in figure.axes for a in (axes.xaxis, axes.yaxis)):
            low, high = axis.get_view_interval()
            found += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in found if text.get_text()]
        assert len(boxes) > 60
        page = figure.bbox
        for name, box in boxes:
            assert page.x0 <= box.x0 <= box.x1 <= page.x1, name
        for (a, box), (b, other) in combinations(boxes, 2):
            apart = box.x1 <= other.x0 or other.x1 <= box.x0 or box.y1 <= other.y0 or other.y1 <= box.y0
            assert apart, (a, b)


@pytest.mark.parametrize("top", [5e-5, 2e-4, 4e-4, 1.3e-3, 0.02, 3.0, 4e4, 3e6])
def test_the_ticks_of_an_axis_are_written_in_one_way(top):
    figure = draw_curves([{"step": n, "learning_rate/generator": top * n / 10} for n in range(1, 11)])
    FigureCanvasAgg(figure).draw()
    axis = figure.axes[0].yaxis
    ticks = {tick.label1.get_text(): tick.get_loc() for tick in axis.get_major_ticks()}
    for text, value in ticks.items():
        assert float(text) == pytest.approx(value)
    assert len({"e" in text for text in ticks if text != "0"}) == 1, ticks


def test_noisy_values_have_their_running_mean():
    rows = log(250)
    rows[7]["loss/generator"] = math.nan
    drawn = curves(draw_curves(rows, ["loss/generator", "gamma/generator.16.0"]))
    raw = [row for row in rows if "loss/generator" in row]
    values = np.array([row["loss/generator"] for row in raw])
    wanted = [np.nanmean(values[max(0, i - 5) : i + 6]) for i in range(len(values))]  # a 25th of 250, centred
    np.testing.assert_allclose(drawn["loss/generator"][:, 1], wanted)
    exact = [row["gamma/generator.16.0"] for row in raw]
    np.testing.assert_array_equal(drawn["gamma/generator.16.0"][:, 1], exact)


def test_many_gammas_have_a_panel_for_each_network():
    panels = [panel for panel in arrange(log(1, (8, 16, 128))) if panel.title.startswith("Gamma")]
    assert [panel.title for panel in panels] == ["Gamma, generator", "Gamma, discriminator"]
    assert panels[0].keys == ("gamma/generator.8.0", "gamma/generator.16.0", "gamma/generator.128.0")
    assert panels[1].names == ("8", "16", "128")


def test_one_row_is_drawn(tmp_path):
    save_figure(draw_curves(log(1)), tmp_path / "x.png")
    figure = draw_curves([{"step": 5, "fid": 3.0}])
    assert marks(figure) == ["best: 3 at step 5"]
    assert figure.axes[0].lines[0].get_marker() == "o"
    save_figure(figure, tmp_path / "y.png")


def test_what_is_no_number_leaves_a_gap_or_is_skipped(tmp_path):
    rows = [
        {"step": 1, "loss/generator": math.inf, "fid": math.nan, "note": "text", "flag": True, "nothing": None},
        {"step": 2, "loss/generator": 1.0, "fid": math.nan, "$weird_{key": 1.0},
        {"loss/generator": 3.0},
    ]
    figure = draw_curves(rows)
    assert titles(figure) == ["FID", "$weird {key", "Losses"]
    (mark,) = marks(figure)
    assert "finite" in mark
    np.testing.assert_array_equal(curves(figure)["loss/generator"], [(1, math.nan), (2, 1.0)])
    save_figure(figure, tmp_path / "x.png")


@pytest.mark.parametrize(("rows", "keys"), [([], None), ([{"step": 1}], None), ([{"step": 1, "fid": 1.0}], ["loss"])])
def test_nothing_to_draw(rows, keys):
    with pytest.raises(ValueError, match="draw"):
        draw_curves(rows, keys)


@pytest.mark.parametrize("suffix", ["png", "svg", "PNG"])
def test_saved_whole_alone_and_always_alike(tmp_path, suffix):
    for name in ("a", "b"):
        save_figure(draw_curves(log(60)), tmp_path / f"{name}.{suffix}")
    a, b = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in "ab")
    assert a == b
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a.{suffix}", f"b.{suffix}"]
    if suffix == "svg":
        assert ElementTree.fromstring(a).tag == "{http://www.w3.org/2000/svg}svg"
    else:
        assert Image.open(tmp_path / f"a.{suffix}").format == "PNG"


def test_other_kinds_of_file_are_refused(tmp_path):
    figure = draw_curves(log(1))
    for name in ("x.pdf", "x"):
        with pytest.raises(UserError, match=r"x.*\.png\b.*\.svg\b"):
            save_figure(figure, tmp_path / name)
    assert list(tmp_path.iterdir()) == []
