"""Results as rows for a spreadsheet: one per exam, or one per patient. Empty cells where nothing is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from HCCNetLib.reporting.elements import has_no_meaning
from HCCNetLib.reporting.horizons import risk_by_horizon

# Of the table of exams and of that of patients: the columns before those of the horizons, and after them.
_EXAM_RISKS = (
    *("patient_id", "exam_id", "date", "months_before_landmark", "attention", "attention_gradient", "risk_as_of"),
    "risk_without",
)
_EXAM_OTHERS = (
    *("peak_r_mm", "peak_a_mm", "peak_s_mm", "peak_value", "peak_members", "liver_fraction", "filled_fraction"),
    *("saliency", "warnings", "notice"),
)
_PATIENT_RISKS = (
    *("patient_id", "landmark", "horizon_months", "risk", "risk_uncalibrated", "calibrated", "low", "high", "sd"),
)
_PATIENT_OTHERS = ("members", "exams", "phantom", "demonstration", "bundle", "bundle_sha256", "method", "notice")
_BY_HORIZON = ("risk", "low", "high")
_NO_MEANING = "Demonstration weights: this result has no meaning for this patient."
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet may run a cell that starts so


def exam_table(result: Mapping[str, Any]) -> list[list[str]]:
    """A header and a row per exam of a ``prediction.json``.

    ``peak_*_mm`` are RAS+ patient coordinates, ``peak_members`` and ``warnings`` counts, shares 0-1. With several horizons,
    the risk within each stands in the row of the latest exam; ``risk_as_of`` and ``risk_without`` are at the main horizon.
    Text that a spreadsheet could take for a formula has an apostrophe in front.
    """
    as_of = {point["as_of"]: point["risk"] for point in result["trajectory"]}
    months = _horizons([result])
    header = [*_EXAM_RISKS, *_horizon_columns(months), *_EXAM_OTHERS]
    return [header, *(_exam_row(result, exam, as_of.get(exam["date"]), months) for exam in result["exams"])]


def patient_table(results: Sequence[Mapping[str, Any]], refused: Mapping[str, str] | None = None) -> list[list[str]]:
    """A header, a row per ``prediction.json``, and one per refused patient (id → why), empty but for id and notice.

    Risks are 0-1; ``low``, ``high`` and ``sd`` are of the members, ``members`` and ``exams`` counts. Where the results have
    several horizons, ``risk_6_months``, ``low_6_months``, ``high_6_months`` and so on follow. Text that a spreadsheet could
    take for a formula has an apostrophe in front.
    """
    months = _horizons(results)
    header = [*_PATIENT_RISKS, *_horizon_columns(months), *_PATIENT_OTHERS]
    empty = [""] * (len(header) - 2)
    lost = [[text_cell(who), *empty, text_cell(f"Refused: {why}")] for who, why in (refused or {}).items()]
    return [header, *(_patient_row(result, months) for result in results), *lost]


def _horizons(results: Sequence[Mapping[str, Any]]) -> Sequence[float]:
    """The horizons of all results, ascending; none for a single one, whose figures have their own columns."""
    months = sorted({at["months"] for result in results for at in risk_by_horizon(result)})
    return months if len(months) > 1 else []


def _horizon_columns(months: Sequence[float]) -> list[str]:
    return [f"{name}_{horizon:g}_months" for horizon in months for name in _BY_HORIZON]


def _horizon_cells(result: Mapping[str, Any], months: Sequence[float]) -> list[str]:
    by_months = {at["months"]: at for at in risk_by_horizon(result)}
    return [_number(by_months.get(horizon, {}).get(name)) for horizon in months for name in _BY_HORIZON]


def _exam_row(
    result: Mapping[str, Any], exam: Mapping[str, Any], risk: float | None, months: Sequence[float]
) -> list[str]:
    peak = exam.get("peak") or {"mm": (None, None, None), "value": None, "members": None}
    warnings = sum(warning.get("exam_id") == exam["exam_id"] for warning in result["warnings"])
    is_landmark = exam["date"] == result["landmark"]
    return [
        *map(text_cell, (result["patient_id"], exam["exam_id"], exam["date"])),
        *map(_number, (exam["months_before_landmark"], exam["attention"], exam.get("attention_gradient"))),
        *map(_number, (risk, exam["risk_without"])),
        *(_horizon_cells(result, months) if is_landmark else [""] * len(_horizon_columns(months))),
        *map(_number, (*peak["mm"], peak["value"])),
        _count(peak["members"]),
        *map(_number, (exam["field"]["liver_fraction"], exam["field"]["filled_fraction"])),
        *(text_cell(_paths(exam["saliency"])), _count(warnings), text_cell(_notice(result))),
    ]


def _patient_row(result: Mapping[str, Any], months: Sequence[float]) -> list[str]:
    bundle, spread = result["bundle"], result["spread"]
    return [
        *map(text_cell, (result["patient_id"], result["landmark"])),
        *map(_number, (result["horizon_months"], result["risk"], result["risk_uncalibrated"])),
        _truth(bundle["calibrated"]),
        *map(_number, (spread["low"], spread["high"], spread["sd"])),
        *_horizon_cells(result, months),
        *map(_count, (len(result["members"]), len(result["exams"]))),
        *map(_truth, (result.get("phantom", False), bundle["demonstration"])),
        *map(text_cell, (f"{bundle['name']} {bundle['version']}", bundle["sha256"])),
        *map(text_cell, ((result.get("explanation") or {}).get("method", ""), _notice(result))),
    ]


def _notice(result: Mapping[str, Any]) -> str:
    """What must travel with the numbers."""
    return f"{_NO_MEANING} {result['notice']}" if has_no_meaning(result) else str(result["notice"])


def _paths(saliency: Mapping[str, str] | None) -> str:
    """The map of all channels; where there is one per channel, each with its channel."""
    if not saliency:
        return ""
    return "; ".join(path if channel == "all" else f"{channel}: {path}" for channel, path in saliency.items())


def text_cell(value: object) -> str:
    """Text as a cell that no spreadsheet takes for a formula (OWASP, CSV injection)."""
    cell = str(value)
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def _number(value: float | None) -> str:
    """A number as it reads back to the same bits."""
    return "" if value is None else repr(float(value))


def _count(value: int | None) -> str:
    return "" if value is None else str(int(value))


def _truth(value: bool) -> str:
    return "true" if value else "false"
