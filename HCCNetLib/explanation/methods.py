"""The methods by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from HCCNetLib.explanation.class_activation import ClassActivation, IntegratedActivation
from HCCNetLib.explanation.explainer import Explainer
from HCCNetLib.explanation.integrated_gradients import IntegratedGradients
from HCCNetLib.explanation.occlusion import Occlusion
from HCCNetLib.models import STAGES

METHODS: Mapping[str, Callable[[], Explainer]] = {
    **{f"class-activation-{stage}": partial(ClassActivation, stage) for stage in range(1, STAGES + 1)},
    IntegratedActivation.key: IntegratedActivation,
    IntegratedGradients.key: IntegratedGradients,
    Occlusion.key: Occlusion,
}
# Of the methods that cost few passes, the one whose peak lay inside a lesion most often: see `hccnet explain-check`.
DEFAULT_METHOD = IntegratedActivation.key


def make_explainer(name: str) -> Explainer:
    """The method of a name of ``METHODS``."""
    return METHODS[name]()
