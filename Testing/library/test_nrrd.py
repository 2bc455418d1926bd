"""NRRD images: the same picture as the NIfTI file, and every mistake in a sentence."""

from __future__ import annotations

import builtins
import bz2
import gzip
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import BODY_CENTRE, DWI, body, centred_affine, positions, rotation, write_nifti

from HCCNetLib.readers import check_images, read_input
from HCCNetLib.readers.exams import NamedFile, split_volumes
from HCCNetLib.readers.images import image_stem, open_image, volume_count
from HCCNetLib.readers.nifti import NiftiImage
from HCCNetLib.readers.nrrd import NrrdImage
from HCCNetLib.records import PHANTOM_MARK, Image, Refusal

SHAPE = (9, 7, 5)
SPACING = (2.0, 3.0, 5.5)
SIGNS = {"right-anterior-superior": (1, 1, 1), "LAS": (-1, 1, 1), "left-posterior-superior": (-1, -1, 1)}


def refusal_of(action: Callable[[], object]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        action()
    return caught.value


def picture(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 1000, shape).astype(np.float32)


AFFINE = centred_affine(SHAPE, SPACING, rotation(10, -20, 30))


def vector(values: np.ndarray) -> str:
    return "(" + ",".join(repr(float(v)) for v in values) + ")"


def header_of(data: np.ndarray, affine: np.ndarray = AFFINE, space: str = "LPS", **fields: str) -> dict[str, str]:
    """The header of a 3D image, or of a 4D image whose last axis is none of space; ``fields`` change it."""
    signs = np.array({"LPS": (-1, -1, 1)}.get(space) or SIGNS[space])
    columns = [vector(affine[:3, axis] * signs) for axis in range(3)]
    code = data.dtype.str[1:]
    header = {
        "type": {"f4": "float", "i2": "short", "f8": "double", "u1": "uchar"}[code],
        "dimension": str(data.ndim),
        "space": space,
        "sizes": " ".join(map(str, data.shape)),
        "space directions": " ".join(columns + ["none"] * (data.ndim - 3)),
        "kinds": " ".join(["domain"] * 3 + ["list"] * (data.ndim - 3)),
        "endian": "big" if data.dtype.str[0] == ">" else "little",
        "encoding": "raw",
        "space origin": vector(affine[:3, 3] * signs),
    }
    return {name: text for name, text in (header | {k.replace("_", " "): v for k, v in fields.items()}).items() if text}


def write_header(path: Path, header: dict[str, str], data: bytes, notes: str = "") -> Path:
    """Writes a header as it is, with key/value lines, and what follows it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{name}: {text}\n" for name, text in header.items())
    path.write_bytes(f"NRRD0005\n# a comment\n{lines}{notes}\n".encode() + data)
    return path


def write_nrrd(path: Path, data: np.ndarray, notes: str = "", **fields: str) -> Path:
    return write_header(path, header_of(data, **fields), data.tobytes(order="F"), notes)


def image(path: Path) -> NrrdImage:
    return NrrdImage(path, path.name)


# ---------------------------------------------------------------- the same as NIfTI

DIRECTIONS = {
    "straight": np.eye(3),
    "flipped": np.diag([-1.0, 1.0, 1.0]),
    "upside down": np.diag([1.0, -1.0, -1.0]),
    "permuted": np.eye(3)[:, [2, 0, 1]],
    "permuted and left-handed": np.eye(3)[:, [1, 0, 2]],
    "oblique": rotation(17, -8, 40),
    "oblique and left-handed": rotation(-30, 12, 5) @ np.diag([1.0, 1.0, -1.0]),
}


@pytest.mark.parametrize("space", SIGNS)
@pytest.mark.parametrize("directions", DIRECTIONS.values(), ids=list(DIRECTIONS))
def test_an_nrrd_image_lies_where_the_nifti_image_lies(tmp_path: Path, directions: np.ndarray, space: str) -> None:
    affine = centred_affine(SHAPE, SPACING, directions)
    write_nifti(tmp_path / "a.nii.gz", picture(), affine)
    nifti, nrrd = (
        NiftiImage(tmp_path / "a.nii.gz", "a"),
        image(write_nrrd(tmp_path / "a.nrrd", picture(), affine=affine, space=space)),
    )
    assert nrrd.grid.shape == nifti.grid.shape
    assert nrrd.grid.affine == pytest.approx(nifti.grid.affine, abs=1e-4)
    assert nrrd.grid.spacing == pytest.approx(SPACING)
    assert np.array_equal(nrrd.read(), nifti.read())
    assert nrrd.read().dtype == np.float32
    assert nrrd.header_problems() == []
    assert isinstance(nrrd, Image)


ENCODERS: dict[str, Callable[[np.ndarray], bytes]] = {
    "raw": lambda a: a.tobytes(order="F"),
    "gzip": lambda a: gzip.compress(a.tobytes(order="F")),
    "gz": lambda a: gzip.compress(a.tobytes(order="F")),
    "bzip2": lambda a: bz2.compress(a.tobytes(order="F")),
    "ascii": lambda a: "\n".join(str(v) for v in a.flatten(order="F")).encode(),
    "text": lambda a: " ".join(str(v) for v in a.flatten(order="F")).encode() + b"\n",
}


@pytest.mark.parametrize("encoding", ENCODERS)
@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<f4", ">f8", "u1"])
@pytest.mark.parametrize("is_detached", [False, True])
def test_voxels_are_the_same_however_they_are_written(
    tmp_path: Path, encoding: str, dtype: str, is_detached: bool
) -> None:
    data = (picture() % 200).astype(dtype)
    written = ENCODERS[encoding](data)
    if is_detached:
        (tmp_path / "voxels.raw").write_bytes(written)
        path = write_header(tmp_path / "a.nhdr", header_of(data, encoding=encoding, data_file="./voxels.raw"), b"")
    else:
        path = write_header(tmp_path / "a.nrrd", header_of(data, encoding=encoding), written)
    assert np.array_equal(image(path).read(), data.astype(np.float32))


def test_a_header_with_the_line_ends_of_windows_and_skipped_bytes_is_read(tmp_path: Path) -> None:
    data = picture()
    header = header_of(data, data_file="v.raw", line_skip="1", byte_skip="3")
    path = write_header(tmp_path / "a.nhdr", header, b"")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    (tmp_path / "v.raw").write_bytes(b"a line\n123" + data.tobytes(order="F"))
    assert np.array_equal(image(path).read(), data)
    header = header_of(data, data_file="v.raw", byte_skip="-1")
    assert np.array_equal(image(write_header(tmp_path / "b.nhdr", header, b"")).read(), data)


def test_what_pynrrd_writes_is_read(tmp_path: Path) -> None:
    nrrd = pytest.importorskip("nrrd")
    signs = np.diag([-1.0, -1.0, 1.0])
    header = {
        "space": "left-posterior-superior",
        "space directions": (signs @ AFFINE[:3, :3]).T,
        "space origin": signs @ AFFINE[:3, 3],
        "kinds": ["domain"] * 3,
    }
    nrrd.write(str(tmp_path / "a.nrrd"), picture(), header)
    assert image(tmp_path / "a.nrrd").grid.affine == pytest.approx(AFFINE)
    assert np.array_equal(image(tmp_path / "a.nrrd").read(), picture())


def test_the_fingerprint_changes_with_header_voxels_and_volume(tmp_path: Path) -> None:
    data = picture()
    (tmp_path / "v.raw").write_bytes(data.tobytes(order="F"))
    path = write_header(tmp_path / "a.nhdr", header_of(data, data_file="v.raw"), b"")
    marks = {image(path).fingerprint(), NrrdImage(path, "a", 1).fingerprint()}
    (tmp_path / "v.raw").write_bytes((data + 1).tobytes(order="F"))
    marks.add(image(path).fingerprint())
    write_header(path, header_of(data, data_file="v.raw", affine=np.diag([2.0, 2, 2, 1])), b"")
    marks.add(image(path).fingerprint())
    assert len(marks) == 4


def test_a_generated_image_is_known_by_its_header(tmp_path: Path) -> None:
    assert image(write_nrrd(tmp_path / "a.nrrd", picture(), content=PHANTOM_MARK)).is_phantom
    assert not image(write_nrrd(tmp_path / "b.nrrd", picture())).is_phantom
    assert not image(tmp_path / "nothing.nrrd").is_phantom


# ---------------------------------------------------------------- volumes


def stack() -> np.ndarray:
    return np.stack([picture() + 1000 * index for index in range(4)], axis=-1)


def volumes_first(data: np.ndarray, kind: str = "list") -> tuple[np.ndarray, dict[str, str]]:
    """The same image with its volumes along the first axis, as multi-volumes are written."""
    header = header_of(data)
    moved = np.moveaxis(data, -1, 0)
    header["sizes"] = " ".join(map(str, moved.shape))
    header["space directions"] = "none " + header["space directions"].removesuffix(" none")
    header["kinds"] = f"{kind} domain domain domain"
    return moved, header


@pytest.mark.parametrize("kind", ["list", "vector", "time", "4-vector"])
def test_volumes_are_channels_by_the_file_s_name_on_the_first_and_the_last_axis(tmp_path: Path, kind: str) -> None:
    data = stack()
    moved, header = volumes_first(data, kind)
    exam = tmp_path / "P" / "2020-01-05"
    write_header(exam / f"{'+'.join(DWI)}.nrrd", header, moved.tobytes(order="F"))
    late = tmp_path / "P" / "2021-01-05"
    write_nrrd(late / f"{'+'.join(DWI)}.nrrd", data, kinds=f"domain domain domain {kind}")
    for found in read_input(tmp_path / "P").patients[0].exams:
        assert tuple(found.images) == DWI
        assert check_images(found, DWI) == []
        for index, channel in enumerate(DWI):
            assert found.images[channel].grid.affine == pytest.approx(AFFINE)
            assert np.array_equal(found.images[channel].read(), data[..., index])
        assert [(f.name, f.channel, f.recognised_by, f.confidence) for f in found.found] == [
            (channel, channel, "name", "certain") for channel in DWI
        ]


def gradients(*rows: str, b_value: str = "800") -> str:
    lines = [f"DWMRI_gradient_{number:04d}:={row}\n" for number, row in enumerate(rows)]
    return f"modality:=DWMRI\nDWMRI_b-value:={b_value}\n" + "".join(lines)


SCALED = ("0 0 0", "0 0 0.43301", "0.707107 0 0", "0.57735 0.57735 0.57735")


def test_volumes_are_channels_by_the_header_s_gradients(tmp_path: Path) -> None:
    write_nrrd(tmp_path / "P" / "2020-01-05" / "dwi.nrrd", stack(), gradients(*SCALED))
    (exam,) = read_input(tmp_path / "P").patients[0].exams
    assert tuple(exam.images) == DWI
    assert np.array_equal(exam.images["DWI_b400"].read(), stack()[..., 2])
    assert {(f.recognised_by, f.confidence) for f in exam.found} == {("b-value", "certain")}


def test_several_directions_of_one_b_value_are_no_channels(tmp_path: Path) -> None:
    rows = ("0 0 0", "1 0 0", "0 0.9999 0", "0 0 1")
    write_nrrd(tmp_path / "P" / "2020-01-05" / "dwi.nrrd", stack(), gradients(*rows))
    (exam,) = read_input(tmp_path / "P").patients[0].exams
    assert exam.images == {}
    (found,) = exam.found
    assert found.reason.startswith("2020-01-05/dwi.nrrd has several volumes of one b-value (diffusion directions).")


def test_volumes_are_channels_by_a_multi_volume_s_labels_where_these_are_b_values(tmp_path: Path) -> None:
    moved, header = volumes_first(stack())
    notes = "MultiVolume.FrameIdentifyingDICOMTagName:=Siemens.B-value\nMultiVolume.FrameLabels:=0,140,400,800\n"
    write_header(tmp_path / "P" / "2020-01-05" / "mv.nrrd", header, moved.tobytes(order="F"), notes)
    (exam,) = read_input(tmp_path / "P").patients[0].exams
    assert tuple(exam.images) == DWI
    near = next(f for f in exam.found if f.channel == "DWI_b150")
    assert (near.name, near.recognised_by, near.confidence, near.details) == (
        "DWI_b140",
        "b-value",
        "probable",
        {"b": "140"},
    )
    assert [p.code for p in exam.problems] == ["b_value_not_equal"]


@pytest.mark.parametrize(
    "notes",
    [
        "",
        gradients(*SCALED[:3]),
        gradients(*SCALED[:3], "1 0"),
        gradients(*SCALED, b_value="many"),
        gradients(*SCALED, b_value="1e9"),
        "MultiVolume.FrameIdentifyingDICOMTagName:=TriggerTime\nMultiVolume.FrameLabels:=0,150,400,800\n",
        "MultiVolume.FrameIdentifyingDICOMTagName:=B-value\n",
    ],
)
def test_volumes_without_names_are_refused(tmp_path: Path, notes: str) -> None:
    path = write_nrrd(tmp_path / "mv.nrrd", stack(), notes)
    assert len(split_volumes(NamedFile("mv", path, "mv.nrrd"))) == 1
    refusal = refusal_of(lambda: image(path).grid)
    assert refusal.code == "unnamed_volumes"
    assert refusal.message == (
        "mv.nrrd has 4 volumes (4D) and nothing says which channel each is. Split it, name the channels in the file name "
        "joined by '+' (DWI_b0+DWI_b150+….nrrd), or put a .bval file beside it."
    )


def test_a_header_that_says_another_b_value_than_the_name_is_refused(tmp_path: Path) -> None:
    write_nrrd(tmp_path / "P" / "2020-01-05" / "DWI_b400.nrrd", picture(), gradients("1 0 0"))
    message = refusal_of(lambda: read_input(tmp_path / "P")).message
    assert "DWI_b400.nrrd is named b400, but its header says 800. Correct one." in message


def test_an_axis_of_one_entry_is_no_volume(tmp_path: Path) -> None:
    data = picture()[..., None]
    assert image(write_nrrd(tmp_path / "a.nrrd", data)).grid.shape == SHAPE
    assert np.array_equal(image(tmp_path / "a.nrrd").read(), data[..., 0])


def test_a_real_multi_volume_without_an_orientation_is_refused(test_data: Path) -> None:
    path = test_data / "multivolume-nrrd" / "SyntheticMultiVolumeInput.nrrd"
    assert volume_count(path, path.name) == 40
    assert refusal_of(lambda: image(path).grid).message.startswith(
        "SyntheticMultiVolumeInput.nrrd has 40 volumes (4D) and nothing says which channel each is."
    )
    one = refusal_of(lambda: NrrdImage(path, path.name, 3).grid)
    assert one.message == (
        "SyntheticMultiVolumeInput.nrrd does not say how it lies in the patient (the header has no 'space'): left and "
        "right would be a guess. Convert the original images again with a tool that keeps the orientation."
    )


@pytest.mark.parametrize(("name", "count"), [("QINBreast001-phantom.nrrd", 32), ("QINProstate001-phantom.nrrd", 60)])
def test_real_dynamic_series_are_read_as_volumes_without_names(shared_data: Path, name: str, count: int) -> None:
    path = shared_data / "real" / "odd" / "multivolume-nrrd" / name
    assert volume_count(path, name) == count
    assert f"has {count} volumes (4D)" in refusal_of(lambda: image(path).grid).message
    assert "is not a 3D volume" in refusal_of(lambda: NrrdImage(path, name, 0).grid).message


# ---------------------------------------------------------------- where NIfTI is accepted


def test_nrrd_and_nifti_stand_side_by_side_in_an_exam(tmp_path: Path) -> None:
    exam = tmp_path / "P" / "2020-01-05"
    write_nifti(exam / "DWI_b0.nii.gz", picture(), AFFINE)
    write_nrrd(exam / "DWI_b800.nrrd", picture())
    (exam / "v.raw").write_bytes(picture().tobytes(order="F"))
    write_header(exam / "T1A.nhdr", header_of(picture(), data_file="v.raw"), b"")
    write_nrrd(exam / "liver_mask.seg.nrrd", np.ones(SHAPE, "u1"), "Segment0_Name:=liver\n")
    write_nrrd(exam / "DWI_b400.seg.nrrd", np.ones(SHAPE, "u1"))
    (found,) = read_input(tmp_path / "P").patients[0].exams
    assert tuple(found.images) == ("DWI_b0", "DWI_b800", "T1_arterial")
    assert check_images(found, list(found.images)) == []
    assert found.liver_mask is not None
    assert found.liver_mask.read().min() == 1
    assert found.unknown_files == ("DWI_b400.seg",)
    assert [f.reason for f in found.found if f.channel is None] == ["its name is no channel's"]


def test_a_table_s_cells_name_nrrd_images_too(tmp_path: Path) -> None:
    write_nrrd(tmp_path / "a.nrrd", picture())
    write_nrrd(tmp_path / "l.seg.nrrd", np.ones(SHAPE, "u1"))
    (tmp_path / "t.csv").write_text(
        "patient_id,exam_id,exam_date,DWI_b0,liver_mask\nP,e,2020-01-05,a.nrrd,l.seg.nrrd\n"
    )
    (exam,) = read_input(tmp_path / "t.csv").patients[0].exams
    assert np.array_equal(exam.images["DWI_b0"].read(), picture())
    assert exam.liver_mask is not None


def test_the_body_is_seen_at_the_same_place(tmp_path: Path) -> None:
    shape = (40, 36, 20)
    affine = centred_affine(shape, (6.0, 6.0, 12.0), rotation(0, 0, 25)[:, [1, 0, 2]])
    blob = BODY_CENTRE + np.array([60.0, -30.0, 40.0])
    data = body(positions(shape, affine), blob=blob)
    found = image(write_nrrd(tmp_path / "a.nrrd", data, affine=affine))
    peak = np.unravel_index(found.read().argmax(), shape)
    assert np.linalg.norm((found.grid.affine @ [*peak, 1])[:3] - blob) < 8


def test_suffixes_are_taken_off_whatever_their_case() -> None:
    names = ["a.nii.gz", "a.NII", "a.nrrd", "a.NHDR", "liver_mask.seg.nrrd", "a.seg.nrrd", "a.mha", "a.nrrd.txt"]
    stems = ["a", "a", "a", "a", "liver_mask", "a.seg", None, None]
    assert [image_stem(Path(name)) for name in names] == stems
    assert isinstance(open_image(Path("a.NRRD"), "a"), NrrdImage)
    assert isinstance(open_image(Path("a.nii"), "a"), NiftiImage)


def test_without_pynrrd_the_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really_import = builtins.__import__

    def no_pynrrd(name: str, *rest: object) -> object:
        if name.split(".")[0] == "nrrd":
            raise ImportError(name)
        return really_import(name, *rest)  # type: ignore[arg-type]

    folder = tmp_path / "P" / "2020-01-05"
    write_nrrd(folder / "DWI_b0.nrrd", picture())
    monkeypatch.setattr(builtins, "__import__", no_pynrrd)
    (exam,) = read_input(tmp_path / "P").patients[0].exams
    refusal = refusal_of(lambda: check_images(exam, DWI))
    assert refusal.message == (
        "2020-01-05/DWI_b0.nrrd is an NRRD image; reading it needs the package pynrrd: pip install pynrrd."
    )


# ---------------------------------------------------------------- what can't be used


def spoilt(value: float) -> np.ndarray:
    data = picture()
    data[1, 2, 3] = value
    return data


NOT_READABLE = "a.nrrd is not a readable NRRD file: damaged, incomplete, or of another format. Export it again."
NO_SPACE = "a.nrrd does not say how it lies in the patient: its space, {}, is none of right-anterior-superior, "


@pytest.mark.parametrize(
    ("data", "fields", "sentence"),
    [
        (picture(), {"space_origin": ""}, "(the header has no 'space origin')"),
        (picture(), {"space_directions": ""}, "(the header has no 'space directions')"),
        (picture(), {"space_directions": "", "spacings": "1 1 1"}, "(the header has no 'space directions')"),
        (picture(), {"space_units": '"cm" "cm" "cm"'}, "is measured in cm, cm, cm, not in mm. Convert it first."),
        (picture(), {"affine": np.diag([50.0, 1, 1, 1])}, "voxels of 50 × 1 × 1 mm are not plausible"),
        (picture(), {"affine": np.diag([np.inf, 1, 1, 1])}, "position and orientation are not usable numbers"),
        (picture(), {"affine": np.diag([0.0, 1, 1, 1])}, "position and orientation are not usable numbers"),
        (picture(), {"space_directions": "(1,0,0) (0,1,0) (0,0.5,1)"}, "the voxel axes are not at right angles"),
        (spoilt(np.nan), {}, "a.nrrd has 1 voxels that are not numbers (NaN or infinite)."),
        (spoilt(-np.inf), {}, "a.nrrd has 1 voxels that are not numbers (NaN or infinite)."),
        (spoilt(1e12), {}, "a.nrrd has values beyond ±1e+09, which no scanner makes."),
        (picture((9, 7, 1)), {}, "a.nrrd is not a 3D volume (9 × 7 × 1 voxels)."),
        (picture((9, 7, 5, 3)), {"kinds": "domain domain domain RGB-color"}, "a.nrrd is a colour image."),
        (picture((9, 7, 5, 2)), {"kinds": "domain domain domain complex"}, "a.nrrd has complex voxels."),
        (picture(), {"type": "block", "block_size": "4"}, "a.nrrd is a colour image."),
        (picture(), {"type": "quaternions"}, NOT_READABLE),
        (picture(), {"endian": ""}, NOT_READABLE),
        (picture(), {"sizes": "9 7"}, NOT_READABLE),
        (picture(), {"sizes": "9 7 -5"}, NOT_READABLE),
        (picture(), {"sizes": "nine 7 5"}, NOT_READABLE),
        (picture(), {"dimension": "4"}, NOT_READABLE),
        (picture(), {"sizes": ""}, NOT_READABLE),
        (picture(), {"space_directions": "(1,0,0) (0,1,0) 3"}, NOT_READABLE),
        (picture(), {"space_origin": "(1,2)"}, NOT_READABLE),
        (picture(), {"sizes": "9 7 6"}, "a.nrrd is damaged or incomplete: its voxels can't be read."),
        (picture(), {"sizes": "9 7 4"}, "a.nrrd is damaged or incomplete: its voxels can't be read."),
        (picture(), {"encoding": "hex"}, "a.nrrd is damaged or incomplete: its voxels can't be read."),
        (picture(), {"encoding": "gzip"}, "a.nrrd is damaged or incomplete: its voxels can't be read."),
        (picture(), {"encoding": "ascii"}, "a.nrrd is damaged or incomplete: its voxels can't be read."),
        (picture(), {"byte_skip": "-7"}, "a.nrrd is damaged or incomplete: its voxels can't be read."),
        (picture(), {"line_skip": "9999999999"}, "a.nrrd is damaged or incomplete: its voxels can't be read."),
        (picture(), {"sizes": "900000 900000 900000"}, "a.nrrd is larger than can be read here (900000 × 900000"),
        (picture(), {"sizes": "900 900 900", "type": "uchar"}, "a.nrrd is larger than can be read here"),
    ],
)
def test_images_that_cannot_be_used_are_refused_in_a_sentence(
    tmp_path: Path, data: np.ndarray, fields: dict[str, str], sentence: str
) -> None:
    assert sentence in refusal_of(image(write_nrrd(tmp_path / "a.nrrd", data, **fields)).read).message


@pytest.mark.parametrize("space", ["scanner-xyz", "3D-right-handed", "left-posterior-superior-time", "nonsense"])
def test_a_space_that_is_not_the_patient_s_is_refused(tmp_path: Path, space: str) -> None:
    path = write_nrrd(tmp_path / "a.nrrd", picture())
    path.write_bytes(path.read_bytes().replace(b"space: LPS", f"space: {space}".encode()))
    refusal = refusal_of(lambda: image(path).grid)
    assert refusal.code == "unknown_orientation"
    assert refusal.message.startswith(NO_SPACE.format(space))


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ascii"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.98])
def test_a_file_that_ends_too_early_is_refused(tmp_path: Path, encoding: str, kept: float) -> None:
    written = ENCODERS[encoding](picture())
    header = header_of(picture(), encoding=encoding)
    path = write_header(tmp_path / "a.nrrd", header, written[: int(len(written) * kept)])
    assert "a.nrrd is damaged or incomplete" in refusal_of(image(path).read).message


def test_a_gzip_with_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    written = bytearray(gzip.compress(picture().tobytes(order="F")))
    written[-6] ^= 0xFF
    path = write_header(tmp_path / "a.nrrd", header_of(picture(), encoding="gzip"), bytes(written))
    assert "damaged" in refusal_of(image(path).read).message


@pytest.mark.parametrize("encoding", ["gzip", "bzip2"])
def test_a_small_file_that_unpacks_to_a_huge_one_takes_no_memory(tmp_path: Path, encoding: str) -> None:
    import tracemalloc

    many = bytes(64 * 2**20)
    bomb = gzip.compress(many) if encoding == "gzip" else bz2.compress(many)
    path = write_header(tmp_path / "a.nrrd", header_of(picture(), encoding=encoding), bomb)
    tracemalloc.start()
    assert "damaged" in refusal_of(image(path).read).message
    assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    tracemalloc.stop()


@pytest.mark.parametrize(
    "content", [b"", b"NRRD", b"NRRD0005", b"\0" * 5000, zlib.compress(b"x" * 5000), b"NRRD0009\n\n"]
)
def test_what_is_no_nrrd_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.nrrd").write_bytes(content)
    assert refusal_of(image(tmp_path / "a.nrrd").read).message == NOT_READABLE


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "b.nrrd").mkdir()
    for name in ("a.nrrd", "b.nrrd"):
        assert refusal_of(lambda name=name: image(tmp_path / name).grid).message == (
            f"{name} does not exist. Check the name and the folder."
        )


@pytest.mark.parametrize(
    ("data_file", "sentence"),
    [
        ("../../etc/passwd", "in a file that does not lie in its folder. Put that file beside it"),
        ("/etc/passwd", "in a file that does not lie in its folder."),
        ("sub/v.raw", "in a file that does not lie in its folder."),
        ("..\\v.raw", "in a file that does not lie in its folder."),
        ("C:v.raw", "in a file that does not lie in its folder."),
        ("..", "in a file that does not lie in its folder."),
        ("LIST", "a.nhdr has its voxels in several files. Save it as one .nrrd file."),
        ("LIST 2", "a.nhdr has its voxels in several files."),
        ("v%03d.raw 1 5 1", "a.nhdr has its voxels in several files."),
        ("v.raw", "a.nhdr has its voxels in v.raw, which does not lie beside it. Put it there."),
    ],
)
def test_a_header_leads_to_no_file_outside_its_folder(tmp_path: Path, data_file: str, sentence: str) -> None:
    (tmp_path / "exam" / "sub").mkdir(parents=True)
    for place in (tmp_path, tmp_path / "exam" / "sub"):
        (place / "v.raw").write_bytes(picture().tobytes(order="F"))
    path = write_header(tmp_path / "exam" / "a.nhdr", header_of(picture(), data_file=data_file), b"")
    assert sentence in refusal_of(image(path).read).message


def test_a_header_spoilt_anywhere_gives_a_sentence_or_an_image(tmp_path: Path) -> None:
    path = write_nrrd(tmp_path / "a.nrrd", picture(), gradients("1 0 0"))
    whole = path.read_bytes()
    end = whole.index(b"\n\n")
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        changed = bytearray(whole)
        for at in rng.integers(0, end, 3):
            changed[at] = rng.integers(32, 127) if rng.random() < 0.8 else rng.integers(0, 256)
        path.write_bytes(bytes(changed))
        try:
            split_volumes(NamedFile("DWI_b800", path, "a.nrrd"))
            image(path).read()
        except Refusal:
            refused += 1
    assert 100 < refused < 400


def test_no_message_of_an_nrrd_image_names_the_patient(tmp_path: Path) -> None:
    folder = tmp_path / "Jane_Doe" / "2020-01-05"
    write_header(folder / "DWI_b0.nhdr", header_of(picture(), data_file="v.raw"), b"")
    (exam,) = read_input(tmp_path / "Jane_Doe").patients[0].exams
    assert "Jane" not in refusal_of(exam.images["DWI_b0"].read).message
