"""Dates as people write them in folder names and tables, and times of day as DICOM writes them."""

from __future__ import annotations

import datetime
import re

_FOLDER_NAME = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})(?:_.*)?")
_EXACT = re.compile(r"(\d{4}-\d{2}-\d{2}|\d{8})(?:_.*)?")


def date_in_name(name: str) -> datetime.date | None:
    """The date of a folder named ``2021-03-14`` or ``20210314``, a suffix after ``_`` allowed; else None."""
    if not _EXACT.fullmatch(name):
        return None
    match = _FOLDER_NAME.fullmatch(name)
    assert match is not None
    try:
        return datetime.date(int(match.group(1)), int(match.group(2)), int(match.group(3)))
    except ValueError:  # the 31st of February
        return None


def parse_date(text: str) -> datetime.date | None:
    """The date in a table's cell, ``2021-03-14`` or ``20210314``; else None. Other orders of day and month are guesses."""
    text = text.strip()
    return date_in_name(text) if "_" not in text else None


def seconds_of_day(text: str) -> float | None:
    """Seconds since midnight of a time as DICOM writes it, ``HHMMSS.ffffff``, and in older files with colons; else None."""
    digits, _, fraction = text.strip().replace(":", "").partition(".")
    digits = digits.ljust(6, "0") if len(digits) in (2, 4, 6) else ""
    if not digits.isdecimal():
        return None
    hours, minutes, seconds = int(digits[:2]), int(digits[2:4]), int(digits[4:])
    if hours > 23 or minutes > 59 or seconds > 60:
        return None
    return hours * 3600 + minutes * 60 + seconds + (float(f"0.{fraction}") if fraction.isdecimal() else 0.0)


def seconds_between(earlier: float, later: float) -> float:
    """From one time of day to another one less than half a day away, across midnight too; negative if it lies before."""
    return (later - earlier + 43_200) % 86_400 - 43_200
