"""The files that other tests read as DICOM are what they are said to be: dcm2niix reads the same out of them."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dcm2niix_reference import Converted, canonical, convert, same_geometry, same_voxels
from dicom_files import (
    DIALECTS,
    SYNTAXES,
    PatientWriting,
    Stack,
    Writing,
    quantisation_step,
    write_clutter,
    write_enhanced,
    write_patient,
    write_series,
    write_stacks,
)
from helpers import centred_affine, make_patient, rotation
from pydicom import dcmread

from HCCNetLib.records import Grid

SHAPE = (36, 33, 9)  # JPEG 2000 wants 32 voxels along a side
SPACING = (1.5, 2.0, 3.5)
PLANES = {
    "axial": np.diag([-1.0, -1.0, 1.0]),
    "coronal": np.array([[-1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]]),
    "sagittal": np.array([[0, 0, 1.0], [-1.0, 0, 0], [0, -1.0, 0]]),
}
FLIPS = [np.diag(signs) for signs in itertools.product((1.0, -1.0), repeat=3)]
OBLIQUE = rotation(13, -8, 21)


def some_stack(directions: np.ndarray = PLANES["axial"], number: int = 0, **more: Any) -> Stack:
    """A volume without any symmetry."""
    affine = centred_affine(SHAPE, SPACING, directions)
    volume = np.random.default_rng(number).normal(500, 200, SHAPE) + 40 * np.arange(SHAPE[0])[:, None, None]
    return Stack(volume, affine, **more)


def differences(stacks: list[Stack], files: tuple[Converted, ...], dtype: Any = np.uint16) -> list[str]:
    """What dcm2niix has otherwise than the volumes, whichever order it has them in."""
    found = [(converted, volume) for converted in files for volume in converted.volumes()]
    if len(found) != len(stacks):
        return [f"{len(found)} volumes for {len(stacks)}"]
    told = []
    for stack in stacks:
        tolerance = 0.51 * quantisation_step(stack.volume, dtype) + 1e-6 * float(np.abs(stack.volume).max())
        ways = [_difference(stack, converted, volume, tolerance) for converted, volume in found]
        if None not in ways:
            told.append(f"none of {ways}")
    return told


def _difference(stack: Stack, converted: Converted, volume: np.ndarray, tolerance: float) -> str | None:
    return same_geometry(stack.grid, converted) or same_voxels(stack.volume, stack.grid, volume, converted, tolerance)


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("turn", [np.eye(3), OBLIQUE], ids=["straight", "oblique"])
def test_every_flip_of_every_plane_is_read_back(tmp_path: Path, plane: str, turn: np.ndarray) -> None:
    for number, flip in enumerate(FLIPS):
        stack = some_stack(turn @ PLANES[plane] @ flip, number)
        write_series(tmp_path / f"{number}", stack.volume, stack.affine)
        assert differences([stack], convert(tmp_path / f"{number}", tmp_path / f"out{number}").files) == []


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_every_transfer_syntax_holds_the_same_values(tmp_path: Path, syntax: str, dtype: Any) -> None:
    stack = some_stack(OBLIQUE @ PLANES["axial"])
    paths = write_series(tmp_path / "in", stack.volume, stack.affine, writing=Writing(SYNTAXES[syntax], dtype=dtype))
    quantised = np.stack([dcmread(path).pixel_array.T for path in paths], axis=2)
    first = dcmread(paths[0], stop_before_pixels=True)
    values = quantised * float(first.RescaleSlope) + float(first.RescaleIntercept)
    assert first.file_meta.TransferSyntaxUID == SYNTAXES[syntax]
    assert np.abs(values - stack.volume).max() <= 0.51 * quantisation_step(stack.volume, dtype)
    if syntax != "deflated":  # dcm2niix does not inflate
        assert differences([stack], convert(tmp_path / "in", tmp_path / "out").files, dtype) == []


def test_whole_numbers_are_stored_as_they_are(tmp_path: Path) -> None:
    volume = (np.arange(np.prod(SHAPE)) - 40).reshape(SHAPE).astype(np.float32)
    paths = write_series(tmp_path, volume, np.diag([2.0, 2, 2, 1]), writing=Writing(dtype=np.int16))
    assert "RescaleSlope" not in dcmread(paths[0])
    assert np.array_equal(dcmread(paths[3]).pixel_array.T, volume[:, :, 3])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_dcm2niix_finds_the_b_values_of_every_dialect(tmp_path: Path, dialect: str) -> None:
    syntax = SYNTAXES["implicit little endian" if "unknown" in dialect else "explicit little endian"]
    stacks = [some_stack(number=n, b_value=float(b)) for n, b in enumerate((0, 50, 400, 800))]
    write_stacks(tmp_path / "in", stacks, writing=Writing(syntax, dialect))
    files = convert(tmp_path / "in", tmp_path / "out").files
    assert differences(stacks, files) == []
    b_values = sorted(b for converted in files for b in converted.b_values)
    assert b_values == [0, 50, 400, 800]


@pytest.mark.parametrize("shuffled", [False, True], ids=["in order", "shuffled"])
@pytest.mark.parametrize("syntax", ["explicit little endian", "implicit little endian"])
def test_an_enhanced_object_holds_all_its_volumes(tmp_path: Path, syntax: str, shuffled: bool) -> None:
    stacks = [some_stack(OBLIQUE @ PLANES["coronal"], number=n, b_value=float(b)) for n, b in enumerate((0, 400, 800))]
    writing = Writing(SYNTAXES[syntax], "nested", shuffled=shuffled)
    write_enhanced(tmp_path / "in" / "IM1", stacks, writing=writing)
    files = convert(tmp_path / "in", tmp_path / "out").files
    assert differences(stacks, files) == []
    frames = dcmread(tmp_path / "in" / "IM1").PerFrameFunctionalGroupsSequence
    assert sorted({frame.MRDiffusionSequence[0].DiffusionBValue for frame in frames}) == [0, 400, 800]


@pytest.mark.parametrize("syntax", ["explicit big endian", "deflated", "RLE", "JPEG 2000"])
def test_an_enhanced_object_has_the_same_frames_in_every_transfer_syntax(tmp_path: Path, syntax: str) -> None:
    stacks = [some_stack(number=n) for n in range(2)]
    write_enhanced(tmp_path / "plain", stacks)
    write_enhanced(tmp_path / "other", stacks, writing=Writing(SYNTAXES[syntax]))
    assert np.array_equal(dcmread(tmp_path / "plain").pixel_array, dcmread(tmp_path / "other").pixel_array)


def test_an_enhanced_object_tells_phases_echoes_and_frame_types_apart(tmp_path: Path) -> None:
    stacks = [
        some_stack(number=1, temporal=1, echo_time=2.3),
        some_stack(number=2, temporal=2, echo_time=4.6, image_type=("ORIGINAL", "PRIMARY", "P", "ND")),
    ]
    write_enhanced(tmp_path / "IM1", stacks)
    frames = dcmread(tmp_path / "IM1").PerFrameFunctionalGroupsSequence
    assert len(frames) == 2 * SHAPE[2]
    told = {
        (
            frame.FrameContentSequence[0].TemporalPositionIndex,
            frame.MREchoSequence[0].EffectiveEchoTime,
            frame.MRImageFrameTypeSequence[0].ComplexImageComponent,
        )
        for frame in frames
    }
    assert told == {(1, 2.3, "MAGNITUDE"), (2, 4.6, "PHASE")}


def test_scattered_files_have_no_telling_names_and_numbers_say_nothing(tmp_path: Path) -> None:
    stack = some_stack(OBLIQUE @ PLANES["sagittal"])
    writing = Writing(shuffled=True, scattered=True)
    paths = write_series(tmp_path / "in", stack.volume, stack.affine, writing=writing)
    assert len({path.parent for path in paths}) > 2
    assert not any(path.suffix for path in paths)
    numbers = [int(dcmread(path).InstanceNumber) for path in paths]
    assert sorted(numbers) == list(range(1, SHAPE[2] + 1)) != numbers
    write_clutter(tmp_path / "in")
    files = convert(tmp_path / "in", tmp_path / "out").files
    # dcm2niix takes the segmentation for an image.
    assert differences([stack], tuple(c for c in files if c.sidecar["Modality"] == "MR")) == []


def test_the_same_call_writes_the_same_bytes(tmp_path: Path) -> None:
    stack = some_stack()
    for name in ("a", "b"):
        write_series(tmp_path / name, stack.volume, stack.affine, writing=Writing(scattered=True, shuffled=True))
    contents = [
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in ("a", "b")
    ]
    assert contents[0] == contents[1]


@pytest.mark.parametrize("is_enhanced", [False, True], ids=["classic", "enhanced"])
def test_a_patient_s_channels_are_series_of_a_study_per_exam(tmp_path: Path, is_enhanced: bool) -> None:
    channels = ("DWI_b0", "DWI_b400", "DWI_b800", "T1_native", "T1_arterial", "T1_in", "T1_out", "T2_short", "T2_long")
    patient = make_patient(["2020-01-05", "2021-03-14"], channels)
    write_patient(
        tmp_path / "in", patient, PatientWriting(Writing(dialect="nested" if is_enhanced else "Siemens"), is_enhanced)
    )
    for number, exam in enumerate(patient.exams, 1):
        files = convert(tmp_path / "in" / f"ST{number:06d}", tmp_path / f"out{number}").files
        series = {converted.series_uid for converted in files if converted.sidecar["Modality"] == "MR"}
        assert len(series) == 6  # DWI, ADC, two phases, in and out, T2
        for channel, image in exam.images.items():
            data = image.read()
            stack = Stack(data, image.grid.affine)
            tolerance = 0.51 * quantisation_step(data) + 1e-3
            ways = [_difference(stack, c, volume, tolerance) for c in files for volume in c.volumes()]
            assert ways.count(None) == 1, f"{channel}: {ways}"


def test_what_differs_is_told(tmp_path: Path) -> None:
    stack = some_stack(OBLIQUE @ PLANES["coronal"])
    write_series(tmp_path / "in", stack.volume, stack.affine)
    (converted,) = convert(tmp_path / "in", tmp_path / "out").files
    x, y, z = SHAPE
    moved = stack.affine.copy()
    moved[0, 3] += 0.01
    assert same_geometry(Grid((x, y, z), stack.affine), converted) is None
    assert same_geometry(Grid((x, y, z), moved), converted) == "affines differ by 0.01 mm"
    assert "shape" in (same_geometry(Grid((x, y, z - 1), stack.affine), converted) or "")
    mirrored = stack.volume[::-1]
    assert "values differ" in (_difference(replace(stack, volume=mirrored), converted, converted.volumes()[0], 1) or "")


def test_the_same_grid_in_another_order_of_axes_is_the_same() -> None:
    grid = some_stack(OBLIQUE).grid
    x, y, z = SHAPE
    reordered = Grid((z, x, y), grid.affine[:, [2, 0, 1, 3]])
    assert canonical(grid).shape == canonical(reordered).shape
    assert np.allclose(canonical(grid).affine, canonical(reordered).affine)
