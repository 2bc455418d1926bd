"""Which channel a DICOM series is, from its b-value or its description; no guess where either may mean two things.

Words decide only where they can mean nothing else in a liver protocol. Whoever is missed is chosen by hand, which costs a
click; whoever is taken wrongly is a swapped channel.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from HCCNetLib.readers.channels import (
    B_VALUE_TOLERANCE,
    B_VALUES,
    CHANNELS,
    PUBLISHED_ALIASES,
    assign_channels,
    b_value_name,
    b_value_of,
    is_channel_name,
    plain_name,
)

# Where vendors write the b-value: the standard's place first, then Siemens, Philips, United Imaging and, last, GE.
_B_VALUE_TAGS = ("0018,9087", "0019,100C", "2001,1003", "0065,1009")
_GE_B_VALUE_TAG = "0043,1039"
_GE_OFFSET = 100_000  # GE adds multiples of it (1000000800 is b800)
_LARGEST_B_VALUE = 10_000.0  # s/mm²
_HEX_PAIR = re.compile(r"[0-9a-fA-F]{2}")

# Made from images rather than by the scanner, or of something else: never a channel, whatever else the text says.
_DERIVED = re.compile(
    r"\b(\w*adcs?|apparent|coefficient|exp(onential)?|calc\w*|comp(uted|osed)?|synth\w*|[acef]dwi|fa|dti|tensor|inv\w*|"
    r"maps?|mip|mpr|subs?|subtr\w*|wash|pei|ttp|scout|localiz\w*|localis\w*|survey|smartbrain|calib\w*|asset|cal|fat|f|"
    r"bolus|care|track\w*|test|mra|angio\w*|tof|q?flow|swi|molli|mre|elasto\w*|wave|flair|perf\w*)\b"
)
_DIFFUSION = re.compile(r"\b(dwi?|diff(usion)?|tracew?|ep2d|resolve)\b")
_ONLY_B = re.compile(r"b ?=? ?\d{1,4}")
_B_IN_TEXT = re.compile(r"\bb ?=? ?(\d{1,4}(?: \d{2,4})*)\b")

_T2 = re.compile(r"\bt2\w*\b")
# "short" and "long" alone are said of inversion times, repetition times, breath holds and echo trains too.
_T2_ECHOES = {"T2_short": r"short te|te short", "T2_long": r"long te|te long"}
# Spoiled gradient echoes, which the dynamic and the in- and out-of-phase images are; others have phases too.
_T1 = re.compile(r"\b(t1\w*|vibe|lava|e?thrive|m?dixon|f?spgr|gre|flash|fl[23]d|fame|quick3d|tigre|dual|dyn(amic)?)\b")
_NOT_T1 = re.compile(
    r"\b(t2\w*|haste|ss?fse|b?tfe2|btfe|trufi\w*|fiesta|cor(onal)?|sag(ittal)?|hepat\w*|hbp?|hb phase|20 ?min)\b"
)
_T1_PHASES = {
    "T1_arterial": r"arterial|art",
    "T1_venous": r"portal|venous|ven|pv",
    "T1_delayed": r"delayed|delay|equilibrium|late|del",
    "T1_native": r"native|nativ|pre|precontrast|unenhanced|plain",
}
_IN, _OUT = r"in|ip|inphase", r"out|opp|opposed|oop|op|outphase"
_T1_CHEMICAL_SHIFT = {"T1_in": rf"{_IN}", "T1_out": rf"{_OUT}"}


@dataclass(frozen=True)
class SeriesFacts:
    """What a series says of itself.

    Args:
        name: of the image as it was loaded, often the series' number and description.
        description: (0008,103E), or empty.
        b_value: s/mm², or None where no slice has one.
        is_mixed: whether its slices have several b-values: then it is no image of one channel.
    """

    name: str
    description: str = ""
    b_value: float | None = None
    is_mixed: bool = False


@dataclass(frozen=True)
class SeriesProblem:
    """What a user should know of a channel: ``says`` goes on from ``<channel> of <exam>:``."""

    channel: str
    code: str
    says: str


@dataclass(frozen=True)
class SeriesChannels:
    """Which series of one exam is which channel.

    Args:
        channels: channel → (key of the series, what it was recognised by: ``name``, ``b-value`` or ``description``).
        problems: b-values that are nearly right, and channels for which there are several series.
    """

    channels: Mapping[str, tuple[str, str]]
    problems: tuple[SeriesProblem, ...]


def b_value_in_tags(value_of: Callable[[str], str]) -> float | None:
    """The b-value (s/mm²) of an image.

    Args:
        value_of: a tag ``gggg,eeee`` → its value as text, empty where the image has none.
    """
    for tag in _B_VALUE_TAGS:
        value = _plausible(_as_text(value_of(tag)))
        if value is not None:
            return value
    return _plausible(_as_text(value_of(_GE_B_VALUE_TAG)).split("\\")[0], _GE_OFFSET)


def _as_text(value: str) -> str:
    """The value; one of unknown representation comes as the hexadecimal codes of its characters, ``38\\30\\30``."""
    parts = value.split("\\")
    if len(parts) < 2 or not all(_HEX_PAIR.fullmatch(part) for part in parts):
        return value
    return bytes.fromhex("".join(parts)).decode("ascii", "replace").strip("\0 ")


def _plausible(text: str, offset: float = math.inf) -> float | None:
    try:
        value = math.fmod(float(text), offset)
    except ValueError:  # empty, or bytes of a private tag that nobody translated
        return None
    return value if 0 <= value <= _LARGEST_B_VALUE else None


def name_of_series(facts: SeriesFacts) -> tuple[str, str] | None:
    """The name of a channel or b-value that a series surely has, and by what; None where nothing or several fit."""
    if facts.is_mixed:
        return None
    for text in filter(None, (facts.name, facts.description)):
        name = _exact(text)
        if name is not None:
            return name, "name"
    texts = [_words(text) for text in (facts.name, facts.description) if text]
    if any(_DERIVED.search(text) for text in texts):
        return None
    text = _words(facts.description or facts.name)
    if facts.b_value is not None:
        says_otherwise = _T1.search(text) or _T2.search(text)
        # Scanners write b = 0 into series that have nothing to do with diffusion.
        if _is_diffusion(text) or (facts.b_value >= 1 and not says_otherwise):
            return b_value_name(0.0 if facts.b_value < 1 else facts.b_value), "b-value"
        if facts.b_value >= 1:
            return None
    name = _by_words(text)
    return None if name is None else (name, "description")


def is_derived(text: str) -> bool:
    """Whether a text says that an image was made from others, or is of something else: never a channel."""
    return bool(_DERIVED.search(_words(text)))


def _exact(text: str) -> str | None:
    """The channel that a text is the name of, but for case and separators."""
    if is_channel_name(text):
        return text
    names = {plain_name(name): name for name in (*CHANNELS, *PUBLISHED_ALIASES)}
    return names.get(plain_name(text))


def _words(text: str) -> str:
    """Lower case, every separator a space."""
    return " ".join(re.split(r"[^a-z0-9=]+", text.lower())).strip()


def _is_diffusion(text: str) -> bool:
    return bool(_DIFFUSION.search(text) or _ONLY_B.fullmatch(text))


def _by_words(text: str) -> str | None:
    if _is_diffusion(text):
        values = {value for found in _B_IN_TEXT.findall(text) for value in found.split()}
        return b_value_name(float(values.pop())) if len(values) == 1 else None
    if _T2.search(text):
        return _only(_T2_ECHOES, text)
    if not _T1.search(text) or _NOT_T1.search(text):
        return None
    phases, shifts = _all(_T1_PHASES, text), _all(_T1_CHEMICAL_SHIFT, text)
    # "in" alone is an English word too: it counts against others anywhere, for itself with "phase" or at the end.
    if shifts == ["T1_in"] and not re.search(r"\b(in ?phase|ip|inphase|in$)", text):
        shifts = []
    found = phases + shifts
    return found[0] if len(found) == 1 else None


def _all(table: Mapping[str, str], text: str) -> list[str]:
    return [channel for channel, words in table.items() if re.search(rf"\b(?:{words})\b", text)]


def _only(table: Mapping[str, str], text: str) -> str | None:
    found = _all(table, text)
    return found[0] if len(found) == 1 else None


def channels_of_series(series: Mapping[str, SeriesFacts], where: str) -> SeriesChannels:
    """Gives the series of one exam their channels, by the rules for files (``assign_channels``).

    Of several series that fit one channel alike none is taken: which one is right is not ours to guess.

    Args:
        series: key → what the series says of itself.
        where: the exam, for the message of a refusal.

    Raises:
        Refusal: two names for one channel.
    """
    by_name: dict[str, list[tuple[str, str]]] = {}
    for key, facts in series.items():
        named = name_of_series(facts)
        if named is not None:
            canonical = PUBLISHED_ALIASES.get(named[0], named[0])
            by_name.setdefault(canonical, []).append((key, named[1]))
    # A name that several series have keeps its place: another b-value must not move up to it.
    assigned, unassigned, _ = assign_channels(by_name, where)
    channels = {channel: by_name[name][0] for name, channel in assigned.items() if len(by_name[name]) == 1}
    problems = [problem for name, channel in assigned.items() for problem in _look(name, channel, len(by_name[name]))]
    return SeriesChannels(channels, (*problems, *_ties(unassigned, set(assigned.values()))))


def _look(name: str, channel: str, count: int) -> Iterator[SeriesProblem]:
    if count > 1:
        says = f"{count} series may each be it; none was taken. Choose the right one."
        yield SeriesProblem(channel, "channel_ambiguous", says)
    b_value = b_value_of(name)
    if count == 1 and b_value is not None and b_value >= 1 and B_VALUES.get(b_value) != channel:
        says = f"the series has b = {b_value:g}; it is the nearest b-value within ±{B_VALUE_TOLERANCE:g} s/mm²."
        yield SeriesProblem(channel, "b_value_not_equal", says)


def _ties(unassigned: list[str], taken: set[str]) -> Iterator[SeriesProblem]:
    """Channels that stay empty although b-values are near: two are equally so."""
    for nominal, channel in B_VALUES.items():
        near = [name for name in unassigned if abs((b_value_of(name) or math.inf) - nominal) <= B_VALUE_TOLERANCE]
        if channel not in taken and len(near) > 1:
            values = " and ".join(f"{b_value_of(name):g}" for name in near)
            says = f"b = {values} are equally near; none was taken. Choose the right one."
            yield SeriesProblem(channel, "b_value_tie", says)
