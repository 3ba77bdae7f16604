"""What is written where a label stands: an installed font's glyphs, or the class number next to what can be drawn."""

import unicodedata

import numpy as np
import pytest
from matplotlib.ft2font import FT2Font

from sagan.figures import labels
from sagan.figures.attention import MapSection, draw_maps, to_image
from sagan.figures.film_strip import draw_film_strip
from sagan.figures.grid import draw_grid
from sagan.figures.labels import ClassLabel, class_labels, default_font, find_font, fit_labels


@pytest.fixture(autouse=True)
def _only_dejavu(monkeypatch):
    """Fonts of the machine would draw more, and other, names."""
    monkeypatch.setattr(labels, "_system_fonts", tuple)
    find_font.cache_clear()
    yield
    find_font.cache_clear()


def fit(*names, width=1000):
    return [text for text, _ in fit_labels(names, [width] * len(names), lambda text, _: 10 * len(text))]


@pytest.mark.parametrize("name", ["café", "Ελληνικά", "Привет", "Łódź", "¿qué?", "naïve Ångström", "😀 smile"])
def test_scripts_of_the_font_are_drawn_whole_in_any_form(name):
    for form in ("NFC", "NFD"):
        assert fit(unicodedata.normalize(form, name), "x") == [name, "x"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("猫", "class 7"),
        ("🫠", "class 7"),
        ("猫 cat", "7: cat"),
        ("smile 🫠 face", "7: smile face"),
        ("קטן", "class 7"),  # the glyphs are there, but a label is not laid out from right to left
        ("a\nb", "7: a b"),
        ("\x1b[31m", "7: [31m"),
        ("!猫!", "class 7"),
    ],
)
def test_the_number_stands_next_to_what_can_be_drawn(name, shown):
    assert fit(ClassLabel(name, 7), ClassLabel("cat", 1)) == [shown, "cat"]


def test_labels_of_different_classes_differ():
    names = ["猫", "犬", "cat 猫", "cat 犬", "café", unicodedata.normalize("NFD", "café"), "cat", "class 0"]
    shown = fit(*class_labels(names))
    assert len(set(shown)) == len(names)
    assert shown[1:7] == ["class 1", "2: cat", "3: cat", "4: café", "5: café", "cat"]
    long = [f"a name that begins like the others do, {i}" for i in range(12)]
    assert len(set(fit(*class_labels(long), width=120))) == 12
    assert len(set(fit(*long, width=120))) == 12  # plain texts are numbered by their place
    assert fit(*class_labels(long, [5, 7]), width=120) == ["5: a name...", "7: a name..."]


def test_equal_labels_stay_equal_and_empty_ones_empty():
    assert fit("猫", "", "猫", "犬", "") == ["class 0", "", "class 0", "class 3", ""]
    assert fit("x", "x") == ["x", "x"]


def test_every_character_has_a_glyph():
    """Also of long random text: the boxes of missing glyphs are index 0."""
    rng = np.random.default_rng(0)
    texts = ["".join(map(chr, rng.integers(32, 0x3000, 6))) for _ in range(300)]
    face = FT2Font(str(default_font()))
    for text, font in fit_labels(class_labels(texts), [1000] * 300, lambda text, _: len(text)):
        assert font == default_font()
        assert all(face.get_char_index(ord(char)) for char in text)


def test_another_installed_font_is_used(monkeypatch):
    own = default_font().with_name("STIXGeneral.ttf")
    monkeypatch.setattr(labels, "_system_fonts", lambda: (own,))
    find_font.cache_clear()
    missing = next(
        chr(i)
        for i in sorted(FT2Font(str(own)).get_charmap())
        if chr(i).isalpha() and i not in FT2Font(str(default_font())).get_charmap()
    )
    assert fit_labels([missing + "a"], [99], lambda text, _: len(text)) == [(missing + "a", own)]


def test_fonts_of_boxes_are_not_fonts(monkeypatch):
    monkeypatch.undo()
    assert not any("lastresort" in path.name.lower() for path in labels._system_fonts())


def ink(page, rows):
    """The ink left of each row of a grid of 64-pixel images."""
    page = np.asarray(page.convert("L"))
    left = page.shape[1] - 64 - 12
    return [page[12 + 67 * row : 76 + 67 * row, :left].tobytes() for row in range(rows)]


@pytest.mark.parametrize("names", [["猫", "犬", "鳥"], ["long " * 20 + x for x in "abc"], ["é", "è", "ё"]])
def test_rows_differ_in_every_kind_of_figure(names):
    images = np.full((3, 64, 64, 3), 255, np.uint8)
    for shown in (names, class_labels(names)):
        assert len(set(ink(draw_grid(images, columns=1, row_labels=shown), 3))) == 3

    strip = np.asarray(draw_film_strip({0: np.full((3, 1, 64, 64, 3), 255, np.uint8)}, names).convert("L"))
    left = strip.shape[1] - 12 - 3 * 67 + 3
    columns = [strip[:33, left + 67 * i : left + 67 * i + 64].tobytes() for i in range(3)]
    assert len(set(columns)) == 3

    points, maps = np.zeros((3, 1, 2), np.int64), np.full((3, 1, 8, 8), 1 / 64, np.float32)
    section = MapSection("title", "subtitle", images, points, maps, names)
    page = np.asarray(to_image(draw_maps([section])).convert("L"))
    label_columns = page[:, : page.shape[1] // 6]
    inked = (label_columns < 200).any(1)
    starts = np.flatnonzero(np.diff(inked.astype(int)) == 1)
    ends = np.flatnonzero(np.diff(inked.astype(int)) == -1)
    lines = [label_columns[a + 1 : b + 1] for a, b in zip(starts, ends, strict=True)]
    lines = [line for line in lines if 8 <= len(line) <= 40][-3:] or lines
    assert len({line.tobytes() for line in lines}) == len(lines)
