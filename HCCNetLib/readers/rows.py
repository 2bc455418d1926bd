"""Rows of a small table in a .csv or .tsv file."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from HCCNetLib.records import Refusal

# Not text but orders to a terminal, line ends within names, and what turns the direction of writing round.
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_BETWEEN_CELLS = str.maketrans("", "", "\t\r\n")


def read_rows(path: Path, required: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Rows with their number in the file (the header is row 1); cells stripped, empty rows left out.

    A comma separates the cells of a .csv (a semicolon or a tab where the header has no comma, as some spreadsheets write
    it), a tab those of a .tsv.

    Raises:
        Refusal: not there, unreadable, a required column is missing, a row with too many cells, a cell over several lines, no row.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise Refusal("missing_file", f"{path.name} does not exist. Check the name and the folder.") from error
    except PermissionError as error:
        raise Refusal("no_permission", f"{path.name} can't be opened: no permission to read it.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal("unreadable_file", f"{path.name} can't be read as UTF-8 text. Save it as CSV UTF-8.") from error
    if CONTROLS.search(text.translate(_BETWEEN_CELLS)):
        raise Refusal("bad_table", f"{path.name} holds characters that are no text. Save it as CSV UTF-8.")
    header = text.split("\n", 1)[0]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else next((mark for mark in ",;\t" if mark in header), ",")
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restkey="", restval="", strict=True)
    try:
        reader.fieldnames = _columns(reader.fieldnames or [], required, path.name)
        rows = [(reader.line_num, _cells(row, path.name, reader.line_num, delimiter)) for row in reader]
    except csv.Error as error:
        message = (
            f"{path.name}, row {reader.line_num}: not a table ({error}). Look for a quotation mark without its partner."
        )
        raise Refusal("bad_table", message) from error
    rows = [(number, cells) for number, cells in rows if any(cells.values())]
    if not rows:
        raise Refusal("empty_table", f"{path.name} has no rows.")
    return rows


def _columns(names: Sequence[str], required: Sequence[str], table: str) -> list[str]:
    columns = [name.strip() for name in names]
    missing = [name for name in required if name not in columns]
    if missing:
        message = f"{table} lacks the column(s) {', '.join(missing)}; it has: {', '.join(columns) or 'none'}."
        raise Refusal("missing_column", message)
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise Refusal("column_twice", f"{table} has the column(s) {', '.join(twice)} twice.")
    return columns


def _cells(row: dict[str, Any], table: str, number: int, delimiter: str) -> dict[str, str]:
    surplus = row.pop("", "")
    if any(surplus):
        separator = "a tab" if delimiter == "\t" else f"a '{delimiter}'"
        message = f"{table}, row {number} has more cells than the header. Quote cells that hold {separator}."
        raise Refusal("too_many_cells", message)
    cells = {name: value.strip() for name, value in row.items()}
    if any("\n" in value or "\r" in value for value in cells.values()):
        # A quotation mark without its partner swallows whole rows, that is exams, until the next one.
        message = f"{table}: a cell that ends in row {number} goes over several lines. Look for a stray quotation mark."
        raise Refusal("bad_table", message)
    return cells
