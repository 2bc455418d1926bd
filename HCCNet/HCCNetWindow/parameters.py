"""The user's choices, which are saved with the scene; the table of exams is kept beside them (``table_storage``)."""

from __future__ import annotations

from typing import Annotated

from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

# As `hccnet predict --method` has them, the default first; the library's own list stands beside torch.
METHODS = (
    "integrated-activation",
    *("class-activation-1", "class-activation-2", "class-activation-3", "class-activation-4"),
    *("integrated-gradients", "occlusion"),
)
DEVICES = ("auto", "cpu", "cuda")
EXPLANATIONS = ("saliency", "attention", "none")


@parameterNodeWrapper
class HCCNetParameters:
    """What the user chose.

    Args:
        bundle: the bundle's folder; empty: the demonstration bundle.
        explain: of ``EXPLANATIONS``.
        method: of ``METHODS``.
        device: of ``DEVICES``.
        threshold: share of the strongest evidence below which a map is not drawn.
        opacity: of the maps.
        showField: whether the box that was read is outlined.
    """

    bundle: str = ""
    explain: str = EXPLANATIONS[0]
    method: str = METHODS[0]
    device: str = DEVICES[0]
    threshold: Annotated[float, WithinRange(0, 1)] = 0.15
    opacity: Annotated[float, WithinRange(0, 1)] = 0.6
    showField: bool = False  # noqa: N815 - Slicer's style: the window's file names it so
