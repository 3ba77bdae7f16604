"""Render the templates in this folder: HTML is escaped throughout, text from outside in Markdown with `| markdown`."""

import html
import re
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from sagan.text import one_line


def render(template: str, **values: Any) -> str:
    """Render a template of this folder by its file name.

    In .html, values are escaped unless they are `Markup`. In .md they are not, as most are Markdown of ours: a template
    writes text from outside as `{{ text | markdown }}`, or within a block of code as `{{ text | fenced }}`.
    """
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("sagan", "templates"),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"markdown": escape_markdown, "fenced": lambda text: text.replace("`", "'")}
    return environment


def escape_markdown(text: object) -> str:
    """Escape text so that Markdown shows it literally, without markup, links or HTML; line breaks become spaces."""
    escaped = re.sub(r"([\\`*_{}\[\]|~$#])", r"\\\1", html.escape(one_line(str(text)), quote=False))
    return escaped.replace("://", ":\u200b//")
