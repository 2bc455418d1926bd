"""Which channel a DICOM series is, from its b-value or its description; no guess where either may mean two things.

Words decide only where they can mean nothing else in a liver protocol. Whoever is missed is chosen by hand, which costs a
click; whoever is taken wrongly is a swapped channel.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

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
from HCCNetLib.records import Refusal

# Where vendors write the b-value: the standard's place first, then Siemens, Philips, United Imaging and, last, GE.
_B_VALUE_TAGS = ("0018,9087", "0019,100C", "2001,1003", "0065,1009")
_GE_B_VALUE_TAG = "0043,1039"
_GE_OFFSET = 100_000  # GE adds multiples of it (1000000800 is b800)
_LARGEST_B_VALUE = 10_000.0  # s/mm²
_HEX_PAIR = re.compile(r"[0-9a-fA-F]{2}")

# Made from images rather than by the scanner, or of something else: never a channel, whatever else the text says.
_DERIVED = re.compile(
    r"\b(\w*adcs?|apparent|coefficient|exp(onential)?|\w*calc\w*|comp(uted|osed)?|synth\w*|[acef]dwi|fa|dti|tensor|inv\w*|"
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

# Seconds from the injection of the contrast agent to the beginning of the acquisition. The gaps belong to nobody: a
# transition from one phase to the next is not ours to name.
_PHASE_WINDOWS = {
    "T1_native": (-math.inf, 0.0),
    "T1_arterial": (10.0, 45.0),
    "T1_venous": (50.0, 110.0),
    "T1_delayed": (120.0, 600.0),
}
# What a phase that is named in words may have been acquired at; beyond these the words or the times are wrong.
_WIDE_WINDOWS = {
    "T1_native": (-math.inf, 5.0),
    "T1_arterial": (5.0, 60.0),
    "T1_venous": (40.0, 150.0),
    "T1_delayed": (90.0, 900.0),
}

# Fat's resonance lies 3.4 ppm below water's; they are in phase again after this many milliseconds at 1 tesla.
_IN_PHASE_MS_AT_1_T = 1e3 / (3.4e-6 * 42.577e6)
_NEAR_PHASE = 0.15  # of that period
_DIFFERENT_ECHOES = 0.05  # ms


@dataclass(frozen=True)
class SeriesFacts:
    """What a series says of itself.

    Args:
        name: of the image as it was loaded, often the series' number and description.
        description: (0008,103E), or empty.
        b_value: s/mm², or None where no slice has one.
        is_mixed: whether its slices have several b-values: then it is no image of one channel.
        unfit: why it is no channel whatever its words say (a phase image, a map), or empty.
        is_diffusion: whether its tags say that it belongs to diffusion-weighted images.
        dixon: ``in``, ``out`` or ``water`` where its type says so.
        series: what volumes of one series share; empty where a series is one volume.
        echo_time: ms, or None.
        field_strength: T, or None.
        seconds_after_contrast: from the injection to the acquisition, or None.
        protocol: what the phases of one dynamic examination share; empty where it is not known.
    """

    name: str
    description: str = ""
    b_value: float | None = None
    is_mixed: bool = False
    unfit: str = ""
    is_diffusion: bool = False
    dixon: str = ""
    series: str = ""
    echo_time: float | None = None
    field_strength: float | None = None
    seconds_after_contrast: float | None = None
    protocol: str = ""


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
        channels: channel → (key of the series, what it was recognised by: ``name``, ``b-value``, ``description``, ``image
            type``, ``echo time``, ``time after contrast`` or ``table``).
        problems: b-values that are nearly right, and channels for which there are several series.
        ambiguous: key of a series that may be a channel → that channel, where it was not taken.
    """

    channels: Mapping[str, tuple[str, str]]
    problems: tuple[SeriesProblem, ...]
    ambiguous: Mapping[str, str] = field(default_factory=dict)


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
        return plausible_b_value(math.fmod(float(text), offset))
    except ValueError:  # empty, or bytes of a private tag that nobody translated
        return None


def plausible_b_value(value: float | None) -> float | None:
    """The value (s/mm²) if it can be a b-value, else None."""
    return value if value is not None and 0 <= value <= _LARGEST_B_VALUE else None


def name_of_series(facts: SeriesFacts) -> tuple[str, str] | None:
    """The name of a channel or b-value that a series surely has, and by what; None where nothing or several fit."""
    if facts.is_mixed or facts.unfit:
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
        if facts.is_diffusion or _is_diffusion(text) or (facts.b_value >= 1 and not says_otherwise):
            return b_value_name(0.0 if facts.b_value < 1 else facts.b_value), "b-value"
        if facts.b_value >= 1:
            return None
    if facts.dixon in ("in", "out") and _T1.search(text) and not _NOT_T1.search(text) and not _all(_T1_PHASES, text):
        return f"T1_{facts.dixon}", "image type"
    name = _by_words(text)
    return None if name is None else (name, "description")


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


def is_t1(facts: SeriesFacts) -> bool:
    """Whether a series surely is a T1-weighted image of the kind that dynamic phases are."""
    text = _words(facts.description or facts.name)
    derived = _DERIVED.search(text) or facts.unfit or facts.is_mixed or _is_diffusion(text)
    return bool(_T1.search(text)) and not derived and not _NOT_T1.search(text) and (facts.b_value or 0.0) < 1


def channels_of_series(
    series: Mapping[str, SeriesFacts], where: str, chosen: Mapping[str, str | None] | None = None
) -> SeriesChannels:
    """Gives the series of one exam their channels, by the rules for files (``assign_channels``).

    Of several series that fit one channel alike none is taken: which one is right is not ours to guess.

    Args:
        series: key → what the series says of itself.
        where: the exam, for the message of a refusal.
        chosen: key → channel that the user's table gives it, None for none at all. What is chosen is not asked further.

    Raises:
        Refusal: two names for one channel, or one channel chosen twice.
    """
    chosen = chosen or {}
    asked = {key: facts for key, facts in series.items() if key not in chosen}
    named, conflicts = _named(asked)
    by_name: dict[str, list[tuple[str, str]]] = {}
    for key, (name, by) in named.items():
        by_name.setdefault(PUBLISHED_ALIASES.get(name, name), []).append((key, by))
    for key, channel in chosen.items():
        if channel is not None:
            others = [entry for entry in by_name.get(channel, []) if entry[1] == "table"]
            by_name[channel] = [*others, (key, "table")]
    _refuse_chosen_twice(by_name, where)
    # A name that several series have keeps its place: another b-value must not move up to it.
    assigned, unassigned, _ = assign_channels(by_name, where)
    channels = {channel: by_name[name][0] for name, channel in assigned.items() if len(by_name[name]) == 1}
    problems = [problem for name, channel in assigned.items() for problem in _look(name, channel, len(by_name[name]))]
    ambiguous = {
        key: channel for name, channel in assigned.items() for key, _ in by_name[name] if channel not in channels
    }
    return SeriesChannels(
        channels,
        (*problems, *_ties(unassigned, set(assigned.values())), *conflicts.values()),
        {**ambiguous, **{key: problem.channel for key, problem in conflicts.items()}},
    )


def _refuse_chosen_twice(by_name: Mapping[str, list[tuple[str, str]]], where: str) -> None:
    for channel, entries in by_name.items():
        if sum(by == "table" for _, by in entries) > 1:
            message = f"{where}: the table of channels gives {channel} to {' and '.join(key for key, _ in entries)}. Keep one."
            raise Refusal("channel_twice", message)


def _named(series: Mapping[str, SeriesFacts]) -> tuple[dict[str, tuple[str, str]], dict[str, SeriesProblem]]:
    """Key → (name, what it was recognised by), and keys whose words and times say different phases."""
    named = {key: found for key, facts in series.items() if (found := name_of_series(facts)) is not None}
    named.update(_by_echo(series, named))
    conflicts = {
        key: _conflict(named[key][0], facts)
        for key, facts in series.items()
        if key in named and named[key][1] == "description" and _times_differ(named[key][0], facts)
    }
    named = {key: found for key, found in named.items() if key not in conflicts}
    named.update(_by_time(series, {*named, *conflicts}))
    return named, conflicts


def _times_differ(channel: str, facts: SeriesFacts) -> bool:
    low, high = _WIDE_WINDOWS.get(channel, (-math.inf, math.inf))
    return facts.seconds_after_contrast is not None and not low <= facts.seconds_after_contrast <= high


def _conflict(channel: str, facts: SeriesFacts) -> SeriesProblem:
    says = (
        f"{facts.name} is named so but was acquired {facts.seconds_after_contrast:+.0f} s after the contrast agent was given; "
        f"it was not taken. Choose the right one."
    )
    return SeriesProblem(channel, "phase_conflict", says)


def _by_echo(
    series: Mapping[str, SeriesFacts], named: Mapping[str, tuple[str, str]]
) -> Iterator[tuple[str, tuple[str, str]]]:
    """The two echoes of one series: T2 short and long, or T1 in and out of phase by what the field strength makes of them."""
    groups: dict[str, list[str]] = {}
    for key, facts in series.items():
        if (
            facts.series
            and facts.echo_time is not None
            and not facts.unfit
            and named.get(key, ("", "description"))[1] == "description"
        ):
            groups.setdefault(facts.series, []).append(key)
    for keys in groups.values():
        first, *others = sorted(keys, key=lambda key: series[key].echo_time or 0.0)
        if len(others) != 1 or (series[others[0]].echo_time or 0) - (series[first].echo_time or 0) < _DIFFERENT_ECHOES:
            continue
        facts = series[first]
        text = _words(facts.description or facts.name)
        if _DERIVED.search(text) or _is_diffusion(text):
            continue
        if _T2.search(text):
            yield first, ("T2_short", "echo time")
            yield others[0], ("T2_long", "echo time")
        elif is_t1(facts):
            shifts = [_chemical_shift(series[key]) for key in (first, others[0])]
            if set(shifts) == {"T1_in", "T1_out"}:
                yield from (
                    (key, (str(shift), "echo time")) for key, shift in zip((first, others[0]), shifts, strict=True)
                )


def _chemical_shift(facts: SeriesFacts) -> str | None:
    """Whether water and fat are in or out of phase at the echo; None where neither, or the field strength is not known."""
    if not facts.echo_time or not facts.field_strength:
        return None
    turns = facts.echo_time * facts.field_strength / _IN_PHASE_MS_AT_1_T
    if abs(turns - round(turns)) <= _NEAR_PHASE:
        return "T1_in" if round(turns) >= 1 else None
    return "T1_out" if abs(turns % 1 - 0.5) <= _NEAR_PHASE else None


def _by_time(series: Mapping[str, SeriesFacts], named: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Phases of a dynamic examination that have no name in words: by the time since the contrast agent was given."""
    groups: dict[str, list[str]] = {}
    for key, facts in series.items():
        if facts.protocol and facts.seconds_after_contrast is not None and is_t1(facts):
            groups.setdefault(facts.protocol, []).append(key)
    found: dict[str, tuple[str, str]] = {}
    for keys in groups.values():
        seconds = [series[key].seconds_after_contrast or 0.0 for key in keys]
        if max(seconds) <= 0 or len(keys) < 2:
            continue  # nothing of it was acquired with contrast: no dynamic examination
        for key, after in zip(keys, seconds, strict=True):
            fits = [channel for channel, (low, high) in _PHASE_WINDOWS.items() if low <= after <= high]
            if fits and key not in named:
                found[key] = fits[0], "time after contrast"
    return found


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
