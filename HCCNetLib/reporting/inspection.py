"""What there is of a patient before any prediction: as content for JSON, and as text for people made from that content.

Series UIDs and paths have no place in either: they may identify a patient.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from HCCNetLib.readers import orientation_letters
from HCCNetLib.readers.channels import CHANNELS
from HCCNetLib.records import Exam, FoundImage, Grid, Image, Outcome, Patient, Problem, Refusal, months_between

Content = dict[str, Any]

_COLUMNS = ("channel", "file or series", "voxels", "mm", "axes", "b, phase, echo", "recognised by")
_NAME, _DETAILS = 1, 5  # the columns that are cut where a line would be too long
_WIDTH, _SHORTEST_NAME, _LONGEST_DETAILS = 116, 18, 24  # characters
_MOST_REASONS, _MOST_NAMES = 10, 8  # of images that are not used; JSON has all of them
_NEAREST_FIRST = ("ambiguous", "certain", "probable", "none")


def in_order(channels: Sequence[str]) -> list[str]:
    """Channels in the order in which they are known; others behind."""
    known = {channel: place for place, channel in enumerate(CHANNELS)}
    return sorted(channels, key=lambda channel: (known.get(channel, len(known)), channel))


def found_channels(exam: Exam) -> dict[str, FoundImage]:
    """What every channel of an exam was found as, in order; its image's own name where the reader does not tell."""
    told = {found.channel: found for found in exam.found if found.channel is not None and not found.reason}
    return {
        channel: told.get(channel) or FoundImage(_own_name(exam.images[channel]), channel=channel)
        for channel in in_order(list(exam.images))
    }


def _own_name(image: Image) -> str:
    """The last part of what messages call an image: folders may be named by a patient."""
    return image.source.rsplit("/", 1)[-1]


def details_text(details: Mapping[str, str]) -> str:
    """What sets an image apart in its series, e.g. ``b 400`` or ``phase 2 of 6 (+25 s from contrast)``."""
    return ", ".join(f"{name} {value}" for name, value in details.items())


def name_apart(name: str, details: str) -> str:
    """An image's name without the details that stand beside it."""
    return name.removesuffix(f", {details}") if details else name


def _months_before(exam: Exam, patient: Patient) -> float:
    return months_between(exam.date, patient.landmark.date)


# ---------------------------------------------------------------- content


def describe_patient(
    patient: Patient, outcome: Outcome | None, problems: Sequence[Problem], refusal: Refusal | None
) -> Content:
    """All that is to be told of a patient, as JSON has it.

    Args:
        patient: as read.
        outcome: if it is known.
        problems: found since by looking closer, each with its exam.
        refusal: why no prediction could be made, or None.
    """
    return {
        "patient_id": patient.patient_id,
        "exams": [_describe_exam(exam, patient, problems, refusal) for exam in patient.exams],
        "problems": describe_problems(patient.problems),
        "outcome": None if outcome is None else _describe_outcome(outcome),
        "would_be_refused": None if refusal is None else {"code": refusal.code, "message": refusal.message},
    }


def describe_problems(problems: Sequence[Problem]) -> list[Content]:
    """Code and message of each problem, each once."""
    unique = dict.fromkeys((problem.code, problem.message) for problem in problems)
    return [{"code": code, "message": message} for code, message in unique]


def _describe_outcome(outcome: Outcome) -> Content:
    diagnosis = outcome.diagnosis_date
    return {
        "diagnosis_date": None if diagnosis is None else diagnosis.isoformat(),
        "last_seen_date": outcome.last_seen_date.isoformat(),
    }


def _describe_exam(exam: Exam, patient: Patient, problems: Sequence[Problem], refusal: Refusal | None) -> Content:
    channels, unusable = {}, []
    for channel, found in found_channels(exam).items():
        grid, problem = _grid_or_problem(exam.images[channel])
        channels[channel] = _describe_image(found, grid)
        unusable += [problem] if problem is not None else []
    later = [problem for problem in problems if problem.exam_id == exam.exam_id]
    told = "" if refusal is None else refusal.message
    return {
        "exam_id": exam.exam_id,
        "date": exam.date.isoformat(),
        "months_before_latest": round(_months_before(exam, patient), 4),
        "channels": channels,
        "liver": "mask" if exam.liver_mask is not None else "box" if exam.liver_box is not None else None,
        "not_used": [
            {**_describe_image(found, found.grid), "reason": found.reason or "nothing says what it is"}
            for found in sorted(exam.found, key=lambda found: _NEAREST_FIRST.index(found.confidence))
            if found.reason or found.channel is None
        ],
        "problems": describe_problems(
            [problem for problem in (*exam.problems, *unusable, *later) if problem.message not in told]
        ),
    }


def _grid_or_problem(image: Image) -> tuple[Grid | None, Problem | None]:
    try:
        return image.grid, None
    except Refusal as refusal:
        return None, Problem(refusal.code, refusal.message)


def _describe_image(found: FoundImage, grid: Grid | None) -> Content:
    """An image as JSON has it; shape, spacing and orientation are null where its header can't be used."""
    return {
        "name": found.name,
        "description": found.description,
        "shape": None if grid is None else list(grid.shape),
        "spacing_mm": None if grid is None else [round(mm, 4) for mm in grid.spacing],
        "orientation": None if grid is None else orientation_letters(grid),
        "details": dict(found.details),
        "recognised_by": found.recognised_by,
        "confidence": found.confidence,
    }


# ---------------------------------------------------------------- text


def patient_text(content: Content) -> str:
    """The lines about a patient that a person reads."""
    latest = content["exams"][-1]
    rows = {exam["exam_id"]: _rows(exam) for exam in content["exams"]}
    widths = _widths([row for of_exam in rows.values() for row in of_exam])
    lines = [content["patient_id"] + _outcome_text(content["outcome"])]
    lines += [f"  warning: {problem['message']}" for problem in content["problems"]]
    for exam in content["exams"]:
        name = "" if exam["exam_id"] == exam["date"] else f" ({exam['exam_id']})"
        when = "latest exam" if exam is latest else f"{exam['months_before_latest']:.1f} months before the latest"
        lines.append(f"  {exam['date']}{name}, {when}")
        lines += [f"    {line}" for line in _exam_lines(exam, rows[exam["exam_id"]], widths)]
    if content["would_be_refused"] is not None:
        lines.append(f"  would be refused: {content['would_be_refused']['message']}")
    return "\n".join(lines)


def _outcome_text(outcome: Content | None) -> str:
    if outcome is None:
        return ""
    if outcome["diagnosis_date"] is None:
        return f"  (no diagnosis until {outcome['last_seen_date']})"
    return f"  (diagnosis {outcome['diagnosis_date']})"


def _exam_lines(exam: Content, rows: list[list[str]], widths: list[int]) -> Iterator[str]:
    if exam["channels"]:
        yield from (_aligned(row, widths) for row in ([*_COLUMNS], *rows))
    else:
        yield "no known channel"
    if exam["liver"] is not None:
        yield f"liver {exam['liver']} given: centres the field"
    yield from _not_used_lines(exam["not_used"])
    yield from (f"warning: {problem['message']}" for problem in exam["problems"])


def _rows(exam: Content) -> list[list[str]]:
    """The cells of an exam's channels; an image whose header can't be used has a word in place of its geometry."""
    return [
        [
            channel,
            _called({**image, "name": name_apart(image["name"], details_text(image["details"]))}),
            *(_geometry(image) if image["shape"] else ("can't be used", "", "")),
            details_text(image["details"]),
            f"{image['recognised_by']}, {image['confidence']}" if image["recognised_by"] else "",
        ]
        for channel, image in exam["channels"].items()
    ]


def _geometry(image: Content) -> tuple[str, str, str]:
    spacing = "×".join(f"{mm:.3g}" for mm in image["spacing_mm"])
    return "×".join(map(str, image["shape"])), spacing, image["orientation"]


def _called(image: Content) -> str:
    """Name and description on one line; a scanner's text may hold anything."""
    name, description = (" ".join(image[key].split()) for key in ("name", "description"))
    return f"{name}: {description}" if description and description not in name else name


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """Characters of each column: as wide as its widest cell, 0 where all are empty; the name takes what is left."""
    widest = [max((len(row[column]) for row in rows), default=0) for column in range(len(_COLUMNS))]
    widths = [max(width, len(title)) if width else 0 for width, title in zip(widest, _COLUMNS, strict=True)]
    widths[_DETAILS] = min(widths[_DETAILS], _LONGEST_DETAILS)
    left = _WIDTH - sum(width + 2 for column, width in enumerate(widths) if width and column != _NAME)
    widths[_NAME] = min(widths[_NAME], max(left, _SHORTEST_NAME))
    return widths


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (_cut(cell, width).ljust(width) for cell, width in zip(row, widths, strict=True) if width)
    return "  ".join(cells).rstrip()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1].rstrip()}…"


def _not_used_lines(images: Sequence[Content]) -> Iterator[str]:
    """Images by the reason why they are not used, those first that may be a channel; never so many that they hide the others."""
    if not images:
        return
    by_reason: dict[str, list[str]] = {}
    for image in images:
        by_reason.setdefault(image["reason"], []).append(_called(image))
    yield "not used:" if len(images) == 1 else f"not used ({len(images)} images):"
    for reason, names in list(by_reason.items())[:_MOST_REASONS]:
        more = len(names) - _MOST_NAMES
        listed = "; ".join(names[:_MOST_NAMES]) + (f"; and {more} more (all with --json)" if more > 0 else "")
        yield from textwrap.wrap(
            f"{listed} – {reason}", _WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
        )
    hidden = sum(len(names) for names in list(by_reason.values())[_MOST_REASONS:])
    if hidden:
        yield f"  and {hidden} more for other reasons (all with --json)"
