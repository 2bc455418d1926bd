"""Which channel a DICOM series is, from its b-value or its description; no guess where either may mean two things."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from HCCNetLib.readers.channels import (
    PUBLISHED_ALIASES,
    assign_channels,
    b_value_name,
    is_channel_name,
    suggest_channel,
)
from HCCNetLib.records import Problem

# Where vendors write the b-value: the standard's place first, then Siemens, Philips, United Imaging and, last, GE.
_B_VALUE_TAGS = ("0018,9087", "0019,100C", "2001,1003", "0065,1009")
_GE_B_VALUE_TAG = "0043,1039"
_GE_OFFSET = 100_000  # GE adds multiples of it (1000000800 is b800)
_LARGEST_B_VALUE = 10_000.0  # s/mm²

# Made from images rather than by the scanner, or not of the liver: never a channel, whatever else the text says.
_DERIVED = re.compile(
    r"\b(e?adc|maps?|sub|subtraction|mip|mpr|scout|localizer|localiser|survey|smartbrain|calib(ration)?|asset|cal)\b"
)
_DIFFUSION = re.compile(r"\b(e?dwi?|diff(usion)?|dti|trace(w)?|ep2d|b\d+)\b")
_B_IN_TEXT = re.compile(r"\bb ?=? ?(\d{1,4}(?: \d{2,4})*)\b")

# Words of a description → channel. Each list is of what means this and nothing else in a liver protocol.
_T1_PHASES = {
    "T1_arterial": r"arterial|art",
    "T1_venous": r"portal|venous|ven|pv",
    "T1_delayed": r"delayed|delay|equilibrium|late|del",
    "T1_native": r"native|nativ|pre|precontrast|unenhanced|plain",
}
_T1_CHEMICAL_SHIFT = {
    "T1_in": r"in ?phase|ip|in$",
    "T1_out": r"(out|opp|opposed)( of)? ?phase|oop|op|opp|opposed|out",
}
_T2_ECHOES = {"T2_short": r"short( te)?", "T2_long": r"long( te)?"}
_HEPATOBILIARY = re.compile(r"\b(hbp|hepatobiliary|20 ?min)\b")


@dataclass(frozen=True)
class SeriesFacts:
    """What a series says of itself.

    Args:
        name: of the image as it was loaded, often the series' number and description.
        description: (0008,103E), or empty.
        b_value: s/mm², or None.
    """

    name: str
    description: str = ""
    b_value: float | None = None


@dataclass(frozen=True)
class SeriesChannels:
    """Which series of one exam is which channel.

    Args:
        channels: channel → (key of the series, what it was recognised by).
        problems: b-values that are nearly right, and channels for which there are several series.
    """

    channels: Mapping[str, tuple[str, str]]
    problems: tuple[Problem, ...]


def b_value_in_tags(value_of: Callable[[str], str]) -> float | None:
    """The b-value (s/mm²) of an image.

    Args:
        value_of: a tag ``gggg,eeee`` → its value as text, empty where the image has none.
    """
    for tag in _B_VALUE_TAGS:
        value = _plausible(value_of(tag))
        if value is not None:
            return value
    return _plausible(value_of(_GE_B_VALUE_TAG).split("\\")[0], _GE_OFFSET)


def _plausible(text: str, offset: float = math.inf) -> float | None:
    try:
        value = math.fmod(float(text), offset)
    except ValueError:  # empty, or bytes of a private tag that nobody translated
        return None
    return value if 0 <= value <= _LARGEST_B_VALUE else None


def name_of_series(facts: SeriesFacts) -> tuple[str, str] | None:
    """The name of a channel or b-value that a series surely has, and by what; None where nothing or several fit."""
    for text in (facts.name, facts.description):
        if is_channel_name(text):
            return text, "name"
        if (channel := suggest_channel(text)) is not None:
            return channel, "name"
    text = _words(facts.description or facts.name)
    if _DERIVED.search(text):
        return None
    if facts.b_value is not None:
        return b_value_name(0.0 if facts.b_value < 1 else facts.b_value), "b-value"
    name = _by_words(text)
    return None if name is None else (name, "description")


def _words(text: str) -> str:
    """Lower case, every separator a space."""
    return " ".join(re.split(r"[^a-z0-9=]+", text.lower())).strip()


def _by_words(text: str) -> str | None:
    if _DIFFUSION.search(text):
        values = {value for found in _B_IN_TEXT.findall(text) for value in found.split()}
        return b_value_name(float(values.pop())) if len(values) == 1 else None
    if _HEPATOBILIARY.search(text):
        return None
    if re.search(r"\bt2\w*\b", text):
        return _only(_T2_ECHOES, text)
    found = [channel for table in (_T1_PHASES, _T1_CHEMICAL_SHIFT) if (channel := _only(table, text))]
    return found[0] if len(found) == 1 else None


def _only(table: Mapping[str, str], text: str) -> str | None:
    found = [channel for channel, words in table.items() if re.search(rf"\b(?:{words})\b", text)]
    return found[0] if len(found) == 1 else None


def channels_of_series(series: Mapping[str, SeriesFacts], where: str) -> SeriesChannels:
    """Gives the series of one exam their channels, by the rules for files (``assign_channels``).

    Of several series that fit one channel alike none is taken: which one is right is not ours to guess.

    Args:
        series: key → what the series says of itself.
        where: the exam, for messages.
    """
    by_name: dict[str, list[tuple[str, str]]] = {}
    for key, facts in series.items():
        named = name_of_series(facts)
        if named is not None:
            canonical = PUBLISHED_ALIASES.get(named[0], named[0])
            by_name.setdefault(canonical, []).append((key, named[1]))
    problems = [_several(name, found, series, where) for name, found in by_name.items() if len(found) > 1]
    single = {name: found[0] for name, found in by_name.items() if len(found) == 1}
    # A name that several series have keeps its place: another b-value must not move up to it.
    assigned, _, more = assign_channels(by_name, where)
    channels = {channel: single[name] for name, channel in assigned.items() if name in single}
    told = [p for p in more if not any(name in p.message for name in by_name if name not in single)]
    return SeriesChannels(channels, (*problems, *told))


def _several(name: str, found: Iterable[tuple[str, str]], series: Mapping[str, SeriesFacts], where: str) -> Problem:
    names = " and ".join(f"“{series[key].description or series[key].name}”" for key, _ in found)
    return Problem("channel_ambiguous", f"{where}: {names} may each be {name}; none was taken. Choose the right one.")
