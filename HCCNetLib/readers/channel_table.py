"""``--channels FILE``: a table in which a person says which image is which channel, and the same table to start from."""

from __future__ import annotations

import datetime
import fnmatch
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from HCCNetLib.readers.channels import CHANNELS, PUBLISHED_ALIASES, assign_channels, suggest_channel
from HCCNetLib.readers.rows import read_rows
from HCCNetLib.records import Cohort, Exam, FoundImage, Problem, Refusal

_CHANNEL = "channel"
_MATCHING = ("patient_id", "exam", "image", "description")
_LEAVE_OUT = "-"
# Why an image is not used.
LEFT_OUT, DISPLACED = "left out by the table of channels", "the table of channels gives its channel to another image"
_UNNAMED = "the table of channels names no channel for it"
NOT_USED_BY_TABLE = (LEFT_OUT, _UNNAMED)
# What `channel_rows` writes besides is for people.
_COLUMNS = (
    *("patient_id", "exam", "date", "image", "description", "found", "recognised_by", "confidence", "reason"),
    _CHANNEL,
)
# A spreadsheet takes these for formulas, dates or numbers and changes them: 2021-03-14 to 14.03.21, 007 to 7. An apostrophe
# in front makes them text; it is taken off again when the table is read.
_CHANGED_BY_SPREADSHEETS = re.compile(
    r"[=+\-@\t\r'\d]|(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)|(?:true|false)$", re.IGNORECASE
)


@dataclass(frozen=True)
class Override:
    """What a row says of an image.

    Args:
        channel: canonical name, or None: not used.
        row: its number in the file.
        reason: why the image is not used: what was left empty may have been overlooked, what has a - was meant so.
    """

    channel: str | None
    row: int
    reason: str = LEFT_OUT


@dataclass(frozen=True)
class _Row:
    """A row: by the column, what its filled cells match."""

    override: Override
    patterns: Mapping[str, re.Pattern[str]]
    patient: str | None  # where the cell has no wildcards

    def matches(self, facts: Mapping[str, Sequence[str]]) -> bool:
        return all(any(map(pattern.fullmatch, facts[column])) for column, pattern in self.patterns.items())


class ChannelTable:
    """Rows that say which image is which channel; the first that matches wins. It remembers which were of use.

    Args:
        name: the file's, for messages.
        rows: in their order.
    """

    def __init__(self, name: str, rows: Sequence[_Row]) -> None:
        self.name = name
        self._rows = rows
        self._of_patient: dict[str, list[_Row]] = {}
        for row in rows:
            if row.patient is not None:
                self._of_patient.setdefault(row.patient, []).append(row)
        self._of_several = [row for row in rows if row.patient is None]
        self._matching: set[int] = set()
        self._deciding: set[int] = set()

    def for_exam(self, patient_id: str, exam_id: str, date: datetime.date) -> ExamChannels:
        """The rows that may concern the images of one exam."""
        patient = _plain(patient_id)
        rows = sorted([*self._of_patient.get(patient, ()), *self._of_several], key=lambda row: row.override.row)
        return ExamChannels(self, rows, {"patient_id": [patient], "exam": [_plain(exam_id), date.isoformat()]})

    def decide(self, rows: Iterable[_Row], facts: Mapping[str, Sequence[str]]) -> Override | None:
        """What the first of ``rows`` that matches says."""
        matching = [row.override for row in rows if row.matches(facts)]
        self._matching |= {override.row for override in matching}
        self._deciding |= {override.row for override in matching[:1]}
        return matching[0] if matching else None

    def unused(self) -> list[Problem]:
        """The rows that decided nothing in the whole input: most often a name spelt in two ways."""
        problems = []
        for number in (row.override.row for row in self._rows):
            if number not in self._matching:
                message = f"Row {number} of {self.name} matches no image that was read. Check the spelling."
                problems.append(Problem("channel_row_unused", message))
            elif number not in self._deciding:
                message = (
                    f"Row {number} of {self.name} decides nothing: earlier rows match all that it matches. Move it up."
                )
                problems.append(Problem("channel_row_unused", message))
        return problems


@dataclass(frozen=True)
class ExamChannels:
    """What the table says of one exam's images."""

    table: ChannelTable
    rows: Sequence[_Row]
    facts: Mapping[str, Sequence[str]]

    def look_up(self, name: str, description: str = "") -> Override | None:
        """What the first matching row says of an image, by its ``FoundImage.name`` and ``.description``."""
        # In an exam merged of several folders an image was written with its folder in front.
        names = [_plain(name), f"{self.facts['exam'][0]}/{_plain(name)}"]
        return self.table.decide(self.rows, {**self.facts, "image": names, "description": [_plain(description)]})


def read_channel_table(path: Path) -> ChannelTable:
    """Reads a table with the column ``channel`` and some of ``patient_id``, ``exam``, ``image`` and ``description``.

    Other columns are for people. Case does not count, ``*`` and ``?`` stand for any letters and any letter (``[*]`` and
    ``[?]`` for themselves), an empty cell matches anything. An exam of which every image has the channel ``-`` is left out.

    Raises:
        Refusal: it can't be read, names a channel that there is not, or has a row that matches everything.
    """
    rows = []
    for number, cells in read_rows(path, (_CHANNEL,)):
        where = f"{path.name}, row {number}"
        filled = {column: text for column in _MATCHING if (text := cells.get(column, "").removeprefix("'"))}
        if not filled:
            message = (
                f"{where} does not say which image it is about. Fill at least one of its cells {', '.join(_MATCHING)}."
            )
            raise Refusal("row_matches_all", message)
        patterns = {column: _pattern(text) for column, text in filled.items()}
        patient = filled.get("patient_id", "*")
        named = None if set("*?") & set(patient) else _plain(patient)
        channel = cells[_CHANNEL].removeprefix("'")
        reason = LEFT_OUT if channel else _UNNAMED
        rows.append(_Row(Override(_channel(channel, where), number, reason), patterns, named))
    return ChannelTable(path.name, rows)


def _channel(text: str, where: str) -> str | None:
    if text in ("", _LEAVE_OUT):
        return None
    if text in CHANNELS or text in PUBLISHED_ALIASES:
        return PUBLISHED_ALIASES.get(text, text)
    close = suggest_channel(text, (*CHANNELS, *PUBLISHED_ALIASES))
    hint = f" Did you mean {close}?" if close else f" The channels are {', '.join(CHANNELS)}."
    raise Refusal(
        "unknown_channel", f"{where}: there is no channel {text}.{hint} For an image that is not used write -."
    )


def _pattern(text: str) -> re.Pattern[str]:
    # Its patterns never go back over what a star has matched: many stars would take hours. Of brackets only those around
    # a star or a question mark mean something: that the character itself stands there.
    return re.compile(fnmatch.translate(re.sub(r"\[(?![*?]\])", "[[]", _plain(text))))


def _plain(text: str) -> str:
    """Without case, on one line; letters with accents in one form, since file systems and spreadsheets write them in two."""
    return " ".join(unicodedata.normalize("NFC", text).split()).casefold()


# ---------------------------------------------------------------- use


def assign_with_table(
    names: Iterable[str], table: ExamChannels | None, where: str
) -> tuple[dict[str, str], list[str], list[Problem]]:
    """As ``assign_channels``, but for the names of which a table says what they are: it comes first.

    A name that the table leaves out is in neither result. Who had a channel by the name that the table gives to another
    image is not used; both are told.

    Raises:
        Refusal: the table makes two images one channel, or two of the other names are one.
    """
    names = list(names)
    chosen = {name: found for name in names if table is not None and (found := table.look_up(name)) is not None}
    if table is None or not chosen:
        return assign_channels(names, where)
    given = {name: override.channel for name, override in chosen.items() if override.channel is not None}
    _refuse_one_channel_twice(given, chosen, f"{where}: {table.table.name}")
    displaced = [n for n in names if n not in chosen and PUBLISHED_ALIASES.get(n, n) in given.values()]
    others = [n for n in names if n not in chosen and n not in displaced]
    # The channels that the table gave take part, so that no other b-value moves up to them.
    assigned, unknown, problems = assign_channels([*others, *given.values()], where)
    assigned = {name: channel for name, channel in assigned.items() if name in others} | given
    return assigned, unknown, [*problems, *_told(chosen, displaced, table.table.name)]


def _refuse_one_channel_twice(given: Mapping[str, str], chosen: Mapping[str, Override], where: str) -> None:
    for channel in given.values():
        names = [name for name in given if given[name] == channel]
        if len(names) > 1:
            images = " and ".join(f"{name} (row {chosen[name].row})" for name in names)
            raise Refusal("channel_twice", f"{where} makes each of {images} {channel}. Keep the right one.")


def _told(chosen: Mapping[str, Override], displaced: Sequence[str], table: str) -> list[Problem]:
    """What would be otherwise without the table; an image that has its channel's name already is no news."""
    problems = []
    news = {n: o for n, o in chosen.items() if o.channel is not None and o.channel != PUBLISHED_ALIASES.get(n, n)}
    if news:
        images = ", ".join(f"{name} is {o.channel} (row {o.row})" for name, o in news.items())
        problems.append(Problem("channels_by_table", f"as {table} says, {images}."))
    left_out = [f"{name} (row {o.row})" for name, o in chosen.items() if o.channel is None]
    if left_out:
        problems.append(Problem("left_out_by_table", f"left out, as {table} says: {', '.join(left_out)}."))
    if displaced:
        message = f"not used, because {table} gives their channel to another image: {', '.join(displaced)}."
        problems.append(Problem("displaced_by_table", message))
    return problems


# ---------------------------------------------------------------- the table to start from


def channel_rows(cohort: Cohort) -> list[list[str]]:
    """A header and a row per image that was found, with the channel that it became: to be corrected and read again."""
    rows = [
        _cells(patient.patient_id, exam, image)
        for patient in cohort.patients
        for exam in patient.exams
        for image in exam.found
        if image.channel is None or image.channel in CHANNELS  # a liver's mask is none, and is not to be chosen
    ]
    # Without the mark spreadsheets read the letters of other languages in another encoding.
    header = [f"\N{ZERO WIDTH NO-BREAK SPACE}{_COLUMNS[0]}", *_COLUMNS[1:]]
    return [header, *rows]


def _cells(patient_id: str, exam: Exam, image: FoundImage) -> list[str]:
    # An exam merged of several folders has the name of the first, but each of them its day.
    is_merged = any(problem.code == "same_day_merged" for problem in exam.problems)
    date = exam.date.isoformat()
    texts = (
        *(patient_id, date if is_merged else exam.exam_id, date, image.name, image.description),
        ", ".join(f"{name} {value}" for name, value in image.details.items()),
        *(image.recognised_by, image.confidence, image.reason, image.channel or ""),
    )
    matched = len(_MATCHING) + 1  # and the date, which stands among them
    exact = [re.sub(r"[*?]", r"[\g<0>]", text) if place < matched else text for place, text in enumerate(texts)]
    return [
        f"'{text}" if _CHANGED_BY_SPREADSHEETS.match(text) else text for text in (" ".join(e.split()) for e in exact)
    ]
