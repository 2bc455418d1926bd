"""NIfTI images through nibabel: header checks first, voxels when they are asked for.

nibabel is imported with the first image: the Slicer module follows the same rules of assignment without it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HCCNetLib.records import PHANTOM_MARK, Affine, Box, Grid, Problem, Refusal

SUFFIXES = (".nii.gz", ".nii")

# Beyond these a header is taken to be wrong rather than the scanner to be special.
SMALLEST_SPACING_MM, LARGEST_SPACING_MM = 0.2, 20.0
LARGEST_SHEAR = 0.01  # |cosine| between two voxel axes
SMALLEST_LIVER_MM, LARGEST_LIVER_MM = 20.0, 500.0
LARGEST_VALUE = 1e9  # beyond any scanner's; squared it would overflow
LARGEST_DISAGREEMENT_MM = 1.0  # between the header's two orientations, at the image's corners


def _signs_of_damage() -> tuple[type[Exception], ...]:
    """What nibabel and those below it raise when they read a damaged file."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    return ImageFileError, HeaderDataError, OSError, EOFError, zlib.error, ValueError, OverflowError, MemoryError


@dataclass(frozen=True)
class FileImage:
    """One 3D image in a file, or one volume of a 4D file whose volumes are named.

    Args:
        path: the file, or the header whose data lie in another file beside it.
        shown: how messages call it: relative to what the user gave.
        volume: index along the axis that is no space, None for a 3D file.
    """

    path: Path
    shown: str
    volume: int | None = None

    @property
    def source(self) -> str:
        """What messages call this image."""
        return self.shown if self.volume is None else f"{self.shown} (volume {self.volume + 1})"


@dataclass(frozen=True)
class NiftiImage(FileImage):
    """An image in a NIfTI file; volumes lie along the 4th axis."""

    @cached_property
    def grid(self) -> Grid:
        """Shape and affine; raises Refusal where the header can't be trusted."""
        image = open_nifti(self.path, self.shown)
        shape = spatial_shape(image, self.shown, self.volume is not None)
        affine = np.asarray(image.affine, dtype=np.float64)
        _refuse_unknown_orientation(image, self.shown)
        check_affine(affine, self.shown)
        return Grid(shape, affine)

    @cached_property
    def is_phantom(self) -> bool:
        """Whether the header says that the image was generated; one that can't be read does not."""
        try:
            header = open_nifti(self.path, self.shown).header
        except Refusal:
            return False
        return bytes(header["descrip"].tobytes()).rstrip(b"\0") == PHANTOM_MARK.encode()

    def header_problems(self) -> list[Problem]:
        """What is odd in the header and yet usable; raises Refusal where it is not."""
        from nibabel.spatialimages import HeaderDataError

        grid = self.grid
        header = open_nifti(self.path, self.shown).header
        if int(header["sform_code"]) == 0 or int(header["qform_code"]) == 0:
            return []
        try:
            qform = header.get_qform()
        except (ValueError, HeaderDataError):  # a quaternion that rounding made longer than 1
            message = (
                f"{self.shown}: of the header's two orientations one (qform) is damaged; the other (sform) is used."
            )
            return [Problem("orientation_conflict", message)]
        if Grid(grid.shape, header.get_sform()).matches(Grid(grid.shape, qform), LARGEST_DISAGREEMENT_MM):
            return []
        message = (
            f"{self.shown}: the header holds two orientations (sform and qform) that differ by more than "
            f"{LARGEST_DISAGREEMENT_MM:g} mm; the sform is used. Check left and right in the pictures."
        )
        return [Problem("orientation_conflict", message)]

    def fingerprint(self) -> str:
        """SHA-256 of the file and the volume's number."""
        try:
            _refuse_endless(self.path, self.shown)
            with self.path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
        except OSError as error:
            raise Refusal("unreadable_file", f"{self.shown} can't be read any more. Check that it is there.") from error
        digest.update(f"volume {self.volume}".encode())
        return digest.hexdigest()

    def read(self) -> NDArray[np.float32]:
        """Voxels (X, Y, Z), slope and intercept applied.

        Raises:
            Refusal: truncated, unreadable, not finite, or beyond what a scanner makes.
        """
        grid = self.grid
        try:
            image = _open_checked(self.path)
            proxy = image.dataobj if self.volume is None else image.dataobj[..., self.volume]
            data = np.asarray(proxy, dtype=np.float32).reshape(grid.shape)
        except _signs_of_damage() as error:
            message = f"{self.source} is damaged or incomplete: its voxels can't be read. Export it again."
            raise Refusal("unreadable_file", message) from error
        refuse_unusable_voxels(data, self.source)
        return data


def _open_checked(path: Path) -> Any:
    """Opens an image for its voxels; of a gzip file the checksum is compared, which reading the voxels alone skips."""
    import nibabel as nib

    image: Any = nib.load(path)
    if path.suffix.lower() != ".gz":
        return image
    return type(image).from_bytes(gzip.decompress(path.read_bytes()))


def _refuse_endless(path: Path, shown: str) -> None:
    """A pipe would be waited for, and a device read, without end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise Refusal("not_a_file", f"{shown} is not an ordinary file. Put the image itself there.")


def open_nifti(path: Path, shown: str) -> Any:
    """Opens a NIfTI file's header; the image is nibabel's Nifti1Image or Nifti2Image.

    Raises:
        Refusal: not there, no permission, empty, not NIfTI.
    """
    import nibabel as nib

    try:
        _refuse_endless(path, shown)
        with path.open("rb"):  # nibabel does not tell a missing permission from a damaged file
            pass
        image = nib.load(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise Refusal("missing_file", f"{shown} does not exist. Check the name and the folder.") from error
    except PermissionError as error:
        raise Refusal("no_permission", f"{shown} can't be opened: no permission to read it.") from error
    except _signs_of_damage() as error:
        message = f"{shown} is not a readable NIfTI file: damaged, incomplete, or of another format. Export it again."
        raise Refusal("unreadable_file", message) from error
    if not isinstance(image, nib.Nifti1Pair):
        raise Refusal("not_nifti", f"{shown} is not a NIfTI image. Convert it to .nii.gz first.")
    return image


def spatial_shape(image: Any, shown: str, has_named_volumes: bool) -> tuple[int, int, int]:
    """The shape (X, Y, Z); refuses colour, complex, 2D and 4D images whose volumes have no names."""
    dtype = image.get_data_dtype()
    if dtype.fields is not None:
        raise Refusal("colour_image", f"{shown} is a colour image. Use the scanner's greyscale series.")
    if dtype.kind == "c":
        raise Refusal("complex_image", f"{shown} has complex voxels. Use the magnitude image.")
    shape = tuple(int(n) for n in image.shape)
    if not has_named_volumes:
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        if len(shape) > 3:
            raise unnamed_volumes(shown, shape[3], ".nii.gz")
    spatial = shape[:3]
    if len(spatial) < 3 or min(spatial) < 2:
        text = " × ".join(map(str, spatial))
        raise Refusal(
            "not_3d", f"{shown} is not a 3D volume ({text} voxels). Use the whole series, not one slice of it."
        )
    return spatial[0], spatial[1], spatial[2]


def unnamed_volumes(shown: str, count: int, suffix: str) -> Refusal:
    """What to say of a 4D file whose volumes have no names."""
    message = (
        f"{shown} has {count} volumes (4D) and nothing says which channel each is. Split it, name the channels in the "
        f"file name joined by '+' (DWI_b0+DWI_b150+…{suffix}), or put a .bval file beside it."
    )
    return Refusal("unnamed_volumes", message)


def _refuse_unknown_orientation(image: Any, shown: str) -> None:
    if int(image.header["sform_code"]) == 0 and int(image.header["qform_code"]) == 0:
        message = (
            f"{shown} does not say how it lies in the patient (sform and qform are both unset): left and right would be "
            f"a guess. Convert the original images again with a tool that keeps the orientation."
        )
        raise Refusal("unknown_orientation", message)


def check_affine(affine: Affine, shown: str) -> None:
    """Raises Refusal where voxels of this affine lie nowhere, too far apart, or on axes that are not at right angles."""
    advice = "Convert the original images again."
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or spacing.min() == 0:
        raise Refusal("bad_affine", f"{shown}: the header's position and orientation are not usable numbers. {advice}")
    if spacing.min() < SMALLEST_SPACING_MM or spacing.max() > LARGEST_SPACING_MM:
        text = " × ".join(f"{s:.3g}" for s in spacing)
        message = (
            f"{shown}: voxels of {text} mm are not plausible (expected {SMALLEST_SPACING_MM:g} to "
            f"{LARGEST_SPACING_MM:g} mm); the unit may be wrong. {advice}"
        )
        raise Refusal("implausible_spacing", message)
    directions = affine[:3, :3] / spacing
    if np.abs(directions.T @ directions - np.eye(3)).max() > LARGEST_SHEAR:
        message = f"{shown}: the voxel axes are not at right angles (gantry tilt or shear). Resample it to a right-angled grid."
        raise Refusal("sheared_grid", message)


def refuse_unusable_voxels(data: NDArray[np.float32], source: str) -> None:
    """Refuses NaN, infinity and values that no scanner makes: no statistic of them means anything."""
    finite = np.isfinite(data)
    if not finite.all():
        count = int(data.size - finite.sum())
        message = f"{source} has {count} voxels that are not numbers (NaN or infinite). Export it again or repair it."
        raise Refusal("not_finite", message)
    if np.abs(data).max() > LARGEST_VALUE:
        message = f"{source} has values beyond ±{LARGEST_VALUE:g}, which no scanner makes. Export it again."
        raise Refusal("implausible_values", message)


def read_box(path: Path, shown: str) -> Box:
    """A box around the liver from a JSON file: ``{"low_mm": [x, y, z], "high_mm": [x, y, z]}``, RAS+ millimetres."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        low, high = _corner(content["low_mm"]), _corner(content["high_mm"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _bad_box(shown) from error
    edges = [b - a for a, b in zip(low, high, strict=True)]
    if min(edges) < SMALLEST_LIVER_MM or max(edges) > LARGEST_LIVER_MM:
        text = " × ".join(f"{edge:.3g}" for edge in edges)
        message = (
            f"{shown}: a box of {text} mm can't hold a liver (expected {SMALLEST_LIVER_MM:g} to {LARGEST_LIVER_MM:g} mm; "
            f"low_mm must be below high_mm)."
        )
        raise Refusal("bad_box", message)
    return Box(low, high)


def _corner(values: Any) -> tuple[float, float, float]:
    if not isinstance(values, list) or not all(type(v) in (int, float) and np.isfinite(v) for v in values):
        raise TypeError("not a list of numbers")
    x, y, z = values
    return float(x), float(y), float(z)


def _bad_box(shown: str) -> Refusal:
    message = f'{shown} is not a box: expected {{"low_mm": [x, y, z], "high_mm": [x, y, z]}} in RAS millimetres.'
    return Refusal("bad_box", message)
