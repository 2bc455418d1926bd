"""Form 5, the layout of the published repository: dates are never made up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from helpers import DWI, write_nifti

from HCCNetLib.readers import ReadingOptions, check_images, read_input, require_channels
from HCCNetLib.records import Cohort, Refusal

SHAPE = (4, 5, 3)
AFFINE = np.diag([7.0, 7.0, 7.0, 1.0])
HEAD = "id,observation,label,delta,exam_date"
ROWS = ("LIVER_004,1,0,0.0,2020-05-04", "LIVER_004,2,0,0.7,2021-01-05", "LIVER_017,12,1,0.0,20190101")


def refusal_of(action: Callable[[], object]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        action()
    return caught.value


def write_exam(root: Path, name: str, channels: Sequence[str] = DWI) -> Path:
    for channel in channels:
        write_nifti(root / "nifti" / name / f"{channel}.nii.gz", np.random.default_rng(0).random(SHAPE), AFFINE)
    return root / "nifti" / name


def write_labels(root: Path, head: str = HEAD, rows: Sequence[str] = ROWS) -> None:
    (root / "labels").mkdir(parents=True, exist_ok=True)
    (root / "labels" / "labels.csv").write_text("\n".join([head, *rows]) + "\n")


def write_layout(root: Path) -> Path:
    for name in ("LIVER_004_001", "LIVER_004_002", "LIVER_017_012"):
        write_exam(root, name)
    write_labels(root)
    return root


def with_rows(root: Path, *rows: str, head: str = HEAD) -> Cohort:
    write_layout(root)
    write_labels(root, head, rows)
    return read_input(root)


def test_numbered_folders_are_the_exams_of_their_patient(tmp_path: Path) -> None:
    cohort = read_input(write_layout(tmp_path))
    assert cohort.form == "published layout"
    assert [(p.patient_id, [(e.exam_id, e.date.isoformat()) for e in p.exams]) for p in cohort.patients] == [
        ("LIVER_004", [("001", "2020-05-04"), ("002", "2021-01-05")]),
        ("LIVER_017", [("012", "2019-01-01")]),
    ]
    for patient in cohort.patients:
        assert require_channels(patient, DWI) == []
        assert patient.problems == ()
    found = cohort.patients[0].exams[0].found
    assert [(f.name, f.channel, f.recognised_by, f.confidence) for f in found] == [
        (channel, channel, "name", "certain") for channel in DWI
    ]


def test_the_published_names_and_nrrd_and_a_liver_mask_are_read(tmp_path: Path) -> None:
    write_exam(tmp_path, "P_001", ("T1A", "T2W_TEL", "liver_mask", "localizer"))
    write_labels(tmp_path, rows=["P,1,0,0.0,2020-05-04"])
    (exam,) = read_input(tmp_path).patients[0].exams
    assert tuple(exam.images) == ("T1_arterial", "T2_long")
    assert exam.liver_mask is not None
    assert exam.unknown_files == ("localizer",)


@pytest.mark.parametrize("column", ["exam_date", "examdate", "Date", "study_date"])
def test_a_column_of_dates_is_known_by_its_name(tmp_path: Path, column: str) -> None:
    cohort = with_rows(tmp_path, *ROWS, head=HEAD.replace("exam_date", column))
    assert len(cohort.patients) == 2


def test_the_published_table_has_no_dates_and_none_are_made_up(tmp_path: Path) -> None:
    rows = [row.rpartition(",")[0] for row in ROWS]
    refusal = refusal_of(lambda: with_rows(tmp_path, *rows, head="id,observation,label,delta"))
    assert refusal.code == "undated_exam"
    assert refusal.message == (
        "labels.csv does not say the exams' dates (it has: id, observation, label, delta). A time in numbers has neither "
        "unit nor day, and is not guessed at. Add a column exam_date, written 2021-03-14."
    )


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    (write_layout(tmp_path) / "labels" / "labels.csv").unlink()
    assert refusal_of(lambda: read_input(tmp_path)).message == (
        "labels/labels.csv does not exist: without it no exam has a date. It needs id, observation, exam_date."
    )


@pytest.mark.parametrize(
    ("head", "rows", "sentence"),
    [
        ("id,exam_date", ["P,2020-01-01"], "labels.csv lacks the column(s) observation"),
        (HEAD, ["P,one,0,0,2020-01-01"], "labels.csv, row 2: id and observation (a whole number) must both be there."),
        (HEAD, [",1,0,0,2020-01-01"], "labels.csv, row 2: id and observation (a whole number) must both be there."),
        (
            HEAD + ",date",
            ["P,1,0,0,2020-01-01,2020-01-02"],
            "labels.csv has the columns exam_date and date: which is the exams' date? Keep one, as exam_date.",
        ),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path: Path, head: str, rows: list[str], sentence: str) -> None:
    assert sentence in refusal_of(lambda: with_rows(tmp_path, *rows, head=head)).message


@pytest.mark.parametrize("date", ["", "0.7", "14.03.2021", "2021-02-30"])
def test_an_exam_without_a_date_refuses_its_patient_alone(tmp_path: Path, date: str) -> None:
    cohort = with_rows(tmp_path, *ROWS[:1], f"LIVER_004,2,0,0.7,{date}", ROWS[2])
    assert [p.patient_id for p in cohort.patients] == ["LIVER_017"]
    refusal = cohort.refused["LIVER_004"]
    assert refusal.exam_id == "002"
    assert refusal.message == "Exam 002: its date in labels.csv is missing or no date. Write it as 2021-03-14."


def test_exams_only_in_the_folder_are_refused_and_only_in_the_table_are_told(tmp_path: Path) -> None:
    cohort = with_rows(tmp_path, ROWS[0], ROWS[2], "LIVER_017,13.0,0,0,2020-01-01", "LIVER_099,1,0,0,2020-01-01")
    assert cohort.refused["LIVER_004"].message == (
        "Exam 002 has no row in labels.csv, and an exam without its date can't be used. Add the row, or move the folder "
        "elsewhere."
    )
    assert [p.message for p in cohort.patients[0].problems] == [
        "labels.csv lists exam 013, and there is no such folder: read without it."
    ]
    assert [p.message for p in cohort.problems[:2]] == [
        "labels.csv lists 2 exam(s) of 2 patient(s) without a folder in nifti. Check how the ids are spelt.",
        "nifti holds 1 exam(s) of 1 patient(s) without a row in labels.csv: these patients are refused.",
    ]


def test_one_exam_twice_is_refused(tmp_path: Path) -> None:
    cohort = with_rows(tmp_path, *ROWS, ROWS[0])
    assert cohort.refused["LIVER_004"].message == "Exam 001 has several rows in labels.csv. Keep one."
    write_exam(write_layout(tmp_path), "LIVER_017_12")
    assert read_input(tmp_path).refused["LIVER_017"].message == "Exam 012 has several folders. Keep one."


def test_dates_decide_the_order_and_numbers_that_say_otherwise_are_told(tmp_path: Path) -> None:
    cohort = with_rows(tmp_path, "LIVER_004,1,0,0,2021-05-04", "LIVER_004,2,0,0,2020-05-04", ROWS[2])
    assert [e.exam_id for e in cohort.patients[0].exams] == ["002", "001"]
    assert [p.code for p in cohort.patients[0].problems] == ["numbers_not_in_order"]


def test_two_exams_of_one_day_are_refused_or_merged_as_asked(tmp_path: Path) -> None:
    write_exam(tmp_path, "P_001", ("DWI_b0",))
    write_exam(tmp_path, "P_002", ("DWI_b800",))
    write_labels(tmp_path, rows=["P,1,0,0,2020-01-01", "P,2,0,0,2020-01-01"])
    assert "001 and 002 are of one day" in read_input(tmp_path).refused["P"].message
    (exam,) = read_input(tmp_path, ReadingOptions(merge_same_day=True)).patients[0].exams
    assert tuple(exam.images) == ("DWI_b0", "DWI_b800")


def test_a_label_per_exam_is_no_outcome(tmp_path: Path) -> None:
    cohort = read_input(write_layout(tmp_path))
    assert cohort.outcomes == {}
    assert [p.message for p in cohort.problems] == [
        "labels.csv has a label per exam and no day of a diagnosis: the labels are not used. Training and evaluation need "
        "outcomes.csv (patient_id, diagnosis_date, last_seen_date) beside the folders nifti and labels."
    ]
    (tmp_path / "outcomes.csv").write_text(
        "patient_id,diagnosis_date,last_seen_date\nLIVER_004,2021-06-01,2021-06-01\nLIVER_017,,2022-01-01\n"
    )
    cohort = read_input(tmp_path)
    assert sorted(cohort.outcomes) == ["LIVER_004", "LIVER_017"]
    assert cohort.problems == ()


def test_folders_that_are_not_numbered_are_counted(tmp_path: Path) -> None:
    write_exam(write_layout(tmp_path), "phantom")
    (tmp_path / "nifti" / "logs").mkdir()
    assert read_input(tmp_path).problems[0].message == (
        "1 folder(s) in nifti hold images and are not named <patient>_<number>: passed over."
    )


def test_no_message_names_the_patient(tmp_path: Path) -> None:
    folder = write_exam(tmp_path, "Jane_Doe_001", ("DWI_b0", "localizer"))
    write_exam(tmp_path, "Jane_Doe_002", ("T1A", "T1_arterial"))
    (folder / "DWI_b0.nii.gz").write_bytes(b"x")
    write_labels(tmp_path, rows=["Jane_Doe,1,0,0,2020-01-01", "Jane_Doe,2,0,0,2021-01-01"])
    cohort = read_input(tmp_path)
    assert cohort.refused["Jane_Doe"].message == (
        "exam 002: T1A and T1_arterial are both T1_arterial. Keep the right one."
    )
    (tmp_path / "nifti" / "Jane_Doe_002" / "T1A.nii.gz").unlink()
    cohort = read_input(tmp_path)
    (patient,) = cohort.patients
    said = [refusal_of(lambda: check_images(patient.exams[0], DWI)).message, *(p.message for p in cohort.problems)]
    said += [p.message for p in patient.exams[0].problems] + [f.reason for f in patient.exams[0].found]
    assert not any("Jane" in text for text in said)


def test_an_exam_that_cannot_be_opened_is_called_by_its_number(tmp_path: Path) -> None:
    write_exam(tmp_path, "T1_001", ("DWI_b0",))
    (tmp_path / "nifti" / "T1_001" / "bad\udcff.nii.gz").write_bytes(b"x")
    write_labels(tmp_path, rows=["T1,1,0,0,2020-01-01"])
    write_exam(tmp_path, "T1_002", ("T1A", "T1_arterial"))
    assert "The name bad?.nii.gz holds characters that can't be read" in read_input(tmp_path).refused["T1"].message
    (tmp_path / "nifti" / "T1_001" / "bad\udcff.nii.gz").unlink()
    write_labels(tmp_path, rows=["T1,1,0,0,2020-01-01", "T1,2,0,0,2021-01-01"])
    assert "T1A and T1_arterial are both T1_arterial" in read_input(tmp_path).refused["T1"].message


def test_a_published_layout_without_numbered_exams_is_refused(tmp_path: Path) -> None:
    write_labels(tmp_path)
    (tmp_path / "nifti" / "somebody").mkdir(parents=True)
    assert refusal_of(lambda: read_input(tmp_path)).message == (
        "nifti holds no folder named <patient>_<number>. Name the exams' folders so."
    )
