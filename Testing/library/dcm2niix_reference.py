"""dcm2niix as a second opinion on DICOM: what it makes of a folder, compared with what the library finds in it.

    python Testing/library/dcm2niix_reference.py FOLDER [FOLDER ...]

prints a table of what dcm2niix makes of each folder's series.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dcm2niix
import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import NDArray

from HCCNetLib.records import Grid

TOLERANCE_MM = 1e-3

# One output per series, echo and phase and no more: nothing cropped or turned (-x i), joined across echoes (-m n), left out
# (-i n) or scaled anew (-l o); uncompressed (-z n), with dates and UIDs in the sidecar (-ba n). Of Philips' images the values
# are the precise ones, a multiple of those by the rescale slope: with -p n slopes that differ from slice to slice are ignored.
_FLAGS = "-b y -ba n -z n -x i -m n -i n -l o -w 2 -f %s_%j"

# Slices at uneven distances resampled to even ones: an invention beside the image itself.
_RESAMPLED = "_Eq"


@dataclass(frozen=True)
class Converted:
    """One file that dcm2niix wrote.

    Args:
        path: of the NIfTI file.
        sidecar: of the JSON file beside it.
        b_values: s/mm², one per volume; empty where it says none.
    """

    path: Path
    sidecar: dict[str, Any]
    b_values: tuple[float, ...]

    @property
    def series_uid(self) -> str:
        """(0020,000E)."""
        return str(self.sidecar.get("SeriesInstanceUID", ""))

    @property
    def grid(self) -> Grid:
        """Of each of its volumes."""
        image: Any = nib.load(self.path)
        x, y, z = image.shape[:3]
        return Grid((x, y, z), np.asarray(image.affine, dtype=np.float64))

    def volumes(self) -> list[NDArray[np.float32]]:
        """(X, Y, Z) each, slope and intercept applied."""
        image: Any = nib.load(self.path)
        data = np.asarray(image.dataobj, dtype=np.float32)
        return [data] if data.ndim == 3 else list(np.moveaxis(data, 3, 0))


@dataclass(frozen=True)
class Conversion:
    """What dcm2niix made of a folder, and its warnings and errors."""

    files: tuple[Converted, ...]
    notes: tuple[str, ...]


def convert(folder: Path, out: Path, depth: int = 9) -> Conversion:
    """Runs dcm2niix on a folder and what lies in it to ``depth``; a folder without images gives no file."""
    out.mkdir(parents=True, exist_ok=True)
    # Defaults of whoever runs this must not count (-g i).
    command = [dcm2niix.bin, "-g", "i", *_FLAGS.split(), "-d", str(depth), "-o", str(out), str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=300)
    paths = [path for path in sorted(out.glob("*.nii")) if _RESAMPLED not in path.stem]
    lines = (result.stdout + result.stderr).splitlines()
    notes = [line.replace(str(folder), "…") for line in lines if line.startswith(("Warning", "Error", "Unsupported"))]
    return Conversion(tuple(_converted(path) for path in paths), tuple(dict.fromkeys(notes)))


def _converted(path: Path) -> Converted:
    sidecar, b_values = path.with_suffix(".json"), path.with_suffix(".bval")
    return Converted(
        path,
        json.loads(sidecar.read_text(errors="replace")) if sidecar.exists() else {},
        tuple(float(value) for value in b_values.read_text().split()) if b_values.exists() else (),
    )


def same_geometry(found: Grid, converted: Converted) -> str | None:
    """What differs between two grids of the same voxels in whatever order of axes, or None."""
    ours, theirs = canonical(found), canonical(converted.grid)
    if ours.shape != theirs.shape:
        return f"shape {ours.shape} and {theirs.shape}"
    difference = float(np.abs(ours.affine - theirs.affine).max())
    return f"affines differ by {difference:.3g} mm" if difference > TOLERANCE_MM else None


def same_voxels(
    data: NDArray[Any], found: Grid, volume: NDArray[Any], converted: Converted, tolerance: float
) -> str | None:
    """What differs between two volumes of the same grid, or None; ``tolerance`` is absolute."""
    difference = np.abs(turned(data, found) - turned(volume, converted.grid))
    largest = float(difference.max())
    return f"values differ by {largest:.6g}" if not largest <= tolerance else None


def canonical(grid: Grid) -> Grid:
    """The grid with its axes in the order and direction nearest to RAS+."""
    orientation = io_orientation(grid.affine)
    x, y, z = (grid.shape[i] for i in np.argsort(orientation[:, 0]))
    return Grid((x, y, z), grid.affine @ inv_ornt_aff(orientation, grid.shape))


def turned(data: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """A grid's voxels with axes in the order and direction nearest to RAS+."""
    result: NDArray[Any] = apply_orientation(data, io_orientation(grid.affine))
    return result


def describe(converted: Converted) -> str:
    """One output in words."""
    image: Any = nib.load(converted.path)
    spacing = "×".join(f"{size:.3g}" for size in converted.grid.spacing)
    letters = "".join(str(code) for code in nib.aff2axcodes(converted.grid.affine))
    b_values = ", b " + " ".join(f"{b:g}" for b in converted.b_values) if converted.b_values else ""
    return f"{'×'.join(map(str, image.shape))} of {spacing} mm, {letters}{b_values}"


def table(folders: Sequence[Path], out: Path) -> list[str]:
    """A Markdown table: what dcm2niix makes of the files that lie directly in each folder."""
    rows = ["| folder | outputs | notes |", "|---|---|---|"]
    for number, folder in enumerate(folders):
        conversion = convert(folder, out / str(number), depth=0)
        outputs = "<br>".join(describe(converted) for converted in conversion.files) or "none"
        name = "/".join(folder.parts[-4:])
        rows.append(f"| {name} | {outputs} | {'<br>'.join(conversion.notes)} |")
    return rows


def main() -> None:
    """Prints the table of every folder below the given ones that holds files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    roots = parser.parse_args().folders
    folders = sorted({path.parent for root in roots for path in root.rglob("*") if path.is_file()})
    with tempfile.TemporaryDirectory() as out:
        print("\n".join(table(folders, Path(out))))


if __name__ == "__main__":
    main()
