"""Names from outside become text that can be stored, compared and printed."""

import os
import unicodedata

import pytest

from sagan.text import as_class_names, canonical, find_name, is_text, printable

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
