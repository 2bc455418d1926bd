"""Exam dates as people write them in folder names and tables."""

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
