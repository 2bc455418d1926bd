"""The page: warnings first, then the result, the exams over time, their pictures, and where it all came from."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from HCCNetLib.reporting import colours, png
from HCCNetLib.reporting.numbers import decimals, percent
from HCCNetLib.reporting.page import SCRIPT, STYLE
from HCCNetLib.reporting.slices import (
    ExamPicture,
    cut_voxel,
    draw_slices,
    in_patient_order,
    place,
    strongest,
    to_patient,
    to_voxels,
)
from HCCNetLib.reporting.timeline import dot_strip, timeline

RESEARCH_ONLY = "Research software, not a medical device: not for clinical use."
DEMONSTRATION = "demonstration"  # the code of the warning that a result has no meaning
_NO_MEANING = "The prediction was made by a demonstration bundle: it has no meaning for this patient."


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
        pictures: what to show of the exams, in any order; an exam may have several or none.

    Raises:
        ValueError: a picture is of an exam that the result does not have.
    """
    known = {exam["exam_id"] for exam in result["exams"]}
    strangers = [picture.exam_id for picture in pictures if picture.exam_id not in known]
    if strangers:
        raise ValueError(f"pictures of exams that the result does not have: {strangers}")
    title = f"Risk of hepatocellular carcinoma: {_text(result['patient_id'])}"
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy()}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f'<div class="research" role="note">{RESEARCH_ONLY}</div>\n<main>\n'
        f"<header><h1>{title}</h1><p>{_summary(result)}</p></header>\n"
        f"{_warnings(result)}\n{_result(result)}\n{_over_time(result)}\n{_table(result)}\n"
        f"{_pictures(result, pictures)}\n{_provenance(result)}\n"
        f"</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _text(value: object) -> str:
    """What came from outside, made harmless."""
    return html.escape(str(value), quote=True)


def _policy() -> str:
    """Nothing is loaded from anywhere, and of scripts only the page's own runs."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def _has_no_meaning(result: Mapping[str, Any]) -> bool:
    """Whether demonstration weights were asked about somebody who exists."""
    return bool(result["bundle"]["demonstration"]) and not result.get("phantom", False)


def _summary(result: Mapping[str, Any]) -> str:
    """Whose exams, how many, until when."""
    count = len(result["exams"])
    who = "Generated patient (phantom)" if result.get("phantom", False) else "Patient"
    return (
        f"{who} {_text(result['patient_id'])}, {count} exam{'' if count == 1 else 's'}, "
        f"as of {_text(result['landmark'])}"
    )


def _warnings(result: Mapping[str, Any]) -> str:
    """The demonstration's box, then what is to be known about the data."""
    told = [warning for warning in result["warnings"] if warning["code"] == DEMONSTRATION]
    others = [warning for warning in result["warnings"] if warning["code"] != DEMONSTRATION]
    box = ""
    if told or _has_no_meaning(result):
        messages = [_text(warning["message"]) for warning in told] or [_NO_MEANING]
        box = f'<div class="demonstration"><b>Demonstration only.</b> {" ".join(messages)}</div>'
    listed = _warning_list(others) if others else "<p>No warnings about the data.</p>"
    return f'<section class="warnings"><h2>Warnings</h2>{box}{listed}</section>'


def _warning_list(warnings: Iterable[Mapping[str, Any]]) -> str:
    """One line per warning."""
    items = "".join(
        f"<li>{'Exam ' + _text(warning['exam_id']) + ': ' if warning.get('exam_id') else ''}"
        f"{_text(warning['message'])} <code>{_text(warning['code'])}</code></li>"
        for warning in warnings
    )
    return f'<ul class="warning">{items}</ul>'


def _result(result: Mapping[str, Any]) -> str:
    """The risk with the spread of its members: large, or in a table only where it has no meaning."""
    spread, count = result["spread"], len(result["members"])
    of = (
        f"of a diagnosis of hepatocellular carcinoma within {float(result['horizon_months']):g} months after "
        f"{_text(result['landmark'])}"
    )
    kind = "estimated risk" if result["bundle"]["calibrated"] else "network output, not calibrated, for the risk"
    between = f"{percent(spread['low'])} to {percent(spread['high'])}"
    rows = _rows(*_risk_rows(result), *(_spread_rows(result) if count > 1 else ()))
    of_members = f"<b>{between}</b> from the smallest to the largest of {count} members" if count > 1 else "one network"
    if _has_no_meaning(result):
        head = (
            f'<p class="no-meaning">This result has no meaning for this patient, so no risk {of} is given. '
            "The numbers below only show what a report holds.</p>"
        )
    else:
        head = (
            f'<div class="risk"><span class="figure">{percent(result["risk"])}</span>'
            f'<span class="of">{kind} {of}<br>{of_members}</span></div>'
        )
    strip = dot_strip(result["members"], None if _has_no_meaning(result) else result["risk"])
    return f"<section><h2>Result</h2>{head}<figure>{strip}</figure>{rows}</section>"


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


def _rows(*rows: tuple[str, str]) -> str:
    """A table of names and values; both are HTML."""
    return "<table>" + "".join(f'<tr><th scope="row">{a}</th><td>{b}</td></tr>' for a, b in rows) + "</table>"


def _over_time(result: Mapping[str, Any]) -> str:
    """The timeline and how to read it."""
    reserve = '<p class="no-meaning">Demonstration: no meaning for this patient.</p>' if _has_no_meaning(result) else ""
    key = (
        '<svg class="key" viewBox="0 0 30 14"><path class="line" d="M0 7H30"/><circle class="point" cx="15" cy="7" '
        'r="4.5"/></svg> risk as of each exam, from it and the earlier ones &ensp; '
        '<svg class="key" viewBox="0 0 30 14"><path class="without" d="M15 1l6 6l-6 6l-6 -6z"/></svg> '
        "risk as of the latest exam had this exam not been made &ensp; "
        '<svg class="key" viewBox="0 0 30 14"><path class="now" d="M0 7H30"/></svg> risk as of the latest exam'
    )
    return (
        f"<section><h2>Exams over time</h2>{reserve}<figure>{timeline(result)}"
        f'<figcaption class="keys">{key}</figcaption></figure></section>'
    )


def _table(result: Mapping[str, Any]) -> str:
    """A line per exam."""
    names = (
        *("Exam", "Date", "Months before", "Attention", "Risk without it"),
        *("Liver inside the field", "Cube filled"),
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    lines = "".join(
        f'<tr><th scope="row">{_text(exam["exam_id"])}</th><td>{_text(exam["date"])}</td>'
        f"<td>{decimals(exam['months_before_landmark'], 1)}</td><td>{decimals(exam['attention'])}</td>"
        f"<td>{percent(exam['risk_without'])}</td><td>{_fraction(exam['field']['liver_fraction'])}</td>"
        f"<td>{_fraction(exam['field']['filled_fraction'])}</td></tr>"
        for exam in result["exams"]
    )
    return (
        f'<section><table class="exams"><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>'
        '<p class="note">Months before the latest exam. Attention: the share of each exam in what the model reads from '
        "the series, sum 1. Risk without it: the risk as of the latest exam had this exam not been made. The field is "
        "the box that the model reads of an exam, at most its cube of input; the rest of the cube is padding.</p></section>"
    )


def _fraction(share: float | None) -> str:
    """A part of a volume in whole percent, never a false 0 or 100."""
    if share is None:
        return "not known"
    return f"{min(max(100 * share, 0.0 if share <= 0 else 1.0), 100.0 if share >= 1 else 99.0):.0f}%"


def _pictures(result: Mapping[str, Any], pictures: Sequence[ExamPicture]) -> str:
    """A section per picture, in the order of the exams."""
    if not pictures:
        return ""
    controls = (
        '<div class="controls" hidden><label>Opacity of the evidence <input id="opacity" type="range" min="0" max="1" '
        'step="0.05" value="1"></label><label><input id="outline" type="checkbox" checked> Outline of the field read'
        "</label></div>"
    )
    letters = (
        '<p class="note">'
        "Axial and coronal pictures show the patient's right on the left. The letters name the patient axis nearest to "
        "each side: R right, L left, A anterior, P posterior, S superior, I inferior.</p>"
    )
    sections = "".join(
        _picture(result, exam, picture)
        for exam in result["exams"]
        for picture in pictures
        if picture.exam_id == exam["exam_id"]
    )
    return f"<section><h2>Pictures</h2>{letters}{controls}</section>{sections}"


def _picture(result: Mapping[str, Any], exam: Mapping[str, Any], picture: ExamPicture) -> str:
    """One exam: heading, its warnings, the slices, where they are cut, and the legend."""
    warnings = [warning for warning in result["warnings"] if warning.get("exam_id") == exam["exam_id"]]
    ordered = in_patient_order(picture)
    point = to_patient(ordered.affine, cut_voxel(ordered))
    stored = ", ".join(f"{index:.0f}" for index in to_voxels(picture.affine, point[None])[0].round() + 0.0)
    places = ", ".join(place(axis, point[axis]) for axis in range(3))
    return (
        f'<section class="exam"><h3>{_text(exam["date"])} <small>exam {_text(exam["exam_id"])}, '
        f"{_text(picture.channel)}</small></h3>{_warning_list(warnings) if warnings else ''}"
        f"{draw_slices(picture, str(exam['date']))}"
        f'<p class="note">{_evidence(picture)} at {places} (voxel {stored} of the stored image, counted from 0).</p>'
        f"{_legend(picture)}</section>"
    )


def _evidence(picture: ExamPicture) -> str:
    """Where the slices are cut, and why."""
    peak = strongest(picture)
    if picture.saliency is None:
        return "No map of evidence was made of this exam: the slices go through the centre of the field read,"
    if peak <= 0:
        return "The map of evidence is zero in this exam: the slices go through the centre of the field read,"
    drawn = f" (below {colours.THRESHOLD:g}: nothing is drawn)" if peak < colours.THRESHOLD else ""
    return f"The slices go through the strongest evidence in this exam, {peak:.2f}{drawn},"


def _legend(picture: ExamPicture) -> str:
    """The colours' scale over mid-gray, and the field's line."""
    field = (
        '<span><svg class="key" viewBox="0 0 30 14"><rect class="backdrop" width="30" height="14"/><g class="field">'
        '<path d="M0 7H30"/></g></svg> outline of the field that the model read</span>'
    )
    if picture.saliency is None:
        return f'<p class="legend">{field}</p>'
    ramp = png.data_uri(colours.overlay(np.linspace(0, 1, 256, dtype=np.float32)[None]))
    edge = 200 * colours.THRESHOLD
    scale = (
        '<svg class="scale" viewBox="-8 0 216 34" role="img" aria-label="Colour scale from 0 to 1">'
        '<rect class="midgray" width="200" height="14"/>'
        f'<image width="200" height="14" preserveAspectRatio="none" href="{ramp}"/>'
        f'<path class="axis" d="M0 14v4M{edge:g} 14v4M200 14v4"/>'
        '<text x="0" y="30" text-anchor="middle">0</text>'
        f'<text x="{edge:g}" y="30" text-anchor="middle">{colours.THRESHOLD:g}</text>'
        '<text x="200" y="30" text-anchor="middle">1</text></svg>'
    )
    words = f"share of the patient's strongest evidence, 0-1; below {colours.THRESHOLD:g} not drawn"
    return f'<p class="legend"><span>{scale} {words}</span>{field}</p>'


def _provenance(result: Mapping[str, Any]) -> str:
    """Bundle, method, versions and times."""
    bundle, explanation = result["bundle"], result.get("explanation")
    rows = [
        ("Bundle", f"{_text(bundle['name'])} {_text(bundle['version'])}"),
        ("SHA-256 of the bundle", f"<code>{_text(bundle['sha256'])}</code>"),
    ]
    if explanation:
        rows.append(("Explanation", f"<b>{_text(explanation['method'])}</b>: {_text(explanation['description'])}"))
    rows.append(("Software", ", ".join(f"{_text(n)} {_text(v)}" for n, v in result["software"].items())))
    rows.append(("Seconds", ", ".join(f"{_text(stage)} {s:.1f}" for stage, s in result["seconds"].items())))
    return f'<section class="provenance"><h2>Provenance</h2>{_rows(*rows)}<p><b>{RESEARCH_ONLY}</b></p></section>'
