"""A split of a cohort into parts by patient: ``{"parts": {"train": [patient ids], "test": [...]}}``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from HCCNetLib.records import Cohort, Refusal

_FORM = '{"parts": {"test": ["patient id", ...], ...}}'


def read_split(path: Path) -> dict[str, frozenset[str]]:
    """Part → patient ids.

    Raises:
        Refusal: the file can't be read, is no split, or has a patient in two parts. Names no patient.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise Refusal("missing_split", f"The split {path} can't be opened: {reason}. Check the path.") from error
    except ValueError as error:
        raise Refusal("bad_split", f"The split {path.name} is not JSON. Expected {_FORM}.") from error
    parts = content.get("parts") if isinstance(content, dict) else None
    if not isinstance(parts, dict) or not all(_is_list_of_ids(ids) for ids in parts.values()):
        raise Refusal("bad_split", f"The split {path.name} is not of the form {_FORM}.")
    times = Counter(patient_id for ids in parts.values() for patient_id in ids)
    twice = sum(count > 1 for count in times.values())
    if twice:
        # Somebody in two parts may have been trained on.
        message = f"The split {path.name} names {twice} patient(s) more than once. Each belongs to one part."
        raise Refusal("bad_split", message)
    return {name: frozenset(ids) for name, ids in parts.items()}


def part_of(split: Mapping[str, frozenset[str]], name: str, cohort: Cohort) -> frozenset[str]:
    """The patients of a part, all of whom the cohort must have.

    Raises:
        Refusal: there is no such part, it is empty, or it names patients whom the cohort does not have.
    """
    if name not in split:
        there = ", ".join(sorted(split)) or "none"
        raise Refusal("unknown_part", f"The split has no part {name}. Its parts: {there}.")
    part = split[name]
    if not part:
        raise Refusal("empty_part", f"The part {name} of the split names no patient.")
    missing = len(part - {*(p.patient_id for p in cohort.patients), *cohort.refused})
    if missing:
        message = (
            f"{missing} of {len(part)} patient(s) of the part {name} are not in the cohort. Check that split and cohort "
            f"belong together, and how the ids are spelt."
        )
        raise Refusal("unknown_patients", message)
    return part


def _is_list_of_ids(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
