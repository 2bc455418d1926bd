"""The page: warnings first, then the result, the exams over time, their pictures, and where it all came from."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from HCCNetLib.reporting.belief import belief
from HCCNetLib.reporting.changes import changes
from HCCNetLib.reporting.elements import has_no_meaning, rows, text, warning_list, wide_table
from HCCNetLib.reporting.horizons import horizons
from HCCNetLib.reporting.numbers import decimals, percent, whole_percent
from HCCNetLib.reporting.page import SCRIPT, STYLE
from HCCNetLib.reporting.pictures import pictures_section
from HCCNetLib.reporting.slices import ExamPicture, place_words
from HCCNetLib.reporting.timeline import dot_strip, timeline

RESEARCH_ONLY = "Research software, not a medical device: not for clinical use."
DEMONSTRATION = "demonstration"  # the code of the warning that a result has no meaning
_NO_MEANING = "The prediction was made by a demonstration bundle: it has no meaning for this patient."

# The notes below the table of exams.
_MONTHS = "Months before the latest exam."
_ATTENTION = "Attention: the share of each exam in what the model reads from the series, sum 1."
_BOTH_ATTENTIONS = (
    "Attention is the share of each exam in what the model reads from the series, sum 1, and gradient-weighted attention "
    "counts this reading only as far as it raises the output, also sum 1: an exam that lowers it has none."
)
_FIELD = (
    "Risk without it: the risk as of the latest exam had this exam not been made. The field is "
    "the box that the model reads of an exam, at most its cube of input; the rest of the cube is padding."
)
_PEAK = (
    "Peak of the map: where the exam's evidence for a higher risk is strongest, as a share of the patient's strongest, and "
    "in how many members the evidence at this place is positive."
)


def write_report(path: Path, result: Mapping[str, Any], pictures: Sequence[ExamPicture]) -> None:
    """Write the page to ``path``, whole or not at all."""
    # A name that came from a file system may hold what UTF-8 can't.
    content = render_report(result, pictures).encode("utf-8", "xmlcharrefreplace")
    partial = path.with_name(path.name + ".part")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def render_report(result: Mapping[str, Any], pictures: Sequence[ExamPicture]) -> str:
    """The page's HTML.

    Args:
        result: the content of ``prediction.json``.
        pictures: what to show of the exams, in any order; an exam may have several or none. Those of kind change
            stand with what changed.

    Raises:
        ValueError: a picture is of an exam that the result does not have, or of the first exam's change.
    """
    known = {exam["exam_id"] for exam in result["exams"]}
    strangers = [picture.exam_id for picture in pictures if picture.exam_id not in known]
    if strangers:
        raise ValueError(f"pictures of exams that the result does not have: {strangers}")
    shown = {kind: [picture for picture in pictures if picture.kind == kind] for kind in ("evidence", "change")}
    title = f"Risk of hepatocellular carcinoma: {text(result['patient_id'])}"
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy()}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body class="no-lower">\n'
        f'<div class="research" role="note">{RESEARCH_ONLY}</div>\n<main>\n'
        f"<header><h1>{title}</h1><p>{_summary(result)}</p></header>\n"
        f"{_warnings(result)}\n{_result(result)}\n{_over_time(result)}\n{_table(result)}\n"
        f"{belief(result)}\n{changes(result, shown['change'])}\n{pictures_section(result, shown['evidence'])}\n"
        f"{_provenance(result)}\n"
        f"</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _policy() -> str:
    """Nothing is loaded from anywhere, and of scripts only the page's own runs."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def _summary(result: Mapping[str, Any]) -> str:
    """Whose exams, how many, until when."""
    count = len(result["exams"])
    who = "Generated patient (phantom)" if result.get("phantom", False) else "Patient"
    return (
        f"{who} {text(result['patient_id'])}, {count} exam{'' if count == 1 else 's'}, as of {text(result['landmark'])}"
    )


def _warnings(result: Mapping[str, Any]) -> str:
    """The demonstration's box, then what is to be known about the data."""
    told = [warning for warning in result["warnings"] if warning["code"] == DEMONSTRATION]
    others = [warning for warning in result["warnings"] if warning["code"] != DEMONSTRATION]
    box = ""
    if told or has_no_meaning(result):
        messages = [text(warning["message"]) for warning in told] or [_NO_MEANING]
        box = f'<div class="demonstration"><b>Demonstration only.</b> {" ".join(messages)}</div>'
    listed = warning_list(others) if others else "<p>No warnings about the data.</p>"
    return f'<section class="warnings"><h2>Warnings</h2>{box}{listed}</section>'


def _result(result: Mapping[str, Any]) -> str:
    """The risk with the spread of its members: large, or in a table only where it has no meaning."""
    spread, count = result["spread"], len(result["members"])
    of = (
        f"of a diagnosis of hepatocellular carcinoma within {float(result['horizon_months']):g} months after "
        f"{text(result['landmark'])}"
    )
    kind = "estimated risk" if result["bundle"]["calibrated"] else "network output, not calibrated, for the risk"
    between = f"{percent(spread['low'])} to {percent(spread['high'])}"
    table = rows(*_risk_rows(result), *(_spread_rows(result) if count > 1 else ()))
    of_members = f"<b>{between}</b> from the smallest to the largest of {count} members" if count > 1 else "one network"
    if has_no_meaning(result):
        head = (
            f'<p class="no-meaning">This result has no meaning for this patient, so no risk {of} is given. '
            "The numbers below only show what a report holds.</p>"
        )
    else:
        head = (
            f'<div class="risk"><span class="figure">{percent(result["risk"])}</span>'
            f'<span class="of">{kind} {of}<br>{of_members}</span></div>'
        )
    strip = dot_strip(result["members"], None if has_no_meaning(result) else result["risk"])
    return f"<section><h2>Result</h2>{head}<figure>{strip}</figure>{table}{horizons(result)}</section>"


def _risk_rows(result: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The risk in figures; what is not calibrated is not called so."""
    if not result["bundle"]["calibrated"]:
        return (("Mean output of the networks, not calibrated", percent(result["risk"])),)
    return (
        ("Risk, calibrated", percent(result["risk"])),
        ("Risk before calibration", percent(result["risk_uncalibrated"])),
    )


def _spread_rows(result: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """How far the members differ."""
    spread = result["spread"]
    return (
        (
            f"Smallest to largest of {len(result['members'])} members",
            f"{percent(spread['low'])} to {percent(spread['high'])}",
        ),
        ("Standard deviation of the members", f"{100 * spread['sd']:.1f} percentage points"),
    )


def _over_time(result: Mapping[str, Any]) -> str:
    """The timeline and how to read it."""
    reserve = '<p class="no-meaning">Demonstration: no meaning for this patient.</p>' if has_no_meaning(result) else ""
    key = (
        '<svg class="key" viewBox="0 0 30 14"><path class="line" d="M0 7H30"/><circle class="point" cx="15" cy="7" '
        'r="4.5"/></svg> risk as of each exam, from it and the earlier ones &ensp; '
        '<svg class="key" viewBox="0 0 30 14"><path class="without" d="M15 1l6 6l-6 6l-6 -6z"/></svg> '
        "risk as of the latest exam had this exam not been made &ensp; "
        '<svg class="key" viewBox="0 0 30 14"><path class="now" d="M0 7H30"/></svg> risk as of the latest exam'
    )
    return (
        f"<section><h2>Exams over time</h2>{reserve}<figure>{timeline(result)}"
        f'<figcaption class="keys">{key}<br>Horizon: {float(result["horizon_months"]):g} months.</figcaption>'
        "</figure></section>"
    )


def _table(result: Mapping[str, Any]) -> str:
    """A line per exam, with columns for what any exam has."""
    exams = result["exams"]
    weighted = any(exam.get("attention_gradient") is not None for exam in exams)
    peaks = any(exam.get("peak") is not None for exam in exams)
    names = [
        *("Exam", "Date", "Months before", "Attention", *(["Attention, gradient-weighted"] if weighted else [])),
        *("Risk without it", "Liver inside the field", "Cube filled", *(["Peak of the map"] if peaks else [])),
    ]
    lines = [
        [
            *(text(exam["exam_id"]), text(exam["date"]), decimals(exam["months_before_landmark"], 1)),
            decimals(exam["attention"]),
            *([decimals(exam.get("attention_gradient"))] if weighted else []),
            percent(exam["risk_without"]),
            *(_fraction(exam["field"][part]) for part in ("liver_fraction", "filled_fraction")),
            *([_peak(exam.get("peak"), len(result["members"]))] if peaks else []),
        ]
        for exam in exams
    ]
    note = " ".join(filter(None, (_MONTHS, _BOTH_ATTENTIONS if weighted else _ATTENTION, _FIELD, _PEAK * peaks)))
    return f'<section>{wide_table("exams", names, lines)}<p class="note">{note}</p></section>'


def _fraction(share: float | None) -> str:
    """A part of a volume; what was not measured is said not to be known."""
    return "not known" if share is None else whole_percent(share)


def _peak(peak: Mapping[str, Any] | None, members: int) -> str:
    """Where the evidence is strongest, how strong, and how many members see it there too."""
    if peak is None:
        return "–"
    share = f"{decimals(peak['value'])}, positive in {peak['members']} of {members} member{'s' * (members > 1)}"
    return f"{place_words(peak['mm'])}<br><small>{share}</small>"


def _provenance(result: Mapping[str, Any]) -> str:
    """Bundle, method, versions and times."""
    bundle, explanation = result["bundle"], result.get("explanation")
    pairs = [
        ("Bundle", f"{text(bundle['name'])} {text(bundle['version'])}"),
        ("SHA-256 of the bundle", f"<code>{text(bundle['sha256'])}</code>"),
    ]
    if explanation:
        pairs.append(("Explanation", f"<b>{text(explanation['method'])}</b>: {text(explanation['description'])}"))
    pairs.append(("Software", ", ".join(f"{text(n)} {text(v)}" for n, v in result["software"].items())))
    pairs.append(("Seconds", ", ".join(f"{text(stage)} {s:.1f}" for stage, s in result["seconds"].items())))
    return f'<section class="provenance"><h2>Provenance</h2>{rows(*pairs)}<p><b>{RESEARCH_ONLY}</b></p></section>'
