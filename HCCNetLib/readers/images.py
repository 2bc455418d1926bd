"""Image files of every format that is read: which they are, and how they are opened."""

from __future__ import annotations

from pathlib import Path

from HCCNetLib.readers import nifti, nrrd
from HCCNetLib.readers.nifti import NiftiImage, open_nifti
from HCCNetLib.readers.nrrd import NrrdImage, open_nrrd
from HCCNetLib.records import Image, Refusal

LIVER_MASK, LIVER_BOX = "liver_mask", "liver_box"

SUFFIXES = (*nifti.SUFFIXES, *nrrd.SUFFIXES)
_SEGMENTATION = ".seg"  # 3D Slicer saves label maps as .seg.nrrd


def image_stem(path: Path) -> str | None:
    """The file name without the suffix of an image that is read here, or None for other files."""
    for suffix in SUFFIXES:
        if path.name.lower().endswith(suffix):
            stem = path.name[: -len(suffix)]
            return LIVER_MASK if stem == LIVER_MASK + _SEGMENTATION else stem
    return None


def open_image(path: Path, shown: str, volume: int | None = None) -> Image:
    """An image by its suffix; nothing is read yet.

    Args:
        path: the file.
        shown: how messages call it: relative to what the user gave.
        volume: which volume of a 4D file, None for a 3D file.
    """
    return NrrdImage(path, shown, volume) if _is_nrrd(path) else NiftiImage(path, shown, volume)


def volume_count(path: Path, shown: str) -> int | None:
    """How many volumes a 4D file has, None of a 3D file; raises Refusal where the header can't be read."""
    if _is_nrrd(path):
        return open_nrrd(path, shown).volume_count
    shape = open_nifti(path, shown).shape
    if len(shape) > 4:
        raise Refusal("not_3d", f"{shown} has {len(shape)} dimensions. Split it into 3D volumes.")
    return int(shape[3]) if len(shape) == 4 else None


def b_values_in_header(path: Path, shown: str) -> list[float] | None:
    """The b-values (s/mm²) of a file's volumes, where its format can hold them and they are there."""
    if not _is_nrrd(path):
        return None
    try:
        return nrrd.b_values_in_header(open_nrrd(path, shown))
    except Refusal:  # whoever reads the image is told
        return None


def _is_nrrd(path: Path) -> bool:
    return path.name.lower().endswith(nrrd.SUFFIXES)
