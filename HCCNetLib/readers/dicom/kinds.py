"""What a frame shows: a magnitude image of a patient, or something that is no channel, whatever its words say."""

from __future__ import annotations

from HCCNetLib.readers.dicom.frames import MR_CLASSES, Frame
from HCCNetLib.readers.image_types import KIND_OF_COMPONENT, kind_of_type

MAGNITUDE = ""


def kind_of(frame: Frame) -> str:
    """What a frame is that is no magnitude image, in words; empty for one that is."""
    if frame.modality and frame.modality != "MR":
        return f"no MR but {frame.modality}"
    if frame.is_colour:
        return "a colour image"
    if frame.is_inverted:
        return "a negative: dark is stored as bright"
    if frame.sop_class and frame.sop_class not in MR_CLASSES:
        return "an object that is no MR image"
    return KIND_OF_COMPONENT.get(frame.component) or kind_of_type(frame.image_type)
