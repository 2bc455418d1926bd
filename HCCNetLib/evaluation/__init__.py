"""How well risks foretell: which exams have a label, discrimination, calibration, thresholds, with intervals. No torch."""

from __future__ import annotations

from HCCNetLib.evaluation.landmarks import Landmarks, find_landmarks

__all__ = ["Landmarks", "find_landmarks"]
