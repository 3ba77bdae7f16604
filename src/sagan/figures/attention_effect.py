"""Draw what attention does: images as trained, the same with attention off, and their amplified difference."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from sagan.attention_effect import AttentionEffect, amplified_difference, visible_gain
from sagan.figures.layout import GREY, GUTTER, LABEL_SIZE, MARGIN, Page, fit_row_labels, label_width, rgb, tile_side

_HEAD, _CAPTION, _FRAME = 20, 16, "#d0d0d6"  # heights of the texts, layout units
_LINE = 14  # height of a line of the subtitle
_LEAST_WIDTH = 420  # layout units right of the labels, for the texts


def draw_effect(effect: AttentionEffect, *, title: str, subtitle: str, labels: Sequence[str] | None = None) -> Figure:
    """Draw a row for each image: as trained, with attention off, and the difference, all amplified equally.

    Args:
        effect: the images.
        title: a line above the images.
        subtitle: lines below the title.
        labels: one per row, written to its left.
    """
    count, resolution = effect.on.shape[:2]
    tile = tile_side(resolution)
    fitted = fit_row_labels(labels or ())
    widest = max((label_width(*label) for label in fitted), default=0)
    left = MARGIN + (round(widest) + GUTTER if widest else 0)
    top = MARGIN + 20 + _LINE * len(subtitle.splitlines())
    row = tile + _CAPTION + GUTTER
    width = left + max(3 * (tile + GUTTER), _LEAST_WIDTH) + MARGIN
    page = Page(width, top + _HEAD + count * row + MARGIN)

    page.text(left, MARGIN + 8, title, size=9.5, weight="bold")
    for i, line in enumerate(subtitle.splitlines()):
        page.text(left, MARGIN + 25 + _LINE * i, line, size=7, colour=GREY)
    gain = visible_gain(effect.total.largest)
    columns = [left + i * (tile + GUTTER) for i in range(3)]
    for x, text in zip(columns, ("as trained", "attention off", f"difference × {gain}"), strict=True):
        page.text(x + tile / 2, top + 10, text, size=7, ha="center")
    differences = amplified_difference(effect.on, effect.off, gain)
    for i, apart in enumerate(effect.each):
        y = top + _HEAD + i * row
        if labels:
            text, font = fitted[i]
            page.text(left - GUTTER, y + tile / 2, text, size=LABEL_SIZE, ha="right", font=font)
        for x, image in zip(columns, (effect.on[i], effect.off[i], differences[i]), strict=True):
            page.image(rgb(image), x, y, tile, _FRAME)
        caption = f"{apart.average} on average, {apart.largest} at most"
        page.text(columns[2] + tile / 2, y + tile + _CAPTION / 2 + 1, caption, size=6, colour=GREY, ha="center")
    return page.figure
