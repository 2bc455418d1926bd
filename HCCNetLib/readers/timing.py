"""Channels by when an image was acquired: two echoes of one series, and phases after the contrast agent was given."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from HCCNetLib.readers.dates import seconds_between
from HCCNetLib.readers.series import DERIVED, T2, T2_STAR, SeriesFacts, is_diffusion_text, is_t1, is_t2_echo, words_of

Named = tuple[str, str]  # a channel or b-value, and what it was recognised by

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
    "T1_in": (-math.inf, 5.0),
    "T1_out": (-math.inf, 5.0),
}

# Fat's resonance lies 3.4 ppm below water's; they are in phase again after this many milliseconds at 1 tesla.
_IN_PHASE_MS_AT_1_T = 1e3 / (3.4e-6 * 42.577e6)
_NEAR_PHASE = 0.15  # of that period
_DIFFERENT_ECHOES = 0.05  # ms


def seconds_after_contrast(series: Mapping[str, SeriesFacts]) -> dict[str, float]:
    """Key → seconds from the injection to the acquisition, negative before it, where both are known.

    A native series does not tell of an injection to come; that of the exam's others is meant where it is only one.
    """
    given = {facts.contrast_given for facts in series.values() if facts.contrast_given is not None}
    only = given.pop() if len(given) == 1 else None
    times = {key: facts.contrast_given if facts.contrast_given is not None else only for key, facts in series.items()}
    return {
        key: seconds_between(injection, facts.acquired)
        for key, facts in series.items()
        if (injection := times[key]) is not None and facts.acquired is not None
    }


def times_differ(channel: str, seconds: float | None) -> bool:
    """Whether a series that words call ``channel`` was acquired when that phase can't have been."""
    low, high = _WIDE_WINDOWS.get(channel, (-math.inf, math.inf))
    return seconds is not None and not low <= seconds <= high


def by_echo(series: Mapping[str, SeriesFacts], named: Mapping[str, Named]) -> Iterator[tuple[str, Named]]:
    """The two echoes of one series: T2 short and long, or T1 in and out of phase by what the field strength makes of them."""
    groups: dict[str, list[str]] = {}
    for key, facts in series.items():
        by = named[key][1] if key in named else "description"
        if facts.series and facts.echo_time is not None and by == "description" and not (facts.unfit or facts.plane):
            groups.setdefault(facts.series, []).append(key)
    for keys in groups.values():
        first, *others = sorted(keys, key=lambda key: series[key].echo_time or 0.0)
        echoes = [series[key].echo_time or 0.0 for key in (first, *others)]
        if len(others) != 1 or echoes[1] - echoes[0] < _DIFFERENT_ECHOES:
            continue
        facts = series[first]
        text = words_of(facts.description or facts.name)
        if DERIVED.search(text) or is_diffusion_text(text):
            continue
        if T2.search(text) and (T2_STAR.search(text) or not all(map(is_t2_echo, echoes))):
            continue
        if T2.search(text):
            yield first, ("T2_short", "echo time")
            yield others[0], ("T2_long", "echo time")
        elif is_t1(facts):
            shifts = [_chemical_shift(series[key]) for key in (first, others[0])]
            if set(shifts) == {"T1_in", "T1_out"}:
                yield first, (str(shifts[0]), "echo time")
                yield others[0], (str(shifts[1]), "echo time")


def _chemical_shift(facts: SeriesFacts) -> str | None:
    """Whether water and fat are in or out of phase at the echo; None where neither, or the field strength is not known."""
    if not facts.echo_time or not facts.field_strength:
        return None
    turns = facts.echo_time * facts.field_strength / _IN_PHASE_MS_AT_1_T
    if abs(turns - round(turns)) <= _NEAR_PHASE:
        return "T1_in" if round(turns) >= 1 else None
    return "T1_out" if abs(turns % 1 - 0.5) <= _NEAR_PHASE else None


def by_time(series: Mapping[str, SeriesFacts], seconds: Mapping[str, float], named: Iterable[str]) -> dict[str, Named]:
    """Phases of a dynamic examination that have no name in words: by the time since the contrast agent was given."""
    groups: dict[str, list[str]] = {}
    for key, facts in series.items():
        if facts.protocol and key in seconds and is_t1(facts) and facts.dixon not in ("in", "out"):
            groups.setdefault(facts.protocol, []).append(key)
    found: dict[str, Named] = {}
    for keys in groups.values():
        if len(keys) < 2 or max(seconds[key] for key in keys) <= 0:
            continue  # nothing of it was acquired with contrast: no dynamic examination
        for key in keys:
            fits = [channel for channel, (low, high) in _PHASE_WINDOWS.items() if low <= seconds[key] <= high]
            if fits and key not in named:
                found[key] = fits[0], "time after contrast"
    return found
