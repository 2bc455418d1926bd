"""What a prediction is: the content of ``prediction.json``, whose JSON Schema stands beside this file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from HCCNetLib.records import Problem


@dataclass(frozen=True)
class ExamResult:
    """One exam's part in the prediction.

    Args:
        exam_id: the exam.
        date: ISO date.
        months_before_landmark: 0 for the landmark.
        attention: share of the CLS output, sums to 1 over exams; None where no explanation was asked for.
        risk_without: calibrated risk had this exam not been made; None for the landmark.
        saliency: channel or ``all`` → path relative to prediction.json; None where there is no map.
        field: what was read: box in patient mm and fractions.
        attention_gradient: gradient-weighted share, sums to 1 over exams; None where no exam raises the output, or where no
            explanation was asked for.
        saliency_against: as ``saliency``, for what lowers the output.
        saliency_change: ``more`` and ``less`` → path: what raised and lowered it compared with the previous exam.
        peak: where the evidence that raises the output is strongest: mm (RAS+), value, members; None without one.
    """

    exam_id: str
    date: str
    months_before_landmark: float
    attention: float | None
    risk_without: float | None
    saliency: Mapping[str, str] | None
    field: Mapping[str, Any]
    attention_gradient: float | None = None
    saliency_against: Mapping[str, str] | None = None
    saliency_change: Mapping[str, str] | None = None
    peak: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Prediction:
    """The risk of a diagnosis within the horizon after the landmark, and what it rests on.

    Args:
        patient_id: the patient.
        bundle: name, version, sha256, demonstration, calibrated.
        landmark: ISO date of the latest exam.
        horizon_months: the main horizon, of ``risk``, ``members`` and ``trajectory``.
        risk: mean of the members' probabilities, then calibrated, 0–1.
        risk_uncalibrated: the mean alone.
        risk_by_horizon: ascending, the main horizon among them: ``months``, ``risk``, ``risk_uncalibrated``, ``low`` and
            ``high`` of the members, and ``average``, the observed risk of the training cohort, or None.
        members: each member's probability, calibrated alike.
        spread: sd, low and high of ``members``.
        exams: in the order of their dates.
        trajectory: the risk as it would have been at each exam: ``as_of`` (ISO date), ``risk``.
        warnings: what a reader should know first.
        software: package → version.
        seconds: stage → seconds.
        explanation: how the maps were made, and what is known of their faithfulness; or None.
        changes: from each exam as landmark to the next one: risks, and what of the change came with the dates and what with
            the picture, in units of the logit; None where no maps were asked for.
        phantom: whether the patient is generated; then a demonstration bundle's result has a meaning.
    """

    patient_id: str
    bundle: Mapping[str, Any]
    landmark: str
    horizon_months: float
    risk: float
    risk_uncalibrated: float
    risk_by_horizon: tuple[Mapping[str, Any], ...]
    members: tuple[float, ...]
    spread: Mapping[str, float]
    exams: tuple[ExamResult, ...]
    trajectory: tuple[Mapping[str, Any], ...]
    warnings: tuple[Problem, ...]
    software: Mapping[str, str]
    seconds: Mapping[str, float]
    explanation: Mapping[str, Any] | None = field(default=None)
    changes: tuple[Mapping[str, Any], ...] | None = None
    phantom: bool = False

    @property
    def has_no_meaning(self) -> bool:
        """Whether demonstration weights were asked about somebody who exists."""
        return bool(self.bundle["demonstration"]) and not self.phantom

    def to_dict(self) -> dict[str, Any]:
        """As plain data that satisfies the schema."""
        return {
            "patient_id": self.patient_id,
            "phantom": self.phantom,
            "bundle": dict(self.bundle),
            "landmark": self.landmark,
            "horizon_months": self.horizon_months,
            "risk": self.risk,
            "risk_uncalibrated": self.risk_uncalibrated,
            "risk_by_horizon": [dict(at) for at in self.risk_by_horizon],
            "members": list(self.members),
            "spread": dict(self.spread),
            "exams": [_exam_dict(exam) for exam in self.exams],
            "trajectory": [dict(point) for point in self.trajectory],
            "warnings": [_problem_dict(problem) for problem in self.warnings],
            "explanation": None if self.explanation is None else dict(self.explanation),
            "changes": None if self.changes is None else [dict(change) for change in self.changes],
            "software": dict(self.software),
            "seconds": {stage: round(s, 3) for stage, s in self.seconds.items()},
            "notice": NOTICE,
        }


NOTICE = "Research software, not a medical device. Not for clinical use."


def _exam_dict(exam: ExamResult) -> dict[str, Any]:
    return {
        "exam_id": exam.exam_id,
        "date": exam.date,
        "months_before_landmark": exam.months_before_landmark,
        "attention": exam.attention,
        "attention_gradient": exam.attention_gradient,
        "risk_without": exam.risk_without,
        "saliency": _or_none(exam.saliency),
        "saliency_against": _or_none(exam.saliency_against),
        "saliency_change": _or_none(exam.saliency_change),
        "peak": _or_none(exam.peak),
        "field": dict(exam.field),
    }


def _or_none(values: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if values is None else dict(values)


def _problem_dict(problem: Problem) -> dict[str, str]:
    exam = {} if problem.exam_id is None else {"exam_id": problem.exam_id}
    return {"code": problem.code, "message": problem.message, **exam}


def prediction_schema() -> dict[str, Any]:
    """The JSON Schema of ``prediction.json``."""
    text = files("HCCNetLib.inference").joinpath("prediction.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
