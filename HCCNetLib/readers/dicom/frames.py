"""Headers → frames: one 2D image each, with all that tells which volume of which exam it belongs to.

A classic file is one frame. Of an enhanced file each frame's values are looked up in its own functional groups, then in
the shared ones, then in the file's header.
"""

from __future__ import annotations

import datetime
import math
import re
import struct
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from HCCNetLib.readers.dates import seconds_of_day
from HCCNetLib.readers.dicom.files import Header, signs_of_damage
from HCCNetLib.readers.series import plausible_b_value
from HCCNetLib.records import PHANTOM_MARK

MR_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.4.1": "Enhanced MR",
    "1.2.840.10008.5.1.4.1.1.4.4": "Legacy Converted Enhanced MR",
}
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
        sequence: name of the pulse sequence and of the protocol, in words.
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
        instance_number: or None.
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
    sequence: str
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


def _tag(group: int, element: int) -> int:
    return group << 16 | element


_SHARED, _PER_FRAME = _tag(0x5200, 0x9229), _tag(0x5200, 0x9230)
_PATIENT_ID, _BIRTH_DATE, _COMMENTS = _tag(0x10, 0x20), _tag(0x10, 0x30), _tag(0x20, 0x4000)
_PATIENT_NAME, _CHARACTER_SET = _tag(0x10, 0x10), _tag(0x8, 0x5)
_STUDY_UID, _SERIES_UID, _INSTANCE_UID = _tag(0x20, 0xD), _tag(0x20, 0xE), _tag(0x8, 0x18)
_STUDY_DATE, _SERIES_DATE, _ACQUISITION_DATE, _CONTENT_DATE = (_tag(0x8, e) for e in (0x20, 0x21, 0x22, 0x23))
_STUDY_TIME, _SERIES_TIME, _ACQUISITION_TIME, _CONTENT_TIME = (_tag(0x8, e) for e in (0x30, 0x31, 0x32, 0x33))
_ACQUISITION_DATETIME, _FRAME_DATETIME = _tag(0x8, 0x2A), _tag(0x18, 0x9074)
_SERIES_NUMBER, _ACQUISITION_NUMBER, _INSTANCE_NUMBER = _tag(0x20, 0x11), _tag(0x20, 0x12), _tag(0x20, 0x13)
_DESCRIPTION, _PROTOCOL, _SEQUENCE_NAME = _tag(0x8, 0x103E), _tag(0x18, 0x1030), _tag(0x18, 0x24)
_SCANNING_SEQUENCE, _MODALITY, _SOP_CLASS = _tag(0x18, 0x20), _tag(0x8, 0x60), _tag(0x8, 0x16)
_SEX, _ISSUER, _PHOTOMETRIC, _BODY_PART = _tag(0x10, 0x40), _tag(0x10, 0x21), _tag(0x28, 0x4), _tag(0x18, 0x15)
_ROWS, _COLUMNS, _SAMPLES, _FRAMES = _tag(0x28, 0x10), _tag(0x28, 0x11), _tag(0x28, 0x2), _tag(0x28, 0x8)
_IMAGE_TYPE, _FRAME_TYPE, _COMPONENT = _tag(0x8, 0x8), _tag(0x8, 0x9007), _tag(0x8, 0x9208)
_POSITION, _ORIENTATION, _SPACING = _tag(0x20, 0x32), _tag(0x20, 0x37), _tag(0x28, 0x30)
_B_VALUE, _DIRECTIONALITY, _GRADIENT = _tag(0x18, 0x9087), _tag(0x18, 0x9075), _tag(0x18, 0x9089)
_ECHO_TIME, _EFFECTIVE_ECHO_TIME = _tag(0x18, 0x81), _tag(0x18, 0x9082)
_INVERSION_TIME, _INVERSION_TIMES = _tag(0x18, 0x82), _tag(0x18, 0x9079)
_TEMPORAL_POSITION, _TEMPORAL_INDEX = _tag(0x20, 0x100), _tag(0x20, 0x9128)
_TRIGGER_TIME, _TRIGGER_DELAY = _tag(0x18, 0x1060), _tag(0x20, 0x9153)
_DIMENSIONS, _THICKNESS = _tag(0x20, 0x9157), _tag(0x18, 0x50)
_CONTRAST_TIME, _FIELD_STRENGTH = _tag(0x18, 0x1042), _tag(0x18, 0x87)
_SLOPE, _INTERCEPT = _tag(0x28, 0x1053), _tag(0x28, 0x1052)

# Functional groups, by what is looked up in them; the diffusion group nests the gradient once more.
_GROUPS = {
    _FRAME_TYPE: _tag(0x18, 0x9226),
    _COMPONENT: _tag(0x18, 0x9226),
    _POSITION: _tag(0x20, 0x9113),
    _ORIENTATION: _tag(0x20, 0x9116),
    _SPACING: _tag(0x28, 0x9110),
    _THICKNESS: _tag(0x28, 0x9110),
    _B_VALUE: _tag(0x18, 0x9117),
    _DIRECTIONALITY: _tag(0x18, 0x9117),
    _EFFECTIVE_ECHO_TIME: _tag(0x18, 0x9114),
    _INVERSION_TIMES: _tag(0x18, 0x9115),
    _TEMPORAL_INDEX: _tag(0x20, 0x9111),
    _FRAME_DATETIME: _tag(0x20, 0x9111),
    _DIMENSIONS: _tag(0x20, 0x9111),
    _TRIGGER_DELAY: _tag(0x18, 0x9118),
    _SLOPE: _tag(0x28, 0x9145),
    _INTERCEPT: _tag(0x28, 0x9145),
}
_DIFFUSION_GROUP, _GRADIENT_GROUP = _tag(0x18, 0x9117), _tag(0x18, 0x9076)
_PHILIPS_CLASSIC = _tag(0x2005, 0x140F)  # a Philips classic file repeats some functional groups in it


@dataclass(frozen=True)
class _Private:
    """A vendor's own element: its group, the low byte of its number, whose block it is in, and how its bytes are read."""

    group: int
    element: int
    creator: str
    form: str = ""  # of struct, where an implicit representation leaves raw numbers; else text


_SIEMENS_B = _Private(0x19, 0x0C, "siemens mr header")
_SIEMENS_DIRECTIONALITY = _Private(0x19, 0x0D, "siemens mr header")
_SIEMENS_GRADIENT = _Private(0x19, 0x0E, "siemens mr header", "<3d")
_PHILIPS_B = _Private(0x2001, 0x03, "philips imaging dd 001", "<f")
_PHILIPS_DIRECTION = _Private(0x2001, 0x04, "philips imaging dd 001")
_UIH_B = _Private(0x65, 0x09, "image private header", "<d")
_UIH_GRADIENT = _Private(0x65, 0x37, "image private header", "<3d")
_GE_B = _Private(0x43, 0x39, "gems_parm_01")
_GE_COMPONENT = _Private(0x43, 0x2F, "gems_parm_01", "<h")
_GE_GRADIENT = tuple(_Private(0x19, e, "gems_acqu_01", "<d") for e in (0xBB, 0xBC, 0xBD))
_PRIVATE = (
    *(_SIEMENS_B, _SIEMENS_DIRECTIONALITY, _SIEMENS_GRADIENT, _PHILIPS_B, _PHILIPS_DIRECTION, _UIH_B, _UIH_GRADIENT),
    *(_GE_B, _GE_COMPONENT, *_GE_GRADIENT),
)
_BLOCKS = range(0x10, 0x18)
_B_OF_VENDORS = (_SIEMENS_B, _PHILIPS_B, _UIH_B)
_GE_OFFSET = 100_000.0


def _tags_read() -> frozenset[int]:
    """All tags that a frame is made of."""
    public = [value for name, value in globals().items() if name.startswith("_") and type(value) is int]
    private = [p.group << 16 | b << 8 | p.element for p in _PRIVATE for b in _BLOCKS]
    creators = [p.group << 16 | b for p in _PRIVATE for b in _BLOCKS]
    return frozenset(v for v in (*public, *_GROUPS.values(), *private, *creators) if v > 0xFFFF)


_READ = _tags_read()
# What differs from slice to slice of a classic series; see _of_slice.
_TIMES = (_ACQUISITION_DATETIME, _ACQUISITION_TIME, _CONTENT_TIME)
_OF_SLICE = frozenset(
    (_INSTANCE_UID, _INSTANCE_NUMBER, _POSITION, _SLOPE, _INTERCEPT, _TRIGGER_TIME, _TRIGGER_DELAY, *_TIMES)
)
_TEXTS = ("DS", "IS", "TM", "DT", "UI", None)  # None: of an implicit representation, where each of them is one of these


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
            return [replace(alike.frame, path=header.path, **_of_slice(_Values(header.tags), own, (), alike.moments))]
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
        elif number in _READ:
            said += (number, element.VR, element.value)
            comparable = comparable and (element.value is None or isinstance(element.value, bytes | str))
    return tuple(said) if comparable else None, own


def _frames(header: Header, elements: Mapping[int, Any]) -> Iterator[Frame]:
    whole = _Values(header.tags)
    own, shared = (_as_items(whole.value(tag)) for tag in (_PER_FRAME, _SHARED))
    count = _whole(whole, _FRAMES) or 1
    if not 1 <= count <= _MOST_FRAMES or (own and len(own) < count):
        raise ValueError("the number of frames does not fit")
    common, for_all = _common(whole), [_Values(item) for item in shared[:1]]
    # Nothing says where each frame of another kind of object lies, how many ever it has.
    for index in range(count if own else 1):
        places = [*(_Values(item) for item in own[index : index + 1]), *for_all]
        own_values = _of_slice(whole, elements, places, {})
        yield Frame(path=header.path, index=index, **common, **_of_frame(whole, places), **own_values)


def _common(tags: _Values) -> dict[str, Any]:
    """What all frames of a file share."""
    return {
        "patient_id": _text(tags, _PATIENT_ID),
        "birth_date": _text(tags, _BIRTH_DATE).replace(".", "").replace("-", ""),
        "person": _person(tags),
        "study_uid": _text(tags, _STUDY_UID),
        "study_date": _date(_text(tags, _STUDY_DATE)),
        "study_seconds": seconds_of_day(_text(tags, _STUDY_TIME)),
        "series_uid": _text(tags, _SERIES_UID),
        "series_number": _text(tags, _SERIES_NUMBER),
        "description": _description(tags),
        "sequence": " ".join(f"{_text(tags, _SEQUENCE_NAME)} {_text(tags, _SCANNING_SEQUENCE)}".split()),
        "modality": _text(tags, _MODALITY).upper(),
        "sop_class": _text(tags, _SOP_CLASS),
        "shape": (_whole(tags, _ROWS) or 0, _whole(tags, _COLUMNS) or 0),
        "is_colour": (_whole(tags, _SAMPLES) or 1) != 1 or _text(tags, _PHOTOMETRIC).upper() == "PALETTE COLOR",
        "is_inverted": _text(tags, _PHOTOMETRIC).upper() == "MONOCHROME1",
        "body_part": _text(tags, _BODY_PART).upper(),
        "acquisition_number": _whole(tags, _ACQUISITION_NUMBER),
        "contrast_seconds": seconds_of_day(_text(tags, _CONTRAST_TIME)),
        "field_strength": _number(tags, _FIELD_STRENGTH),
        "is_phantom": _text(tags, _COMMENTS) == PHANTOM_MARK,
    }


def _person(tags: _Values) -> Person:
    name, sex, issuer = (_text(tags, tag) for tag in (_PATIENT_NAME, _SEX, _ISSUER))
    parts = frozenset(hash(part) for part in re.findall(r"\w+", name.casefold()))
    return Person(parts, sex.upper() if sex.upper() in ("F", "M") else "", hash(issuer.casefold()) if issuer else None)


def _description(tags: _Values) -> str:
    """What the scanner calls the series, without the patient's name and id, which some type into it."""
    words = (_text(tags, _DESCRIPTION) or _text(tags, _PROTOCOL)).split()
    about = f"{_text(tags, _PATIENT_NAME)} {_text(tags, _PATIENT_ID)}".replace("^", " ").replace("=", " ")
    hidden = {part.casefold() for part in about.split() if len(part) >= _SHORTEST_NAME}
    pattern = re.compile(
        "|".join(rf"(?<![^\W_]){re.escape(part)}(?![^\W_])" for part in hidden) or r"(?!)", re.IGNORECASE
    )
    return " ".join(pattern.sub("…", " ".join(words)).split())


def _of_frame(tags: _Values, places: Sequence[_Values]) -> dict[str, Any]:
    """What is a frame's own; ``places`` are its functional groups, then the shared ones."""

    def find(tag: int) -> Any:
        return _find(tags, places, tag)

    image_type = _words(find(_FRAME_TYPE)) or _words(tags.value(_IMAGE_TYPE))
    inversion = _first(find(_INVERSION_TIMES)) if places else _number(tags, _INVERSION_TIME)
    return {
        "image_type": image_type,
        "component": _component(tags, find(_COMPONENT)),
        "orientation": _vector(find(_ORIENTATION), 6),
        "spacing": _vector(find(_SPACING), 2),
        "thickness": _first(find(_THICKNESS)),
        "b_value": _b_value(tags, places),
        "direction": _direction(tags, places),
        "echo_time": _first(find(_EFFECTIVE_ECHO_TIME)) or _number(tags, _ECHO_TIME),
        "inversion_time": inversion,
        "temporal_position": _as_whole(find(_TEMPORAL_INDEX)) or _whole(tags, _TEMPORAL_POSITION),
        "dimensions": _dimensions(find(_DIMENSIONS)),
    }


def _of_slice(
    tags: _Values,
    elements: Mapping[int, Any],
    places: Sequence[_Values],
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
        return _find(tags, places, tag) if places else _as_it_stands(tags, elements, tag)

    uid = _as_it_stands(tags, elements, _INSTANCE_UID) or ()
    of_frame = _find(tags, places, _FRAME_DATETIME)
    times = (str(of_frame), *(str(_as_it_stands(tags, elements, tag)) for tag in _TIMES))
    if times not in moments:
        moments[times] = _acquired(tags, of_frame)
    return {
        "instance_uid": " ".join(map(str, uid)),
        "instance_number": _as_whole(_as_it_stands(tags, elements, _INSTANCE_NUMBER)),
        "position": _vector(find(_POSITION), 3),
        "trigger_time": _trigger_time(_first(find(_TRIGGER_DELAY if places else _TRIGGER_TIME))),
        "acquired": moments[times],
        "slope": _scale(tags, places, _SLOPE, 1.0) or math.nan,
        "intercept": _scale(tags, places, _INTERCEPT, 0.0),
    }


# ---------------------------------------------------------------- single values


class _Values:
    """A dataset's values, each looked up once: what all frames of a file share is asked for as often as it has frames.

    Args:
        tags: the dataset.
    """

    __slots__ = ("_items", "_known", "_privates", "groups", "tags")

    def __init__(self, tags: Any) -> None:
        self.tags = tags
        self.groups = {int(tag) >> 16 for tag in tags.keys()}  # noqa: SIM118 (a dataset iterates over elements)
        self._known: dict[int, Any] = {}
        self._items: dict[int, Sequence[Any]] = {}
        self._privates: dict[_Private, Any] = {}

    def value(self, tag: int) -> Any:
        """An element's value, None where it is missing or no value of its kind."""
        if tag not in self._known:
            self._known[tag] = _value_in(self.tags, tag) if tag >> 16 in self.groups else None
        return self._known[tag]

    def items(self, tag: int) -> Sequence[Any]:
        """The items of a sequence."""
        if tag not in self._items:
            self._items[tag] = [_Values(item) for item in _as_items(self.value(tag))]
        return self._items[tag]

    def private(self, private: _Private) -> Any:
        """A vendor's element."""
        if private.group not in self.groups:
            return None
        if private not in self._privates:
            self._privates[private] = _private_in(self, private)
        return self._privates[private]


def _value_in(tags: Any, tag: int) -> Any:
    try:
        return tags[tag].value if tag in tags.keys() else None  # noqa: SIM118 - much quicker than what a dataset does
    except signs_of_damage():
        return None


def _as_it_stands(tags: _Values, elements: Mapping[int, Any], tag: int) -> Sequence[Any] | None:
    """As ``value``, of what is a slice's own: numbers, times and UIDs as the parts of their text, which is quicker."""
    element = elements.get(tag)
    if element is not None and element.VR in _TEXTS and type(element.value) is bytes:
        return element.value.decode("ascii", "replace").strip("\0 ").split("\\")
    value = None if element is None else tags.value(tag)
    return value if value is None or (isinstance(value, Sequence) and not isinstance(value, str | bytes)) else [value]


def _as_items(value: Any) -> Sequence[Any]:
    return value if value is not None and type(value).__name__ == "Sequence" else ()


def _text(tags: _Values, tag: int) -> str:
    value = tags.value(tag)
    if value is None:
        return ""
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if not isinstance(value, str) and isinstance(value, Sequence):
        value = " ".join(str(part) for part in value)
    return "".join(c if c.isprintable() else " " for c in str(value)).strip()


def _first(value: Any) -> float | None:
    """The first number of a value."""
    if isinstance(value, bytes) or value is None:
        return None
    try:
        number = float(value if isinstance(value, str) or not isinstance(value, Sequence) else value[0])
    except signs_of_damage():
        return None
    return number if math.isfinite(number) else None


def _number(tags: _Values, tag: int) -> float | None:
    return _first(tags.value(tag))


def _as_whole(value: Any) -> int | None:
    number = _first(value)
    return None if number is None else int(number)


def _whole(tags: _Values, tag: int) -> int | None:
    return _as_whole(tags.value(tag))


def _vector(value: Any, length: int) -> _Vector | None:
    if value is None or isinstance(value, str | bytes) or not isinstance(value, Sequence) or len(value) != length:
        return None
    try:
        numbers = tuple(float(part) for part in value)
    except signs_of_damage():
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _dimensions(value: Any) -> tuple[int, ...]:
    if value is None or isinstance(value, str | bytes | int) or not isinstance(value, Sequence):
        return ()
    return tuple(int(part) for part in value)


def _words(value: Any) -> tuple[str, ...]:
    if value is None or isinstance(value, bytes):
        return ()
    parts = value.split("\\") if isinstance(value, str) else list(value)
    return tuple(str(part).strip().upper() for part in parts)


def _find(tags: _Values, places: Sequence[_Values], tag: int) -> Any:
    """A value from the functional groups of a frame, else from the header, where some write it nevertheless."""
    for place in places:
        for item in place.items(_GROUPS[tag]):
            value = item.value(tag)
            if value is not None:
                return value
    return tags.value(tag)


def _scale(tags: _Values, places: Sequence[_Values], tag: int, default: float) -> float:
    """A slope or intercept; where one is there and is no number, neither are the values."""
    number = _first(_find(tags, places, tag))
    if number is not None:
        return number
    items = [item for place in places for item in place.items(_GROUPS[tag])]
    is_there = any(tag in item.tags and len(item.tags.get_item(tag).value or "") > 0 for item in (*items, tags))
    return math.nan if is_there else default


def _date(text: str) -> datetime.date | None:
    digits = text.replace(".", "").replace("-", "")[:8]
    try:
        is_date = len(digits) == 8 and digits.isdecimal()
        date = datetime.date(int(digits[:4]), int(digits[4:6]), int(digits[6:])) if is_date else None
    except ValueError:
        return None
    return date if date is not None and date.year < datetime.MAXYEAR else None  # hours may be added to it


def _trigger_time(value: float | None) -> float | None:
    return value if value is not None and 0 <= value <= _LONGEST_MS else None


def _moment(date: datetime.date | None, seconds: float | None) -> datetime.datetime | None:
    if date is None or seconds is None:
        return None
    return datetime.datetime.combine(date, datetime.time()) + datetime.timedelta(seconds=seconds)


def _acquired(tags: _Values, of_frame: Any) -> datetime.datetime | None:
    """When a frame was acquired; the time at which its series began is better than none."""
    for text in (str(of_frame or ""), _text(tags, _ACQUISITION_DATETIME)):
        moment = _moment(_date(text[:8]), seconds_of_day(text[8:].partition("+")[0].partition("-")[0]))
        if moment is not None:
            return moment
    day = _date(_text(tags, _STUDY_DATE))
    for date, time in (
        (_ACQUISITION_DATE, _ACQUISITION_TIME),
        (_CONTENT_DATE, _CONTENT_TIME),
        (_SERIES_DATE, _SERIES_TIME),
    ):
        moment = _moment(_date(_text(tags, date)) or day, seconds_of_day(_text(tags, time)))
        if moment is not None:
            return moment
    return _moment(_date(_text(tags, _ACQUISITION_DATE)) or _date(_text(tags, _SERIES_DATE)), 0.0)


# ---------------------------------------------------------------- vendors


def _private_in(tags: _Values, private: _Private) -> Any:
    """A vendor's element in whichever block its creator reserved; where creators were removed, in the usual one."""
    usual = private.group << 16 | 0x1000 | private.element
    reserved = False
    for block in _BLOCKS:
        creator = _text(tags, private.group << 16 | block).lower()
        reserved = reserved or bool(creator)
        if creator == private.creator:
            return _decoded(tags.value(private.group << 16 | block << 8 | private.element), private.form)
    return None if reserved else _decoded(tags.value(usual), private.form)


def _decoded(value: Any, form: str) -> Any:
    """A value of unknown representation: text, or the numbers that its vendor writes."""
    if not isinstance(value, bytes):
        return value
    if form and len(value) == struct.calcsize(form):
        numbers = struct.unpack(form, value)
        return numbers[0] if len(numbers) == 1 else list(numbers)
    text = value.decode("ascii", "replace").strip("\0 ")
    return text.split("\\") if "\\" in text else text


def _b_value(tags: _Values, places: Sequence[_Values]) -> float | None:
    """s/mm²: the standard's place, also nested, then the vendors' own."""
    candidates = [_find(tags, places, _B_VALUE)]
    for item in tags.items(_PHILIPS_CLASSIC)[:1]:
        candidates.append(_find(item, [item], _B_VALUE))
    for item in tags.items(_DIFFUSION_GROUP)[:1]:
        candidates.append(item.value(_B_VALUE))
    for place in (*places, tags):
        candidates += [place.private(private) for private in _B_OF_VENDORS]
    for candidate in candidates:
        number = plausible_b_value(candidate if isinstance(candidate, float) else _first(candidate))
        if number is not None:
            return number
    number = _first(tags.private(_GE_B))
    if number is not None:
        return plausible_b_value(math.fmod(number, _GE_OFFSET))
    return 0.0 if "NONE" in _directionality(tags, places) else None


def _directionality(tags: _Values, places: Sequence[_Values]) -> set[str]:
    """``NONE`` (b = 0), ``DIRECTIONAL`` or ``ISOTROPIC``, where something says so."""
    values = (_find(tags, places, _DIRECTIONALITY), tags.private(_SIEMENS_DIRECTIONALITY))
    return {str(value).strip().upper() for value in values if value}


def _direction(tags: _Values, places: Sequence[_Values]) -> str:
    """Of the diffusion gradient, only to tell directions apart; ``isotropic`` of a trace image."""
    if (
        "ISOTROPIC" in _directionality(tags, places)
        or str(tags.private(_PHILIPS_DIRECTION) or "").strip().upper() == "I"
    ):
        return "isotropic"
    nested = [item for place in (*places, tags) for item in place.items(_DIFFUSION_GROUP)]
    gradients = [item.value(_GRADIENT) for group in nested for item in group.items(_GRADIENT_GROUP)]
    gradients += [tags.value(_GRADIENT), tags.private(_SIEMENS_GRADIENT), tags.private(_UIH_GRADIENT)]
    ge = [_first(tags.private(part)) for part in _GE_GRADIENT]
    gradients.append(None if None in ge else ge)
    for gradient in gradients:
        vector = _vector(gradient, 3)
        if vector is not None and any(vector):
            return " ".join(f"{part:+.3f}" for part in vector)
    return ""


def _component(tags: _Values, complex_component: Any) -> str:
    """A value of Complex Image Component; GE writes a number of its own."""
    code = _as_whole(tags.private(_GE_COMPONENT))
    of_ge = {0: "MAGNITUDE", 1: "PHASE", 2: "REAL", 3: "IMAGINARY"}.get(-1 if code is None else code, "")
    return str(complex_component or "").strip().upper() or of_ge
