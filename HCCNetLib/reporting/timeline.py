"""Drawings of numbers: the members' risks on a line, and exams, risk and attention over time."""

from __future__ import annotations

import datetime
import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from HCCNetLib.reporting.numbers import decimals, percent

_WIDTH, _LEFT, _RIGHT = 1000.0, 170.0, 965.0
_COLUMN = 50.0  # least distance of two exams' labels
_SCALES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
_MOST_DATE_TICKS = 9
_FEWEST_DAYS = 90  # across the drawing, so that months can be marked on it

# From top to bottom.
_RISK_TOP, _RISK_BASE = 30.0, 190.0
_COLUMN_TOP = 216.0
_BAR_TOP, _BAR_BASE = 272.0, 332.0
_ROWS = (354.0, 376.0)
_HEIGHT = 388.0


def dot_strip(members: Sequence[float], ensemble: float | None) -> str:
    """SVG of one dot per member on a scale of risk, and a line at the ensemble's risk unless it is None."""
    top = scale_top([*members, ensemble or 0.0])
    radius = 6.0
    stacked = _stacked([_LEFT + (_RIGHT - _LEFT) * risk / top for risk in members], 2 * radius)
    base = max(62.0, 18 + 2 * radius * (1 + max(level for _, level in stacked)))  # the label stays above the dots
    dots = "".join(
        f'<circle class="dot" cx="{x:.1f}" cy="{base - radius - 2 - level * 2 * radius:.1f}" r="{radius:g}"/>'
        for x, level in stacked
    )
    line = ""
    if ensemble is not None:
        x = _LEFT + (_RIGHT - _LEFT) * ensemble / top
        line = (
            f'<path class="now" d="M{x:.1f} 14V{base:g}"/>'
            f'<text x="{x:.1f}" y="10" text-anchor="middle">ensemble {percent(ensemble)}</text>'
        )
    ticks = "".join(
        f'<path class="axis" d="M{x:.1f} {base:g}v5"/><text x="{x:.1f}" y="{base + 19:g}" text-anchor="middle">'
        f"{100 * risk:g}%</text>"
        for risk, x in ((top * n / 4, _LEFT + (_RIGHT - _LEFT) * n / 4) for n in range(5))
    )
    label = html.escape("Risk by each member: " + ", ".join(f"{100 * risk:.1f}%" for risk in sorted(members)))
    return (
        f'<svg class="chart" role="img" aria-label="{label}" viewBox="0 0 {_WIDTH:g} {base + 24:g}">'
        f'<text class="row" x="{_LEFT - 16:g}" y="{base - 4:g}">Risk by each of</text>'
        f'<text class="row" x="{_LEFT - 16:g}" y="{base + 11:g}">{len(members)} member{"s" * (len(members) > 1)}</text>'
        f'<path class="axis" d="M{_LEFT:g} {base:g}H{_RIGHT:g}"/>{ticks}{line}{dots}</svg>'
    )


def timeline(result: Mapping[str, Any]) -> str:
    """SVG of the exams at their dates, with the risk as of each, the risk without each, and the attention to each."""
    exams = sorted(result["exams"], key=lambda exam: exam["date"])
    dates = [datetime.date.fromisoformat(exam["date"]) for exam in exams]
    as_of = {point["as_of"]: point["risk"] for point in result["trajectory"]}
    axis = _DateAxis([*dates, *map(datetime.date.fromisoformat, as_of)])
    columns = spread([axis.x(date) for date in dates], _COLUMN, _LEFT + _COLUMN / 2, _RIGHT)
    label = "Exams over time: " + "; ".join(
        f"{exam['date']} attention {decimals(exam['attention'])} risk {html.unescape(percent(as_of.get(exam['date'])))}"
        for exam in exams
    )
    return (
        f'<svg class="chart timeline" role="img" aria-label="{html.escape(label)}" '
        f'viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}">'
        f"{axis.drawn()}{_risks(result, exams, as_of, axis)}{_leaders(dates, columns, axis)}"
        f"{_attention(exams, columns)}{_rows(exams, as_of, columns)}</svg>"
    )


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Ascending ``places`` moved as little as possible (least squares) so that neighbours are ``gap`` apart.

    They stay between ``low`` and ``high``; the gap shrinks where they would not fit.
    """
    count = len(places)
    gap = min(gap, (high - low) / max(count - 1, 1))
    # With the gaps taken out, the places must not descend: neighbours that do are pooled into their mean.
    pools: list[tuple[float, int]] = []
    for number, at in enumerate(places):
        pools.append((at - number * gap, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (first, n), (second, m) = pools[-2:]
            pools[-2:] = [((first * n + second * m) / (n + m), n + m)]
    level = [min(max(mean, low), high - (count - 1) * gap) for mean, members in pools for _ in range(members)]
    return [at + number * gap for number, at in enumerate(level)]


class _DateAxis:
    """Dates across the drawing, in proportion to time."""

    def __init__(self, dates: Sequence[datetime.date]) -> None:
        first, last = min(dates).toordinal(), max(dates).toordinal()
        room = max(0.04 * (last - first), (_FEWEST_DAYS - (last - first)) / 2)
        self._low, self._high = first - room, last + room

    def x(self, date: datetime.date) -> float:
        """Where a date lies."""
        return _LEFT + (_RIGHT - _LEFT) * (date.toordinal() - self._low) / (self._high - self._low)

    def drawn(self) -> str:
        """Month or year lines behind the risk panel, labelled on top."""
        parts = []
        for tick in self._ticks():
            x = self.x(tick)
            text = f"{tick:%Y-%m}"
            parts.append(
                f'<path class="grid" d="M{x:.1f} {_RISK_TOP - 8:g}V{_RISK_BASE:g}"/>'
                f'<text class="tick" x="{x:.1f}" y="{_RISK_TOP - 14:g}" text-anchor="middle">{text}</text>'
            )
        return "".join(parts)

    def _ticks(self) -> list[datetime.date]:
        """First days of months, at a step of months that leaves them readable."""
        low = datetime.date.fromordinal(math.ceil(self._low))
        high = datetime.date.fromordinal(math.floor(self._high))
        for step in (1, 3, 6, 12, 24, 60, 120):
            months = range(low.year * 12, high.year * 12 + 12)
            firsts = [datetime.date(month // 12, month % 12 + 1, 1) for month in months if month % step == 0]
            ticks = [first for first in firsts if low <= first <= high]
            if len(ticks) <= _MOST_DATE_TICKS:
                break
        return ticks


def _risks(
    result: Mapping[str, Any], exams: Sequence[Mapping[str, Any]], as_of: Mapping[str, float], axis: _DateAxis
) -> str:
    """The upper panel: risk as of each exam as a line, risk without each exam as diamonds, today's risk dashed."""
    without = {exam["date"]: exam["risk_without"] for exam in exams if exam["risk_without"] is not None}
    top = scale_top([result["risk"], *as_of.values(), *without.values()])

    def at(date: str, risk: float) -> tuple[float, float]:
        return axis.x(datetime.date.fromisoformat(date)), _RISK_BASE - (_RISK_BASE - _RISK_TOP) * risk / top

    parts = [risk_lines(top, _LEFT, _RIGHT, _RISK_TOP, _RISK_BASE)]
    now = at(result["landmark"], result["risk"])[1]
    points = [at(date, as_of[date]) for date in sorted(as_of)]
    line = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    parts.append(f'<path class="now" d="M{_LEFT:g} {now:.1f}H{_RIGHT:g}"/>')
    parts.append(f'<path class="line" d="M{line}"/>' if points else "")
    parts += [f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>' for x, y in points]
    for x, y in (at(date, risk) for date, risk in without.items()):
        parts.append(f'<path class="without" d="M{x:.1f} {y - 7:.1f}l7 7l-7 7l-7 -7z"/>')
    parts.append(_row_name(("Risk",), (_RISK_TOP + _RISK_BASE) / 2, _LEFT - 62))
    return "".join(parts)


def risk_lines(top: float, left: float, right: float, upper: float, base: float) -> str:
    """The grid of a panel from 0 at ``base`` to the risk ``top`` at ``upper``, labelled on the left."""
    parts = []
    for n in range(5):
        y = base - (base - upper) * n / 4
        parts.append(
            f'<path class="{"grid" if n else "axis"}" d="M{left:g} {y:.1f}H{right:g}"/>'
            f'<text class="tick" x="{left - 8:g}" y="{y + 4:.1f}" text-anchor="end">{100 * top * n / 4:g}%</text>'
        )
    return "".join(parts)


def _leaders(dates: Sequence[datetime.date], columns: Sequence[float], axis: _DateAxis) -> str:
    """A mark per exam on the axis, led to the column that holds its date and numbers."""
    parts = [_row_name(("Exam",), _COLUMN_TOP + 20)]
    for date, column in zip(dates, columns, strict=True):
        x = axis.x(date)
        parts.append(
            f'<path class="mark" d="M{x:.1f} {_RISK_BASE - 5:g}V{_RISK_BASE + 5:g}"/>'
            f'<path class="leader" d="M{x:.1f} {_RISK_BASE + 5:g}L{column:.1f} {_COLUMN_TOP:g}"/>'
            f'<text class="date" x="{column:.1f}" y="{_COLUMN_TOP + 14:g}" text-anchor="middle">{date:%Y}</text>'
            f'<text class="date" x="{column:.1f}" y="{_COLUMN_TOP + 28:g}" text-anchor="middle">{date:%m-%d}</text>'
        )
    return "".join(parts)


def _attention(exams: Sequence[Mapping[str, Any]], columns: Sequence[float]) -> str:
    """The lower panel: a bar per exam, its value on top."""
    top = max([exam["attention"] or 0.0 for exam in exams] + [1e-9])
    parts = [
        _row_name(("Attention", "(sum 1)"), (_BAR_TOP + _BAR_BASE) / 2),
        f'<path class="axis" d="M{_LEFT:g} {_BAR_BASE:g}H{_RIGHT:g}"/>',
    ]
    for exam, x in zip(exams, columns, strict=True):
        height = (_BAR_BASE - _BAR_TOP) * (exam["attention"] or 0.0) / top
        parts.append(
            f'<rect class="attention" x="{x - 11:.1f}" y="{_BAR_BASE - height:.1f}" width="22" height="{height:.1f}"/>'
            f'<text x="{x:.1f}" y="{_BAR_BASE - height - 4:.1f}" text-anchor="middle">'
            f"{decimals(exam['attention'])}</text>"
        )
    return "".join(parts)


def _rows(exams: Sequence[Mapping[str, Any]], as_of: Mapping[str, float], columns: Sequence[float]) -> str:
    """The two risks of each exam as numbers below its bar."""
    names = ("Risk as of this exam", "Risk without it")
    values = ([as_of.get(exam["date"]) for exam in exams], [exam["risk_without"] for exam in exams])
    parts = []
    for name, y, row in zip(names, _ROWS, values, strict=True):
        parts.append(_row_name((name,), y - 4))
        parts += [
            f'<text x="{x:.1f}" y="{y:g}" text-anchor="middle">{percent(value)}</text>'
            for x, value in zip(columns, row, strict=True)
        ]
    return "".join(parts)


def _row_name(lines: Sequence[str], middle: float, x: float = _LEFT - 16) -> str:
    """What a row shows, left of it."""
    first = middle + 4 - 7.5 * (len(lines) - 1)
    return "".join(f'<text class="row" x="{x:g}" y="{first + 15 * n:g}">{line}</text>' for n, line in enumerate(lines))


def scale_top(risks: Sequence[float]) -> float:
    """A round number at or above all risks."""
    return next((top for top in _SCALES if top >= max(risks)), 1.0)


def _stacked(places: Sequence[float], width: float) -> list[tuple[float, int]]:
    """Each place with the lowest level on which nothing placed before is nearer than ``width``."""
    stacked: list[tuple[float, int]] = []
    for x in sorted(places):
        taken = {level for other, level in stacked if abs(other - x) < width}
        stacked.append((x, next(level for level in range(len(places)) if level not in taken)))
    return stacked
