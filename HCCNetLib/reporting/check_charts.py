"""Drawings of a check of maps: figures with intervals against chance, and curves of deletion and insertion, as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from HCCNetLib.reporting.curves import svg
from HCCNetLib.reporting.figures import signed

_WIDTH, _LEFT, _RIGHT = 900.0, 320.0, 876.0
_ROW, _TOP = 40.0, 12.0
_PANEL_WIDTH, _PANEL_LEFT, _PANEL_RIGHT, _PANEL_TOP, _PANEL_BASE = 500.0, 52.0, 474.0, 14.0, 250.0
_FEWEST_TICKS = 4

Interval = Mapping[str, float | None]


@dataclass(frozen=True)
class Bar:
    """One line of a chart.

    Args:
        name: of the line.
        found: the figure with its interval.
        chance: what it would be by chance; a figure without interval has no bounds.
    """

    name: str
    found: Interval
    chance: Interval


def bar_chart(title: str, axis: str, bars: Sequence[Bar], low: float, high: float) -> str:
    """Bars from 0 with dot and whisker, and chance as an open diamond, one line each.

    Args:
        title: what is drawn, for those who can't see it.
        axis: its name.
        bars: the lines.
        low: where the axis begins, at most 0.
        high: where it ends.
    """
    base = _TOP + _ROW * len(bars)
    scale = _Scale(low, high, _LEFT, _RIGHT)
    ticks = "".join(
        f'<path class="grid" d="M{scale(value):.1f} {_TOP:g}V{base:g}"/>'
        f'<text class="tick" x="{scale(value):.1f}" y="{base + 16:g}" text-anchor="middle">{_tick(value)}</text>'
        for value in scale.ticks()
    )
    zero = f'<path class="axis" d="M{scale(0):.1f} {_TOP:g}V{base:g}"/>'
    lines = "".join(_bar(bar, scale, _TOP + _ROW * (n + 0.5)) for n, bar in enumerate(bars))
    name = f'<text x="{(_LEFT + _RIGHT) / 2:g}" y="{base + 36:g}" text-anchor="middle">{escape(axis)}</text>'
    words = "; ".join(f"{bar.name}: {_words(bar.found)}, by chance {_words(bar.chance)}" for bar in bars)
    return svg(f"{title}. {words}", ticks + lines + zero + name, base + 44, _WIDTH)


def _bar(bar: Bar, scale: _Scale, y: float) -> str:
    parts = [f'<text x="{_LEFT - 10:g}" y="{y + 4:.1f}" text-anchor="end">{escape(bar.name)}</text>']
    value, chance = bar.found["value"], bar.chance["value"]
    if value is None:
        parts.append(f'<text class="tick" x="{scale(0) + 8:.1f}" y="{y + 4:.1f}">not determined</text>')
    else:
        start, end = sorted((scale(0), scale(value)))
        parts.append(
            f'<rect class="both" x="{start:.1f}" y="{y - 10:.1f}" width="{end - start:.1f}" height="13"/>'
            f"{_whisker(bar.found, scale, y - 3.5, 'whisker')}"
            f'<circle class="point" cx="{scale(value):.1f}" cy="{y - 3.5:.1f}" r="4.5"/>'
        )
    if chance is not None:
        x = scale(chance)
        diamond = f"M{x - 5:.1f} {y + 10:.1f}l5 -5l5 5l-5 5z"
        parts.append(f'{_whisker(bar.chance, scale, y + 10, "chance")}<path class="chance open" d="{diamond}"/>')
    return "".join(parts)


def _whisker(interval: Interval, scale: _Scale, y: float, css: str) -> str:
    low, high = interval["low"], interval["high"]
    if low is None or high is None:
        return ""
    return f'<path class="{css}" d="M{scale(low):.1f} {y:.1f}H{scale(high):.1f}"/>'


def perturbation_chart(name: str, content: Mapping[str, object], low: float, high: float) -> str:
    """Curves of deletion (circles) and insertion (squares), with random order dashed; the fractions are evenly spaced.

    Args:
        name: of the method.
        content: ``perturbation`` of a method in ``explain_check.json``.
        low: where the vertical axis begins.
        high: where it ends.
    """
    fractions = _numbers(content["fractions"])
    across = _Scale(0, len(fractions) - 1, _PANEL_LEFT + 8, _PANEL_RIGHT)
    up = _Scale(low, high, _PANEL_BASE, _PANEL_TOP)
    middle = (_PANEL_LEFT + _PANEL_RIGHT) / 2
    parts = [
        f'<path class="grid" d="M{_PANEL_LEFT:g} {up(value):.1f}H{_PANEL_RIGHT:g}"/>'
        f'<text class="tick" x="{_PANEL_LEFT - 6:g}" y="{up(value) + 4:.1f}" text-anchor="end">{_tick(value)}</text>'
        for value in up.ticks()
    ]
    parts += [
        f'<text class="tick" x="{across(n):.1f}" y="{_PANEL_BASE + 16:g}" text-anchor="middle">{100 * fraction:g}%</text>'
        for n, fraction in enumerate(fractions)
    ]
    parts.append(
        f'<path class="axis" d="M{_PANEL_LEFT:g} {_PANEL_TOP:g}V{_PANEL_BASE:g}H{_PANEL_RIGHT:g}"/>'
        f'<text x="{middle:g}" y="{_PANEL_BASE + 36:g}" text-anchor="middle">Part of the field changed</text>'
        f'<text transform="translate(13 {(_PANEL_TOP + _PANEL_BASE) / 2:g}) rotate(-90)" text-anchor="middle">'
        "Output, logit</text>"
    )
    words = []
    for kind in ("deletion", "insertion"):
        curves = content[kind]
        assert isinstance(curves, Mapping)
        for order, css in (("random", f"{kind} random"), ("curve", kind)):
            points = [(across(n), up(value)) for n, value in enumerate(_numbers(curves[order]))]
            line = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
            parts.append(f'<path class="curve {css}" d="M{line}"/>')
            parts += [mark(kind, x, y) for x, y in points if order == "curve"]
            told = ", ".join(signed(value) for value in _numbers(curves[order]))
            words.append(f"{kind} in {'random order' if order == 'random' else 'the order of the evidence'}: {told}")
    label = f"{name}. Mean output over the part of the field changed. {'; '.join(words)}"
    return svg(label, "".join(parts), _PANEL_BASE + 44, _PANEL_WIDTH)


def mark(kind: str, x: float, y: float) -> str:
    """A point of a curve: shapes differ as well as colours."""
    if kind == "deletion":
        return f'<circle class="fill {kind}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
    return f'<rect class="fill {kind}" x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7"/>'


class _Scale:
    """Where a value lies between two ends of an axis."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self._low, self._high, self._start, self._end = low, high, start, end

    def __call__(self, value: float) -> float:
        return self._start + (self._end - self._start) * (value - self._low) / (self._high - self._low)

    def ticks(self) -> list[float]:
        """Round values, at least four intervals of them."""
        rough = (self._high - self._low) / _FEWEST_TICKS
        unit = 10.0 ** math.floor(math.log10(rough))
        step = max(factor * unit for factor in (1, 2, 5) if factor * unit <= rough * (1 + 1e-9))
        first, last = math.ceil(self._low / step - 1e-9), math.floor(self._high / step + 1e-9)
        return [n * step for n in range(first, last + 1)]


def _numbers(values: object) -> list[float]:
    assert isinstance(values, list)
    return [float(value) for value in values]


def _tick(value: float) -> str:
    return f"{value:.6g}".replace("-", "−")


def _words(interval: Interval) -> str:
    value, low, high = interval["value"], interval["low"], interval["high"]
    if value is None:
        return "not determined"
    return signed(value) + ("" if low is None or high is None else f" ({signed(low)} to {signed(high)})")
