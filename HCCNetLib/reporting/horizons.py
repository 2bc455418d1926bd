"""The risk within each horizon, as a curve and as a table."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from HCCNetLib.reporting.curves import svg
from HCCNetLib.reporting.elements import has_no_meaning, text
from HCCNetLib.reporting.figures import table
from HCCNetLib.reporting.numbers import percent
from HCCNetLib.reporting.timeline import risk_lines, scale_top

_WIDTH, _LEFT, _RIGHT = 640.0, 52.0, 620.0
_TOP, _BASE, _HEIGHT = 40.0, 240.0, 282.0
_COLUMN = 46.0  # least distance of two labels

_COHORT = (
    "Cohort: the observed risk over all exams of the cohort that the bundle was made with; death and transplant count as no "
    "diagnosis."
)


def risk_by_horizon(result: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The entries of ``risk_by_horizon``, ascending.

    A result of an older version has none: the other figures then make one, of the main horizon.
    """
    low, high = (result["spread"][end] for end in ("low", "high"))
    only = {"months": result["horizon_months"], "risk": result["risk"], "low": low, "high": high, "average": None}
    return result.get("risk_by_horizon") or [only]


def horizons(result: Mapping[str, Any]) -> str:
    """Curve and table under a heading; nothing for a single horizon."""
    entries = risk_by_horizon(result)
    if len(entries) < 2:
        return ""
    reserve = '<p class="no-meaning">Demonstration: no meaning for this patient.</p>' if has_no_meaning(result) else ""
    note = f'<p class="note">{said}</p>' if (said := horizon_note(result)) else ""
    return (
        f'<h3>{_name(result)} by horizon</h3>{reserve}<div class="horizons"><figure>{_chart(result, entries)}'
        f'<figcaption class="keys">{_key(result, entries)}</figcaption></figure>'
        f"<div>{horizon_table(result)}</div></div>{note}"
    )


def horizon_table(result: Mapping[str, Any]) -> str:
    """HTML with a line per horizon, the main one in bold."""
    entries, members = risk_by_horizon(result), _has_range(result)
    averaged = has_average(entries)
    head = ["Horizon", _name(result), *["Members"] * members, *["Cohort"] * averaged]
    lines = []
    for at in entries:
        is_main = at["months"] == result["horizon_months"]
        cells = [f"{at['months']:g} months{', main' * is_main}", percent(at["risk"])]
        cells += [_range(at)] * members + [percent(at["average"])] * averaged
        lines.append([f"<b>{cell}</b>" for cell in cells] if is_main else cells)
    return table(head, lines)


def horizon_note(result: Mapping[str, Any]) -> str:
    """What the table's columns hold."""
    members = [f"Members: {_range_name(result)}."] * _has_range(result)
    return " ".join(members + [_COHORT] * has_average(risk_by_horizon(result)))


def has_average(entries: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the average of the training cohort is known at any horizon."""
    return any(at["average"] is not None for at in entries)


def _name(result: Mapping[str, Any]) -> str:
    """What the networks say; it is no risk where it has no meaning or is not calibrated."""
    if has_no_meaning(result):
        return "Network output"
    return "Risk" if result["bundle"]["calibrated"] else "Network output (not calibrated)"


def _has_range(result: Mapping[str, Any]) -> bool:
    return len(result["members"]) > 1


def _range_name(result: Mapping[str, Any]) -> str:
    return f"smallest to largest of {len(result['members'])}"


def _chart(result: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> str:
    """SVG from 0 at the landmark to the last horizon."""
    top = scale_top([at[key] or 0.0 for at in entries for key in ("risk", "high", "average")])

    def place(months: float, risk: float) -> tuple[float, float]:
        return _LEFT + (_RIGHT - _LEFT) * months / entries[-1]["months"], _BASE - (_BASE - _TOP) * risk / top

    def path(key: str) -> list[tuple[float, float]]:
        return [place(0, 0), *(place(at["months"], at[key]) for at in entries if at[key] is not None)]

    points, average = path("risk"), path("average")
    band = f'<path class="band" d="M{_joined([*path("high"), *path("low")[::-1]])}Z"/>' * _has_range(result)
    dashes = f'<path class="now" d="M{_joined(average)}"/>' * has_average(entries)
    return svg(
        _words(result, entries),
        risk_lines(top, _LEFT, _RIGHT, _TOP, _BASE) + band + dashes + f'<path class="line" d="M{_joined(points)}"/>'
        f"{_marks(result, entries, points[1:])}"
        f'<text x="{(_LEFT + _RIGHT) / 2:g}" y="{_HEIGHT - 6:g}" text-anchor="middle">'
        f"Months after {text(result['landmark'])}</text>",
        _HEIGHT,
        _WIDTH,
    )


def _marks(
    result: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], points: Sequence[tuple[float, float]]
) -> str:
    """A point per horizon, its months below and its value above where there is room; the main horizon stands out."""
    main = [at["months"] for at in entries].index(result["horizon_months"])
    labelled = _with_room([x for x, _ in points], main)
    middle = min(max(points[main][0], _LEFT + _COLUMN), _RIGHT - _COLUMN)
    marks = [
        f'<path class="leader" d="M{points[main][0]:.1f} 18V{_BASE:g}"/>'
        f'<text class="main" x="{middle:.1f}" y="13" text-anchor="middle">main horizon</text>'
        f'<text class="tick" x="{_LEFT:g}" y="{_BASE + 17:g}" text-anchor="middle">0</text>'
    ]
    for number, (at, (x, y)) in enumerate(zip(entries, points, strict=True)):
        css = " main" if number == main else ""
        marks.append(f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="{6 if css else 4.5:g}"/>')
        if number not in labelled:
            continue
        marks.append(
            f'<text class="tick{css}" x="{x:.1f}" y="{_BASE + 17:g}" text-anchor="middle">{at["months"]:g}</text>'
        )
        if not has_no_meaning(result):
            marks.append(
                f'<text class="halo{css}" x="{x - 10:.1f}" y="{y - 10:.1f}" text-anchor="middle">'
                f"{percent(at['risk'])}</text>"
            )
    return "".join(marks)


def _with_room(places: Sequence[float], main: int) -> set[int]:
    """Which points have room for a label: the main one, then from the last to the first."""
    kept = {main}
    for number in reversed(range(len(places))):
        if places[number] - _LEFT >= _COLUMN and all(abs(places[number] - places[n]) >= _COLUMN for n in kept):
            kept.add(number)
    return kept


def _words(result: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> str:
    """The curve in words."""
    parts = []
    for at in entries:
        main = " (main horizon)" * (at["months"] == result["horizon_months"])
        members = f", members {_range(at)}" * _has_range(result)
        average = "" if at["average"] is None else f", training cohort {percent(at['average'])}"
        parts.append(f"within {at['months']:g} months{main} {percent(at['risk'])}{members}{average}")
    meaning = "no meaning for this patient; " if has_no_meaning(result) else ""
    return html.unescape(f"{_name(result)} by horizon: {meaning}{'; '.join(parts)}")


def _key(result: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> str:
    """What the lines of the curve stand for."""
    drawn = {
        '<path class="line" d="M0 7H30"/><circle class="point" cx="15" cy="7" r="4.5"/>': "ensemble",
        '<path class="band" d="M0 1H30V13H0Z"/>': f"{_range_name(result)} members" * _has_range(result),
        '<path class="now" d="M0 7H30"/>': "training cohort" * has_average(entries),
    }
    return " &ensp; ".join(
        f'<span><svg class="key" viewBox="0 0 30 14">{mark}</svg> {words}</span>'
        for mark, words in drawn.items()
        if words
    )


def _range(at: Mapping[str, Any]) -> str:
    return f"{percent(at['low'])} to {percent(at['high'])}"


def _joined(points: Sequence[tuple[float, float]]) -> str:
    return "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
