"""What each vendor writes in a place of its own: b-value, direction of the gradient, component of complex values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from HCCNetLib.readers.dicom import attributes as at
from HCCNetLib.readers.dicom.values import Values, as_whole, find_in, first_number, vector_of
from HCCNetLib.readers.series import GE_OFFSET, plausible_b_value


def b_value_of_frame(tags: Values, places: Sequence[Values]) -> float | None:
    """s/mm²: the standard's place, also nested, then the vendors' own."""
    candidates = [find_in(tags, places, at.B_VALUE)]
    for item in tags.items(at.PHILIPS_CLASSIC)[:1]:
        candidates.append(find_in(item, [item], at.B_VALUE))
    for item in tags.items(at.DIFFUSION_GROUP)[:1]:
        candidates.append(item.value(at.B_VALUE))
    for place in (*places, tags):
        candidates += [place.private(private) for private in at.B_OF_VENDORS]
    for candidate in candidates:
        number = plausible_b_value(candidate if isinstance(candidate, float) else first_number(candidate))
        if number is not None:
            return number
    number = first_number(tags.private(at.GE_B))
    if number is not None:
        return plausible_b_value(math.fmod(number, GE_OFFSET))
    return 0.0 if "NONE" in _directionality(tags, places) else None


def _directionality(tags: Values, places: Sequence[Values]) -> set[str]:
    """``NONE`` (b = 0), ``DIRECTIONAL`` or ``ISOTROPIC``, where something says so."""
    values = (find_in(tags, places, at.DIRECTIONALITY), tags.private(at.SIEMENS_DIRECTIONALITY))
    return {str(value).strip().upper() for value in values if value}


def direction_of(tags: Values, places: Sequence[Values]) -> str:
    """Of the diffusion gradient, only to tell directions apart; ``isotropic`` of a trace image."""
    if (
        "ISOTROPIC" in _directionality(tags, places)
        or str(tags.private(at.PHILIPS_DIRECTION) or "").strip().upper() == "I"
    ):
        return "isotropic"
    nested = [item for place in (*places, tags) for item in place.items(at.DIFFUSION_GROUP)]
    gradients = [item.value(at.GRADIENT) for group in nested for item in group.items(at.GRADIENT_GROUP)]
    gradients += [tags.value(at.GRADIENT), tags.private(at.SIEMENS_GRADIENT), tags.private(at.UIH_GRADIENT)]
    ge = [first_number(tags.private(part)) for part in at.GE_GRADIENT]
    gradients.append(None if None in ge else ge)
    for gradient in gradients:
        vector = vector_of(gradient, 3)
        if vector is not None and any(vector):
            return " ".join(f"{part:+.3f}" for part in vector)
    return ""


def component_of(tags: Values, complex_component: Any) -> str:
    """A value of Complex Image Component; GE writes a number of its own."""
    code = as_whole(tags.private(at.GE_COMPONENT))
    of_ge = {0: "MAGNITUDE", 1: "PHASE", 2: "REAL", 3: "IMAGINARY"}.get(-1 if code is None else code, "")
    return str(complex_component or "").strip().upper() or of_ge
