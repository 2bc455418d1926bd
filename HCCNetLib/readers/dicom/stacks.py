"""A series' frames → stacks: frames that make up one volume, apart by what they show, b-value, echo and time."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from HCCNetLib.readers.dicom.frames import Frame
from HCCNetLib.readers.dicom.geometry import SAME_PLACE_MM, places_of, refuse_unplaced, slice_grid, volume_grid
from HCCNetLib.readers.dicom.kinds import MAGNITUDE, kind_of
from HCCNetLib.readers.image_types import dixon_of_type
from HCCNetLib.readers.series import is_diffusion_text, is_t1_or_t2_text, words_of
from HCCNetLib.records import Grid, Refusal


@dataclass(frozen=True)
class Stack:
    """Frames that belong together, in the order of their places where they have some.

    Args:
        frames: at least one.
        kind: what they are that is no magnitude image; empty for one.
        details: what sets them apart in their series, for people, e.g. ``{"b": "400"}``.
        grid: of the volume, of a single slice too; None where it has none.
        refusal: why they can't be used.
        acquired: when the acquisition of its first frame began; None where that can't be said.
    """

    frames: tuple[Frame, ...]
    kind: str = MAGNITUDE
    details: dict[str, str] = field(default_factory=dict)
    grid: Grid | None = None
    refusal: Refusal | None = None
    acquired: datetime.datetime | None = None

    @property
    def is_diffusion(self) -> bool:
        """Whether it is diffusion-weighted, or belongs to images that are."""
        return "b" in self.details and self.details["b"] != _NO_B

    @property
    def part_of(self) -> str:
        """What it is one of that no single channel is: directions, or images that only numbers tell apart; else empty."""
        if "direction" in self.details and self.frames[0].direction not in ("", "isotropic"):
            return "one of several diffusion directions"
        if self.details.get("b") == _NO_B:
            return "an image without a b-value among others that have one"
        return "one of several images that nothing but numbers tell apart" if "variant" in self.details else ""


@dataclass(frozen=True)
class _Key:
    """Something that may tell frames at one place apart: its name for people, of a frame, and of a value in words."""

    name: str
    of: Callable[[Frame], Hashable]
    words: Callable[[Frame, int, int], str]


def _number(values: float | None, unit: str) -> str:
    return "none" if values is None else f"{values:g} {unit}"


def _dimension(number: int, frame: Frame) -> int | None:
    return frame.dimensions[number] if number < len(frame.dimensions) else None


def _direction_words(frame: Frame, place: int, count: int) -> str:
    return {"isotropic": "trace", "": "none told"}.get(frame.direction, f"{place} of {count}")


def _echo(frame: Frame) -> float | None:
    return None if frame.echo_time is None else round(frame.echo_time, 2)


_NO_B = "not told"
_DIXON_WORDS = {"in": "in phase", "out": "out of phase", "water": "water", "": "other"}

# In this order: what the scanner set first, then what merely counts.
_KEYS = (
    _Key("image", lambda f: dixon_of_type(f.image_type), lambda f, k, n: _DIXON_WORDS[dixon_of_type(f.image_type)]),
    _Key("echo", _echo, lambda f, k, n: f"{k} of {n} ({_number(_echo(f), 'ms')})"),
    _Key("inversion", lambda f: f.inversion_time, lambda f, k, n: f"{k} of {n} ({_number(f.inversion_time, 'ms')})"),
    _Key("direction", lambda f: f.direction, _direction_words),
    _Key("phase", lambda f: f.temporal_position, lambda f, k, n: f"{k} of {n}"),
    _Key("trigger", lambda f: f.trigger_time, lambda f, k, n: f"{k} of {n}"),
    _Key("acquisition", lambda f: f.acquisition_number, lambda f, k, n: f"{k} of {n}"),
    _Key("type", lambda f: f.image_type, lambda f, k, n: f"{k} of {n}"),
    *(_Key("variant", partial(_dimension, number), lambda f, k, n: f"{k} of {n}") for number in range(8)),
)


def stacks_of(frames: Sequence[Frame], shown: str) -> list[Stack]:
    """The stacks of one series; each has a grid or a refusal.

    Args:
        frames: of the series, in any order.
        shown: what to call the series.
    """
    stacks: list[Stack] = []
    for kind, of_kind in _parts(frames, kind_of).items():
        try:
            refuse_unplaced(of_kind, shown)
        except Refusal as refusal:
            stacks.append(Stack(tuple(of_kind), str(kind), refusal=refusal))
            continue
        by_b = _parts(of_kind, lambda frame: frame.b_value)
        for b_value, of_b in by_b.items():
            # Some scanners write b = 0 into whatever they make.
            details: dict[str, str] = {}
            if _is_diffusion(of_b[0], [b for b in by_b if isinstance(b, float)]):
                details = {"b": f"{b_value:g}"} if b_value is not None else {"b": _NO_B} if len(by_b) > 1 else {}
            stacks += [replace(stack, kind=str(kind)) for stack in _apart(of_b, _KEYS, details)]
    return [_placed(stack, stacks, name_of(shown, stack)) for stack in _with_times(stacks)]


def _is_diffusion(frame: Frame, b_values: Sequence[float]) -> bool:
    """Whether the b-values of a series mean something: some scanners write 0, or anything, into whatever they make."""
    words = words_of(frame.description)
    if "DIFFUSION" in frame.image_type or is_diffusion_text(words):
        return True
    return any(b >= 1 for b in b_values) and not is_t1_or_t2_text(words)


def _with_times(stacks: Sequence[Stack]) -> list[Stack]:
    """The stacks of a series with the times at which they were acquired.

    Some scanners write the beginning of the series into all of its phases. Then the time since the trigger tells when each
    began; without it nobody knows. Where phases have times of their own, that of the trigger is in them already.
    """
    own = [min((f.acquired for f in s.frames if f.acquired is not None), default=None) for s in stacks]
    phases = [n for n, s in enumerate(stacks) if s.kind == MAGNITUDE and not _OF_PHASES.isdisjoint(s.details)]
    if len(phases) > 1 and len({own[n] for n in phases}) < len(phases):
        triggers = [min((f.trigger_time or 0.0 for f in stacks[n].frames), default=0.0) for n in phases]
        alike = len({own[n] for n in phases}) == 1 and len(set(triggers)) == len(triggers)
        for n, trigger in zip(phases, triggers, strict=True):
            moment = own[n]
            own[n] = moment + datetime.timedelta(milliseconds=trigger) if alike and moment is not None else None
    return [replace(stack, acquired=moment) for stack, moment in zip(stacks, own, strict=True)]


_OF_PHASES = {"phase", "trigger", "acquisition", "variant"}


def name_of(series: str, stack: Stack) -> str:
    """A stack's name: the series' and what sets it apart."""
    parts = [f"{name} {words}" for name, words in stack.details.items()]
    return ", ".join(
        [series, *([stack.kind.removeprefix("a ").removeprefix("no MR but ")] if stack.kind else []), *parts]
    )


def _parts(frames: Sequence[Frame], of: Callable[[Frame], Hashable]) -> dict[Hashable, list[Frame]]:
    """Frames by a value, in the order of values."""
    parts: dict[Hashable, list[Frame]] = {}
    for frame in frames:
        parts.setdefault(of(frame), []).append(frame)
    return dict(sorted(parts.items(), key=lambda item: (item[0] is not None, item[0])))


def _collisions(frames: Sequence[Frame]) -> int:
    """How many frames lie where another one does."""
    places = np.sort(places_of(frames))
    return int((np.diff(places) < SAME_PLACE_MM).sum())


def _apart(frames: list[Frame], keys: Sequence[_Key], details: dict[str, str]) -> list[Stack]:
    """Frames of one kind and b-value, taken apart by the first keys that leave fewer at one place."""
    before = _collisions(frames)
    if before == 0:
        return _unmixed(frames, keys, details)
    for number, key in enumerate(keys):
        parts = list(_parts(frames, key.of).values())
        if len(parts) == 1 or sum(map(_collisions, parts)) >= before:
            continue
        found: list[Stack] = []
        for place, part in enumerate(parts, start=1):
            words = key.words(part[0], place, len(parts))
            found += _apart(part, keys[number + 1 :], {**details, key.name: words})
        return found
    return _by_time(frames, details)


def _unmixed(frames: list[Frame], keys: Sequence[_Key], details: dict[str, str]) -> list[Stack]:
    """Frames that all lie at places of their own: one volume, unless they are of several echoes or phases.

    Phases may lie half a slice apart, and of two echoes half of the slices each may be missing.
    """
    for number, key in enumerate(keys):
        parts = list(_parts(frames, key.of).values()) if key.name in _NEVER_MIXED else []
        if len(parts) < 2 or 2 * len(parts) > len(frames):  # a number of its own for each slice tells nothing
            continue
        extents = [float(np.ptp(places_of([frames[0], *part])[1:])) for part in parts]
        if min(extents) < 0.5 * np.ptp(places_of(frames)):
            message = (
                "holds images of several echoes or phases, of none of them all slices. Export the whole series again."
            )
            return [replace(_in_order(frames, details), refusal=Refusal("mixed_images", message))]
        return [
            stack
            for place, part in enumerate(parts, 1)
            for stack in _unmixed(
                part, keys[number + 1 :], {**details, key.name: key.words(part[0], place, len(parts))}
            )
        ]
    return [_in_order(frames, details)]


_NEVER_MIXED = ("image", "echo", "inversion", "phase")


def _in_order(frames: Sequence[Frame], details: dict[str, str]) -> Stack:
    order = np.argsort(places_of(frames), kind="stable")
    return Stack(tuple(frames[n] for n in order), details=details)


def _by_time(frames: list[Frame], details: dict[str, str]) -> list[Stack]:
    """Frames that only their times tell apart: whole volumes one after the other, never mixed."""
    order = np.argsort(places_of(frames), kind="stable")
    ordered = [frames[n] for n in order]
    cuts = np.flatnonzero(np.diff(places_of(ordered)) >= SAME_PLACE_MM) + 1
    columns = [list(column) for column in np.split(np.array(ordered, dtype=object), cuts)]
    volumes = len(columns[0])
    alike = Refusal(
        "repeated_positions",
        "several images lie at one place and nothing tells them apart. Export the series again, or name one image per "
        "volume by hand.",
    )
    if any(len(column) != volumes for column in columns) or any(f.acquired is None for f in frames):
        return [replace(_in_order(frames, details), refusal=alike)]
    columns = [sorted(column, key=lambda frame: frame.acquired) for column in columns]
    stacks = [[column[k] for column in columns] for k in range(volumes)]
    for earlier, later in itertools.pairwise(stacks):
        if max(f.acquired for f in earlier) >= min(f.acquired for f in later):
            return [replace(_in_order(frames, details), refusal=alike)]
    return [Stack(tuple(stack), details={**details, "phase": f"{k} of {volumes}"}) for k, stack in enumerate(stacks, 1)]


def _placed(stack: Stack, siblings: Sequence[Stack], shown: str) -> Stack:
    """The stack with its grid, or with the reason why there is none."""
    if stack.refusal is not None:
        message = stack.refusal.message
        own = message if message.startswith(shown.split(",")[0]) else f"{shown}: {message}"
        return replace(stack, refusal=Refusal(stack.refusal.code, own))
    try:
        _refuse_shorter(stack, siblings, shown)
        return replace(stack, grid=volume_grid(stack.frames, shown))
    except Refusal as refusal:
        return replace(stack, refusal=refusal, grid=slice_grid(stack.frames[0]) if len(stack.frames) == 1 else None)


def _refuse_shorter(stack: Stack, siblings: Sequence[Stack], shown: str) -> None:
    """A stack with fewer slices than the others of its series has lost some at an end, where no gap tells."""
    others = [other for other in siblings if other.kind == stack.kind and other.refusal is None]
    most = max((len(other.frames) for other in others), default=0)
    # Against one place of another kind, e.g. several stations, nothing can be said.
    longest = next((other for other in others if len(other.frames) == most), stack)
    if len(stack.frames) == most or _directions_differ(stack, longest):
        return
    if _lies_within(stack, longest) and not _ends_and_gaps_agree(stack, longest):
        message = (
            f"{shown} has {len(stack.frames)} slices where another image of the series has {most}: "
            f"{most - len(stack.frames)} missing. Export the whole series again."
        )
        raise Refusal("missing_slice", message)


def _directions_differ(stack: Stack, other: Stack) -> bool:
    return stack.frames[0].orientation != other.frames[0].orientation


def _lies_within(stack: Stack, longest: Stack) -> bool:
    reference = np.sort(places_of(longest.frames))
    return all(np.abs(reference - place).min() < SAME_PLACE_MM for place in places_of(stack.frames))


def _ends_and_gaps_agree(stack: Stack, longest: Stack) -> bool:
    """Whether both begin and end at one place: then what is missing shows as a gap, which is named better elsewhere."""
    own, other = np.sort(places_of(stack.frames)), np.sort(places_of(longest.frames))
    return abs(own[0] - other[0]) < SAME_PLACE_MM and abs(own[-1] - other[-1]) < SAME_PLACE_MM
