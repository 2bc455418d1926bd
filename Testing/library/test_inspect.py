"""What ``hccnet inspect`` tells before any prediction: the table, the JSON, and the contact sheet, looked at pixel by pixel."""

from __future__ import annotations

import datetime
import json
import struct
import weakref
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import BODY_CENTRE, DWI, body, centred_affine, positions, rotation, write_nifti, write_patient
from scipy import ndimage, signal

from HCCNetLib.bundles import Bundle
from HCCNetLib.commands import inspect
from HCCNetLib.commands.main import main
from HCCNetLib.inference import NOTICE
from HCCNetLib.records import ArrayImage, Box, Cohort, Exam, FoundImage, Grid, Outcome, Patient, Problem, Refusal
from HCCNetLib.reporting import lettering
from HCCNetLib.reporting.contact_sheet import draw_contact_sheet
from HCCNetLib.reporting.inspection import describe_patient, patient_text

AXIAL = np.diag([-1.0, -1.0, 1.0])
SHAPE = (40, 36, 30)
UID = "1.2.840.99999.7"


def run(*arguments: object) -> int:
    return main([str(a) for a in arguments])


def image_of(values: float = 1.0, shape: Sequence[int] = SHAPE) -> ArrayImage:
    data = np.full(shape, values, np.float32)
    return ArrayImage(data, centred_affine(shape, (8.0, 8.0, 8.0), AXIAL), "series/array.nii.gz")


def found(channel: str | None, name: str, **more: object) -> FoundImage:
    return FoundImage(name, channel=channel, series_uid=UID, files=(Path("/secret/Jane Doe/1.dcm"),), **more)


def dicom_like(not_used: Sequence[FoundImage] = ()) -> Patient:
    """Two exams, the later one with all that a reader can tell."""
    told = (
        found(
            *("T1_arterial", "series 20, phase 2"),
            description="t1_vibe_fs_dynamic_breathhold_with_a_name_that_goes_on_and_on",
            recognised_by="time after contrast",
            confidence="probable",
            details={"phase": "2 of 6 (+25 s)"},
        ),
        found(
            *("DWI_b800", "series 8, b 800"),
            description="ep2d_diff",
            recognised_by="b-value",
            confidence="certain",
            details={"b": "800"},
        ),
        *not_used,
    )
    early = Exam("first", datetime.date(2020, 1, 5), {"DWI_b800": image_of()})
    images = {"T1_arterial": image_of(), "DWI_b800": image_of()}
    problem = Problem("b_value_not_equal", "b-value 780 is used as DWI_b800.", "late")
    return Patient("P1", (early, Exam("late", datetime.date(2021, 3, 14), images, problems=(problem,), found=told)), ())


def text_of(patient: Patient) -> str:
    return patient_text(describe_patient(patient, None, [], None))


# ---------------------------------------------------------------- text


def test_the_table_says_of_every_channel_what_it_was_found_as():
    lines = text_of(dicom_like()).splitlines()
    assert lines[0] == "P1"
    assert lines[1] == "  2020-01-05 (first), 14.3 months before the latest"
    assert " ".join(lines[2].split()) == "channel file or series voxels mm axes b, phase, echo recognised by"
    assert lines[3].split() == ["DWI_b800", "array.nii.gz", "40×36×30", "8×8×8", "LPS"]
    assert lines[4] == "  2021-03-14 (late), latest exam"
    dwi, arterial = lines[6:8]
    assert " ".join(dwi.split()) == "DWI_b800 series 8: ep2d_diff 40×36×30 8×8×8 LPS b 800 b-value, certain"
    assert arterial.strip().startswith("T1_arterial  series 20, phase 2: t1_vib")
    assert "… " in arterial
    assert arterial.endswith("phase 2 of 6 (+25 s)  time after contrast, probable")
    assert lines[8] == "    warning: b-value 780 is used as DWI_b800."
    titles = lines[5]
    for title, cell in (("file", "series 8"), ("voxels", "40×36"), ("mm", "8×8"), ("axes", "LPS"), ("rec", "b-value")):
        assert titles.index(title) == dwi.index(cell)  # columns stand under their titles
    assert all(len(line) <= 120 for line in lines)
    assert not any(line != line.rstrip() for line in lines)


def test_many_images_that_are_not_used_stand_below_the_channels_the_nearest_first():
    scouts = [found(None, f"series {n}", description="localizer", reason="no channel by its words") for n in range(60)]
    odd = [found(None, f"odd {n}", reason=f"reason {n}") for n in range(15)]
    unsure = found(None, "series 31, phase 3", confidence="ambiguous", reason="two series may be T1_venous")
    lines = text_of(dicom_like((*scouts, *odd, unsure))).splitlines()
    start = lines.index("    not used (76 images):")
    assert start == 8  # the table comes first
    assert lines[start + 1] == "      series 31, phase 3 – two series may be T1_venous"
    assert lines[start + 2].startswith("      series 0: localizer; series 1: localizer; ")
    text = " ".join(line.strip() for line in lines)
    assert "series 7: localizer; and 52 more (all with --json) – no channel by its words" in text
    assert lines[-2].strip() == "and 7 more for other reasons (all with --json)"
    assert len(lines) < 25
    assert all(len(line) <= 120 for line in lines)


def test_months_are_rounded_once():
    early, late = (Exam(f"{d}", d, {}) for d in (datetime.date(2019, 2, 5), datetime.date(2020, 7, 17)))
    assert "2019-02-05, 17.3 months before" in patient_text(
        describe_patient(Patient("P", (early, late)), None, [], None)
    )


def test_one_image_that_is_not_used_and_a_text_over_several_lines_stay_one_line():
    lines = text_of(dicom_like([found(None, "x", description="two\nlines", reason="no idea")])).splitlines()
    assert lines[8:10] == ["    not used:", "      x: two lines – no idea"]


class Unusable(ArrayImage):
    @property
    def grid(self) -> Grid:
        raise Refusal("sheared_grid", "b.nii.gz: the voxel axes are not at right angles.")


def test_an_image_without_a_usable_header_keeps_its_row_and_says_why():
    bad = Unusable(np.zeros(SHAPE, np.float32), np.eye(4), "b.nii.gz")
    patient = Patient("P1", (Exam("e", datetime.date(2021, 3, 14), {"DWI_b0": image_of(), "DWI_b800": bad}),))
    content = describe_patient(patient, None, [], None)
    told = content["exams"][0]["channels"]["DWI_b800"]
    assert (told["shape"], told["spacing_mm"], told["orientation"]) == (None, None, None)
    text = patient_text(content)
    assert "DWI_b800  b.nii.gz        can't be used" in text
    assert "warning: b.nii.gz: the voxel axes are not at right angles." in text
    refusal = Refusal("sheared_grid", "Exam e: b.nii.gz: the voxel axes are not at right angles.")
    assert patient_text(describe_patient(patient, None, [], refusal)).count("right angles") == 1


def test_without_a_bundle_every_image_that_cannot_be_read_is_named(tmp_path, capsys):
    folder = write_patient(tmp_path / "P1")
    for channel in DWI[1:3]:
        path = folder / "2020-01-05" / f"{channel}.nii.gz"
        path.write_bytes(path.read_bytes()[:2000])
    assert run("inspect", folder) == 1
    said = capsys.readouterr().out
    assert "would be refused: 2020-01-05/DWI_b150.nii.gz is damaged or incomplete" in said
    assert "warning: 2020-01-05/DWI_b400.nii.gz is damaged or incomplete" in said
    assert "DWI_b150  " in said


def test_with_a_bundle_the_warnings_of_a_prediction_are_told(demonstration: Bundle, tmp_path, capsys):
    folder = write_patient(tmp_path / "P1", ["2021-03-14"])
    (folder / "2021-03-14" / "liver_box.json").write_text('{"low_mm": [-60, -60, 0], "high_mm": [60, 40, 80]}')
    affine = centred_affine((48, 40, 40), (7.0, 7.0, 7.0), AXIAL)
    values = body(positions((48, 40, 40), affine)) - 1000
    write_nifti(folder / "2021-03-14" / "DWI_b150.nii.gz", values, affine)
    assert run("inspect", folder, "--bundle", demonstration.path) == 0
    said = capsys.readouterr().out
    assert "\n    liver box given: centres the field\n" in said
    assert "\n    warning: 2021-03-14/DWI_b150.nii.gz has values down to -960, as CT has" in said
    assert "every patient can be predicted" in said


# ---------------------------------------------------------------- JSON

PATIENT_KEYS = {"patient_id", "exams", "problems", "outcome", "would_be_refused"}
EXAM_KEYS = {"exam_id", "date", "months_before_latest", "channels", "liver", "not_used", "problems"}
IMAGE_KEYS = {"name", "description", "shape", "spacing_mm", "orientation", "details", "recognised_by", "confidence"}


def test_json_has_the_same_and_nothing_that_may_identify_a_patient(monkeypatch, tmp_path, capsys):
    unused = found(None, "series 3", description="scout", reason="no channel", grid=image_of().grid)
    cohort = Cohort(
        (dicom_like([unused]),),
        {"P2": Refusal("no_exams", "The patient has no exam.")},
        {"P1": Outcome("P1", None, datetime.date(2022, 1, 1))},
        Refusal("bad_table", "outcomes.csv is none."),
        (Problem("passed_over", "The folder x was passed over."),),
        "DICOM folder",
    )
    monkeypatch.setattr(inspect, "read_input", lambda *_: cohort)
    assert run("inspect", "/secret/Jane Doe", "--json", "--png", tmp_path / "sheets") == 1
    said = capsys.readouterr().out
    told = json.loads(said)
    assert UID not in said
    assert "secret" not in said
    assert ".dcm" not in said

    assert set(told) == {"form", "bundle_channels", "patients", "refused", "problems", "notice"}
    assert (told["form"], told["bundle_channels"], told["notice"]) == ("DICOM folder", None, NOTICE)
    assert told["refused"] == [{"patient_id": "P2", "code": "no_exams", "message": "The patient has no exam."}]
    assert [problem["code"] for problem in told["problems"]] == ["passed_over", "bad_table"]
    (patient,) = told["patients"]
    assert set(patient) == PATIENT_KEYS
    assert patient["outcome"] == {"diagnosis_date": None, "last_seen_date": "2022-01-01"}
    assert patient["would_be_refused"] is None
    early, late = patient["exams"]
    assert set(early) == set(late) == EXAM_KEYS
    assert (early["months_before_latest"], late["months_before_latest"]) == (14.2587, 0)
    assert list(late["channels"]) == ["DWI_b800", "T1_arterial"]
    assert late["channels"]["DWI_b800"] == {
        "name": "series 8, b 800",
        "description": "ep2d_diff",
        "shape": [40, 36, 30],
        "spacing_mm": [8.0, 8.0, 8.0],
        "orientation": "LPS",
        "details": {"b": "800"},
        "recognised_by": "b-value",
        "confidence": "certain",
    }
    assert set(late["channels"]["T1_arterial"]) == set(early["channels"]["DWI_b800"]) == IMAGE_KEYS
    assert [(image["name"], image["reason"]) for image in late["not_used"]] == [("series 3", "no channel")]
    assert set(late["not_used"][0]) == {*IMAGE_KEYS, "reason"}
    assert late["problems"] == [{"code": "b_value_not_equal", "message": "b-value 780 is used as DWI_b800."}]


def test_json_tells_what_a_bundle_would_refuse(demonstration: Bundle, tmp_path, capsys):
    write_patient(tmp_path / "c" / "A", ["2021-03-14"])
    write_patient(tmp_path / "c" / "B", ["2021-03-14"], DWI[:2])
    assert run("inspect", tmp_path / "c", "--bundle", demonstration.path, "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert told["bundle_channels"] == list(DWI)
    passes, fails = (patient["would_be_refused"] for patient in told["patients"])
    assert passes is None
    assert fails["code"] == "missing_channel"
    assert fails["message"].startswith("Exam 2021-03-14 lacks DWI_b400, DWI_b800")


# ---------------------------------------------------------------- contact sheet


def decoded(path: Path) -> np.ndarray:
    """The gray pixels of a PNG file, row 0 on top."""
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height, depth, colour = struct.unpack(">IIBB", content[16:26])
    assert (depth, colour) == (8, 0)
    start = content.index(b"IDAT") + 4
    (length,) = struct.unpack(">I", content[start - 8 : start - 4])
    rows = np.frombuffer(zlib.decompress(content[start : start + length]), np.uint8).reshape(height, width + 1)
    assert not rows[:, 0].any()
    return rows[:, 1:]


def places(sheet: np.ndarray, text: str, level: int = 235, with_rim: bool = False) -> list[tuple[int, int]]:
    """Row and column of the middle of every place where a text stands; letters in a picture have a black rim."""
    ink = np.pad(lettering.line(text, 2), 2)
    agree = signal.fftconvolve((sheet == level).astype(float), ink[::-1, ::-1], "valid") > ink.sum() - 0.5
    if with_rim:
        rim = ndimage.binary_dilation(ink, iterations=2) & ~ink
        agree &= signal.fftconvolve((sheet == 0).astype(float), rim[::-1, ::-1], "valid") > rim.sum() - 0.5
    return [(int(r) + 2 + 7, int(c) + ink.shape[1] // 2) for r, c in np.argwhere(agree)]


def marked(shape: Sequence[int], affine: np.ndarray, *marks: Sequence[float]) -> ArrayImage:
    """Darkness with a bright mark of 12 mm SD at each of some places, mm from the body's centre."""
    points = positions(shape, affine)
    squares = [((points - BODY_CENTRE - mark) ** 2).sum(axis=-1) for mark in marks]
    return ArrayImage(sum(np.exp(-s / (2 * 12.0**2)) for s in squares).astype(np.float32), affine)


def centroid(sheet: np.ndarray, rows: slice, columns: slice = slice(None)) -> tuple[float, float]:
    """Row and column of the middle of what is white in a part of a sheet."""
    white = np.argwhere(sheet[rows, columns] == 255)
    assert len(white)
    row, column = white.mean(axis=0)
    return row + (rows.start or 0), column + (columns.start or 0)


def one_exam(**images: ArrayImage) -> Patient:
    return Patient("P1", (Exam("e", datetime.date(2021, 3, 14), images),))


FLIPPED = [np.diag(signs).astype(float) for signs in [(1, 1, 1), (-1, -1, 1), (1, -1, -1), (-1, 1, 1), (-1, -1, -1)]]
PERMUTED = [FLIPPED[n][:, order] for n, order in enumerate(([2, 0, 1], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 1, 0]))]
THICK, ODD = (5.0, 5.0, 9.0), (9.0, 4.0, 6.0)


@pytest.mark.parametrize("spacing", [THICK, ODD])
@pytest.mark.parametrize("number", range(10))
@pytest.mark.parametrize("tilt", [None, (12, -8, 10)])
def test_right_is_left_and_anterior_and_superior_are_up_however_an_image_is_stored(spacing, number, tilt):
    directions = [*FLIPPED, *PERMUTED][number]
    if tilt is not None:
        directions = rotation(*tilt) @ directions
    size = np.abs(np.linalg.inv(directions)) @ (300, 240, 200)
    shape = [round(mm / step) | 1 for mm, step in zip(size, spacing, strict=True)]
    image = marked(shape, centred_affine(shape, spacing, directions), (70, 40, 0), (70, 0, 40))
    sheet = draw_contact_sheet(one_exam(DWI_b0=image))

    where = {letter: places(sheet, letter, with_rim=True) for letter in "RLAPSI"}
    assert {letter: len(found) for letter, found in where.items()} == {"R": 2, "L": 2, "A": 1, "P": 1, "S": 1, "I": 1}
    (a, p), (s, i) = ((where[up][0], where[down][0]) for up, down in ("AP", "SI"))
    for plane, (top, bottom) in enumerate(((a, p), (s, i))):
        right, left = where["R"][plane], where["L"][plane]
        assert top[0] < right[0] == left[0] < bottom[0]
        assert right[1] < top[1] == bottom[1] < left[1]
        row, column = centroid(sheet, slice(top[0] - 20, bottom[0] + 20))
        if tilt is None:  # then both marks lie in the planes, at their true places
            assert (top[1] - column) / (right[0] - row) == pytest.approx(70 / 40, rel=0.12)
        assert column < top[1] - 20
        assert row < right[0]


def test_channels_on_different_grids_show_one_anatomy_at_one_scale():
    coarse, fine = (50, 40, 36), (120, 100, 50)
    mark = (60, 30, 0)
    fine_affine = centred_affine(fine, (2.5, 2.5, 4.0), np.diag([1.0, -1.0, -1.0]))
    fine_affine[:3, 3] += (20, -12, 8)  # another field of view
    patient = one_exam(
        DWI_b0=marked(coarse, centred_affine(coarse, (6.0, 6.0, 6.0), AXIAL), mark, (-50, -60, 0)),
        T1_native=marked(fine, fine_affine, mark, (-50, -60, 0)),
    )
    sheet = draw_contact_sheet(patient)
    ((_, first),), ((_, second),) = places(sheet, "DWI_b0"), places(sheet, "T1_native")
    start, next_start = first - lettering.width_of("DWI_b0", 2) // 2, second - lettering.width_of("T1_native", 2) // 2
    (anterior, _), (posterior, _) = places(sheet, "A", with_rim=True)[0], places(sheet, "P", with_rim=True)[0]
    rows, pitch = slice(anterior, posterior), next_start - start
    spots = []
    for left in (start, next_start):
        labels, count = ndimage.label(sheet[rows, left : left + pitch - 12] == 255)
        assert count == 2
        spots.append(ndimage.center_of_mass(labels > 0, labels, (1, 2)))
    assert np.abs(np.subtract(*spots)).max() < 1.5  # pixels


def test_a_liver_box_moves_the_cut():
    affine = centred_affine(SHAPE, (8.0, 8.0, 8.0), AXIAL)
    spot = np.array((60.0, 0.0, 80.0))
    patient = one_exam(DWI_b0=marked(SHAPE, affine, spot))
    low, high = BODY_CENTRE + spot - 40, BODY_CENTRE + spot + 40
    box = Box(tuple(low), tuple(high))
    boxed = Patient("P1", (replace(patient.exams[0], liver_box=box),))
    shows = []
    for shown in (patient, boxed):
        sheet = draw_contact_sheet(shown)
        (anterior, _), (posterior, _) = places(sheet, "A", with_rim=True)[0], places(sheet, "P", with_rim=True)[0]
        shows.append(bool((sheet[anterior:posterior] == 255).any()))
    assert shows == [False, True]


def test_rows_and_columns_are_named_and_empty_cells_say_why():
    class Damaged(ArrayImage):
        def read(self) -> np.ndarray:
            raise Refusal("unreadable_file", "It is damaged.")

    image = marked(SHAPE, centred_affine(SHAPE, (8.0, 8.0, 8.0), AXIAL), (0, 0, 0))
    far = centred_affine(SHAPE, (8.0, 8.0, 8.0), AXIAL)
    far[2, 3] += 900
    patient = dicom_like()
    early = replace(patient.exams[0], images={"DWI_b800": Damaged(image.data, image.affine), "T2_long": image})
    late = replace(patient.exams[1], images={"DWI_b800": image, "T1_arterial": marked(SHAPE, far, (0, 0, 900))})
    sheet = draw_contact_sheet(Patient("Müller 7", (early, late)))

    def place(text: str, level: int = 235) -> tuple[int, int]:
        (only,) = places(sheet, text, level)
        return only

    dwi, arterial, long = (place(name) for name in ("DWI_b800", "T1_arterial", "T2_long"))
    assert dwi[0] == arterial[0] == long[0]
    assert dwi[1] < arterial[1] < long[1]
    first, second = place("2020-01-05"), place("2021-03-14")
    assert place("Muller 7")[0] < dwi[0] < first[0] < second[0] < place(NOTICE)[0]
    assert first[0] < place("14.3 months")[0] < place("before latest")[0] < second[0] < place("latest exam")[0]
    assert place("series 8", 150)[0] == second[0]  # beside the date
    assert second[0] < place("b 800", 150)[0] < place("latest exam")[0] + 4  # below it, and not said twice
    assert place("cut at its own centre", 150)[0] > place("series 20, phase 2", 150)[0]
    unreadable = place("can't be read", 150)
    assert abs(unreadable[1] - dwi[1]) < 150
    assert first[0] < unreadable[0] < second[0]
    missing = places(sheet, "missing", 150)
    assert [row < second[0] for row, _ in missing] == [True, False]
    assert abs(missing[0][1] - arterial[1]) < 150
    assert abs(missing[1][1] - long[1]) < 150


def test_a_patient_without_any_image_has_a_sheet_of_words():
    sheet = draw_contact_sheet(Patient("P1", (Exam("e", datetime.date(2021, 3, 14), {}),)))
    assert len(places(sheet, "2021-03-14")) == len(places(sheet, NOTICE)) == 1


def test_one_image_is_in_memory_at_a_time():
    alive: list[weakref.ref] = []

    class Watched(ArrayImage):
        def read(self) -> np.ndarray:
            assert not any(reference() is not None for reference in alive)
            values = self.data.copy()
            alive.append(weakref.ref(values))
            return values

    watched = [Watched(image.data, image.affine) for image in (image_of(), image_of(2), image_of(3))]
    draw_contact_sheet(one_exam(**dict(zip(DWI, watched, strict=False))))
    assert len(alive) == 3


def test_the_sheet_of_one_patient_is_a_file(tmp_path, capsys):
    folder = write_patient(tmp_path / "Jane Doe", channels=DWI[:2])
    path = tmp_path / "new" / "sheet.png"
    for _ in range(2):  # a second look replaces the first
        assert run("inspect", folder, "--png", path) == 0
        assert f"contact sheet: {path}" in capsys.readouterr().out
    sheet = decoded(path)
    for words in ("Jane Doe", "DWI_b0", "DWI_b150", "2020-01-05", "2021-03-14", NOTICE):
        assert len(places(sheet, words)) == 1, words
    assert [p.name for p in path.parent.iterdir()] == ["sheet.png"]


def test_the_sheets_of_a_cohort_have_the_names_that_results_have(tmp_path, capsys):
    for name in ("Jürgen #1", "B"):
        write_patient(tmp_path / "c" / name, ["2021-03-14"], DWI[:1])
    assert run("inspect", tmp_path / "c", "--png", tmp_path / "sheets") == 0
    assert sorted(p.name for p in (tmp_path / "sheets").iterdir()) == ["B.png", "Jürgen %231.png"]
    assert f"contact sheets: {tmp_path / 'sheets'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("patients", "name", "sentence"),
    [
        (1, "sheet", "INPUT holds one patient, so --png must name a file that ends in .png, or a folder that exists."),
        (1, "sheet.jpg", "must name a file that ends in .png"),
        (1, "folder.png", "folder.png is a folder. Choose another file for --png."),
        (1, "file/sheet.png", "Nothing could be written into"),
        (2, "sheet.png", "INPUT holds 2 patients, so --png must name a folder, not a file (sheet.png)."),
        (2, "file", "INPUT holds 2 patients, so --png must name a folder, not a file (file)."),
    ],
)
def test_a_wrong_place_for_sheets_is_refused_in_words_before_the_work(patients, name, sentence, tmp_path, capsys):
    for number in range(patients):
        write_patient(tmp_path / "c" / f"P{number}", ["2021-03-14"], DWI[:1])
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.png").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert run("inspect", tmp_path / "c", "--png", tmp_path / name) == 1
    said = capsys.readouterr()
    assert sentence in said.err
    assert said.out == ""
    assert sorted(tmp_path.rglob("*")) == before


# ---------------------------------------------------------------- lettering


def test_every_letter_has_its_own_shape_and_words_are_cut_where_there_is_no_room():
    letters = [chr(code) for code in range(32, 128)]
    assert len({lettering.line(letter).tobytes() for letter in letters}) == len(letters)
    assert lettering.plain("Müller 3×3 – Ω") == "Muller 3x3 - \x7f"
    for text in ("", "a", "series 8, b 400"):
        assert lettering.line(text, 2).shape == (18, lettering.width_of(text, 2))
        assert lettering.shortened(text, lettering.width_of(text, 2), 2) == text
    for width in range(180):
        short = lettering.shortened("series 8, b 400", width, 2)
        assert lettering.width_of(short, 2) <= width
    assert lettering.shortened("series 8, b 400", 100, 2) == "serie..."
