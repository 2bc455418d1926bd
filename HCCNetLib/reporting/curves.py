"""Drawings of an evaluation: ROC, precision–recall, calibration, risks by class, net benefit, as SVG."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_WIDTH, _LEFT, _RIGHT = 500.0, 58.0, 484.0
_TOP, _BASE = 14.0, 340.0
_STRIP = 62.0  # height of the strip of risks below the calibration
# Where an axis may end, and the distance of its ticks.
_SCALES = {0.01: 0.005, 0.02: 0.005, 0.05: 0.01, 0.1: 0.02, 0.2: 0.05, 0.4: 0.1, 0.6: 0.1, 0.8: 0.2, 1.0: 0.2}
_MOST_BARS = 20

Points = Sequence[Sequence[float]]


def roc_chart(points: Sequence[Sequence[float]], auroc: float | None) -> str:
    """The ROC curve of (false, true positive rate), with the diagonal of chance."""
    panel = _Panel(1.0)
    body = f'{panel.diagonal()}<path class="line" d="M{panel.path(points)}"/>'
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
    words = f'<text class="tick halo" x="{_LEFT + 6:g}" y="{text:.1f}">prevalence {prevalence:.3f}</text>'
    body = f'<path class="now" d="M{_LEFT:g} {y:.1f}H{_RIGHT:g}"/><path class="line" d="M{steps}"/>{words}'
    label = f"Precision-recall curve, area {_number(auprc)}; the dashed line is the prevalence {prevalence:.3f}"
    return svg(label, panel.axes("Recall (sensitivity)", "Precision (positive predictive value)") + body)


def calibration_chart(calibration: Mapping[str, Any], histogram: Mapping[str, Sequence[int]]) -> str:
    """Observed over predicted risk: a smooth curve with its band, groups with intervals, the diagonal; below, how many."""
    groups = [group for group in calibration["groups"] if group["observed"]["value"] is not None]
    smooth = [point for point in calibration["smooth"] if None not in point]
    counts = [a + b for a, b in zip(histogram["positive"], histogram["negative"], strict=True)]
    panel = _Panel(_top([_highest(counts), *(g["mean"] for g in groups), *(_bound(g, "high") for g in groups)]))
    marks = "".join(
        f'<path class="whisker" d="M{panel.x(g["mean"]):.1f} {panel.y(_bound(g, "low")):.1f}'
        f'V{panel.y(_bound(g, "high")):.1f}"/>'
        f'<circle class="point" cx="{panel.x(g["mean"]):.1f}" cy="{panel.y(_bound(g, "value")):.1f}" r="4.5">'
        f"<title>{_group_words(g)}</title></circle>"
        for g in groups
    )
    band = ""
    if smooth:
        edge = [(risk, high) for risk, _, _, high in smooth] + [(risk, low) for risk, _, low, _ in reversed(smooth)]
        band = f'<path class="band" d="M{panel.path(edge)}Z"/>'
        band += f'<path class="line" d="M{panel.path([point[:2] for point in smooth])}"/>'
    grouped = _grouped(counts, panel.top)
    base = _BASE + 50 + _STRIP
    strip = (
        _bars(grouped, max(*grouped, 1), base, -_STRIP, "both")
        + f'<path class="axis" d="M{_LEFT:g} {base:g}H{_RIGHT:g}"/>'
        + f'<text class="tick" x="{_LEFT - 6:g}" y="{base - _STRIP + 5:g}" text-anchor="end">{max(grouped)}</text>'
        + f'<text class="tick" x="{_LEFT - 6:g}" y="{base:g}" text-anchor="end">0</text>'
        + f'<text x="{(_LEFT + _RIGHT) / 2:g}" y="{base + 18:g}" text-anchor="middle">Exams by predicted risk</text>'
    )
    label = "Calibration: " + "; ".join(_group_words(g) for g in groups)
    return svg(
        label, panel.axes("Predicted risk", "Observed risk") + band + panel.diagonal() + marks + strip, base + 26
    )


def class_chart(histogram: Mapping[str, Sequence[int]]) -> str:
    """Risks of the exams with a diagnosis upward and without downward, each as a share of its class."""
    top = _top([_highest([a + b for a, b in zip(*histogram.values(), strict=True)])])
    panel, middle = _Panel(top), (_TOP + _BASE) / 2
    half = (_BASE - _TOP) / 2 - 4
    grouped = {kind: _grouped(counts, top) for kind, counts in histogram.items()}
    shares = {kind: [n / max(sum(counts), 1) for n in counts] for kind, counts in grouped.items()}
    most = max(*shares["positive"], *shares["negative"], 1e-9)
    ticks = "".join(
        f'<text class="tick" x="{_LEFT - 6:g}" y="{y:g}" text-anchor="end">{100 * most:.0f}%</text>'
        for y in (middle - half + 8, middle + half)
    )
    names = {"positive": "with a diagnosis", "negative": "without"}
    words = "".join(
        f'<text class="halo" x="{_RIGHT:g}" y="{y:g}" text-anchor="end">{sum(grouped[kind])} {names[kind]}</text>'
        for kind, y in (("positive", _TOP + 14), ("negative", _BASE - 10))
    )
    label = "; ".join(
        f"Risks of exams {names[kind]}, share of the class in steps of {100 * top / len(share):g} percentage points: "
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


def net_benefit_chart(points: Points) -> str:
    """Net benefit over the threshold: of the model, of treating all patients, of treating none (0)."""
    across = _top([threshold for threshold, _, _ in points])
    upward = _top([max(*row[1:], 0.01) for row in points])
    panel = _Panel(across, upward, bottom=-0.25 * upward)
    model, everybody = ([(row[0], max(row[n], panel.bottom)) for row in points] for n in (1, 2))
    end = next((n for n, (_, value) in enumerate(everybody) if value <= panel.bottom), len(everybody))
    lines = (
        f'<path class="now" d="M{panel.path(everybody[: end + 1])}"/>'
        f'<path class="axis" d="M{_LEFT:g} {panel.y(0):.1f}H{_RIGHT:g}"/><path class="line" d="M{panel.path(model)}"/>'
    )
    at = points[len(points) // 2]
    label = f"Net benefit; at a threshold of {at[0]:.2f} it is {at[1]:.3f}, {at[2]:.3f} for treating all patients"
    return svg(label, panel.axes("Threshold of the risk", "Net benefit") + lines)


def whisker_chart(figure: Mapping[str, float | None], low: float, high: float, ceiling: float | None = None) -> str:
    """A value with its interval on a short scale, for a row of a table; a hollow mark for a ceiling."""
    width, height = 104.0, 18.0

    def x(value: float) -> float:
        return 4 + (width - 8) * (min(max(value, low), high) - low) / (high - low)

    body = f'<path class="axis" d="M4 {height - 2:g}H{width - 4:g}"/>'
    if low < 0.5 < high:
        body += f'<path class="now" d="M{x(0.5):.1f} 0V{height:g}"/>'
    value, start, end = figure["value"], figure["low"], figure["high"]
    if start is not None and end is not None:
        body += f'<path class="whisker" d="M{x(start):.1f} 8H{x(end):.1f}"/>'
    if ceiling is not None:
        body += f'<path class="ceiling" d="M{x(ceiling):.1f} 3l4 5l-4 5l-4 -5Z"/>'
    if value is not None:
        body += f'<circle class="point" cx="{x(value):.1f}" cy="8" r="4"/>'
    words = _number(value) + ("" if ceiling is None else f"; ceiling {ceiling:.3f}")
    return (
        f'<svg class="whisker-row" role="img" aria-label="{words}" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}">{body}</svg>'
    )


class _Panel:
    """A square plot, across from 0 to ``top``, upward from ``bottom`` to ``upward`` (as across, if not given)."""

    def __init__(self, top: float, upward: float | None = None, bottom: float = 0.0) -> None:
        self.top, self.upward, self.bottom = top, top if upward is None else upward, bottom

    def x(self, value: float) -> float:
        """Where a value lies across."""
        return _LEFT + (_RIGHT - _LEFT) * value / self.top

    def y(self, value: float) -> float:
        """Where a value lies upward."""
        return _BASE - (_BASE - _TOP) * (value - self.bottom) / (self.upward - self.bottom)

    def path(self, points: Iterable[Sequence[float]]) -> str:
        """Points as the numbers of an SVG path."""
        return "L".join(f"{self.x(across):.1f} {self.y(upward):.1f}" for across, upward in points)

    def diagonal(self) -> str:
        """Where both are equal."""
        return f'<path class="now" d="M{_LEFT:g} {_BASE:g}L{_RIGHT:g} {_TOP:g}"/>'

    def axes(self, across: str, upward: str) -> str:
        """Grid, ticks and names."""
        ticks = "".join(
            f'<path class="grid" d="M{_LEFT:g} {self.y(value):.1f}H{_RIGHT:g}"/>'
            f'<text class="tick" x="{_LEFT - 6:g}" y="{self.y(value) + 4:.1f}" text-anchor="end">{value:g}</text>'
            for value in _ticks(self.upward)
        )
        frame = f'<path class="axis" d="M{_LEFT:g} {_TOP:g}V{_BASE:g}H{_RIGHT:g}"/>'
        return ticks + self.risk_axis(across) + frame + _side_name(upward, (_TOP + _BASE) / 2)

    def risk_axis(self, name: str) -> str:
        """Grid, ticks and name of the lower axis."""
        ticks = "".join(
            f'<path class="grid" d="M{self.x(value):.1f} {_TOP:g}V{_BASE:g}"/>'
            f'<text class="tick" x="{self.x(value):.1f}" y="{_BASE + 16:g}" text-anchor="middle">{value:g}</text>'
            for value in _ticks(self.top)
        )
        return f'{ticks}<text x="{(_LEFT + _RIGHT) / 2:g}" y="{_BASE + 36:g}" text-anchor="middle">{name}</text>'


def _ticks(top: float) -> list[float]:
    step = _SCALES[top]
    return [round(step * n, 3) for n in range(round(top / step) + 1)]


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


def _top(values: Sequence[float]) -> float:
    """A round number above all values."""
    return next((top for top in _SCALES if top > max(values)), 1.0)


def _highest(counts: Sequence[int]) -> float:
    """The upper end of the last bar that holds anything."""
    return max((n + 1 for n, count in enumerate(counts) if count), default=1) / len(counts)


def _bound(group: Mapping[str, Any], name: str) -> float:
    """Of a group's observed risk; where it is not determined the interval has no width."""
    observed = group["observed"]
    return float(observed["value"] if observed[name] is None else observed[name])


def _group_words(group: Mapping[str, Any]) -> str:
    low, value, high = (_bound(group, name) for name in ("low", "value", "high"))
    return f"{group['count']} exams with a mean risk of {group['mean']:.3f}, observed {value:.3f} ({low:.3f} to {high:.3f})"


def _number(value: float | None) -> str:
    return "not determined" if value is None else f"{value:.3f}"


def svg(label: str, body: str, height: float = _BASE + 44, width: float = _WIDTH) -> str:
    """A drawing with the words that stand for it where it can't be seen."""
    return f'<svg class="chart" role="img" aria-label="{html.escape(label)}" viewBox="0 0 {width:g} {height:g}">{body}</svg>'
