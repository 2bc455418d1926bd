"""Exam → PreparedExam: tensors for the network, with the way back to the patient."""

from HCCNetLib.preprocessing.configuration import PreprocessingConfig
from HCCNetLib.preprocessing.inverse import map_to_exam
from HCCNetLib.preprocessing.pipeline import PreparedExam, prepare_exam, prepare_patient

__all__ = ["PreparedExam", "PreprocessingConfig", "map_to_exam", "prepare_exam", "prepare_patient"]
