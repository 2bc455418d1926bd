"""The reports of a prediction and of an evaluation: HTML pages that need nothing beside them, and rows for a spreadsheet."""

from __future__ import annotations

from HCCNetLib.reporting.evaluation_report import render_evaluation
from HCCNetLib.reporting.report import render_report, write_report
from HCCNetLib.reporting.slices import ExamPicture
from HCCNetLib.reporting.tables import exam_table, patient_table

__all__ = ["ExamPicture", "exam_table", "patient_table", "render_evaluation", "render_report", "write_report"]
