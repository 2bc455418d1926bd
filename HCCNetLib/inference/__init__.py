"""Patient + bundle → Prediction."""

from HCCNetLib.inference.prediction import NOTICE, ExamResult, Prediction, prediction_schema
from HCCNetLib.inference.predictor import (
    MAP_STAGE,
    EncodedSequence,
    MemberObserver,
    Predictor,
    Progress,
    Stopwatch,
    choose_device,
    software_versions,
)

__all__ = [
    "MAP_STAGE",
    "NOTICE",
    "EncodedSequence",
    "ExamResult",
    "MemberObserver",
    "Prediction",
    "Predictor",
    "Progress",
    "Stopwatch",
    "choose_device",
    "prediction_schema",
    "software_versions",
]
