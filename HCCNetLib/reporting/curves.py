"""Drawings of an evaluation: ROC, precision–recall, calibration, and risks by class, as SVG."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

_WIDTH, _LEFT, _RIGHT = 500.0, 58.0, 484.0
_TOP, _BASE = 14.0, 340.0
_STRIP = 62.0  # height of the strip of risks below the calibration
# Where an axis may end, and the distance of its ticks.
_SCALES = {0.05: 0.01, 0.1: 0.02, 0.2: 0.05, 0.4: 0.1, 0.6: 0.1, 0.8: 0.2, 1.0: 0.2}
_MOST_BARS = 20

Bin = Mapping[str, Any]


def roc_chart(points: Sequence[Sequence[float]], auroc: float | None) -> str:
    """The ROC curve of (false, true positive rate), with the diagonal of chance."""
    panel = _Panel(1.0)
    line = "L".join(f"{panel.x(false):.1f} {panel.y(true):.1f}" for false, true in points)
    body = f'{panel.diagonal()}<path class="line" d="M{line}"/>'
    label = f"ROC curve, AUROC {_number(auroc)}; the dashed diagonal is chance"
    names = "1 − specificity (false positive rate)", "Sensitivity (true positive rate)"
    return svg(label, panel.axes(*names) + body)


def pr_chart(points: Sequence[Sequence[float]], prevalence: float, auprc: float | None) -> str:
    """The precision–recall curve in steps, as its area is summed, with the prevalence as chance level."""
    panel = _Panel(1.0)
    before = [0.0, *(recall for recall, _ in points[:-1])]
    steps = "L".join(
        f"{panel.x(last):.1f} {panel.y(precision):.1f}L{panel.x(recall):.1f} {panel.y(precision):.1f}"
        for last, (recall, precision) in zip(before, points, strict=True)
    )
    y = panel.y(prevalence)
    text = y - 5 if prevalence < 0.94 else y + 14
    words = f'<text class="tick" x="{_LEFT + 6:g}" y="{text:.1f}">prevalence {prevalence:.3f}</text>'
    body = f'<path class="now" d="M{_LEFT:g} {y:.1f}H{_RIGHT:g}"/>{words}<path class="line" d="M{steps}"/>'
    label = f"Precision-recall curve, area {_number(auprc)}; the dashed line is the prevalence {prevalence:.3f}"
    return svg(label, panel.axes("Recall (sensitivity)", "Precision (positive predictive value)") + body)


def calibration_chart(bins: Sequence[Bin], histogram: Mapping[str, Sequence[int]]) -> str:
    """Observed share over mean risk per bin, with intervals and the diagonal; below, how many have which risk."""
    panel = _Panel(_top(bins))
    marks = "".join(
        f'<path class="whisker" d="M{panel.x(b["mean"]):.1f} {panel.y(b["observed"]["low"]):.1f}'
        f'V{panel.y(b["observed"]["high"]):.1f}"/>'
        f'<circle class="point" cx="{panel.x(b["mean"]):.1f}" cy="{panel.y(b["observed"]["value"]):.1f}" r="4.5">'
        f"<title>{_bin_words(b)}</title></circle>"
        for b in bins
    )
    counts = _grouped([a + b for a, b in zip(histogram["positive"], histogram["negative"], strict=True)], panel.top)
    base = _BASE + 50 + _STRIP
    strip = (
        _bars(counts, max(*counts, 1), base, -_STRIP, "both")
        + f'<path class="axis" d="M{_LEFT:g} {base:g}H{_RIGHT:g}"/>'
        + f'<text class="tick" x="{_LEFT - 6:g}" y="{base - _STRIP + 5:g}" text-anchor="end">{max(counts)}</text>'
        + f'<text class="tick" x="{_LEFT - 6:g}" y="{base:g}" text-anchor="end">0</text>'
        + f'<text x="{(_LEFT + _RIGHT) / 2:g}" y="{base + 18:g}" text-anchor="middle">Patients by predicted risk</text>'
    )
    label = "Calibration: " + "; ".join(_bin_words(b) for b in bins)
    return svg(label, panel.axes("Predicted risk", "Observed share") + panel.diagonal() + marks + strip, base + 26)


def class_chart(bins: Sequence[Bin], histogram: Mapping[str, Sequence[int]]) -> str:
    """Risks of the positives upward and of the negatives downward, each as a share of its class."""
    top = _top(bins, intervals=False)
    panel, middle = _Panel(top), (_TOP + _BASE) / 2
    half = (_BASE - _TOP) / 2 - 4
    grouped = {kind: _grouped(counts, top) for kind, counts in histogram.items()}
    shares = {kind: [n / max(sum(counts), 1) for n in counts] for kind, counts in grouped.items()}
    most = max(*shares["positive"], *shares["negative"], 1e-9)
    ticks = "".join(
        f'<text class="tick" x="{_LEFT - 6:g}" y="{y:g}" text-anchor="end">{100 * most:.0f}%</text>'
        for y in (middle - half + 8, middle + half)
    )
    words = "".join(
        f'<text x="{_RIGHT:g}" y="{y:g}" text-anchor="end">{sum(grouped[kind])} {kind}</text>'
        for kind, y in (("positive", _TOP + 14), ("negative", _BASE - 10))
    )
    label = "; ".join(
        f"Risks of the {kind} patients, share of the class in steps of {100 * top / len(share):g} percentage points: "
        + ", ".join(f"{100 * s:.0f}%" for s in share)
        for kind, share in shares.items()
    )
    return svg(
        label,
        panel.risk_axis("Predicted risk")
        + _side_name("Share of the class", middle)
        + _bars(shares["positive"], most, middle, -half, "positive")
        + _bars(shares["negative"], most, middle, half, "negative")
        + f'<path class="axis" d="M{_LEFT:g} {middle:g}H{_RIGHT:g}M{_LEFT:g} {_TOP:g}V{_BASE:g}"/>{ticks}{words}',
    )


class _Panel:
    """A square plot, both axes from 0 to ``top``."""

    def __init__(self, top: float) -> None:
        self.top = top

    def x(self, value: float) -> float:
        """Where a value lies across."""
        return _LEFT + (_RIGHT - _LEFT) * value / self.top

    def y(self, value: float) -> float:
        """Where a value lies upward."""
        return _BASE - (_BASE - _TOP) * value / self.top

    def diagonal(self) -> str:
        """Where both are equal."""
        return f'<path class="now" d="M{_LEFT:g} {_BASE:g}L{_RIGHT:g} {_TOP:g}"/>'

    def axes(self, across: str, upward: str) -> str:
        """Grid, ticks and names."""
        ticks = "".join(
            f'<path class="grid" d="M{_LEFT:g} {self.y(value):.1f}H{_RIGHT:g}"/>'
            f'<text class="tick" x="{_LEFT - 6:g}" y="{self.y(value) + 4:.1f}" text-anchor="end">{value:g}</text>'
            for value in self._values()
        )
        frame = f'<path class="axis" d="M{_LEFT:g} {_TOP:g}V{_BASE:g}H{_RIGHT:g}"/>'
        return ticks + self.risk_axis(across) + frame + _side_name(upward, (_TOP + _BASE) / 2)

    def risk_axis(self, name: str) -> str:
        """Grid, ticks and name of the lower axis."""
        ticks = "".join(
            f'<path class="grid" d="M{self.x(value):.1f} {_TOP:g}V{_BASE:g}"/>'
            f'<text class="tick" x="{self.x(value):.1f}" y="{_BASE + 16:g}" text-anchor="middle">{value:g}</text>'
            for value in self._values()
        )
        return f'{ticks}<text x="{(_LEFT + _RIGHT) / 2:g}" y="{_BASE + 36:g}" text-anchor="middle">{name}</text>'

    def _values(self) -> list[float]:
        step = _SCALES[self.top]
        return [round(step * n, 3) for n in range(round(self.top / step) + 1)]


def _side_name(name: str, middle: float) -> str:
    return f'<text transform="translate(15 {middle:g}) rotate(-90)" text-anchor="middle">{name}</text>'


def _bars(values: Sequence[float], most: float, base: float, height: float, kind: str) -> str:
    """Bars from ``base``, upward where ``height`` (of a bar of ``most``) is negative."""
    width = (_RIGHT - _LEFT) / len(values)
    parts = []
    for n, value in enumerate(values):
        size = abs(height) * value / most
        y = base - size if height < 0 else base
        x = _LEFT + n * width + 0.5
        parts.append(f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width - 1:.1f}" height="{size:.1f}"/>')
    return "".join(parts)


def _grouped(counts: Sequence[int], top: float) -> list[int]:
    """Counts per percentage point up to ``top``, in at most 20 bars."""
    used = round(top * len(counts))
    step = max(1, used // _MOST_BARS)
    return [sum(counts[n : n + step]) for n in range(0, used, step)]


def _top(bins: Sequence[Bin], intervals: bool = True) -> float:
    """A round number at or above all risks (and the intervals of their observed shares)."""
    values = [b["high"] for b in bins] + [b["observed"]["high"] for b in bins if intervals]
    # A risk on the edge of the last bar belongs to the next one.
    return next((top for top in _SCALES if top > max(values)), 1.0)


def _bin_words(one: Bin) -> str:
    observed = one["observed"]
    return (
        f"{one['count']} patients with a mean risk of {one['mean']:.3f}, of whom {observed['value']:.3f} "
        f"({observed['low']:.3f} to {observed['high']:.3f}) were positive"
    )


def _number(value: float | None) -> str:
    return "not determined" if value is None else f"{value:.3f}"


def svg(label: str, body: str, height: float = _BASE + 44, width: float = _WIDTH) -> str:
    """A drawing with the words that stand for it where it can't be seen."""
    return f'<svg class="chart" role="img" aria-label="{html.escape(label)}" viewBox="0 0 {width:g} {height:g}">{body}</svg>'
