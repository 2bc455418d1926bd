"""What changed since the last exam: in words, in a table of all pairs of exams, and in pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from HCCNetLib.reporting.elements import has_no_meaning, text, wide_table
from HCCNetLib.reporting.numbers import percent, signed
from HCCNetLib.reporting.pictures import draw_all
from HCCNetLib.reporting.slices import ExamPicture

_NAMES = (
    "From",
    "To",
    "Risk before",
    "Risk after",
    "Change of the output (logit)",
    "By time, picture unchanged",
    "By picture",
)
_NOTE = (
    "The unit of the networks' output is the logit, here the mean of the members: before calibration, +0.69 doubles a "
    "member's odds and −0.69 halves them. By time: had the new exam shown the same picture as the one before. By picture: "
    "what the new exam shows differently. Rounded, the two can miss their sum by 0.01."
)
_NO_MEANING = (
    "Demonstration weights: what they say about a change has no meaning for this patient. The numbers below only show "
    "what a report holds."
)


def changes(result: Mapping[str, Any], pictures: Sequence[ExamPicture]) -> str:
    """The section; nothing where there are several exams and their change was not determined.

    ``pictures`` are those of kind change.
    """
    pairs = sorted(result.get("changes") or (), key=lambda change: change["to"])
    if len(result["exams"]) == 1:
        body = "<p>There is only one exam, so there is nothing to compare.</p>"
    elif pairs or pictures:
        body = f"{_told(result, pairs)}{_table(pairs) if pairs else ''}"
    else:
        return ""
    return f"<section><h2>What changed since the last exam</h2>{body}</section>{draw_all(result, pictures)}"


def _told(result: Mapping[str, Any], pairs: Sequence[Mapping[str, Any]]) -> str:
    """The latest pair as a sentence, unless it would present something meaningless as a finding."""
    if has_no_meaning(result):
        return f'<p class="no-meaning">{_NO_MEANING}</p>'
    return f"<p>{_sentence(pairs[-1], result)}</p>" if pairs else ""


def _sentence(change: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    before, after = change["risk_from"], change["risk_to"]
    what = (
        f"The estimated risk within {float(result['horizon_months']):g} months"
        if result["bundle"]["calibrated"]
        else "The networks' mean output, not calibrated,"
    )
    start, end = text(change["from"]), text(change["to"])
    if percent(before) == percent(after):
        moved = f"stayed at {percent(after)} from {start} to {end}"
    else:
        verb = "rose" if after > before else "fell"
        moved = f"{verb} from {percent(before)} as of {start} to {percent(after)} as of {end}"
    return (
        f"{what} {moved}; the change is {signed(change['logit'])} units of the networks' output (logit), made up of "
        f"{signed(change['by_dates'])} from the time that passed with an unchanged picture and "
        f"{signed(change['by_picture'])} from what the new exam shows differently.{_contradiction(change)}"
    )


def _contradiction(change: Mapping[str, Any]) -> str:
    """A mean of probabilities may rise while the mean of their logits falls."""
    if (change["risk_to"] - change["risk_from"]) * change["logit"] >= 0:
        return ""
    return (
        " The two point in different directions: the risk is a mean of the networks' probabilities, the output a mean of "
        "their logits."
    )


def _table(pairs: Sequence[Mapping[str, Any]]) -> str:
    """A line per pair of exams."""
    lines = [
        (
            *(text(change["from"]), text(change["to"]), percent(change["risk_from"]), percent(change["risk_to"])),
            *(signed(change[part]) for part in ("logit", "by_dates", "by_picture")),
        )
        for change in pairs
    ]
    return f'{wide_table("exams", _NAMES, lines)}<p class="note">{_NOTE}</p>'
