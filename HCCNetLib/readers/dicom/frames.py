"""Headers → frames: one 2D image each, with all that tells which volume of which exam it belongs to.

A classic file is one frame. Of an enhanced file each frame's values are looked up in its own functional groups, then in
the shared ones, then in the file's header.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from HCCNetLib.readers.dates import seconds_of_day
from HCCNetLib.readers.dicom import attributes as at
from HCCNetLib.readers.dicom.files import Header, signs_of_damage
from HCCNetLib.readers.dicom.values import (
    Values,
    as_it_stands,
    as_items,
    as_whole,
    date_of,
    find_in,
    first_number,
    moment_of,
    number_of,
    scale_of,
    text_of,
    vector_of,
    whole_numbers,
    whole_of,
    words_in,
)
from HCCNetLib.readers.dicom.vendors import b_value_of_frame, component_of, direction_of
from HCCNetLib.records import PHANTOM_MARK

# MR, Enhanced MR, Legacy Converted Enhanced MR.
MR_CLASSES = frozenset(f"1.2.840.10008.5.1.4.1.1.4{end}" for end in ("", ".1", ".4"))
_MOST_FRAMES = 50_000
_MOST_ALIKE = 10_000  # series and what tells their files apart
_LONGEST_MS = 86_400_000.0  # a day
_SHORTEST_NAME = 3  # letters; fewer are words of protocols too

_Vector = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Person:
    """What is said of a patient besides id and date of birth, only to be compared.

    Args:
        name: a number for each part of the name, not the name: it must not get into a message by mistake.
        sex: ``F``, ``M``, or empty.
        issuer: of the id, a number; None where none is named.
    """

    name: frozenset[int]
    sex: str
    issuer: int | None


@dataclass(frozen=True, slots=True)
class Frame:
    """One 2D image.

    Args:
        path: the file it lies in.
        index: its number in the file, from 0.
        instance_uid: of the file's object.
        patient_id: as written.
        birth_date: as written; only to tell patients apart whose ids are alike.
        person: what else tells people apart; of the parts of the name only numbers that stand for them.
        study_uid: of the study.
        study_date: day of the study, or None.
        study_seconds: time of day at which the study began, or None.
        series_uid: of the series.
        series_number: as written, or empty.
        description: of the series.
        modality: e.g. ``MR``.
        sop_class: UID of the kind of object.
        shape: rows and columns.
        is_colour: more than one sample per pixel, or colours from a palette.
        is_inverted: what is dark is stored as the larger value.
        body_part: that it says it shows, in capitals; or empty.
        image_type: words of Image Type or, of an enhanced file, Frame Type; capitals.
        component: ``MAGNITUDE``, ``PHASE``, … where a tag of its own says so, else empty.
        position: of the first pixel's centre, mm, LPS; None where it is not there.
        orientation: direction of rows, then of columns, LPS; None where it is not there.
        spacing: between rows, between columns, mm; None where it is not there.
        thickness: of the slice, mm; None where it is not there.
        b_value: s/mm², or None.
        direction: of the diffusion gradient, as written; empty where there is none, ``isotropic`` of a trace image.
        echo_time: ms, or None.
        inversion_time: ms, or None.
        temporal_position: or None.
        trigger_time: ms, or None.
        acquisition_number: or None.
        acquired: when, or None.
        contrast_seconds: time of day at which the contrast agent was given, or None.
        field_strength: T, or None.
        slope: of stored to displayed value.
        intercept: of stored to displayed value.
        instance_number: or None; only to tell copies from others.
        dimensions: of an enhanced file, the frame's number along each of its dimensions.
        is_phantom: marked as generated.
    """

    path: Path
    index: int
    instance_uid: str
    patient_id: str
    birth_date: str
    person: Person
    study_uid: str
    study_date: datetime.date | None
    study_seconds: float | None
    series_uid: str
    series_number: str
    description: str
    modality: str
    sop_class: str
    shape: tuple[int, int]
    is_colour: bool
    is_inverted: bool
    body_part: str
    image_type: tuple[str, ...]
    component: str
    position: _Vector | None
    orientation: _Vector | None
    spacing: _Vector | None
    thickness: float | None
    b_value: float | None
    direction: str
    echo_time: float | None
    inversion_time: float | None
    temporal_position: int | None
    trigger_time: float | None
    acquisition_number: int | None
    acquired: datetime.datetime | None
    contrast_seconds: float | None
    field_strength: float | None
    slope: float
    intercept: float
    instance_number: int | None
    dimensions: tuple[int, ...]
    is_phantom: bool


# What differs from slice to slice of a classic series; see _of_slice.
_TIMES = (at.ACQUISITION_DATETIME, at.ACQUISITION_TIME, at.CONTENT_TIME)
_OF_SLICE = frozenset(
    (
        at.INSTANCE_UID,
        at.INSTANCE_NUMBER,
        at.POSITION,
        at.SLOPE,
        at.INTERCEPT,
        at.TRIGGER_TIME,
        at.TRIGGER_DELAY,
        *_TIMES,
    )
)


@dataclass(frozen=True)
class Alike:
    """What was read of files that differ in nothing but what is a slice's own.

    Args:
        frame: of the first of them.
        moments: of acquisition, by the times that stand in a file.
    """

    frame: Frame
    moments: dict[Hashable, datetime.datetime | None] = field(default_factory=dict)


def frames_of(header: Header, read: dict[Hashable, Alike] | None = None) -> list[Frame]:
    """The frames of a file; none where it says nothing that can be used, e.g. is no image.

    Args:
        header: of the file.
        read: what was read before, by what files have in common. It is filled here: of a file that says the same as one
            before it, only what is a slice's own is looked up.
    """
    try:
        key, own = _in_common(header.tags)
        if read is None or key is None:
            return list(_frames(header, own))
        if key in read:
            alike = read[key]
            return [replace(alike.frame, path=header.path, **_of_slice(Values(header.tags), own, (), alike.moments))]
        frames = list(_frames(header, own))
        if len(frames) == 1 and len(read) < _MOST_ALIKE:
            read[key] = Alike(frames[0])
        return frames
    except signs_of_damage():
        return []


def _in_common(tags: Any) -> tuple[Hashable | None, dict[int, Any]]:
    """All that a file says and a frame is made of, as it stands there, but for the slice's own elements; and those.

    None where a sequence was read already: it can't be compared.
    """
    own: dict[int, Any] = {}
    said: list[Hashable] = list(tags.original_encoding)
    comparable = True
    for tag, element in tags.items():
        number = int(tag)
        if number in _OF_SLICE:
            own[number] = element
        elif number in at.READ:
            said += (number, element.VR, element.value)
            comparable = comparable and (element.value is None or isinstance(element.value, bytes | str))
    return tuple(said) if comparable else None, own


def _frames(header: Header, elements: Mapping[int, Any]) -> Iterator[Frame]:
    whole = Values(header.tags)
    own, shared = (as_items(whole.value(tag)) for tag in (at.PER_FRAME, at.SHARED))
    count = whole_of(whole, at.FRAMES) or 1
    if not 1 <= count <= _MOST_FRAMES or (own and len(own) < count):
        raise ValueError("the number of frames does not fit")
    common, for_all = _common(whole), [Values(item) for item in shared[:1]]
    # Nothing says where each frame of another kind of object lies, how many ever it has.
    for index in range(count if own else 1):
        places = [*(Values(item) for item in own[index : index + 1]), *for_all]
        own_values = _of_slice(whole, elements, places, {})
        yield Frame(path=header.path, index=index, **common, **_of_frame(whole, places), **own_values)


def _common(tags: Values) -> dict[str, Any]:
    """What all frames of a file share."""
    return {
        "patient_id": text_of(tags, at.PATIENT_ID),
        "birth_date": text_of(tags, at.BIRTH_DATE).replace(".", "").replace("-", ""),
        "person": _person(tags),
        "study_uid": text_of(tags, at.STUDY_UID),
        "study_date": date_of(text_of(tags, at.STUDY_DATE)),
        "study_seconds": seconds_of_day(text_of(tags, at.STUDY_TIME)),
        "series_uid": text_of(tags, at.SERIES_UID),
        "series_number": text_of(tags, at.SERIES_NUMBER),
        "description": _description(tags),
        "modality": text_of(tags, at.MODALITY).upper(),
        "sop_class": text_of(tags, at.SOP_CLASS),
        "shape": (whole_of(tags, at.ROWS) or 0, whole_of(tags, at.COLUMNS) or 0),
        "is_colour": (whole_of(tags, at.SAMPLES) or 1) != 1 or text_of(tags, at.PHOTOMETRIC).upper() == "PALETTE COLOR",
        "is_inverted": text_of(tags, at.PHOTOMETRIC).upper() == "MONOCHROME1",
        "body_part": text_of(tags, at.BODY_PART).upper(),
        "acquisition_number": whole_of(tags, at.ACQUISITION_NUMBER),
        "contrast_seconds": seconds_of_day(text_of(tags, at.CONTRAST_TIME)),
        "field_strength": number_of(tags, at.FIELD_STRENGTH),
        "is_phantom": text_of(tags, at.COMMENTS) == PHANTOM_MARK,
    }


def _person(tags: Values) -> Person:
    name, sex, issuer = (text_of(tags, tag) for tag in (at.PATIENT_NAME, at.SEX, at.ISSUER))
    parts = frozenset(hash(part) for part in re.findall(r"\w+", name.casefold()))
    return Person(parts, sex.upper() if sex.upper() in ("F", "M") else "", hash(issuer.casefold()) if issuer else None)


def _description(tags: Values) -> str:
    """What the scanner calls the series, without the patient's name and id, which some type into it."""
    words = (text_of(tags, at.DESCRIPTION) or text_of(tags, at.PROTOCOL)).split()
    about = f"{text_of(tags, at.PATIENT_NAME)} {text_of(tags, at.PATIENT_ID)}".replace("^", " ").replace("=", " ")
    hidden = {part.casefold() for part in about.split() if len(part) >= _SHORTEST_NAME}
    pattern = re.compile(
        "|".join(rf"(?<![^\W_]){re.escape(part)}(?![^\W_])" for part in hidden) or r"(?!)", re.IGNORECASE
    )
    return " ".join(pattern.sub("…", " ".join(words)).split())


def _of_frame(tags: Values, places: Sequence[Values]) -> dict[str, Any]:
    """What is a frame's own; ``places`` are its functional groups, then the shared ones."""

    def find(tag: int) -> Any:
        return find_in(tags, places, tag)

    image_type = words_in(find(at.FRAME_TYPE)) or words_in(tags.value(at.IMAGE_TYPE))
    inversion = first_number(find(at.INVERSION_TIMES)) if places else number_of(tags, at.INVERSION_TIME)
    return {
        "image_type": image_type,
        "component": component_of(tags, find(at.COMPONENT)),
        "orientation": vector_of(find(at.ORIENTATION), 6),
        "spacing": vector_of(find(at.SPACING), 2),
        "thickness": first_number(find(at.THICKNESS)),
        "b_value": b_value_of_frame(tags, places),
        "direction": direction_of(tags, places),
        "echo_time": first_number(find(at.EFFECTIVE_ECHO_TIME)) or number_of(tags, at.ECHO_TIME),
        "inversion_time": inversion,
        "temporal_position": as_whole(find(at.TEMPORAL_INDEX)) or whole_of(tags, at.TEMPORAL_POSITION),
        "dimensions": whole_numbers(find(at.DIMENSIONS)),
    }


def _of_slice(
    tags: Values,
    elements: Mapping[int, Any],
    places: Sequence[Values],
    moments: dict[Hashable, datetime.datetime | None],
) -> dict[str, Any]:
    """What the slices of a classic series differ in; nothing else is made of ``_OF_SLICE``.

    Args:
        tags: of the file.
        elements: those of ``tags`` that are a slice's own.
        places: as of ``_of_frame``.
        moments: known ones, by the times that stand in a file.
    """

    def find(tag: int) -> Any:
        return find_in(tags, places, tag) if places else as_it_stands(tags, elements, tag)

    def scale(tag: int, default: float) -> float:
        if places:
            return scale_of(tags, places, tag, default)
        value = as_it_stands(tags, elements, tag)
        number = default if value is None or list(value) == [""] else first_number(value)
        return math.nan if number is None else number

    uid = as_it_stands(tags, elements, at.INSTANCE_UID) or ()
    of_frame = find_in(tags, places, at.FRAME_DATETIME)
    times = (str(of_frame), *(str(as_it_stands(tags, elements, tag)) for tag in _TIMES))
    if times not in moments:
        moments[times] = _acquired(tags, of_frame)
    return {
        "instance_uid": " ".join(map(str, uid)),
        "instance_number": as_whole(as_it_stands(tags, elements, at.INSTANCE_NUMBER)),
        "position": vector_of(find(at.POSITION), 3),
        "trigger_time": _trigger_time(first_number(find(at.TRIGGER_DELAY if places else at.TRIGGER_TIME))),
        "acquired": moments[times],
        "slope": scale(at.SLOPE, 1.0) or math.nan,
        "intercept": scale(at.INTERCEPT, 0.0),
    }


def _trigger_time(value: float | None) -> float | None:
    return value if value is not None and 0 <= value <= _LONGEST_MS else None


def _acquired(tags: Values, of_frame: Any) -> datetime.datetime | None:
    """When a frame was acquired; the time at which its series began is better than none."""
    for text in (str(of_frame or ""), text_of(tags, at.ACQUISITION_DATETIME)):
        moment = moment_of(date_of(text[:8]), seconds_of_day(text[8:].partition("+")[0].partition("-")[0]))
        if moment is not None:
            return moment
    day = date_of(text_of(tags, at.STUDY_DATE))
    for date, time in (
        (at.ACQUISITION_DATE, at.ACQUISITION_TIME),
        (at.CONTENT_DATE, at.CONTENT_TIME),
        (at.SERIES_DATE, at.SERIES_TIME),
    ):
        moment = moment_of(date_of(text_of(tags, date)) or day, seconds_of_day(text_of(tags, time)))
        if moment is not None:
            return moment
    return moment_of(date_of(text_of(tags, at.ACQUISITION_DATE)) or date_of(text_of(tags, at.SERIES_DATE)), 0.0)
