"""The templates' environment: what is escaped, and where."""

import pytest
from jinja2 import UndefinedError
from markdown_it import MarkdownIt

from sagan.templates.environment import escape_markdown, render

HOSTILE = [
    "# heading",
    "a | b",
    "*a* _b_ `c` ~~d~~ **e**",
    "[a](http://b.c) ![d](e.png)",
    "<b>a</b> &amp; <script>alert(1)</script>",
    "a\n\n# b\r\n* c",
    "\\",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_shows_text_literally(text):
    page = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    html = page.render(f"{escape_markdown(text)}\n")
    shown = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert html.replace("\u200b", "") == f"<p>{shown}</p>\n"


def test_markdown_has_no_line_breaks_controls_or_links():
    assert escape_markdown("a\nb\x1b[2J\u2028c") == "a b?\\[2J c"
    assert "https://" not in escape_markdown("https://example.org")


def test_html_is_escaped_and_markup_is_not():
    page = render("study.html", study="<b>", body="<i>")
    assert "<title>Study: &lt;b&gt;" in page
    assert "&lt;i&gt;" in page


def test_a_value_that_a_template_lacks_is_an_error():
    with pytest.raises(UndefinedError, match="body"):
        render("study.html", study="attention")
