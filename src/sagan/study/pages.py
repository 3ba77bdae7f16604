"""Render a report from a template: Markdown for repositories, and the same as one self-contained HTML file."""

import base64
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup

from sagan.errors import UserError
from sagan.files import write_atomically
from sagan.templates.environment import render
from sagan.version import versions


def write_pages(folder: Path, template: str, title: str, facts: dict[str, Any]) -> Path:
    """Write report.md and report.html in a folder; returns the path of the HTML.

    Args:
        template: file name of the Markdown template.
        title: of the HTML page.
        facts: the template's variables; 'machine', 'versions' and 'date' are added.

    Raises:
        UserError: markdown-it-py is missing, or the files cannot be written.
    """
    try:
        from markdown_it import MarkdownIt
    except ImportError as error:
        raise UserError("the report of a study needs markdown-it-py: pip install 'sagan-torch[study]'") from error
    facts = facts | {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": _machine(),
        "versions": ", ".join(f"{name} {version}" for name, version in versions("torch", "numpy").items()),
    }
    text = render(template, **facts)
    write_atomically(folder / "report.md", lambda temporary: temporary.write_text(text, encoding="utf-8"))
    # 'js-default' escapes HTML: names of classes and files come from outside.
    parser = MarkdownIt("js-default")
    parser.add_render_rule("image", _embedding(folder))
    page = render("study.html", study=title, body=Markup(parser.render(text)))
    out = folder / "report.html"
    write_atomically(out, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    return out


def _embedding(folder: Path) -> Any:
    """Return a render rule that writes images into the HTML as data, so that the file can be mailed."""

    def render(self: Any, tokens: Any, i: int, options: Any, env: Any) -> str:
        data = base64.b64encode((folder / tokens[i].attrs["src"]).read_bytes()).decode()
        alt = self.renderInlineAsText(tokens[i].children, options, env)
        return f'<img alt="{alt}" src="data:image/png;base64,{data}">'

    return render


def _machine() -> str:
    device = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} {platform.machine()} cores"
    )
    return f"{platform.system()}, {device}"
