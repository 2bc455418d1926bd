"""The methods by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from HCCNetLib.explanation.class_activation import ClassActivation
from HCCNetLib.explanation.explainer import Explainer
from HCCNetLib.explanation.integrated_gradients import IntegratedGradients
from HCCNetLib.explanation.occlusion import Occlusion
from HCCNetLib.models import STAGES

METHODS: Mapping[str, Callable[[], Explainer]] = {
    **{f"class-activation-{stage}": partial(ClassActivation, stage) for stage in range(1, STAGES + 1)},
    IntegratedGradients.key: IntegratedGradients,
    Occlusion.key: Occlusion,
}
# At the cost of less than three passes its peak is in or at the lesion most often: see `hccnet explain-check`.
DEFAULT_METHOD = "class-activation-1"


def make_explainer(name: str) -> Explainer:
    """The method of a name of ``METHODS``."""
    return METHODS[name]()
