"""Which series of an exam is which channel: by name, b-value, words, echoes and times; nothing where several fit alike."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from HCCNetLib.readers.channels import B_VALUE_TOLERANCE, B_VALUES, PUBLISHED_ALIASES, assign_channels, b_value_of
from HCCNetLib.readers.series import SeriesFacts, name_of_series
from HCCNetLib.readers.timing import by_echo, by_time, seconds_after_contrast, times_differ
from HCCNetLib.records import Refusal

# Recognised by these, an image may have been acquired when that channel can't have been.
_BY_WORDS = ("description", "image type", "echo time")


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
    by_name = {name: _without_broken_repeats(entries, series) for name, entries in by_name.items()}
    for key, channel in chosen.items():
        if channel is not None:
            others = [entry for entry in by_name.get(channel, []) if entry[1] == "table"]
            by_name[channel] = [*others, (key, "table")]
    _refuse_chosen_twice(by_name, where)
    # A name that several series have keeps its place: another b-value must not move up to it.
    assigned, unassigned, _ = assign_channels(by_name, where)
    channels = {
        channel: by_name[name][0]
        for name, channel in assigned.items()
        if len(by_name[name]) == 1 and not series[by_name[name][0][0]].is_broken
    }
    problems = [
        problem
        for name, channel in assigned.items()
        if channel in channels or len(by_name[name]) > 1
        for problem in _look(name, channel, len(by_name[name]))
    ]
    ambiguous = {
        key: channel
        for name, channel in assigned.items()
        for key, _ in by_name[name]
        if channel not in channels and not series[key].is_broken
    }
    return SeriesChannels(
        channels,
        (*problems, *_ties(unassigned, set(assigned.values())), *conflicts.values()),
        {**ambiguous, **{key: problem.channel for key, problem in conflicts.items()}},
    )


def _without_broken_repeats(entries: list[tuple[str, str]], series: Mapping[str, SeriesFacts]) -> list[tuple[str, str]]:
    """What can't be read gives way to a whole series, but not to others of its own series, of which it may be the one."""
    whole = [entry for entry in entries if not series[entry[0]].is_broken]
    of_whole = {series[key].series for key, _ in whole}
    broken = [entry for entry in entries if series[entry[0]].is_broken and series[entry[0]].series in of_whole]
    return [entry for entry in entries if entry in whole or entry in broken] if whole else entries


def _refuse_chosen_twice(by_name: Mapping[str, list[tuple[str, str]]], where: str) -> None:
    for channel, entries in by_name.items():
        if sum(by == "table" for _, by in entries) > 1:
            message = f"{where}: the table of channels gives {channel} to {' and '.join(key for key, _ in entries)}. Keep one."
            raise Refusal("channel_twice", message)


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


def _named(series: Mapping[str, SeriesFacts]) -> tuple[dict[str, tuple[str, str]], dict[str, SeriesProblem]]:
    """Key → (name, what it was recognised by), and keys whose words and times say different phases."""
    named = {key: found for key, facts in series.items() if (found := name_of_series(facts)) is not None}
    named.update(by_echo(series, named))
    seconds = seconds_after_contrast(series)
    conflicts = {
        key: _conflict(named[key][0], facts, seconds[key])
        for key, facts in series.items()
        if key in named and named[key][1] in _BY_WORDS and times_differ(named[key][0], seconds.get(key))
    }
    named = {key: found for key, found in named.items() if key not in conflicts}
    named.update(by_time(series, seconds, {*named, *conflicts}))
    return named, conflicts


def _conflict(channel: str, facts: SeriesFacts, seconds: float) -> SeriesProblem:
    says = (
        f"{facts.name} is named so but was acquired {seconds:+.0f} s from when the contrast agent was given; "
        f"it was not taken. Choose the right one."
    )
    return SeriesProblem(channel, "phase_conflict", says)
