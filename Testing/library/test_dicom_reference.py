"""Every series of real DICOM, read beside dcm2niix: what it is, where it lies, and what its voxels are.

The tables say what each folder's series is. Geometry is compared by value with what dcm2niix makes of the same files, and so
are voxels; where the two differ in what they take for an image, the row says why.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from dcm2niix_reference import Conversion, Converted, convert, same_geometry, turned
from numpy.typing import NDArray

from HCCNetLib.readers import read_input
from HCCNetLib.readers.dicom.files import is_dicom, quietly, read_header, walk
from HCCNetLib.readers.dicom.frames import frames_of
from HCCNetLib.readers.dicom.image import image_of
from HCCNetLib.readers.dicom.stacks import Stack, stacks_of
from HCCNetLib.records import Exam, Grid, Refusal

COMMITTED = Path(__file__).resolve().parents[1] / "data" / "dicom"
RELATIVE_ROUNDING = 1e-6  # of the largest value: both compute in single precision

# Values: as dcm2niix has them, or, of Philips' images, up to the factor between displayed and precise values.
SAME, UP_TO_A_FACTOR = "same", "up to a factor"
DIRECTION = "one of several diffusion directions"
NUMBERED = "one of several images that nothing but numbers tell apart"
SLICE = "is not a 3D volume ({} voxels). Use the whole series."
GAP = "lacks 1 slice between its slices {} (a gap of 6 mm where 3 mm is usual). Export the whole series again."
REPEATED = (
    "several images lie at one place and nothing tells them apart. Export the series again, or name one image per "
    "volume by hand."
)


@dataclass(frozen=True)
class Row:
    """Volumes of a series that differ in nothing that is told here.

    Args:
        b_value: s/mm², or None.
        shape: voxels along a row, along a column, through the slices; None where there is no grid.
        spacing: mm.
        letters: where the axes point to.
        unfit: why it is no channel, whatever it is called; empty where it may be one.
        times: how many of them there are.
        values: how its voxels relate to those of dcm2niix; empty where they are not compared.
    """

    b_value: float | None
    shape: tuple[int, int, int] | None
    spacing: tuple[float, float, float] = (0.0, 0.0, 0.0)
    letters: str = "LPS"
    unfit: str = ""
    times: int = 1
    values: str = SAME


def rows(b_values: Sequence[float | None], *parts: Any) -> list[Row]:
    """A row for each b-value."""
    return [Row(b, *parts) for b in b_values]


_T2, _DWI, _DYNAMIC = (
    ((384, 384, 19), (0.5, 0.5, 3.0)),
    ((84, 128, 19), (2.0, 2.0, 3.0)),
    ((160, 160, 20), (1.625, 1.625, 3.6)),
)
_DWI_0218 = ((160, 130, 20), (1.625, 1.625, 3.6))
_SAGITTAL = ((256, 256, 4), (1.0, 1.0, 1.0), "PIR")
_MOLLI = ((128, 128, 1), (3.0, 3.0, 5.0), "LIP")
_FIRST, _SECOND, _VENDOR = "ProstateX-0000/07-07-2011", "ProstateX-0218/02-18-2011", "vendor-headers"

SHARED: dict[str, list[Row]] = {
    f"{_FIRST}/4.000000-t2tsetra-00702": [Row(None, *_T2)],
    f"{_FIRST}/6.000000-ep2ddifftraDYNDIST-69284": rows((50, 400, 800), *_DWI),
    f"{_FIRST}/7.000000-ep2ddifftraDYNDISTADC-48780": [Row(800, *_DWI, unfit="a map of diffusion")],
    f"{_FIRST}/8.000000-ep2ddifftraDYNDISTCALCBVAL-83202": [Row(1000, *_DWI)],
    f"{_SECOND}/5.000000-t2tsetra320p2-09906": [Row(None, (320, 320, 20), (0.625, 0.625, 3.6))],
    f"{_SECOND}/8.000000-ep2dadvdiff3Scan4bvalspair511b-12670": rows((0, 100, 400, 800), *_DWI_0218),
    f"{_SECOND}/9.000000-ep2dadvdiff3Scan4bvalspair511bADC-84922": [Row(800, *_DWI_0218, unfit="a map of diffusion")],
    f"{_SECOND}/27.000000-TwistdynamicWip576TT8.0s-64234": [Row(None, *_DYNAMIC)],
    f"{_SECOND}/33.000000-TwistdynamicWip576TT33.3s-34864": [Row(None, *_DYNAMIC)],
    f"{_SECOND}/39.000000-TwistdynamicWip576TT58.6s-63588": [Row(None, *_DYNAMIC)],
    f"{_SECOND}/47.000000-TwistdynamicWip576TT92.3s-90524": [Row(None, *_DYNAMIC)],
    f"{_SECOND}/60.000000-TwistdynamicWip576TT147.1s-80583": [Row(None, *_DYNAMIC)],
    f"{_SECOND}/72.000000-TwistdynamicWip576TT197.7s-90848": [Row(None, *_DYNAMIC)],
    # dcm2niix takes the slices as evenly spaced.
    f"missing-slice/{_FIRST}/8.000000-ep2ddifftraDYNDISTCALCBVAL-83202": [
        Row(1000, None, unfit=GAP.format("13 and 14"))
    ],
    "enhanced-molli/coronal_molli": [
        Row(None, *_MOLLI, unfit=NUMBERED, times=8, values=UP_TO_A_FACTOR),
        Row(None, *_MOLLI, unfit="a map", times=2, values=UP_TO_A_FACTOR),
    ],
    "ge-dwi/01_Ax_DWI_TENSOR_R2": [
        Row(0, (256, 256, 2), (1.0156, 1.0156, 3.0)),
        Row(1000, (256, 256, 2), (1.0156, 1.0156, 3.0), unfit=DIRECTION, times=6),
    ],
    "philips-dwi-phantom": [
        Row(1500, (384, 384, 1), (0.9115, 0.9115, 5.0), unfit=SLICE.format("384 × 384 × 1"), values=UP_TO_A_FACTOR)
    ],
    # It does not say how thick it is; dcm2niix takes 1 mm.
    f"{_VENDOR}/ge/anatomical/001_single_slice": [Row(0, None, unfit=SLICE.format("256 × 256 × 1"))],
    f"{_VENDOR}/ge/dti/001": rows((0, 1000), (128, 128, 4), (2.0, 2.0, 2.0)),
    # Four volumes of one b-value, echo and time, told apart by nothing but the files' numbers.
    f"{_VENDOR}/ge/dti/002": [Row(0, None, unfit=REPEATED)],
    f"{_VENDOR}/generic/anatomical/002_non_isotropic": [Row(None, (64, 28, 4), (6.4, 4.0, 0.5))],
    f"{_VENDOR}/generic/compressed_j2k/001": [Row(None, *_SAGITTAL)],
    f"{_VENDOR}/generic/compressed_jpeg/001": [Row(None, *_SAGITTAL)],
    f"{_VENDOR}/generic/compressed_jpegls/001": [Row(None, *_SAGITTAL)],
    f"{_VENDOR}/generic/compressed_rle/001": [Row(None, *_SAGITTAL)],
    # dcm2niix keeps the three colours.
    f"{_VENDOR}/generic/rgb/001": [Row(None, (52, 77, 4), (3.0, 3.0, 3.0), unfit="a colour image", values="")],
    f"{_VENDOR}/hitachi/anatomical/001": [Row(None, (64, 64, 4), (2.3438, 2.3438, 4.0), "PIR")],
    f"{_VENDOR}/hyperfine/anatomical/001": [Row(None, (112, 138, 8), (1.59, 1.61, 5.0))],
    f"{_VENDOR}/philips/anatomical/001": [Row(0, (240, 240, 4), (1.0417, 1.0417, 0.6), "LIP")],
    f"{_VENDOR}/philips/dti/001": [
        Row(0, (128, 128, 2), (2.0, 2.0, 2.0)),
        Row(1000, (128, 128, 2), (2.0, 2.0, 2.0), unfit=DIRECTION, times=3),
    ],
    f"{_VENDOR}/philips/dti/002": rows((0, 40, 273, 800), (384, 384, 3), (0.5208, 0.5208, 3.0)),
    f"{_VENDOR}/philips_enhanced/anatomical/001": [
        Row(None, (256, 256, 8), (1.0, 1.0, 1.2), "PIR", values=UP_TO_A_FACTOR)
    ],
    f"{_VENDOR}/philips_enhanced/dti/001": [
        Row(0, (128, 128, 8), (2.7344, 2.7344, 2.7), values=UP_TO_A_FACTOR),
        Row(1300, (128, 128, 8), (2.7344, 2.7344, 2.7), unfit=DIRECTION, times=3, values=UP_TO_A_FACTOR),
    ],
    f"{_VENDOR}/siemens/dti_classic/001": rows((0, 1000), (192, 192, 4), (1.25, 1.25, 2.5)),
    # dcm2niix cuts each mosaic of 8 × 8 slices apart.
    f"{_VENDOR}/siemens/fmri/001": [Row(None, None, unfit="a mosaic of slices", times=2)],
    f"{_VENDOR}/siemens_multiframe/anatomical/001": [Row(None, (256, 256, 8), (0.9375, 0.9375, 0.9))],
}
CORE: dict[str, list[Row]] = {
    "prostatex-dwi": rows((0, 100, 400, 800), (160, 130, 3), (1.625, 1.625, 3.6)),
    "missing-slice": [Row(1000, None, unfit=GAP.format("3 and 4"))],
    "enhanced-molli": SHARED["enhanced-molli/coronal_molli"],
}
# What dcm2niix makes of series that are refused here: its volumes' shape and number.
CONVERTED_NEVERTHELESS = {
    f"missing-slice/{_FIRST}/8.000000-ep2ddifftraDYNDISTCALCBVAL-83202": ((84, 128, 18), 1),
    "missing-slice": ((84, 128, 6), 1),
    f"{_VENDOR}/ge/anatomical/001_single_slice": ((256, 256, 1), 1),
    f"{_VENDOR}/ge/dti/002": ((64, 64, 4), 4),
    f"{_VENDOR}/siemens/fmri/001": ((80, 80, 64), 2),
}
# dcm2niix says b 0 of a lone volume, where the standard's element and the vendor's both say 1500.
OTHER_B_VALUES = {"philips-dwi-phantom": (0.0,)}


# ---------------------------------------------------------------- what there is


def stacks_in(folder: Path) -> list[Stack]:
    """The volumes of a folder that holds one series, whether they can be channels or not."""
    with quietly():
        headers = [read_header(file) for file in walk(folder) if is_dicom(file)]
        frames = [frame for header in headers if header is not None for frame in frames_of(header)]
    assert len({frame.series_uid for frame in frames}) == 1
    return stacks_of(frames, "the series")


def row_of(stack: Stack, values: str) -> Row:
    """What a volume is, in the words of the table."""
    refused = "" if stack.refusal is None else stack.refusal.message
    why = stack.kind or stack.part_of or refused.removeprefix("the series").partition(": ")[2] or _clause(refused)
    grid, b_value = stack.grid, stack.frames[0].b_value
    if grid is None:
        return Row(b_value, None, unfit=why, values=values)
    letters = "".join(nib.aff2axcodes(grid.affine))
    x, y, z = (round(float(size), 4) for size in grid.spacing)
    return Row(b_value, grid.shape, (x, y, z), letters, why, values=values)


def _clause(refused: str) -> str:
    """A refusal without what it calls the volume, e.g. ``the series, b 400``."""
    for verb in (" is not ", " lacks ", " has "):
        if verb in refused:
            return verb.lstrip() + refused.partition(verb)[2]
    return refused


def values_of(stack: Stack, table: Sequence[Row]) -> str:
    """How the table's row for such a volume compares voxels."""
    kinds = [row.values for row in table if row.b_value == stack.frames[0].b_value]
    return kinds[0] if kinds else ""


def counted(table: Sequence[Row]) -> Counter[tuple[object, ...]]:
    """How many volumes of each kind there are."""
    told = [(row.b_value, row.shape, row.spacing, row.letters, row.unfit) for row in table for _ in range(row.times)]
    return Counter(told)


# ---------------------------------------------------------------- beside dcm2niix


def assert_as_told(folder: Path, name: str, table: Sequence[Row], out: Path) -> None:
    """The series is what its rows say, and dcm2niix has its volumes at the same places with the same values."""
    stacks = stacks_in(folder)
    assert counted([row_of(stack, "") for stack in stacks]) == counted(table)
    conversion = convert(folder, out, depth=0)
    _assert_same_b_values(stacks, conversion, name)
    placed = [stack for stack in stacks if stack.grid is not None]
    differences = [told for stack in placed if (told := difference(stack, values_of(stack, table), conversion.files))]
    assert differences == []
    volumes = sum(count_volumes(converted) for converted in conversion.files)
    if placed:
        assert volumes == len(stacks)
    else:
        (converted,) = conversion.files
        assert (converted.grid.shape, volumes) == CONVERTED_NEVERTHELESS[name]


def count_volumes(converted: Converted) -> int:
    """How many volumes a file holds, of colours too."""
    image: Any = nib.load(converted.path)
    return int(np.prod(image.shape[3:], dtype=int))


def _assert_same_b_values(stacks: Sequence[Stack], conversion: Conversion, name: str) -> None:
    theirs = [b for converted in conversion.files for b in converted.b_values]
    ours = [stack.frames[0].b_value for stack in stacks]
    if theirs:
        assert sorted(theirs) == sorted(OTHER_B_VALUES.get(name, ours))


def difference(stack: Stack, values: str, files: Sequence[Converted]) -> str | None:
    """What no volume of dcm2niix has as this one, or None."""
    assert stack.grid is not None
    ways = [same_geometry(stack.grid, converted) for converted in files]
    if None not in ways or not values:
        return None if None in ways else f"{ways}"
    data = turned(image_of(stack.frames, stack.grid, "it").read(), stack.grid)
    volumes = [turned(v, c.grid) for c, way in zip(files, ways, strict=True) if way is None for v in c.volumes()]
    differences = [_largest_difference(data, volume, values) for volume in volumes]
    within = RELATIVE_ROUNDING * float(np.abs(data).max())
    return None if min(differences) <= within else f"values differ by {min(differences)} from the nearest"


def _largest_difference(data: NDArray[np.float32], volume: NDArray[np.float32], values: str) -> float:
    ours, theirs = data.astype(np.float64), volume.astype(np.float64)
    if values == UP_TO_A_FACTOR:
        theirs *= float((ours * theirs).sum()) / max(float((theirs * theirs).sum()), 1e-12)
    return float(np.abs(ours - theirs).max())


@pytest.mark.parametrize("name", SHARED)
def test_a_real_series_is_what_the_table_says_and_lies_where_dcm2niix_has_it(
    shared_data: Path, tmp_path: Path, name: str
) -> None:
    assert_as_told(shared_data / "real" / "dicom" / name, name, SHARED[name], tmp_path)


@pytest.mark.parametrize("name", CORE)
def test_a_committed_series_is_what_the_table_says_and_lies_where_dcm2niix_has_it(tmp_path: Path, name: str) -> None:
    assert_as_told(COMMITTED / name, name, CORE[name], tmp_path)


@pytest.mark.parametrize("where", ["shared", "committed"])
def test_the_table_leaves_no_series_out(where: str, request: pytest.FixtureRequest) -> None:
    root, table = COMMITTED, CORE
    if where == "shared":
        root, table = request.getfixturevalue("shared_data") / "real" / "dicom", SHARED
    folders = {path.parent for path in root.rglob("*") if path.is_file() and is_dicom(path)}
    assert {str(folder.relative_to(root)) for folder in folders} == set(table)


def test_a_volume_that_is_moved_by_little_or_has_one_other_value_is_told(tmp_path: Path) -> None:
    stack = stacks_in(COMMITTED / "prostatex-dwi")[2]
    files = convert(COMMITTED / "prostatex-dwi", tmp_path).files
    assert difference(stack, SAME, files) is None
    assert stack.grid is not None
    affine = stack.grid.affine.copy()
    affine[1, 3] += 0.002
    moved = replace(stack, grid=Grid(stack.grid.shape, affine))
    assert "affines differ by 0.002 mm" in (difference(moved, SAME, files) or "")
    first, *rest = stack.frames
    other = replace(stack, frames=(replace(first, intercept=1.0), *rest))
    assert "values differ" in (difference(other, SAME, files) or "")


# ---------------------------------------------------------------- whole patients


def only_exam(folder: Path) -> Exam:
    cohort = read_input(folder)
    assert not cohort.refused
    ((exam,),) = (patient.exams for patient in cohort.patients)
    return exam


def test_a_patient_s_diffusion_gives_four_channels_of_their_b_values(shared_data: Path) -> None:
    exam = only_exam(shared_data / "real" / "dicom" / "ProstateX-0218")
    assert exam.date == datetime.date(2011, 2, 18)
    channels = {image.channel: (image.details["b"], image.confidence) for image in exam.found if image.channel}
    assert channels == {
        "DWI_b0": ("0", "certain"),
        "DWI_b150": ("100", "probable"),
        "DWI_b400": ("400", "certain"),
        "DWI_b800": ("800", "certain"),
    }
    assert list(exam.images) == list(channels)


def test_six_dynamic_phases_are_told_in_the_order_of_their_times(shared_data: Path) -> None:
    """Acquisition times are 12:57:05.3, 12:57:35.4, 12:58:00.8, 12:58:34.6, 12:59:29.7 and 13:00:20.5."""
    exam = only_exam(shared_data / "real" / "dicom" / "ProstateX-0218")
    phases = [(image.name, image.details["phase"]) for image in exam.found if "phase" in image.details]
    assert phases == [
        ("series 27", "1 of 6 (+0 s)"),
        ("series 33", "2 of 6 (+30 s)"),
        ("series 39", "3 of 6 (+55 s)"),
        ("series 47", "4 of 6 (+89 s)"),
        ("series 60", "5 of 6 (+144 s)"),
        ("series 72", "6 of 6 (+195 s)"),
    ]


def test_the_missing_slice_is_named_and_no_channel_is_made(shared_data: Path) -> None:
    exam = only_exam(shared_data / "real" / "dicom" / "missing-slice")
    (found,) = exam.found
    assert found.reason == GAP.format("13 and 14").removesuffix(".")
    assert exam.images == {}


def test_maps_of_an_enhanced_object_are_not_among_its_images(shared_data: Path) -> None:
    exam = only_exam(shared_data / "real" / "dicom" / "enhanced-molli")
    assert [(image.name.split(",")[1], image.reason) for image in exam.found] == [
        *((f" variant {number} of 8", NUMBERED) for number in range(1, 9)),
        *((" map", "a map"),) * 2,
    ]


def test_a_folder_of_nothing_but_a_map_is_refused_with_what_it_is(shared_data: Path) -> None:
    with pytest.raises(Refusal, match=r"Found instead: a map of diffusion \(20\)\."):
        read_input(shared_data / "real" / "dicom" / f"{_SECOND}/9.000000-ep2dadvdiff3Scan4bvalspair511bADC-84922")
