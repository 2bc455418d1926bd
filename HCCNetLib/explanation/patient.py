"""One patient's explanation, from what is asked of the networks to what the prediction says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy import float32
from numpy.typing import NDArray

from HCCNetLib.bundles import BundleDescription
from HCCNetLib.explanation.attention import GradientAttention
from HCCNetLib.explanation.change import ChangeEvidence
from HCCNetLib.explanation.evidence import EnsembleEvidence, Evidence, ExamMaps, exam_maps
from HCCNetLib.explanation.explainer import Explainer
from HCCNetLib.inference import MemberObserver, Prediction
from HCCNetLib.preprocessing import PreparedExam
from HCCNetLib.records import Problem

_HOW_DRAWN = "Mean over the networks; what raises and what lowers the output apart, both on one scale for all exams of the patient."


@dataclass(frozen=True)
class PatientMaps:
    """Every map of a patient, each on its exam's own grid.

    Args:
        exams: evidence per exam, in the order of the exams; None for one that the networks do not read.
        changes: per exam, what raised and what lowered the output compared with the previous exam, (X, Y, Z) each, 0–1 on
            one scale for the patient; zeros for the first exam.
    """

    exams: tuple[ExamMaps | None, ...]
    changes: tuple[tuple[NDArray[float32], NDArray[float32]], ...]


class PatientExplanation:
    """Attention by gradient and, with a method, maps and changes; made anew for each prediction.

    Args:
        description: of the bundle that predicts.
        explainer: makes the maps; None for attention alone.
        check: what is known of the method's faithfulness with this bundle (``find_check``), or None.
    """

    def __init__(
        self, description: BundleDescription, explainer: Explainer | None, check: Mapping[str, Any] | None = None
    ) -> None:
        self._description = description
        self._check = check
        self._attention = GradientAttention()
        self._evidence = EnsembleEvidence(explainer) if explainer else None
        self._change = ChangeEvidence() if explainer else None

    @property
    def observers(self) -> list[MemberObserver]:
        """To be given to the predictor."""
        made: list[MemberObserver | None] = [self._attention, self._evidence, self._change]
        return [observer for observer in made if observer is not None]

    def complete(
        self, prediction: Prediction, prepared: Sequence[PreparedExam]
    ) -> tuple[Prediction, PatientMaps | None]:
        """The prediction with what explains it, and the maps.

        Args:
            prediction: made with ``observers``.
            prepared: the same exams.
        """
        prediction = self._with_attention(prediction)
        if self._evidence is None or self._change is None:
            return prediction, None
        evidence = self._evidence.result()
        of_exams = exam_maps(evidence, prepared, self._description.channels)
        read = self._evidence.read
        maps = PatientMaps(
            tuple(one if n in read else None for n, one in enumerate(of_exams)), self._change.maps(prepared)
        )
        exams = tuple(
            replace(exam, peak=_peak(of_exam)) for exam, of_exam in zip(prediction.exams, maps.exams, strict=True)
        )
        completed = replace(
            prediction,
            exams=exams,
            changes=self._changes(prediction, self._change),
            explanation={
                **self._describe(evidence, self._evidence.explainer),
                "scale_logit": of_exams[-1].scale,
                "change_scale_logit": self._change.scale(prepared),
            },
            warnings=(*prediction.warnings, *_warnings(maps)),
        )
        return completed, maps

    def _with_attention(self, prediction: Prediction) -> Prediction:
        shares = self._attention.shares()
        if shares is None:
            return prediction
        exams = zip(prediction.exams, shares.tolist(), strict=True)
        return replace(prediction, exams=tuple(replace(exam, attention_gradient=share) for exam, share in exams))

    def _changes(self, prediction: Prediction, change: ChangeEvidence) -> tuple[Mapping[str, Any], ...]:
        points = prediction.trajectory
        return tuple(
            {
                "from": before["as_of"],
                "to": after["as_of"],
                "risk_from": before["risk"],
                "risk_to": after["risk"],
                "logit": numbers.logit,
                "by_dates": numbers.by_dates,
                "by_picture": numbers.by_picture,
            }
            for before, after, numbers in zip(points[:-1], points[1:], change.changes(), strict=True)
        )

    def _describe(self, evidence: Evidence, explainer: Explainer) -> dict[str, Any]:
        preprocessing = self._description.preprocessing
        voxels = explainer.resolution_voxels(preprocessing.crop_voxels)
        return {
            "method": explainer.title,
            "description": f"{explainer.description} {_HOW_DRAWN}",
            "key": explainer.key,
            "resolution_mm": voxels * preprocessing.spacing_mm,
            "passes": round(explainer.passes(self._description.model), 1),
            "agreement": evidence.agreement,
            "check": None if self._check is None else dict(self._check),
        }


def _peak(maps: ExamMaps | None) -> Mapping[str, Any] | None:
    if maps is None or maps.peak is None:
        return None
    peak = maps.peak
    return {"mm": [round(v, 3) for v in peak.mm], "value": min(peak.value, 1.0), "members": peak.members}


def _warnings(maps: PatientMaps) -> list[Problem]:
    if any(of_exam is not None and of_exam.peak is not None for of_exam in maps.exams):
        return []
    return [Problem("empty_maps", "No voxel speaks for a higher risk: the maps of what raises the output are empty.")]
