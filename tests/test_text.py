import pytest

from sagan.text import format_count, printable, short


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (125.07, "125.1"),
        (-12345.07, "-12345.1"),
        (90.3406, "90.34"),
        (0.0005, "0.0005"),
        (0.00003, "3.0e-05"),
        (1234567.0, "1234567.0"),
    ],
)
def test_values_in_four_digits(value, text):
    assert short(value) == text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("cats and dogs", "cats and dogs"),
        ("größer 猫", "größer 猫"),
        ("a\x1b[2Jb", "a?[2Jb"),  # clears a terminal
        ("a\nb\tc", "a?b?c"),
        ("\u202egnp.exe", "?gnp.exe"),  # reverses the text that follows
    ],
)
def test_names_cannot_control_a_terminal(name, shown):
    assert printable(name) == shown


def test_counts_have_their_noun():
    assert format_count(1, "class", "classes") == "1 class"
    assert format_count(0, "class", "classes") == "0 classes"
    assert format_count(12345, "image", "images") == "12,345 images"
