"""Single values of a header, and what becomes of those that are missing, damaged or of another kind: None, never a guess."""

from __future__ import annotations

import datetime
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from HCCNetLib.readers.dicom import attributes as at
from HCCNetLib.readers.dicom.files import signs_of_damage

_TEXTS = ("DS", "IS", "TM", "DT", "UI", None)  # None: of an implicit representation, where each of them is one of these


class Values:
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
        self._privates: dict[at.Private, Any] = {}

    def value(self, tag: int) -> Any:
        """An element's value, None where it is missing or no value of its kind."""
        if tag not in self._known:
            self._known[tag] = _value_in(self.tags, tag) if tag >> 16 in self.groups else None
        return self._known[tag]

    def items(self, tag: int) -> Sequence[Any]:
        """The items of a sequence."""
        if tag not in self._items:
            self._items[tag] = [Values(item) for item in as_items(self.value(tag))]
        return self._items[tag]

    def private(self, private: at.Private) -> Any:
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


def as_it_stands(tags: Values, elements: Mapping[int, Any], tag: int) -> Sequence[Any] | None:
    """As ``value``, of what is a slice's own: numbers, times and UIDs as the parts of their text, which is quicker."""
    element = elements.get(tag)
    if element is not None and element.VR in _TEXTS and type(element.value) is bytes:
        return element.value.decode("ascii", "replace").strip("\0 ").split("\\")
    value = None if element is None else tags.value(tag)
    return value if value is None or (isinstance(value, Sequence) and not isinstance(value, str | bytes)) else [value]


def as_items(value: Any) -> Sequence[Any]:
    """The items of a sequence's value, none of another kind."""
    return value if value is not None and type(value).__name__ == "Sequence" else ()


def text_of(tags: Values, tag: int) -> str:
    """A value as text in one line, several parted by spaces; empty where there is none."""
    value = tags.value(tag)
    if value is None:
        return ""
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if not isinstance(value, str) and isinstance(value, Sequence):
        value = " ".join(str(part) for part in value)
    return "".join(c if c.isprintable() else " " for c in str(value)).strip()


def first_number(value: Any) -> float | None:
    """The first number of a value."""
    if isinstance(value, bytes) or value is None:
        return None
    try:
        number = float(value if isinstance(value, str) or not isinstance(value, Sequence) else value[0])
    except signs_of_damage():
        return None
    return number if math.isfinite(number) else None


def number_of(tags: Values, tag: int) -> float | None:
    """The first number of an element."""
    return first_number(tags.value(tag))


def as_whole(value: Any) -> int | None:
    """The first number of a value without its fraction."""
    number = first_number(value)
    return None if number is None else int(number)


def whole_of(tags: Values, tag: int) -> int | None:
    """The first number of an element without its fraction."""
    return as_whole(tags.value(tag))


def vector_of(value: Any, length: int) -> tuple[float, ...] | None:
    """So many finite numbers, or None."""
    if value is None or isinstance(value, str | bytes) or not isinstance(value, Sequence) or len(value) != length:
        return None
    try:
        numbers = tuple(float(part) for part in value)
    except signs_of_damage():
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def whole_numbers(value: Any) -> tuple[int, ...]:
    """The numbers of a value that has several; none of another one."""
    if value is None or isinstance(value, str | bytes | int) or not isinstance(value, Sequence):
        return ()
    return tuple(int(part) for part in value)


def words_in(value: Any) -> tuple[str, ...]:
    """The parts of a value in capitals."""
    if value is None or isinstance(value, bytes):
        return ()
    parts = value.split("\\") if isinstance(value, str) else list(value)
    return tuple(str(part).strip().upper() for part in parts)


def find_in(tags: Values, places: Sequence[Values], tag: int) -> Any:
    """A value from the functional groups of a frame, else from the header, where some write it nevertheless."""
    for place in places:
        for item in place.items(at.GROUPS[tag]):
            value = item.value(tag)
            if value is not None:
                return value
    return tags.value(tag)


def scale_of(tags: Values, places: Sequence[Values], tag: int, default: float) -> float:
    """A slope or intercept; where one is there and is no number, neither are the values."""
    number = first_number(find_in(tags, places, tag))
    if number is not None:
        return number
    items = [item for place in places for item in place.items(at.GROUPS[tag])]
    is_there = any(tag in item.tags and item.tags.get_item(tag).value not in (None, b"", "") for item in (*items, tags))
    return math.nan if is_there else default


def date_of(text: str) -> datetime.date | None:
    """The date that a text begins with, ``20210314`` or, in older files, ``2021.03.14``."""
    digits = text.replace(".", "").replace("-", "")[:8]
    try:
        is_date = len(digits) == 8 and digits.isdecimal()
        date = datetime.date(int(digits[:4]), int(digits[4:6]), int(digits[6:])) if is_date else None
    except ValueError:
        return None
    return date if date is not None and date.year < datetime.MAXYEAR else None  # hours may be added to it


def moment_of(date: datetime.date | None, seconds: float | None) -> datetime.datetime | None:
    """So many seconds after midnight of a day."""
    if date is None or seconds is None:
        return None
    return datetime.datetime.combine(date, datetime.time()) + datetime.timedelta(seconds=seconds)


def _private_in(tags: Values, private: at.Private) -> Any:
    """A vendor's element in whichever block its creator reserved; where creators were removed, in the usual one."""
    usual = private.group << 16 | 0x1000 | private.element
    reserved = False
    for block in at.BLOCKS:
        creator = text_of(tags, private.group << 16 | block).lower()
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
