"""A list of DICOM files, as a database has them, is read as a folder of them is."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import Stack, series_tags, write_stacks

from HCCNetLib.readers import read_dicom_files, read_input
from HCCNetLib.records import Cohort, Refusal

AFFINE = np.diag([3.0, 3.0, 5.0, 1.0])
SHAPE = (9, 7, 5)


def write_exam(folder: Path, date: str, patient_id: str = "P1") -> list[Path]:
    """A DWI of two b-values and a series that is no channel."""
    volume = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    stacks = [Stack(volume + b, AFFINE, b_value=b) for b in (0.0, 400.0)]
    dwi = write_stacks(folder / "dwi", stacks, series_tags(patient_id, date, 1, "DWI"))
    other = write_stacks(folder / "other", [Stack(volume, AFFINE)], series_tags(patient_id, date, 2, "scout"))
    return [*dwi, *other]


def told(cohort: Cohort) -> list[object]:
    """All that was read, without voxels."""
    assert not cohort.refused
    return [
        (
            *(patient.patient_id, patient.problems, exam.exam_id, exam.date, exam.problems, exam.unknown_files),
            *((image.name, image.channel, image.reason, image.details, image.files) for image in exam.found),
            *((channel, image.fingerprint()) for channel, image in exam.images.items()),
        )
        for patient in cohort.patients
        for exam in patient.exams
    ]


def test_a_patient_is_the_same_from_a_folder_and_from_a_list_of_its_files(tmp_path: Path) -> None:
    files = [*write_exam(tmp_path / "a", "20200105"), *write_exam(tmp_path / "b", "20210314")]
    random.Random(1).shuffle(files)
    from_folder, from_files = read_input(tmp_path), read_dicom_files([*files, files[0]])
    assert told(from_files) == told(from_folder)
    (patient,) = from_files.patients
    assert [(exam.exam_id, [*exam.images]) for exam in patient.exams] == [
        ("2020-01-05", ["DWI_b0", "DWI_b400"]),
        ("2021-03-14", ["DWI_b0", "DWI_b400"]),
    ]
    for mine, theirs in zip(patient.exams, from_folder.patients[0].exams, strict=True):
        for channel, image in mine.images.items():
            np.testing.assert_array_equal(image.read(), theirs.images[channel].read())


def test_real_files_give_the_same_from_a_list(test_data: Path) -> None:
    folder = test_data / "dicom" / "prostatex-dwi"
    assert told(read_dicom_files(folder.iterdir())) == told(read_input(folder))


def test_only_the_files_of_the_list_are_read(tmp_path: Path) -> None:
    chosen = write_exam(tmp_path / "a", "20200105")
    write_exam(tmp_path / "b", "20210314")
    (tmp_path / "outcomes.csv").write_text("not a table of outcomes\n", encoding="utf-8")
    cohort = read_dicom_files(chosen)
    assert [exam.exam_id for exam in cohort.patients[0].exams] == ["2020-01-05"]
    assert cohort.problems == ()


def test_two_people_in_a_list_are_two_patients(tmp_path: Path) -> None:
    files = [*write_exam(tmp_path / "a", "20200105", "P1"), *write_exam(tmp_path / "b", "20200105", "P2")]
    assert [patient.patient_id for patient in read_dicom_files(files).patients] == ["P1", "P2"]


def test_files_that_are_gone_are_refused_in_words(tmp_path: Path) -> None:
    files = write_exam(tmp_path, "20200105")
    files[3].unlink()
    files[7].unlink()
    with pytest.raises(Refusal) as refused:
        read_dicom_files(files)
    assert refused.value.code == "missing_files"
    assert refused.value.message == (
        "2 of 15 DICOM files can't be found any more. Connect the drive that they are on, or import them again."
    )


def test_a_file_that_may_not_be_looked_at_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_exam(tmp_path, "20200105")
    closed = files[-1].parent

    def refusing(act: Any) -> Any:
        def refuse(path: Path, *arguments: Any, **named: Any) -> Any:
            if path.parent == closed:
                raise PermissionError(13, "Permission denied")
            return act(path, *arguments, **named)

        return refuse

    for name in ("exists", "open"):  # permissions do not bind the administrator, as whom tests may run
        monkeypatch.setattr(Path, name, refusing(getattr(Path, name)))
    problems = [problem.message for problem in read_dicom_files(files).problems]
    assert problems == ["5 files can't be opened; they were passed over."]


def test_files_without_a_usable_image_are_refused_in_words(tmp_path: Path) -> None:
    ct = series_tags(description="CT", Modality="CT")
    files = write_stacks(tmp_path, [Stack(np.ones(SHAPE, np.float32), AFFINE)], ct)
    with pytest.raises(Refusal) as refused:
        read_dicom_files(files)
    assert refused.value.message == (
        "The DICOM files hold no MR image that can be used. Found instead: no MR but CT (5). Choose the MR series."
    )
    with pytest.raises(Refusal, match=r"hold no MR image that can be used\. Choose the MR series\.$"):
        read_dicom_files([])
