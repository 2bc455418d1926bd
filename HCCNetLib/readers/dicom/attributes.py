"""The attributes that frames are made of: tags of the standard, functional groups, and vendors' own elements."""

from __future__ import annotations

from dataclasses import dataclass


def _tag(group: int, element: int) -> int:
    return group << 16 | element


SHARED, PER_FRAME = _tag(0x5200, 0x9229), _tag(0x5200, 0x9230)
PATIENT_ID, BIRTH_DATE, COMMENTS = _tag(0x10, 0x20), _tag(0x10, 0x30), _tag(0x20, 0x4000)
# The character set is looked up by nobody, but files that differ in it do not say the same.
PATIENT_NAME, CHARACTER_SET = _tag(0x10, 0x10), _tag(0x8, 0x5)
STUDY_UID, SERIES_UID, INSTANCE_UID = _tag(0x20, 0xD), _tag(0x20, 0xE), _tag(0x8, 0x18)
STUDY_DATE, SERIES_DATE, ACQUISITION_DATE, CONTENT_DATE = (_tag(0x8, e) for e in (0x20, 0x21, 0x22, 0x23))
STUDY_TIME, SERIES_TIME, ACQUISITION_TIME, CONTENT_TIME = (_tag(0x8, e) for e in (0x30, 0x31, 0x32, 0x33))
ACQUISITION_DATETIME, FRAME_DATETIME = _tag(0x8, 0x2A), _tag(0x18, 0x9074)
SERIES_NUMBER, ACQUISITION_NUMBER, INSTANCE_NUMBER = _tag(0x20, 0x11), _tag(0x20, 0x12), _tag(0x20, 0x13)
DESCRIPTION, PROTOCOL = _tag(0x8, 0x103E), _tag(0x18, 0x1030)
MODALITY, SOP_CLASS = _tag(0x8, 0x60), _tag(0x8, 0x16)
SEX, ISSUER, PHOTOMETRIC, BODY_PART = _tag(0x10, 0x40), _tag(0x10, 0x21), _tag(0x28, 0x4), _tag(0x18, 0x15)
ROWS, COLUMNS, SAMPLES, FRAMES = _tag(0x28, 0x10), _tag(0x28, 0x11), _tag(0x28, 0x2), _tag(0x28, 0x8)
IMAGE_TYPE, FRAME_TYPE, COMPONENT = _tag(0x8, 0x8), _tag(0x8, 0x9007), _tag(0x8, 0x9208)
POSITION, ORIENTATION, SPACING = _tag(0x20, 0x32), _tag(0x20, 0x37), _tag(0x28, 0x30)
B_VALUE, DIRECTIONALITY, GRADIENT = _tag(0x18, 0x9087), _tag(0x18, 0x9075), _tag(0x18, 0x9089)
ECHO_TIME, EFFECTIVE_ECHO_TIME = _tag(0x18, 0x81), _tag(0x18, 0x9082)
INVERSION_TIME, INVERSION_TIMES = _tag(0x18, 0x82), _tag(0x18, 0x9079)
TEMPORAL_POSITION, TEMPORAL_INDEX = _tag(0x20, 0x100), _tag(0x20, 0x9128)
TRIGGER_TIME, TRIGGER_DELAY = _tag(0x18, 0x1060), _tag(0x20, 0x9153)
DIMENSIONS, THICKNESS = _tag(0x20, 0x9157), _tag(0x18, 0x50)
CONTRAST_TIME, FIELD_STRENGTH = _tag(0x18, 0x1042), _tag(0x18, 0x87)
SLOPE, INTERCEPT = _tag(0x28, 0x1053), _tag(0x28, 0x1052)

# Functional groups, by what is looked up in them; the diffusion group nests the gradient once more.
GROUPS = {
    FRAME_TYPE: _tag(0x18, 0x9226),
    COMPONENT: _tag(0x18, 0x9226),
    POSITION: _tag(0x20, 0x9113),
    ORIENTATION: _tag(0x20, 0x9116),
    SPACING: _tag(0x28, 0x9110),
    THICKNESS: _tag(0x28, 0x9110),
    B_VALUE: _tag(0x18, 0x9117),
    DIRECTIONALITY: _tag(0x18, 0x9117),
    EFFECTIVE_ECHO_TIME: _tag(0x18, 0x9114),
    INVERSION_TIMES: _tag(0x18, 0x9115),
    TEMPORAL_INDEX: _tag(0x20, 0x9111),
    FRAME_DATETIME: _tag(0x20, 0x9111),
    DIMENSIONS: _tag(0x20, 0x9111),
    TRIGGER_DELAY: _tag(0x18, 0x9118),
    SLOPE: _tag(0x28, 0x9145),
    INTERCEPT: _tag(0x28, 0x9145),
}
DIFFUSION_GROUP, GRADIENT_GROUP = _tag(0x18, 0x9117), _tag(0x18, 0x9076)
PHILIPS_CLASSIC = _tag(0x2005, 0x140F)  # a Philips classic file repeats some functional groups in it


@dataclass(frozen=True)
class Private:
    """A vendor's own element: its group, the low byte of its number, whose block it is in, and how its bytes are read."""

    group: int
    element: int
    creator: str
    form: str = ""  # of struct, where an implicit representation leaves raw numbers; else text


SIEMENS_B = Private(0x19, 0x0C, "siemens mr header")
SIEMENS_DIRECTIONALITY = Private(0x19, 0x0D, "siemens mr header")
SIEMENS_GRADIENT = Private(0x19, 0x0E, "siemens mr header", "<3d")
PHILIPS_B = Private(0x2001, 0x03, "philips imaging dd 001", "<f")
PHILIPS_DIRECTION = Private(0x2001, 0x04, "philips imaging dd 001")
UIH_B = Private(0x65, 0x09, "image private header", "<d")
UIH_GRADIENT = Private(0x65, 0x37, "image private header", "<3d")
GE_B = Private(0x43, 0x39, "gems_parm_01")
GE_COMPONENT = Private(0x43, 0x2F, "gems_parm_01", "<h")
GE_GRADIENT = tuple(Private(0x19, e, "gems_acqu_01", "<d") for e in (0xBB, 0xBC, 0xBD))
PRIVATE = (
    *(SIEMENS_B, SIEMENS_DIRECTIONALITY, SIEMENS_GRADIENT, PHILIPS_B, PHILIPS_DIRECTION, UIH_B, UIH_GRADIENT),
    *(GE_B, GE_COMPONENT, *GE_GRADIENT),
)
BLOCKS = range(0x10, 0x18)
B_OF_VENDORS = (SIEMENS_B, PHILIPS_B, UIH_B)


def _tags_read() -> frozenset[int]:
    """All tags that a frame is made of."""
    public = [value for name, value in globals().items() if name.isupper() and type(value) is int]
    private = [p.group << 16 | b << 8 | p.element for p in PRIVATE for b in BLOCKS]
    creators = [p.group << 16 | b for p in PRIVATE for b in BLOCKS]
    return frozenset(v for v in (*public, *GROUPS.values(), *private, *creators) if v > 0xFFFF)


READ = _tags_read()
