"""What a prediction rests on: attention over exams, saliency over voxels, and what changed from exam to exam."""

from HCCNetLib.explanation.attention import GradientAttention
from HCCNetLib.explanation.change import Change, ChangeEvidence
from HCCNetLib.explanation.class_activation import ClassActivation, IntegratedActivation
from HCCNetLib.explanation.evidence import ALL, EnsembleEvidence, Evidence, ExamMaps, Peak, cell_affine, exam_maps
from HCCNetLib.explanation.explainer import Explainer
from HCCNetLib.explanation.integrated_gradients import IntegratedGradients
from HCCNetLib.explanation.methods import DEFAULT_METHOD, METHODS, make_explainer
from HCCNetLib.explanation.occlusion import Occlusion
from HCCNetLib.explanation.patient import PatientExplanation, PatientMaps

__all__ = [
    "ALL",
    "DEFAULT_METHOD",
    "METHODS",
    "Change",
    "ChangeEvidence",
    "ClassActivation",
    "EnsembleEvidence",
    "Evidence",
    "ExamMaps",
    "Explainer",
    "GradientAttention",
    "IntegratedActivation",
    "IntegratedGradients",
    "Occlusion",
    "PatientExplanation",
    "PatientMaps",
    "Peak",
    "cell_affine",
    "exam_maps",
    "make_explainer",
]
