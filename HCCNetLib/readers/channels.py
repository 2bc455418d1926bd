"""Channel names: the canonical ones, the published aliases, and b-values that are nearly right."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from HCCNetLib.records import Problem, Refusal

CHANNELS = (
    *("DWI_b0", "DWI_b150", "DWI_b400", "DWI_b800"),
    *("T1_native", "T1_arterial", "T1_venous", "T1_delayed"),
    *("T1_in", "T1_out"),
    *("T2_short", "T2_long"),
)

# The names of the published code's command line.
PUBLISHED_ALIASES = {
    "T1WI": "T1_native",
    "T1A": "T1_arterial",
    "T1V": "T1_venous",
    "T1D": "T1_delayed",
    "T1W_IP": "T1_in",
    "T1W_OOP": "T1_out",
    "T2W_TES": "T2_short",
    "T2W_TEL": "T2_long",
}

B_VALUES = {0.0: "DWI_b0", 150.0: "DWI_b150", 400.0: "DWI_b400", 800.0: "DWI_b800"}
B_VALUE_TOLERANCE = 50.0  # s/mm²

_SURE = 0.9  # one letter in ten
_B_VALUE_NAME = re.compile(r"DWI_b(\d+(?:\.\d+)?)")


def b_value_name(b_value: float) -> str:
    """The name under which an image of this b-value (s/mm²) is looked up, e.g. ``DWI_b50``."""
    return f"DWI_b{b_value:g}"


def b_value_of(name: str) -> float | None:
    """The b-value (s/mm²) in a name like ``DWI_b50``, or None."""
    match = _B_VALUE_NAME.fullmatch(name)
    return float(match.group(1)) if match else None


def is_channel_name(name: str) -> bool:
    """Whether a name is a channel's, a published alias, or a b-value's."""
    return name in CHANNELS or name in PUBLISHED_ALIASES or b_value_of(name) is not None


def assign_channels(names: Iterable[str], where: str) -> tuple[dict[str, str], list[str], list[Problem]]:
    """Gives each name as found its canonical channel.

    A b-value goes to the nearest channel within ±50 s/mm², one to one; below 1 it is b0; one that is not equal comes
    with a problem. Two names for one channel are refused: which one is right is not ours to guess.

    Args:
        names: as found in files or columns.
        where: the exam, for messages.

    Returns:
        name → channel, the names that belong to no channel, and problems.
    """
    assigned: dict[str, str] = {}
    unknown: list[str] = []
    b_values: dict[str, float] = {}
    for name in names:
        if name in CHANNELS or name in PUBLISHED_ALIASES:
            assigned[name] = PUBLISHED_ALIASES.get(name, name)
        elif (b_value := b_value_of(name)) is not None:
            b_values[name] = b_value
        else:
            unknown.append(name)
    nearby, far, problems = _assign_b_values(b_values, set(assigned.values()), where)
    assigned |= nearby
    _refuse_two_names(assigned, where)
    return assigned, unknown + far, problems


def _assign_b_values(
    b_values: dict[str, float], taken: set[str], where: str
) -> tuple[dict[str, str], list[str], list[Problem]]:
    pairs = sorted(
        (abs(b_value - nominal), name, channel)
        for name, b_value in b_values.items()
        for nominal, channel in B_VALUES.items()
        if abs(b_value - nominal) <= B_VALUE_TOLERANCE or (b_value < 1 and nominal == 0)
    )
    assigned: dict[str, str] = {}
    problems = []
    ties = _ties(pairs, b_values, taken)
    for channel, names in ties.items():
        message = f"{where}: {' and '.join(names)} are equally near to {channel}; none is used. Keep or rename one."
        problems.append(Problem("b_value_tie", message))
    for distance, name, channel in pairs:
        if name in assigned or channel in taken or channel in ties:
            continue
        assigned[name] = channel
        taken.add(channel)
        if distance > 0 and b_values[name] >= 1:
            message = f"{where}: {name} is used as {channel} (the nearest b-value within ±{B_VALUE_TOLERANCE:g} s/mm²)."
            problems.append(Problem("b_value_not_equal", message))
    return assigned, [name for name in b_values if name not in assigned], problems


def _ties(
    pairs: list[tuple[float, str, str]], b_values: dict[str, float], taken: set[str]
) -> dict[str, tuple[str, ...]]:
    """Channel → names that are equally near to it: b100 and b200 to b150. Which one is meant is not ours to guess."""
    nearest: dict[str, list[tuple[float, str]]] = {}
    for distance, name, channel in pairs:
        if channel not in taken:
            nearest.setdefault(channel, []).append((distance if b_values[name] >= 1 else 0.0, name))
    best = {c: tuple(sorted(n for d, n in found if d == found[0][0])) for c, found in nearest.items()}
    return {channel: names for channel, names in best.items() if len(names) > 1}


def _refuse_two_names(assigned: dict[str, str], where: str) -> None:
    by_channel: dict[str, list[str]] = {}
    for name, channel in assigned.items():
        by_channel.setdefault(channel, []).append(name)
    for channel, names in by_channel.items():
        if len(names) > 1:
            message = f"{where}: {' and '.join(sorted(names))} are both {channel}. Keep the right one."
            raise Refusal("channel_twice", message)


def suggest_channel(name: str, channels: Iterable[str] = CHANNELS) -> str | None:
    """The one of ``channels`` that a misspelt name was surely meant to be, or None.

    Only case, separators, one letter, or a DWI image's bare b-value may differ: a hint that is followed is a channel that
    is read.
    """
    plain = plain_name(name)
    bare_b_value = re.fullmatch(r"(?:dwi|diff|b)+(\d+)", plain)
    for channel in channels:
        wanted = plain_name(channel)
        if plain == wanted or (bare_b_value and wanted == f"dwib{bare_b_value.group(1)}"):
            return channel
        same_digits = re.findall(r"\d+", plain) == re.findall(r"\d+", wanted)
        if same_digits and difflib.SequenceMatcher(None, plain, wanted).ratio() >= _SURE:
            return channel
    return None


def plain_name(name: str) -> str:
    """A name without case and separators."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
