"""What a frame shows: a magnitude image of a patient, or something that is no channel, whatever its words say."""

from __future__ import annotations

from HCCNetLib.readers.dicom.frames import MR_CLASSES, Frame

MAGNITUDE = ""

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
    "T1",
    "T2",
    "T2_STAR",
    "T2STAR",
    "R1",
    "R2",
    "R2_STAR",
    "B0",
    "B1",
    "PD",
    "QUANTITY",
    "STIFFNESS",
    "CONFIDENCE",
}
_COMPONENTS = {"P": "a phase image", "R": "a real image", "I": "an imaginary image"}

_DIXON = (({"IN_PHASE", "IP"}, "in"), ({"OPP_PHASE", "OUT_PHASE", "OP"}, "out"), ({"WATER", "W"}, "water"))


def kind_of(frame: Frame) -> str:
    """What a frame is that is no magnitude image, in words; empty for one that is."""
    words = frame.image_type[2:]
    if frame.modality and frame.modality != "MR":
        return f"no MR but {frame.modality}"
    if frame.is_colour:
        return "a colour image"
    if frame.sop_class and frame.sop_class not in MR_CLASSES:
        return "an object that is no MR image"
    if frame.component in _COMPONENTS:
        return _COMPONENTS[frame.component]
    for meanings, kind in _BY_WORD:
        if meanings & set(words):
            return kind
    if any(word.endswith(" MAP") or word.startswith("CALC") for word in words):
        return "a map or computed image"
    # The third word may be the contrast (T1) of any image; from the fourth on it is what was worked out.
    if _MAPS & set(words[1:]):
        return "a map"
    if "DERIVED" in frame.image_type[:1] and "MPR" in words:
        return "a reformatted image"
    return MAGNITUDE


def dixon_of(frame: Frame) -> str:
    """``in``, ``out`` or ``water`` of a Dixon or chemical-shift image, by its type; else empty."""
    words = set(frame.image_type[2:])
    found = [name for meanings, name in _DIXON if meanings & words]
    return found[0] if len(found) == 1 else ""
