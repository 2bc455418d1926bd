"""The networks: ConvNeXt3d, the transformer over dated exams, HCCNet."""

from HCCNetLib.models.convnext3d import STAGES, VARIANTS, ConvNeXt3d, stage_stride
from HCCNetLib.models.hazards import risk_logits
from HCCNetLib.models.hccnet import HCCNet, ModelConfig
from HCCNetLib.models.time_encoding import time_encoding

__all__ = ["STAGES", "VARIANTS", "ConvNeXt3d", "HCCNet", "ModelConfig", "risk_logits", "stage_stride", "time_encoding"]
