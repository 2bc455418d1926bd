"""The reports of a prediction and of an evaluation: HTML pages that need nothing beside them, and rows for a spreadsheet."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from HCCNetLib.reporting.evaluation_report import render_evaluation
    from HCCNetLib.reporting.report import render_report, write_report
    from HCCNetLib.reporting.slices import ExamPicture
    from HCCNetLib.reporting.tables import exam_table, patient_table

__all__ = ["ExamPicture", "exam_table", "patient_table", "render_evaluation", "render_report", "write_report"]

_HOMES = {
    "ExamPicture": "slices",
    "exam_table": "tables",
    "patient_table": "tables",
    "render_evaluation": "evaluation_report",
    "render_report": "report",
    "write_report": "report",
}


def __getattr__(name: str) -> Any:
    # Imported when asked for: the Slicer module takes colours, numbers and words from here where scipy may not be.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
