"""Patient + bundle → Prediction."""

from HCCNetLib.inference.prediction import NOTICE, ExamResult, Prediction, prediction_schema
from HCCNetLib.inference.predictor import (
    EncodedSequence,
    MemberObserver,
    Predictor,
    Progress,
    Reading,
    Stopwatch,
    choose_device,
    full_gpu,
    software_versions,
)

__all__ = [
    "NOTICE",
    "EncodedSequence",
    "ExamResult",
    "MemberObserver",
    "Prediction",
    "Predictor",
    "Progress",
    "Reading",
    "Stopwatch",
    "choose_device",
    "full_gpu",
    "prediction_schema",
    "software_versions",
]
