"""Rows of a small table in a .csv or .tsv file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from HCCNetLib.records import Refusal


def read_rows(path: Path, required: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Rows with their number in the file (the header is row 1); cells stripped, empty rows left out.

    A comma separates the cells of a .csv (a semicolon where the header has no comma, as some spreadsheets write it), a
    tab those of a .tsv.

    Raises:
        Refusal: unreadable, a required column is missing, a row with too many cells, no row at all.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except PermissionError as error:
        raise Refusal("no_permission", f"{path.name} can't be opened: no permission to read it.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal("unreadable_file", f"{path.name} can't be read as UTF-8 text. Save it as CSV UTF-8.") from error
    lines = text.splitlines()
    header = lines[0] if lines else ""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ";" if "," not in header and ";" in header else ","
    reader = csv.DictReader(lines, delimiter=delimiter, restkey="", restval="")
    columns = [name.strip() for name in reader.fieldnames or []]
    reader.fieldnames = columns
    missing = [name for name in required if name not in columns]
    if missing:
        message = f"{path.name} lacks the column(s) {', '.join(missing)}; it has: {', '.join(columns) or 'none'}."
        raise Refusal("missing_column", message)
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise Refusal("column_twice", f"{path.name} has the column(s) {', '.join(twice)} twice.")
    rows = []
    for row in reader:
        if "" in row and any(row[""]) and "" not in columns:
            message = f"{path.name}, row {reader.line_num} has more cells than the header. Quote cells that hold a '{delimiter}'."
            raise Refusal("too_many_cells", message)
        cells = {name: value.strip() for name, value in row.items() if name}
        if any(cells.values()):
            rows.append((reader.line_num, cells))
    if not rows:
        raise Refusal("empty_table", f"{path.name} has no rows.")
    return rows
