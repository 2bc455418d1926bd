"""What the parts of the page share: harmless text, small tables, and whether a result means anything."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def text(value: object) -> str:
    """What came from outside, made harmless."""
    return html.escape(str(value), quote=True)


def has_no_meaning(result: Mapping[str, Any]) -> bool:
    """Whether demonstration weights were asked about somebody who exists."""
    return bool(result["bundle"]["demonstration"]) and not result.get("phantom", False)


def rows(*pairs: tuple[str, str]) -> str:
    """A table of names and values; both are HTML."""
    return "<table>" + "".join(f'<tr><th scope="row">{a}</th><td>{b}</td></tr>' for a, b in pairs) + "</table>"


def wide_table(css: str, names: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table with a head, which scrolls where it is wider than the page; the first cell of a line is its name."""
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in others)}</tr>'
        for first, *others in lines
    )
    return f'<div class="wide"><table class="{css}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def warning_list(warnings: Iterable[Mapping[str, Any]]) -> str:
    """One line per warning."""
    items = "".join(
        f"<li>{'Exam ' + text(warning['exam_id']) + ': ' if warning.get('exam_id') else ''}"
        f"{text(warning['message'])} <code>{text(warning['code'])}</code></li>"
        for warning in warnings
    )
    return f'<ul class="warning">{items}</ul>'
