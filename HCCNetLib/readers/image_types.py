"""What the words of Image Type (0008,0008) or Frame Type say that an image is."""

from __future__ import annotations

from collections.abc import Sequence

# Words of Image Type or Frame Type, capitals, and what a frame with one of them is. Order matters: the first that fits.
_BY_WORD = (
    ({"MOSAIC"}, "a mosaic of slices"),
    ({"LOCALIZER"}, "a localizer"),
    ({"P", "PHASE", "PHASE MAP", "PHASE_MAP", "VELOCITY MAP"}, "a phase image"),
    ({"R", "REAL"}, "a real image"),
    ({"I", "IMAGINARY"}, "an imaginary image"),
    ({"ADC", "ADC_UNSPECIFIED", "EADC", "E_ADC", "EXPONENTIAL"}, "a map of diffusion"),
    ({"FA", "TENSOR", "COLFA", "VR", "RA"}, "a map of the diffusion tensor"),
    ({"SUBTRACT", "SUBTRACTION", "SUB"}, "a subtraction"),
    ({"MIP", "MINIP", "PROJECTION IMAGE", "MAX_IP", "MIN_IP", "MAXIMUM", "MINIMUM"}, "a projection"),
    ({"FF", "FAT_FRACTION", "FAT FRACTION", "WF"}, "a map of fat"),
    ({"F", "FAT"}, "a fat image"),
    ({"SCREEN SAVE", "SCREENSHOT"}, "a screenshot"),
)
_MAPS = {
    *("T1", "T2", "T2_STAR", "T2STAR", "R1", "R2", "R2_STAR", "B0", "B1", "PD"),
    *("QUANTITY", "STIFFNESS", "CONFIDENCE"),
}
# Values of Complex Image Component (0008,9208).
KIND_OF_COMPONENT = {"PHASE": "a phase image", "REAL": "a real image", "IMAGINARY": "an imaginary image"}

_DIXON = (({"IN_PHASE", "IP"}, "in"), ({"OPP_PHASE", "OUT_PHASE", "OP"}, "out"), ({"WATER", "W"}, "water"))


def kind_of_type(image_type: Sequence[str]) -> str:
    """What an image is that is no magnitude image of a patient, in words; empty for one that is.

    Args:
        image_type: the values, in capitals.
    """
    words = image_type[2:]
    for meanings, kind in _BY_WORD:
        if meanings & set(words):
            return kind
    if any(word.endswith(" MAP") or word.startswith("CALC") for word in words):
        return "a map or computed image"
    # The third word may be the contrast (T1) of any image; from the fourth on it is what was worked out.
    if _MAPS & set(words[1:]):
        return "a map"
    return "a reformatted image" if "DERIVED" in image_type[:1] and "MPR" in words else ""


def dixon_of_type(image_type: Sequence[str]) -> str:
    """``in``, ``out`` or ``water`` of a Dixon or chemical-shift image; else empty."""
    found = [name for meanings, name in _DIXON if meanings & set(image_type[2:])]
    return found[0] if len(found) == 1 else ""
