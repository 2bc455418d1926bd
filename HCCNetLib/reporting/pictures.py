"""The sections of pictures: controls, and of each exam its slices, where they are cut, and what the colours mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HCCNetLib.reporting import colours, png
from HCCNetLib.reporting.elements import text, warning_list
from HCCNetLib.reporting.slices import (
    ExamPicture,
    cut_voxel,
    decisive,
    draw_slices,
    greatest,
    in_patient_order,
    peak_voxel,
    place_words,
    to_patient,
    to_voxels,
)

_LETTERS = (
    "Axial and coronal pictures show the patient's right on the left. The letters name the patient axis nearest to "
    "each side: R right, L left, A anterior, P posterior, S superior, I inferior."
)
_LOWER = (
    "At first, without script and in print only the evidence for a higher risk is drawn. That for a lower risk is blue."
)
_NOT_DEFORMED = (
    "The exams are not deformed onto each other: a liver that lies elsewhere than before can show up as a pair of more "
    "and less, side by side."
)
_CENTRE = "the slices go through the centre of the field read"


def pictures_section(result: Mapping[str, Any], pictures: Sequence[ExamPicture]) -> str:
    """The exams' pictures under their heading; ``pictures`` are those of kind evidence."""
    return f"<h2>Pictures</h2>{draw_all(result, pictures)}" if pictures else ""


def draw_all(result: Mapping[str, Any], pictures: Sequence[ExamPicture]) -> str:
    """What holds for all of one kind, then a section per picture in the order of the exams."""
    if not pictures:
        return ""
    sections = "".join(
        _picture(result, exam, picture)
        for exam in result["exams"]
        for picture in pictures
        if picture.exam_id == exam["exam_id"]
    )
    change, both = pictures[0].kind == "change", any(picture.against is not None for picture in pictures)
    words = [_LETTERS, _NOT_DEFORMED if change else _LOWER if both else ""]
    note = f'<p class="note">{" ".join(filter(None, words))}</p>'
    return f'<div class="intro">{note}{_controls(change, both)}</div>{sections}'


def _controls(change: bool, both: bool) -> str:
    """What can be switched; of the same name in another section, the script sets both."""
    boxes = [("outline", "Outline of the field read", True)]
    if change:
        boxes += [("raised", "What raised the output", True), ("lowered", "What lowered the output", True)]
    elif both:
        boxes += [("higher", "Evidence for a higher risk", True), ("lower", "Evidence for a lower risk", False)]
    # No autocomplete: a browser that restores a box on reloading would not restore what it switched.
    drawn = "".join(
        f'<label><input name="{name}" type="checkbox" autocomplete="off"{" checked" if on else ""}> {words}</label>'
        for name, words, on in boxes
    )
    return (
        f'<div class="controls" hidden><label>Opacity of the {"change" if change else "evidence"} '
        '<input name="opacity" type="range" min="0" max="1" step="0.05" value="1" autocomplete="off"></label>'
        f"{drawn}</div>"
    )


def _picture(result: Mapping[str, Any], exam: Mapping[str, Any], picture: ExamPicture) -> str:
    """One exam: heading, its warnings, the slices, where they are cut, and the legend."""
    previous = _previous(result, exam) if picture.kind == "change" else ""
    warnings = [warning for warning in result["warnings"] if warning.get("exam_id") == exam["exam_id"]]
    ordered = in_patient_order(picture)
    point = to_patient(ordered.affine, cut_voxel(ordered))
    stored = ", ".join(f"{index:.0f}" for index in to_voxels(picture.affine, point[None])[0].round() + 0.0)
    against = f", compared with the exam of {text(previous)}" if previous else ""
    return (
        f'<section class="exam {picture.kind}"><h3>{text(exam["date"])} <small>exam {text(exam["exam_id"])}, '
        f"{text(picture.channel)}{against}</small></h3>{warning_list(warnings) if warnings else ''}"
        f"{draw_slices(picture, str(exam['date']), previous)}"
        f'<p class="note">{_cut(picture)}, at {place_words(point)} (voxel {stored} of the stored image, counted from 0).'
        f"{_lower_peak(ordered)}</p>{_legend(picture, previous)}</section>"
    )


def _previous(result: Mapping[str, Any], exam: Mapping[str, Any]) -> str:
    """Date of the exam before; ValueError where there is none."""
    earlier = [other["date"] for other in result["exams"] if other["date"] < exam["date"]]
    if not earlier:
        raise ValueError(f"a picture of change of {exam['exam_id']}, which is the first exam")
    return str(max(earlier))


def _cut(picture: ExamPicture) -> str:
    """Where the slices are cut, and why."""
    peak = greatest(decisive(picture))
    drawn = "nothing is drawn" if picture.kind == "change" or picture.against is None else "not drawn"
    faint = f" (below {colours.THRESHOLD:g}: {drawn})" if peak < colours.THRESHOLD else ""
    if picture.kind == "change":
        if peak <= 0:
            return f"Nothing raised or lowered the output in this exam: {_CENTRE}"
        did = "raised" if greatest(picture.saliency) >= greatest(picture.against) else "lowered"
        return f"The slices go through the strongest change in this exam, {peak:.2f}{faint}, which {did} the output"
    if picture.saliency is None:
        return f"No map of evidence was made of this exam: {_CENTRE}"
    if picture.against is None:
        if peak <= 0:
            return f"The map of evidence is zero in this exam: {_CENTRE}"
        return f"The slices go through the strongest evidence in this exam, {peak:.2f}{faint}"
    if peak <= 0:
        return f"There is no evidence for a higher risk in this exam: {_CENTRE}"
    return f"The slices go through the strongest evidence for a higher risk in this exam, {peak:.2f}{faint}"


def _lower_peak(ordered: ExamPicture) -> str:
    """Where the hidden evidence is strongest: the slices need not show it."""
    if ordered.kind == "change" or ordered.against is None:
        return ""
    value = greatest(ordered.against)
    if value <= 0:
        return " There is no evidence for a lower risk in this exam."
    where = place_words(to_patient(ordered.affine, peak_voxel(ordered.against, ordered.affine)))
    return f" The strongest evidence for a lower risk, {value:.2f}, lies at {where}."


def _legend(picture: ExamPicture, previous: str) -> str:
    """The colours' scales over mid-gray, and the field's line."""
    below = f"0-1; below {colours.THRESHOLD:g} not drawn"
    if picture.saliency is None:
        scales = ""
    elif picture.kind == "change":
        compared = f"compared with the exam of {text(previous)}"
        scales = (
            _scale(colours.HIGHER, f"raised the output {compared}")
            + _scale(colours.LOWER, f"lowered the output {compared}")
            + f"<span>share of the patient's largest change, {below}</span>"
        )
    elif picture.against is None:
        scales = _scale(colours.HIGHER, f"share of the patient's strongest evidence, {below}")
    else:
        scales = (
            _scale(colours.HIGHER, "evidence for a higher risk")
            + _scale(colours.LOWER, "evidence for a lower risk, where switched on", "lower")
            + f"<span>share of the patient's strongest evidence of either kind, {below}</span>"
        )
    field = (
        '<span><svg class="key" viewBox="0 0 30 14"><rect class="backdrop" width="30" height="14"/><g class="field">'
        '<path d="M0 7H30"/></g></svg> outline of the field that the model read</span>'
    )
    return f'<p class="legend">{scales}{field}</p>'


def _scale(colour: NDArray[np.float64], words: str, css: str = "higher") -> str:
    """One scale of colours with its ticks and what it stands for; ``words`` are HTML."""
    ramp = png.data_uri(colours.overlay(np.linspace(0, 1, 256, dtype=np.float32)[None], colour))
    edge = 200 * colours.THRESHOLD
    return (
        f'<span class="{css}"><svg class="scale" viewBox="-8 0 216 34" role="img" aria-label="Colour scale from 0 to 1: {words}">'
        '<rect class="midgray" width="200" height="14"/>'
        f'<image width="200" height="14" preserveAspectRatio="none" href="{ramp}"/>'
        f'<path class="axis" d="M0 14v4M{edge:g} 14v4M200 14v4"/>'
        '<text x="0" y="30" text-anchor="middle">0</text>'
        f'<text x="{edge:g}" y="30" text-anchor="middle">{colours.THRESHOLD:g}</text>'
        f'<text x="200" y="30" text-anchor="middle">1</text></svg> {words}</span>'
    )
