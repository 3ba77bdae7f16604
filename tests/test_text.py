"""Names from outside become text that can be stored, compared and printed."""

import os
import unicodedata

import pytest

from sagan.text import as_class_names, canonical, find_name, format_count, is_text, printable, short

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.mark.parametrize("name", [COMPOSED, DECOMPOSED, os.fsdecode(b"caf\xe9")])
def test_one_name_in_many_forms(name):
    assert canonical(name) == COMPOSED
    assert find_name(name, ["x", DECOMPOSED]) == 1
    assert find_name(name, ["x", COMPOSED]) == 1
    assert as_class_names(["x", name]) == ("x", COMPOSED)


def test_an_equal_name_goes_before_one_of_another_form():
    assert [find_name(name, [COMPOSED, DECOMPOSED]) for name in (COMPOSED, DECOMPOSED)] == [0, 1]
    assert find_name("y", [COMPOSED]) is None


def test_names_that_would_become_equal_stay_apart():
    names = [COMPOSED, DECOMPOSED, os.fsdecode(b"caf\xe9"), "y"]
    assert as_class_names(names) == (COMPOSED, DECOMPOSED, "caf\\xe9", "y")


@pytest.mark.parametrize("name", [os.fsdecode(b"\xff\xfe"), "\ud800", "a\udfffb"])
def test_everything_becomes_text(name):
    assert not is_text(name)
    assert is_text(canonical(name))
    assert is_text(as_class_names([name, canonical(name)])[0])
    assert is_text(printable(name))


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
