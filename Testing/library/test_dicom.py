"""DICOM is read for what it is: geometry, b-values of every vendor, series taken apart, exams by study, and sentences."""

from __future__ import annotations

import datetime
import itertools
import os
import shutil
import struct
import zlib
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_files import (
    DIALECTS,
    Stack,
    Writing,
    quantisation_step,
    series_tags,
    uid_of,
    write_clutter,
    write_enhanced,
    write_series,
    write_stacks,
)
from helpers import centred_affine, rotation
from pydicom.data import get_testdata_file

from HCCNetLib.commands.main import main
from HCCNetLib.readers import ReadingOptions, check_images, read_input
from HCCNetLib.readers.dicom.files import is_dicom, quietly, read_header, walk
from HCCNetLib.readers.dicom.frames import Alike, Frame, frames_of
from HCCNetLib.readers.dicom.image import DicomImage, Slice
from HCCNetLib.readers.dicom.pixels import decoded_frames
from HCCNetLib.records import Cohort, Exam, FoundImage, Grid, Image, Refusal

REAL = Path(__file__).resolve().parents[1] / "data" / "dicom"
LPS = np.diag([-1.0, -1.0, 1.0])
PERMUTED = np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]])
GRIDS = {
    "axial": (LPS, (3.0, 3.0, 3.0)),
    "flipped": (np.diag([1.0, -1.0, -1.0]), (3.0, 3.0, 3.0)),
    "left-handed": (np.diag([-1.0, 1.0, 1.0]), (3.0, 3.0, 3.0)),
    "permuted": (PERMUTED, (2.0, 2.0, 2.0)),
    "oblique": (LPS @ rotation(20, -10, 5), (2.0, 2.0, 2.0)),
    "anisotropic": (LPS @ rotation(3, 0, 15), (1.3, 1.7, 6.0)),
    "all of it": (PERMUTED @ rotation(20, 10, -5) @ np.diag([1.0, -1.0, 1.0]), (1.3, 1.7, 4.1)),
}
SHAPE = (9, 7, 5)
AXIAL = centred_affine(SHAPE, (3.0, 3.0, 5.0), LPS)


def volume(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1000, SHAPE).astype(np.float32)


def exams(cohort: Cohort) -> tuple[Exam, ...]:
    assert not cohort.refused, {k: r.message for k, r in cohort.refused.items()}
    return cohort.patients[0].exams


def only_exam(folder: Path, **options: Any) -> Exam:
    (exam,) = exams(read_input(folder, ReadingOptions(**options)))
    return exam


def refusal_of(folder: Path, **options: Any) -> Refusal:
    (refusal,) = read_input(folder, ReadingOptions(**options)).refused.values()
    return refusal


def assert_same_voxels(image: Image, written: np.ndarray, affine: np.ndarray) -> None:
    """Every voxel read lies where it was written, with the value that was written there."""
    x, y, z = image.grid.shape
    indices = np.stack(np.meshgrid(range(x), range(y), range(z), indexing="ij"), axis=-1).reshape(-1, 3)
    to_written = np.linalg.inv(affine) @ image.grid.affine
    there = indices @ to_written[:3, :3].T + to_written[:3, 3]
    assert np.abs(there - np.rint(there)).max() * np.linalg.norm(affine[:3, :3], axis=0).max() < 1e-3
    assert len(np.unique(np.rint(there), axis=0)) == written.size
    values = written[tuple(np.rint(there).astype(int).T)]
    np.testing.assert_allclose(image.read().reshape(-1), values, atol=0.51 * quantisation_step(written))


# ---------------------------------------------------------------- where voxels lie


@pytest.mark.parametrize("kind", ["classic", "enhanced"])
@pytest.mark.parametrize("grid", GRIDS)
def test_voxels_lie_where_the_scanner_put_them(tmp_path: Path, grid: str, kind: str) -> None:
    directions, spacing = GRIDS[grid]
    affine = centred_affine(SHAPE, spacing, directions)
    stack, tags = Stack(volume(), affine, b_value=400.0), series_tags(description="DWI")
    writing = Writing(shuffled=True, scattered=True)
    if kind == "classic":
        write_stacks(tmp_path, [stack], tags, writing)
    else:
        write_enhanced(tmp_path / "a" / "IM", [stack], tags, writing)
    assert_same_voxels(only_exam(tmp_path).images["DWI_b400"], volume(), affine)


def test_slope_and_intercept_are_each_slice_s_own(tmp_path: Path) -> None:
    written = volume() / 7 - 20.0
    paths = write_stacks(
        tmp_path, [Stack(written, AXIAL, b_value=0.0)], series_tags(description="DWI"), Writing(dtype=np.int16)
    )
    dataset = pydicom.dcmread(paths[0])
    dataset.RescaleSlope = float(dataset.RescaleSlope) * 2
    dataset.save_as(paths[0])
    image = only_exam(tmp_path).images["DWI_b0"]
    read = image.read()
    intercept = float(dataset.RescaleIntercept)
    doubled = 2 * (written[:, :, 0] - intercept) + intercept
    step = quantisation_step(written, np.int16)
    np.testing.assert_allclose(read[:, :, 0], doubled, atol=1.1 * step)
    np.testing.assert_allclose(read[:, :, 1:], written[:, :, 1:], atol=0.51 * step)


@pytest.mark.parametrize(
    "name",
    [
        *("ImplicitVRLittleEndian", "ExplicitVRLittleEndian", "ExplicitVRBigEndian", "DeflatedExplicitVRLittleEndian"),
        *("RLELossless", "JPEG2000Lossless"),
    ],
)
def test_transfer_syntaxes_give_the_same_voxels(tmp_path: Path, name: str) -> None:
    written = np.kron(volume(), np.ones((5, 5, 1)))  # a wavelet needs some pixels
    affine = centred_affine(written.shape, (3.0, 3.0, 5.0), LPS)
    writing = Writing(syntax=getattr(pydicom.uid, name))
    write_stacks(tmp_path, [Stack(written, affine, b_value=0.0)], series_tags(description="DWI"), writing)
    assert_same_voxels(only_exam(tmp_path).images["DWI_b0"], written, affine)


@pytest.mark.parametrize(
    "name",
    [
        *("MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "MR_small_bigendian"),
        *("MR_small_implicit", "MR_small_expb", "MR_small_padded"),
    ],
)
def test_real_files_of_other_syntaxes_hold_the_same_pixels(name: str) -> None:
    reference, other = (get_testdata_file(f"{n}.dcm", download=False) for n in ("MR_small", name))
    with quietly():
        (expected,), (pixels,) = (list(decoded_frames(Path(str(path)), [0])) for path in (reference, other))
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize(
    "name",
    [
        *("SC_rgb_dcmtk_+eb+cy+s4", "SC_rgb_jpeg_gdcm", "JPEGLSNearLossless_16", "SC_rgb_jls_lossy_line"),
        *("JPEG2000", "693_J2KI", "GDCMJ2K_TextGBR", "SC_rgb_gdcm_KY", "examples_ybr_color", "rtdose_rle"),
    ],
)
def test_code_streams_of_other_makers_are_not_taken_for_damaged(name: str) -> None:
    path = Path(str(get_testdata_file(f"{name}.dcm", download=False)))
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    with quietly():
        (pixels,) = decoded_frames(path, [int(dataset.get("NumberOfFrames") or 1) - 1])
    assert pixels.shape[:2] == (dataset.Rows, dataset.Columns)
    assert np.ptp(pixels) > 0


def test_what_no_installed_decoder_can_read_is_told_with_the_package_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("HCCNetLib.readers.dicom.pixels.find_spec", lambda name: None)
    path = Path(str(get_testdata_file("JPGExtended.dcm", download=False)))
    part = Slice(path, 0, 1.0, 0.0)
    with pytest.raises(Refusal) as refused:
        DicomImage("series 3", Grid((256, 1024, 1), np.eye(4)), (part,)).read()
    assert refused.value.message == (
        "series 3 is compressed (JPEG Extended (Process 2 and 4), 12 bits), and nothing installed can read that. Install the "
        "decoders: pip install pylibjpeg-libjpeg, or decompress the files."
    )


def test_a_volume_without_any_of_its_slices_names_the_gap(tmp_path: Path) -> None:
    paths = write_stacks(tmp_path, [Stack(volume(), AXIAL, b_value=400.0)], series_tags(number=8, description="DWI"))
    paths[2].unlink()
    (found,) = only_exam(tmp_path).found
    assert found.channel is None
    assert found.reason == (
        "lacks 1 slice between its slices 2 and 3 (a gap of 10 mm where 5 mm is usual). Export the whole series again"
    )


def test_a_volume_shorter_than_the_others_of_its_series_has_lost_slices_at_an_end(tmp_path: Path) -> None:
    stacks = [Stack(volume(), AXIAL, b_value=b) for b in (0.0, 400.0)]
    write_stacks(tmp_path, stacks, series_tags(description="DWI"))[-1].unlink()
    found = {image.details["b"]: image for image in only_exam(tmp_path).found}
    assert found["0"].channel == "DWI_b0"
    assert found["400"].channel is None
    assert found["400"].reason.startswith("has 4 slices where another image of the series has 5: 1 missing.")


def moved(path: Path, by: tuple[float, float, float]) -> None:
    dataset = pydicom.dcmread(path)
    dataset.ImagePositionPatient = [float(p) + d for p, d in zip(dataset.ImagePositionPatient, by, strict=True)]
    dataset.save_as(path)


def test_uneven_gaps_are_told_with_their_size(tmp_path: Path) -> None:
    paths = write_stacks(tmp_path, [Stack(volume(), AXIAL, b_value=400.0)], series_tags(description="DWI"))
    moved(paths[-1], (0.0, 0.0, 2.0))
    (found,) = only_exam(tmp_path).found
    assert found.reason.startswith("has uneven gaps between its slices (7 mm after slice 4, 5 mm elsewhere).")


def test_a_gantry_tilt_is_told_with_its_angle(tmp_path: Path) -> None:
    paths = write_stacks(tmp_path, [Stack(volume(), AXIAL, b_value=400.0)], series_tags(description="DWI"))
    for number, path in enumerate(paths):
        moved(path, (0.0, number * 5.0 * np.tan(np.radians(12)), 0.0))
    (found,) = only_exam(tmp_path).found
    assert "stacked askew by 12.0° (gantry tilt or shear)" in found.reason


def test_a_localizer_of_three_planes_is_no_volume(tmp_path: Path) -> None:
    tags = series_tags(description="DWI b400")
    for number, grid in enumerate(("axial", "permuted", "oblique")):
        affine = centred_affine(SHAPE, (3.0, 3.0, 3.0), GRIDS[grid][0])
        write_stacks(tmp_path / str(number), [Stack(volume(number), affine)], {**tags, "SOPInstanceUID": uid_of(grid)})
    for number, path in enumerate(sorted(tmp_path.rglob("*.dcm"))):
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID = uid_of(number)
        dataset.save_as(path)
    (found,) = only_exam(tmp_path).found
    assert found.reason == "has slices of several orientations, as a localizer has: it is not one volume"


@pytest.mark.parametrize(
    ("keyword", "value", "sentence"),
    [
        ("ImagePositionPatient", None, "does not say how it lies in the patient"),
        ("ImageOrientationPatient", None, "does not say how it lies in the patient"),
        ("PixelSpacing", None, "does not say how it lies in the patient"),
        ("PixelSpacing", [-3, -3], "pixel spacing is not above 0"),
        ("PixelSpacing", [0, 3], "pixel spacing is not above 0"),
        ("PixelSpacing", [300, 300], "voxels of 300 × 300 × 5 mm are not plausible"),
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0], "the directions of rows and columns are not at right angles"),
    ],
)
def test_what_has_no_place_in_the_patient_is_not_used(tmp_path: Path, keyword: str, value: Any, sentence: str) -> None:
    for path in write_stacks(tmp_path, [Stack(volume(), AXIAL, b_value=400.0)], series_tags(description="DWI")):
        dataset = pydicom.dcmread(path)
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
        dataset.save_as(path)
    (found,) = only_exam(tmp_path).found
    assert found.channel is None
    assert sentence in found.reason


# ---------------------------------------------------------------- what a volume is


@pytest.mark.parametrize("implicit", [False, True], ids=["explicit", "implicit"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_b_values_are_found_where_each_vendor_writes_them(tmp_path: Path, dialect: str, implicit: bool) -> None:
    syntax = pydicom.uid.ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian
    stacks = [Stack(volume(n), AXIAL, b_value=b) for n, b in enumerate((0.0, 150.0, 400.0, 800.0))]
    write_stacks(
        tmp_path, stacks, series_tags(description="ep2d_diff"), Writing(syntax=syntax, dialect=dialect, shuffled=True)
    )
    images = only_exam(tmp_path).images
    assert list(images) == ["DWI_b0", "DWI_b150", "DWI_b400", "DWI_b800"]
    for number, image in enumerate(images.values()):
        assert_same_voxels(image, volume(number), AXIAL)


def test_a_vendor_s_element_of_another_vendor_is_no_b_value(tmp_path: Path) -> None:
    """(0019,100C) is Siemens' only in a block that Siemens reserved."""
    for path in write_stacks(tmp_path, [Stack(volume(), AXIAL)], series_tags(description="something")):
        dataset = pydicom.dcmread(path)
        dataset.private_block(0x19, "GEMS_ACQU_01", create=True).add_new(0x0C, "IS", "800")
        dataset.save_as(path)
    (found,) = only_exam(tmp_path).found
    assert found.details == {}


def test_b_values_near_zero_belong_with_b0_and_take_no_other_s_place(tmp_path: Path) -> None:
    stacks = [Stack(volume(n), AXIAL, b_value=b) for n, b in enumerate((0.001, 50.0, 800.0))]
    write_stacks(tmp_path, stacks, series_tags(description=""))
    exam = only_exam(tmp_path)
    assert [(image.details["b"], image.channel) for image in exam.found] == [
        ("0.001", "DWI_b0"),
        ("50", None),
        ("800", "DWI_b800"),
    ]
    assert_same_voxels(exam.images["DWI_b0"], volume(0), AXIAL)


@pytest.mark.parametrize("kind", ["classic", "enhanced"])
def test_phase_real_and_computed_images_are_not_mixed_with_magnitude(tmp_path: Path, kind: str) -> None:
    types = {
        "": ("ORIGINAL", "PRIMARY", "M", "ND"),
        "a phase image": ("ORIGINAL", "PRIMARY", "P", "ND"),
        "a real image": ("ORIGINAL", "PRIMARY", "R", "ND"),
        "an imaginary image": ("ORIGINAL", "PRIMARY", "I", "ND"),
        "a map of diffusion": ("DERIVED", "PRIMARY", "DIFFUSION", "ADC"),
    }
    stacks = [Stack(volume(n), AXIAL, b_value=800.0, image_type=words) for n, words in enumerate(types.values())]
    if kind == "classic":
        write_stacks(tmp_path, stacks, series_tags(description="DWI"), Writing(shuffled=True))
    else:
        write_enhanced(tmp_path / "IM", stacks, series_tags(description="DWI"), Writing(shuffled=True))
    exam = only_exam(tmp_path)
    assert_same_voxels(exam.images["DWI_b800"], volume(0), AXIAL)
    assert {image.reason for image in exam.found} == set(types)


def test_directions_of_diffusion_are_taken_apart_and_not_guessed_at(tmp_path: Path) -> None:
    b0 = Stack(volume(9), AXIAL, b_value=0.0)
    directions = [
        Stack(volume(n), AXIAL, b_value=800.0, tags={"DiffusionGradientOrientation": vector})
        for n, vector in enumerate(([1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]))
    ]
    write_stacks(tmp_path, [b0, *directions], series_tags(description="DWI"))
    exam = only_exam(tmp_path)
    assert list(exam.images) == ["DWI_b0"]
    assert [image.reason for image in exam.found][1:] == ["one of several diffusion directions"] * 3


def test_a_trace_image_beside_its_directions_is_the_channel(tmp_path: Path) -> None:
    trace = Stack(volume(7), AXIAL, b_value=800.0, tags={"DiffusionDirectionality": "ISOTROPIC"})
    directions = [
        Stack(volume(n), AXIAL, b_value=800.0, tags={"DiffusionGradientOrientation": vector})
        for n, vector in enumerate(([1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]))
    ]
    write_stacks(tmp_path, [*directions, trace], series_tags(description="DWI"), Writing(shuffled=True))
    assert_same_voxels(only_exam(tmp_path).images["DWI_b800"], volume(7), AXIAL)


def dynamic(folder: Path, seconds: list[int], one_series: bool, bolus: str | None = None) -> None:
    """Dynamic T1 phases, a series each or all in one; begun at 09:00 and so many seconds."""
    more = {"ContrastBolusStartTime": bolus} if bolus else {}
    stacks = []
    for number, second in enumerate(seconds):
        time = (datetime.datetime(2020, 1, 5, 9) + datetime.timedelta(seconds=second)).strftime("%H%M%S.000000")
        stack = Stack(volume(number), AXIAL, tags={"AcquisitionTime": time, **more})
        stacks.append(stack)
        if not one_series:
            write_stacks(
                folder / str(number), [stack], series_tags(number=20 - number, description=f"t1_vibe_dyn_{second}")
            )
    if one_series:
        write_stacks(folder, stacks, series_tags(number=7, description="t1_vibe_dyn"), Writing(shuffled=True))


@pytest.mark.parametrize("one_series", [True, False])
def test_phases_are_told_in_the_order_of_their_times(tmp_path: Path, one_series: bool) -> None:
    dynamic(tmp_path, [0, 95, 140, 300], one_series)
    found = only_exam(tmp_path).found
    assert sorted(image.details["phase"] for image in found) == [
        "1 of 4 (+0 s)",
        "2 of 4 (+95 s)",
        "3 of 4 (+140 s)",
        "4 of 4 (+300 s)",
    ]
    assert not any(image.channel for image in found)  # without the injection's time nobody knows which is which


@pytest.mark.parametrize("one_series", [True, False])
def test_arterial_and_venous_are_told_apart_by_the_time_after_contrast(tmp_path: Path, one_series: bool) -> None:
    dynamic(tmp_path, [0, 125, 170, 300], one_series, bolus="090140")
    exam = only_exam(tmp_path)
    for number, channel in enumerate(("T1_native", "T1_arterial", "T1_venous", "T1_delayed")):
        assert_same_voxels(exam.images[channel], volume(number), AXIAL)
    assert {image.confidence for image in exam.found} == {"probable"}
    (problem,) = check_images(exam, ["T1_arterial"])
    number = next(image.name for image in exam.found if image.channel == "T1_arterial")
    description = next(image.description for image in exam.found if image.channel == "T1_arterial")
    assert problem.message == (
        f"recognised by words or times alone: T1_arterial is {number} ({description}). Look whether they are right; "
        f"with hccnet, --channels overrides."
    )
    assert check_images(exam, ["T1_in"]) == []  # a model that does not read them need not be warned of them


def test_of_two_arterial_phases_none_is_taken(tmp_path: Path) -> None:
    dynamic(tmp_path, [0, 120, 135, 170], one_series=False, bolus="090140")
    exam = only_exam(tmp_path)
    assert list(exam.images) == ["T1_native", "T1_venous"]
    assert [image.confidence for image in exam.found].count("ambiguous") == 2
    assert any("2 series may each be it; none was taken" in problem.message for problem in exam.problems)


def test_a_phase_named_otherwise_than_its_time_says_is_not_taken(tmp_path: Path) -> None:
    tags = series_tags(description="t1_vibe_arterial", ContrastBolusStartTime="090000", AcquisitionTime="090300")
    write_series(tmp_path, volume(), AXIAL, tags)
    exam = only_exam(tmp_path)
    assert not exam.images
    (problem,) = exam.problems
    assert "is named so but was acquired +180 s from when the contrast agent was given" in problem.message


@pytest.mark.parametrize(
    ("field", "echoes", "channels"),
    [
        ("1.5", (2.3, 4.6), ("T1_out", "T1_in")),
        ("3", (1.15, 2.3), ("T1_out", "T1_in")),
        ("3", (2.3, 3.45), ("T1_in", "T1_out")),
        ("3", (2.3, 4.6), (None, None)),  # both in phase
        ("", (2.3, 4.6), (None, None)),
    ],
)
def test_in_and_out_of_phase_are_told_apart_by_echo_time_and_field(
    tmp_path: Path, field: str, echoes: tuple[float, float], channels: tuple[str | None, str | None]
) -> None:
    stacks = [Stack(volume(n), AXIAL, echo_time=echo) for n, echo in enumerate(echoes)]
    write_stacks(tmp_path, stacks, series_tags(description="t1_fl2d_dual", MagneticFieldStrength=field))
    assert tuple(image.channel for image in only_exam(tmp_path).found) == channels


def test_the_two_echoes_of_a_t2_series_are_short_and_long(tmp_path: Path) -> None:
    stacks = [Stack(volume(n), AXIAL, echo_time=echo) for n, echo in enumerate((160.0, 80.0))]
    write_stacks(tmp_path, stacks, series_tags(description="T2 TSE dual echo"), Writing(shuffled=True))
    exam = only_exam(tmp_path)
    assert_same_voxels(exam.images["T2_long"], volume(0), AXIAL)
    assert_same_voxels(exam.images["T2_short"], volume(1), AXIAL)


def test_many_echoes_of_which_two_can_be_read_are_not_in_and_out_of_phase(tmp_path: Path) -> None:
    stacks = [Stack(volume(n), AXIAL, echo_time=echo) for n, echo in enumerate((1.15, 2.3, 3.45, 4.6))]
    paths = write_stacks(tmp_path, stacks, series_tags(description="t1_vibe", MagneticFieldStrength="3"))
    for lost in (12, 17):
        paths[lost].unlink()
    assert not only_exam(tmp_path).images


@pytest.mark.parametrize(
    ("description", "echoes"), [("T2* GRE", (40.0, 60.0)), ("T2", (4.6, 18.0)), ("T2", (90.0, 750.0))]
)
def test_two_echoes_of_another_kind_are_not_t2_short_and_long(
    tmp_path: Path, description: str, echoes: tuple[float, float]
) -> None:
    stacks = [Stack(volume(n), AXIAL, echo_time=echo) for n, echo in enumerate(echoes)]
    write_stacks(tmp_path, stacks, series_tags(description=description))
    assert not only_exam(tmp_path).images


def test_phases_half_a_slice_apart_are_not_one_volume(tmp_path: Path) -> None:
    other = AXIAL.copy()
    other[:3, 3] += AXIAL[:3, 2] / 2
    stacks = [Stack(volume(1), AXIAL, temporal=1), Stack(volume(2), other, temporal=2)]
    write_stacks(tmp_path, stacks, series_tags(description="t1_vibe_art"))
    exam = only_exam(tmp_path)
    assert not exam.images
    assert [image.details for image in exam.found] == [{"phase": "1 of 2"}, {"phase": "2 of 2"}]


def test_halves_of_two_echoes_are_not_one_volume(tmp_path: Path) -> None:
    upper = AXIAL.copy()
    upper[:3, 3] += 3 * AXIAL[:3, 2]
    stacks = [Stack(volume(1)[:, :, :3], AXIAL, echo_time=80.0), Stack(volume(2)[:, :, 3:], upper, echo_time=160.0)]
    write_stacks(tmp_path, stacks, series_tags(description="T2 TSE short TE"))
    (found,) = only_exam(tmp_path).found
    assert found.reason.startswith("holds images of several echoes or phases, of none of them all slices.")


def test_a_t1_image_with_a_b_value_in_its_tags_is_not_diffusion(tmp_path: Path) -> None:
    write_stacks(tmp_path, [Stack(volume(), AXIAL, b_value=800.0)], series_tags(description="Ax LAVA ART"))
    (found,) = only_exam(tmp_path).found
    assert (found.channel, found.reason) == (None, "its words and its b-value disagree")


def test_images_without_b_value_among_others_that_have_one_are_not_named_by_words(tmp_path: Path) -> None:
    stacks = [Stack(volume(0), AXIAL), Stack(volume(1), AXIAL, b_value=800.0)]
    paths = write_stacks(tmp_path, stacks, series_tags(description="ep2d_diff_b800"))
    assert list(only_exam(tmp_path).images) == ["DWI_b800"]
    paths[-2].unlink()
    assert not only_exam(tmp_path).images


def test_diffusion_without_direction_is_b0(tmp_path: Path) -> None:
    stacks = [
        Stack(volume(0), AXIAL, tags={"DiffusionDirectionality": "NONE"}),
        Stack(volume(1), AXIAL, b_value=800.0, tags={"DiffusionDirectionality": "ISOTROPIC"}),
    ]
    write_stacks(tmp_path, stacks, series_tags(description="ep2d_diff"))
    assert_same_voxels(only_exam(tmp_path).images["DWI_b0"], volume(0), AXIAL)


def test_the_four_images_of_a_dixon_series_are_taken_apart_by_their_types(tmp_path: Path) -> None:
    stacks = [
        Stack(volume(n), AXIAL, image_type=("DERIVED", "PRIMARY", word, word, "DERIVED"))
        for n, word in enumerate(("W", "IP", "OP", "F"))
    ]
    write_stacks(tmp_path, stacks, series_tags(description="mDIXON"), Writing(shuffled=True))
    images = only_exam(tmp_path).images
    assert list(images) == ["T1_in", "T1_out"]
    assert_same_voxels(images["T1_in"], volume(1), AXIAL)
    assert_same_voxels(images["T1_out"], volume(2), AXIAL)


def phases(folder: Path, times: list[str], triggers: list[float]) -> Exam:
    stacks = [
        Stack(volume(n), AXIAL, temporal=n + 1, tags={"AcquisitionTime": time, "TriggerTime": trigger})
        for n, (time, trigger) in enumerate(zip(times, triggers, strict=True))
    ]
    write_stacks(folder, stacks, series_tags(description="LAVA", ContrastBolusStartTime="090020"))
    return only_exam(folder)


def test_the_time_since_the_trigger_tells_phases_only_where_they_have_none_of_their_own(tmp_path: Path) -> None:
    triggers = [0.0, 45_000.0, 90_000.0]
    of_series = phases(tmp_path / "a", ["090000"] * 3, triggers)
    assert list(of_series.images) == ["T1_arterial", "T1_native", "T1_venous"]
    of_phases = phases(tmp_path / "b", ["090000", "090045", "090130"], triggers)
    assert list(of_phases.images) == ["T1_arterial", "T1_native", "T1_venous"]
    assert not phases(tmp_path / "c", ["090045"] * 3, [0.0] * 3).images
    assert not phases(tmp_path / "d", ["090045"] * 3, [0.0, -5.0, 1e300]).images


def test_a_coronal_image_is_no_phase_of_the_dynamic_examination(tmp_path: Path) -> None:
    directions = np.array([[-1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    affine = centred_affine(SHAPE, (3.0, 3.0, 5.0), directions)
    write_series(tmp_path, volume(), affine, series_tags(description="t1_vibe_arterial"))
    assert not only_exam(tmp_path).images


def test_copies_of_files_change_nothing(tmp_path: Path) -> None:
    write_stacks(tmp_path / "a", [Stack(volume(), AXIAL, b_value=0.0)], series_tags(description="DWI"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    cohort = read_input(tmp_path)
    assert_same_voxels(exams(cohort)[0].images["DWI_b0"], volume(), AXIAL)
    assert [problem.message for problem in cohort.problems] == ["5 files are copies of others; they were passed over."]


def test_two_images_at_one_place_that_nothing_tells_apart_are_not_used(tmp_path: Path) -> None:
    write_stacks(tmp_path, [Stack(volume(n), AXIAL, b_value=0.0) for n in range(2)], series_tags(description="DWI"))
    (found,) = only_exam(tmp_path).found
    assert found.reason.startswith("several images lie at one place and nothing tells them apart.")


# ---------------------------------------------------------------- who and when


def dwi(folder: Path, number: int = 1, **tags: Any) -> list[Path]:
    """A small series of b = 0."""
    return write_stacks(
        folder, [Stack(volume(number), AXIAL, b_value=0.0)], series_tags(number=number, description="DWI", **tags)
    )


def test_exams_are_in_the_order_of_their_dates_whatever_the_folders(tmp_path: Path) -> None:
    for folder, date in (("a", "20210314"), ("b", "20190102"), ("z/deep/deeper", "20201111")):
        dwi(tmp_path / folder, date=date)
        write_clutter(tmp_path / folder, date=date)
    cohort = read_input(tmp_path)
    assert cohort.form == "DICOM folder"
    assert [exam.exam_id for exam in exams(cohort)] == ["2019-01-02", "2020-11-11", "2021-03-14"]


def test_a_folder_of_dated_folders_with_dicom_in_them_goes_by_the_tags(tmp_path: Path) -> None:
    dwi(tmp_path / "2020-01-01", date="20210314")
    assert only_exam(tmp_path).date == datetime.date(2021, 3, 14)


def test_two_studies_of_one_day_are_refused_unless_they_are_one_exam(tmp_path: Path) -> None:
    dwi(tmp_path / "a")
    t1 = series_tags(number=2, description="t1_vibe_arterial", StudyInstanceUID=uid_of("another"))
    write_series(tmp_path / "b", volume(1), AXIAL, t1)
    refusal = refusal_of(tmp_path)
    assert refusal.code == "two_exams_one_day"
    assert refusal.message == (
        "There are two studies of 2020-01-05. If they are one exam, say --merge-same-day; else correct the dates or leave "
        "one out."
    )
    exam = only_exam(tmp_path, merge_same_day=True)
    assert list(exam.images) == ["DWI_b0", "T1_arterial"]
    assert "Two studies of 2020-01-05 were read as one exam, as asked." in [p.message for p in exam.problems]


def test_a_study_over_midnight_is_one_exam_of_the_day_on_which_it_began(tmp_path: Path) -> None:
    dwi(tmp_path / "a", StudyTime="233000", AcquisitionTime="235000")
    dwi(tmp_path / "b", number=2, AcquisitionDate="20200106", AcquisitionTime="001000", SeriesDescription="DWI b 150")
    (exam,) = exams(read_input(tmp_path))
    assert exam.exam_id == "2020-01-05"
    assert "The study of 2020-01-05 ended after midnight; it is one exam of 2020-01-05." in [
        p.message for p in exam.problems
    ]


def test_two_studies_around_midnight_are_one_visit(tmp_path: Path) -> None:
    dwi(tmp_path / "a", StudyTime="233000", AcquisitionTime="235000")
    dwi(
        tmp_path / "b",
        date="20200106",
        StudyTime="003000",
        AcquisitionTime="004000",
        StudyInstanceUID=uid_of("another"),
    )
    assert refusal_of(tmp_path).message.startswith("There are two studies of 2020-01-05 and, within hours, 2020-01-06.")


def test_studies_on_two_days_that_follow_each_other_are_two_exams(tmp_path: Path) -> None:
    dwi(tmp_path / "a")
    dwi(tmp_path / "b", date="20200106")
    assert [exam.exam_id for exam in exams(read_input(tmp_path))] == ["2020-01-05", "2020-01-06"]


def test_a_report_of_the_same_day_is_no_second_exam(tmp_path: Path) -> None:
    dwi(tmp_path / "a")
    ct = dwi(tmp_path / "b", number=3, Modality="CT", StudyInstanceUID=uid_of("ct"))
    assert len(ct) == SHAPE[2]
    assert len(exams(read_input(tmp_path))) == 1


def test_patient_ids_that_differ_in_spacing_are_one_patient_s(tmp_path: Path) -> None:
    dwi(tmp_path / "a", patient_id="AB 12")
    dwi(tmp_path / "b", patient_id="AB12 ", date="20210314", number=2)
    dwi(tmp_path / "c", patient_id="AB 12", date="20220314", number=3)
    (patient,) = read_input(tmp_path).patients
    assert patient.patient_id == "AB 12"
    assert len(patient.exams) == 3
    assert patient.problems[0].message == (
        "The patient id is written with different spacing in different files; they were read as one patient's."
    )


def test_one_id_with_two_dates_of_birth_is_refused(tmp_path: Path) -> None:
    dwi(tmp_path / "a", PatientBirthDate="19500101")
    dwi(tmp_path / "b", date="20210314", PatientBirthDate="19620704")
    refusal = refusal_of(tmp_path)
    assert "2 different dates of birth" in refusal.message
    assert "1950" not in refusal.message


@pytest.mark.parametrize(
    ("one", "other", "what"),
    [
        ({"PatientName": "DOE^JOHN"}, {"PatientName": "MILLER^ANNA"}, "names"),
        ({"PatientSex": "M"}, {"PatientSex": "F"}, "sexes"),
        ({"IssuerOfPatientID": "North"}, {"IssuerOfPatientID": "South"}, "issuers of the id"),
    ],
)
def test_one_id_of_two_people_is_refused(tmp_path: Path, one: dict[str, str], other: dict[str, str], what: str) -> None:
    dwi(tmp_path / "a", patient_id="ANON", **one)
    dwi(tmp_path / "b", patient_id="ANON", date="20210314", **other)
    refusal = refusal_of(tmp_path)
    assert f"have different {what}: they may be of different people" in refusal.message
    assert not any(word in refusal.message for word in (*one.values(), *other.values()))
    assert len(only_exam_dates(tmp_path, one_patient=True)) == 2


def only_exam_dates(folder: Path, **options: Any) -> list[datetime.date]:
    return [exam.date for exam in exams(read_input(folder, ReadingOptions(**options)))]


def test_one_person_s_name_may_change(tmp_path: Path) -> None:
    dwi(tmp_path / "a", PatientName="DOE^ANNA")
    dwi(tmp_path / "b", date="20210314", PatientName="Miller, Anna")
    (patient,) = read_input(tmp_path).patients
    assert not patient.problems
    for folder, name, birth in (("a", "A", "19500101"), ("b", "B", "1950.01.01")):
        changed(list((tmp_path / folder).iterdir()), PatientName=name, PatientBirthDate=birth)
    (patient,) = read_input(tmp_path).patients
    assert [problem.code for problem in patient.problems] == ["patient_names_differ"]


def test_an_exam_of_another_part_of_the_body_is_told(tmp_path: Path) -> None:
    dwi(tmp_path, BodyPartExamined="BRAIN")
    (problem,) = only_exam(tmp_path).problems
    assert problem.message == "The images say that they show: brain. If it is no exam of the liver, leave it out."


def test_without_a_patient_id_the_user_says_that_it_is_one_patient(tmp_path: Path) -> None:
    folder = tmp_path / "Case 7"
    dwi(folder / "a", PatientID="")
    dwi(folder / "b", date="20210314", PatientID="other hospital's")
    refused = read_input(folder).refused
    assert [refusal.message for refusal in refused.values()] == [
        "5 files have no patient id: whose they are can't be told. If all of the input is one patient's, say --one-patient."
    ]
    (patient,) = read_input(folder, ReadingOptions(one_patient=True)).patients
    assert patient.patient_id == "Case 7"
    assert len(patient.exams) == 2


def test_several_patients_are_a_cohort_with_outcomes(tmp_path: Path) -> None:
    for number, name in enumerate(("A", "B")):
        dwi(tmp_path / name, patient_id=name, number=number + 1)
    (tmp_path / "outcomes.csv").write_text("patient_id,diagnosis_date,last_seen_date\nA,,2022-01-01\n")
    cohort = read_input(tmp_path)
    assert [patient.patient_id for patient in cohort.patients] == ["A", "B"]
    assert list(cohort.outcomes) == ["A"]


def test_a_study_with_two_dates_is_not_guessed_at(tmp_path: Path) -> None:
    study = uid_of("one")
    dwi(tmp_path / "a", StudyInstanceUID=study)
    dwi(tmp_path / "b", number=2, date="20200707", StudyInstanceUID=study)
    assert refusal_of(tmp_path).message.startswith("One study has several dates (2020-01-05, 2020-07-07).")


def test_a_date_that_the_acquisition_contradicts_is_told(tmp_path: Path) -> None:
    dwi(tmp_path, AcquisitionDate="20180601")
    (problem,) = only_exam(tmp_path).problems
    assert problem.message == (
        "The study of 2020-01-05 holds images that say they were acquired on 2018-06-01. Check the date."
    )


def test_without_a_study_date_that_of_the_acquisition_is_taken_and_told(tmp_path: Path) -> None:
    dwi(tmp_path, StudyDate="")
    exam = only_exam(tmp_path)
    assert exam.exam_id == "2020-01-05"
    assert exam.problems[0].code == "date_of_acquisition"


# ---------------------------------------------------------------- many files


def frames_below(folder: Path, read: dict[Hashable, Alike] | None) -> list[Frame]:
    with quietly():
        headers = [read_header(path) for path in walk(folder) if is_dicom(path)]
        return [frame for header in headers if header is not None for frame in frames_of(header, read)]


@pytest.mark.parametrize("name", ["shared", "committed"])
def test_files_that_are_read_after_others_give_the_same_frames_as_alone(
    name: str, request: pytest.FixtureRequest
) -> None:
    """What files have in common is worked out once; nothing of one file may get into another one's frames."""
    folder = request.getfixturevalue("shared_data") / "real" if name == "shared" else REAL
    read: dict[Hashable, Alike] = {}
    frames = frames_below(folder, read)
    assert frames == frames_below(folder, None)
    assert 0 < len(read) < len(frames) / 2


@pytest.mark.parametrize("dialect", DIALECTS)
def test_files_of_every_dialect_give_the_same_frames_after_others_as_alone(tmp_path: Path, dialect: str) -> None:
    stacks = [Stack(volume(n) / 7, AXIAL, b_value=b, echo_time=60 + b) for n, b in enumerate((0.0, 150.0, 800.0))]
    for syntax in (pydicom.uid.ImplicitVRLittleEndian, pydicom.uid.ExplicitVRBigEndian):
        folder = tmp_path / syntax
        write_stacks(folder, stacks, series_tags(date="20200105"), Writing(syntax, dialect, shuffled=True))
    for number, path in enumerate(walk(tmp_path)):  # each slice at a time of its own, some with a value of its own
        dataset = pydicom.dcmread(path)
        dataset.AcquisitionTime = f"0930{number:02d}.5"
        dataset.TriggerTime = number % 3 * 10
        if number % 5 == 0:
            dataset.AcquisitionNumber = number
        dataset.save_as(path)
    read: dict[Hashable, Alike] = {}
    frames = frames_below(tmp_path, read)
    assert frames == frames_below(tmp_path, None)
    assert len({frame.acquired for frame in frames}) == len(frames) == 30
    assert 0 < len(read) < len(frames)


# ---------------------------------------------------------------- sentences


def test_damaged_pixels_are_refused_with_the_slice_named(tmp_path: Path) -> None:
    paths = dwi(tmp_path, number=8)
    paths[3].write_bytes(paths[3].read_bytes()[:-40])
    with pytest.raises(Refusal) as refused:
        only_exam(tmp_path).images["DWI_b0"].read()
    assert refused.value.message == (
        "series 8, b 0: the pixels of slice 4 of 5 are damaged, incomplete or missing. Export the series again."
    )


def compressed_as(path: Path, syntax: str, stream: bytes) -> None:
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = pydicom.encaps.encapsulate([stream])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)


_LARGE = struct.pack(">HBHHB", 11, 16, 65000, 65000, 1) + b"\x01\x11\x00"  # 65,000 × 65,000 pixels of 16 bits
_SCAN = b"\xff\xda" + struct.pack(">HB", 8, 1) + b"\x01\x00\x01\x00\x00" + bytes(200)


@pytest.mark.parametrize(
    ("syntax", "stream"),
    [
        ("1.2.840.10008.1.2.4.70", b"\xff\xd8\xff\xc3" + _LARGE + _SCAN),
        ("1.2.840.10008.1.2.4.80", b"\xff\xd8\xff\xf7" + _LARGE + _SCAN),
        (
            "1.2.840.10008.1.2.4.90",
            b"\xff\x4f\xff\x51" + struct.pack(">HH8IH", 41, 0, 60000, 60000, *[0] * 2, 60000, 60000, 0, 0, 1),
        ),
        ("1.2.840.10008.1.2.4.80", b"\xff\xd8 no codestream at all"),
    ],
    ids=["JPEG lossless", "JPEG-LS", "JPEG 2000", "nothing"],
)
def test_a_codestream_of_another_size_is_refused_before_it_is_decoded(
    tmp_path: Path, syntax: str, stream: bytes
) -> None:
    """Decoders make what it announces, 16 GB; that of JPEG-LS ends the process."""
    for path in dwi(tmp_path):
        compressed_as(path, syntax, stream)
    with pytest.raises(Refusal) as refused:
        only_exam(tmp_path).images["DWI_b0"].read()
    assert refused.value.code == "unreadable_file"


def test_a_deflated_file_that_unfolds_to_gigabytes_is_passed_over(tmp_path: Path) -> None:
    (path, *_) = write_stacks(
        tmp_path / "a", [Stack(volume(), AXIAL)], writing=Writing(syntax=pydicom.uid.DeflatedExplicitVRLittleEndian)
    )
    dwi(tmp_path / "b")
    content = path.read_bytes()
    begin = 144 + int.from_bytes(content[140:144], "little")
    fold = zlib.compressobj(9, zlib.DEFLATED, -15)
    folded = [fold.compress(bytes(2**24)) for _ in range(40)]
    for old in path.parent.iterdir():
        old.unlink()
    path.write_bytes(content[:begin] + b"".join(folded) + fold.flush())
    assert [problem.code for problem in read_input(tmp_path).problems] == ["damaged_files"]


def test_frames_that_nothing_places_are_not_counted_one_by_one(tmp_path: Path) -> None:
    path = dwi(tmp_path)[0]
    dataset = pydicom.dcmread(path)
    dataset.NumberOfFrames = 50_000
    dataset.save_as(path)
    with quietly():
        header = read_header(path)
    assert header is not None
    assert len(frames_of(header)) == 1


def test_a_compressed_file_of_many_frames_gives_each_its_own(tmp_path: Path) -> None:
    written = np.kron(volume(), np.ones((5, 5, 1)))
    affine = centred_affine(written.shape, (3.0, 3.0, 5.0), LPS)
    writing = Writing(syntax=pydicom.uid.JPEG2000Lossless, shuffled=True)
    stacks = [Stack(written, affine, b_value=0.0), Stack(written[::-1].copy(), affine, b_value=800.0)]
    write_enhanced(tmp_path / "IM", stacks, series_tags(description="DWI"), writing)
    images = only_exam(tmp_path).images
    assert_same_voxels(images["DWI_b0"], written, affine)
    assert_same_voxels(images["DWI_b800"], written[::-1], affine)


def changed(paths: list[Path], **tags: Any) -> None:
    for path in paths:
        dataset = pydicom.dcmread(path)
        for keyword, value in tags.items():
            setattr(dataset, keyword, value)
        dataset.save_as(path)


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ({"RescaleSlope": 0, "RescaleIntercept": 1}, "not_finite"),
        ({"BitsStored": 12, "HighBit": 15}, "unreadable_file"),
        ({"BitsStored": 8, "HighBit": 7}, "unreadable_file"),  # the values are larger
    ],
)
def test_values_that_the_header_contradicts_are_refused(tmp_path: Path, tags: dict[str, Any], code: str) -> None:
    changed(dwi(tmp_path), **tags)
    with pytest.raises(Refusal) as refused:
        only_exam(tmp_path).images["DWI_b0"].read()
    assert refused.value.code == code


def test_a_slope_that_is_no_number_leaves_no_values(tmp_path: Path) -> None:
    for path in dwi(tmp_path):
        dataset = pydicom.dcmread(path)
        dataset.add_new(0x00281053, "LO", "1,5")
        dataset.save_as(path)
    with pytest.raises(Refusal, match="not numbers"):
        only_exam(tmp_path).images["DWI_b0"].read()


@pytest.mark.parametrize(
    ("photometric", "reason"),
    [("MONOCHROME1", "a negative: dark is stored as bright"), ("PALETTE COLOR", "a colour image")],
)
def test_negatives_and_colours_are_no_channel(tmp_path: Path, photometric: str, reason: str) -> None:
    dwi(tmp_path / "a")
    changed(dwi(tmp_path / "b", number=2), PhotometricInterpretation=photometric)
    exam = only_exam(tmp_path)
    assert list(exam.images) == ["DWI_b0"]
    assert reason in [image.reason for image in exam.found]


def test_a_scanner_s_protocols_and_raw_data_are_not_called_damaged(tmp_path: Path) -> None:
    dwi(tmp_path / "a")
    path = dwi(tmp_path / "b", number=2, SOPClassUID="1.3.12.2.1107.5.9.1")[0]
    dataset = pydicom.dcmread(path)
    del dataset.Rows
    dataset.save_as(path)
    assert not read_input(tmp_path).problems


def test_whether_names_differ_does_not_depend_on_their_order(tmp_path: Path) -> None:
    """Of three names two have nothing in common, whichever of them comes first."""
    for number, name in enumerate(("DOE^JOHN", "DOE^JANE", "ROE^JANE")):
        dwi(tmp_path / name, number=number + 1, date=f"2020010{number + 1}", PatientName=name)
    assert refusal_of(tmp_path).message.startswith("The files of this patient id have different names:")


@pytest.mark.parametrize("slope", ["nan", "inf"])
def test_a_slope_that_is_no_number_is_not_a_damaged_file(tmp_path: Path, slope: str) -> None:
    path = dwi(tmp_path)[-1]
    dataset = pydicom.dcmread(path)
    dataset.RescaleSlope, dataset.RescaleIntercept = "1.00", "0"
    dataset.save_as(path)
    path.write_bytes(path.read_bytes().replace(b"1.00", slope.encode().ljust(4), 1))
    cohort = read_input(tmp_path)
    assert not cohort.problems
    with pytest.raises(Refusal, match="voxels that are not numbers"):
        exams(cohort)[0].images["DWI_b0"].read()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Refusal, match=r"^pipe is no folder, table or DICOM file"):
        read_input(tmp_path / "pipe")


def test_a_compression_that_nobody_knows_is_named(tmp_path: Path) -> None:
    for path in dwi(tmp_path):
        content = path.read_bytes()
        known = b"1.2.840.10008.1.2.1\0"
        assert known in content
        path.write_bytes(content.replace(known, b"1.2.840.10008.1.2.9\0"))
    with pytest.raises(Refusal) as refused:
        only_exam(tmp_path).images["DWI_b0"].read()
    assert refused.value.message == (
        "series 1, b 0 is compressed (unknown transfer syntax 1.2.840.10008.1.2.9), and nothing installed can read that. "
        'Install the decoders: pip install "pylibjpeg[openjpeg]" python-gdcm, or decompress the files.'
    )


def test_a_header_that_can_t_be_read_is_counted_not_named(tmp_path: Path) -> None:
    paths = dwi(tmp_path)
    (tmp_path / "DOE_JOHN.dcm").write_bytes(paths[0].read_bytes()[:200])
    cohort = read_input(tmp_path)
    assert [p.message for p in cohort.problems] == ["1 file begins like DICOM and can't be read; it was passed over."]


def test_links_that_lead_nowhere_are_told_and_circles_end(tmp_path: Path) -> None:
    dwi(tmp_path / "a")
    (tmp_path / "a" / "circle").symlink_to(tmp_path)
    (tmp_path / "lost").symlink_to(tmp_path / "not there")
    cohort = read_input(tmp_path)
    assert_same_voxels(exams(cohort)[0].images["DWI_b0"], volume(1), AXIAL)
    assert [p.message for p in cohort.problems] == ["1 file can't be opened; it was passed over."]


def test_a_folder_that_can_t_be_opened_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dwi(tmp_path / "a")
    (tmp_path / "b").mkdir()
    scandir = os.scandir

    def guarded(folder: Path) -> Any:
        if Path(folder).name == "b":
            raise PermissionError("b")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(Refusal, match=r"A folder of the input can't be opened: an exam may be in it\."):
        read_input(tmp_path)


def test_what_is_no_mr_is_refused_with_what_it_is(tmp_path: Path) -> None:
    dwi(tmp_path, Modality="CT")
    with pytest.raises(Refusal) as refused:
        read_input(tmp_path)
    assert refused.value.message == (
        "The DICOM files hold no MR image that can be used. Found instead: no MR but CT (5). Give the folder that holds the "
        "MR series."
    )


def test_an_exam_without_the_channel_is_refused_naming_what_may_be_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in dwi(tmp_path, number=8)[1:3]:
        path.unlink()
    assert main(["predict", str(tmp_path), "--out", str(tmp_path / "out")]) == 3
    told = capsys.readouterr().out
    assert "Exam 2020-01-05 lacks DWI_b0, DWI_b150, DWI_b400, DWI_b800" in told
    assert "series 8, b 0 (DWI, lacks 2 slices between its slices 1 and 2" in told


def test_nothing_of_a_patient_s_is_printed_by_the_libraries(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for path in dwi(tmp_path, PatientName="DOE^JOHN"):
        dataset = pydicom.dcmread(path)
        dataset.add_new(0x00100040, "CS", "not a value of this kind, DOE^JOHN")
        dataset.add_new(0x00080050, "SH", "DOE^JOHN, far too long for this representation")
        dataset.save_as(path)
    assert main(["inspect", str(tmp_path)]) == 0
    assert "DOE" not in "".join(capfd.readouterr())


def test_a_description_that_holds_the_patient_s_name_is_shown_without_it(tmp_path: Path) -> None:
    dwi(tmp_path, patient_id="AB1234", PatientName="DOE^JOHN^^Dr", SeriesDescription="DWI john doe AB1234 liver")
    (found,) = only_exam(tmp_path).found
    assert found.description == "DWI … … … liver"


# ---------------------------------------------------------------- real files, committed


def found_in(folder: str) -> list[FoundImage]:
    return list(itertools.chain.from_iterable(exam.found for exam in exams(read_input(REAL / folder))))


def test_siemens_b_values_written_as_raw_bytes_give_four_channels() -> None:
    (exam,) = exams(read_input(REAL / "prostatex-dwi"))
    assert list(exam.images) == ["DWI_b0", "DWI_b150", "DWI_b400", "DWI_b800"]
    assert exam.exam_id == "2011-02-18"
    means = [float(image.read().mean()) for image in exam.images.values()]
    assert means == sorted(means, reverse=True)  # the signal falls with b
    grid = exam.images["DWI_b0"].grid
    np.testing.assert_allclose(grid.spacing, (1.625, 1.625, 3.6), atol=1e-3)


def test_a_missing_slice_is_refused_naming_the_gap() -> None:
    (found,) = found_in("missing-slice")
    assert found.reason.startswith("lacks 1 slice between its slices 3 and 4 (a gap of 6 mm where 3 mm is usual).")


def test_maps_are_not_mixed_with_the_images_of_an_enhanced_file() -> None:
    found = found_in("enhanced-molli")
    assert [image.reason for image in found].count("a map") == 2
    assert len(found) == 10
