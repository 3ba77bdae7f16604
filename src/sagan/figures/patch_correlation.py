"""Draw the patch correlation error over the distance between two patches."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from sagan.figures.curves import DPI, MARKERS, SERIES, STYLE

_FLOOR = "#8a8a94"


def draw_patch_correlation(
    distance: Sequence[float],
    errors: Mapping[str, Sequence[float]],
    floor: Sequence[float],
    *,
    near_below: float | None = None,
    far_above: float | None = None,
) -> Figure:
    """Draw a curve of errors per name, and the floor as a shaded area.

    Args:
        distance: distances between patches, in patches, ascending.
        errors: errors by name, one per distance.
        floor: errors between two real sets, one per distance.
        near_below, far_above: distances that the figure marks; None: not marked.

    Raises:
        ValueError: there is no distance, or the numbers of values differ.
    """
    counts = {len(distance), len(floor), *(len(values) for values in errors.values())}
    if counts == {0} or len(counts) != 1:
        raise ValueError(f"{len(distance)} distances, {len(floor)} floors, {[len(v) for v in errors.values()]} errors")
    with matplotlib.rc_context(STYLE):
        figure = Figure((5.6, 3.2), layout="constrained", dpi=DPI)
        axes = figure.add_subplot()
        axes.fill_between(distance, floor, color=_FLOOR, alpha=0.18, linewidth=0)
        axes.plot(distance, floor, "--", color=_FLOOR, label="two real sets of this size")
        for i, (name, values) in enumerate(errors.items()):
            look: dict[str, Any] = {"color": SERIES[i % len(SERIES)], "marker": MARKERS[i % len(MARKERS)]}
            axes.plot(distance, values, **look, markersize=4, label=name)
        axes.set_ylim(0, 1.1 * max(max(values) for values in (floor, *errors.values())) or 1)
        axes.set_xlim(0)
        # Name the near and the far end along the upper edge.
        top = axes.get_xaxis_transform()
        style: dict[str, Any] = {"transform": top, "va": "bottom", "fontsize": 8, "color": _FLOOR}
        if near_below is not None:
            axes.axvline(near_below, color=_FLOOR, linewidth=0.7)
            axes.text(near_below, 1.0, "near ", ha="right", **style)
        if far_above is not None:
            axes.axvline(far_above, color=_FLOOR, linewidth=0.7)
            axes.text(far_above, 1.0, " far", ha="left", **style)
        axes.set_xlabel("distance between patches (an image is 8 patches wide)")
        axes.set_ylabel("patch correlation error")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
