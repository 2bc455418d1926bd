"""The report of a prediction: one HTML page that needs nothing beside it."""

from __future__ import annotations

from HCCNetLib.reporting.report import render_report, write_report
from HCCNetLib.reporting.slices import ExamPicture

__all__ = ["ExamPicture", "render_report", "write_report"]
