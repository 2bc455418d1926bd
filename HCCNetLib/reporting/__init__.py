"""The reports of a prediction and of an evaluation: HTML pages that need nothing beside them."""

from __future__ import annotations

from HCCNetLib.reporting.evaluation_report import render_evaluation
from HCCNetLib.reporting.report import render_report, write_report
from HCCNetLib.reporting.slices import ExamPicture

__all__ = ["ExamPicture", "render_evaluation", "render_report", "write_report"]
