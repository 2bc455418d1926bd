"""Tables of figures with intervals, as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML; the first of a row is its name."""
    columns = "".join(f'<th scope="col">{name}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>' for row in rows
    )
    return f"<table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table>"


def bold(interval: Mapping[str, float | None], sign: str = "") -> str:
    """The value of a figure."""
    value = interval["value"]
    return "not determined" if value is None else f"<b>{signed(value, sign)}</b>"


def interval_range(interval: Mapping[str, float | None], sign: str = "") -> str:
    """The two ends of a figure's interval."""
    ends = ["not determined" if end is None else signed(end, sign) for end in (interval["low"], interval["high"])]
    if set(ends) == {"not determined"}:
        return ends[0]
    return f'<span class="range">{" to ".join(ends)}</span>'


def signed(value: float, sign: str = "") -> str:
    """Three decimals, with a minus sign that is as wide as a plus."""
    return f"{value:{sign}.3f}".replace("-", "−")


def plain(interval: Mapping[str, float | None]) -> str:
    """A figure with its interval, for a sentence."""
    value = interval["value"]
    return "not determined" if value is None else f"{signed(value)} ({interval_range(interval)})"
