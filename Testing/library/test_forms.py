"""Which form an input is taken for, and what is said of folders that are none or several."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import series_tags, write_series
from helpers import DWI, centred_affine, write_nifti, write_patient

from HCCNetLib.readers import read_input
from HCCNetLib.records import Cohort, Refusal

SHAPE = (8, 8, 8)
AFFINE = centred_affine(SHAPE, (20.0, 20.0, 20.0), np.diag([-1.0, -1.0, 1.0]))


def write_dicom(folder: Path, patient_id: str = "P1") -> Path:
    volume = np.arange(8**3, dtype=np.float32).reshape(SHAPE)
    write_series(folder, volume, AFFINE, series_tags(patient_id, description="ep2d_diff b800"))
    return folder


def write_image(path: Path) -> Path:
    write_nifti(path, np.ones(SHAPE), AFFINE)
    return path


def write_subject(folder: Path) -> Path:
    for channel in DWI:
        acquisition = channel.removeprefix("DWI_")
        write_image(folder / "ses-1" / "dwi" / f"{folder.name}_ses-1_acq-{acquisition}_dwi.nii.gz")
    (folder / f"{folder.name}_sessions.tsv").write_text("session_id\tacq_time\nses-1\t2021-03-17\n")
    return folder


def ids(cohort: Cohort) -> list[str]:
    return [patient.patient_id for patient in cohort.patients]


def message_of(folder: Path) -> str:
    with pytest.raises(Refusal) as caught:
        read_input(folder)
    return caught.value.message


def test_dicom_in_folders_named_as_in_bids_is_dicom(tmp_path: Path) -> None:
    write_dicom(tmp_path / "sub-01" / "ses-1")
    assert (read_input(tmp_path).form, ids(read_input(tmp_path / "sub-01"))) == ("DICOM folder", ["P1"])


def test_a_bids_dataset_with_its_dicom_in_sourcedata_is_bids(tmp_path: Path) -> None:
    write_subject(tmp_path / "sub-01")
    write_dicom(tmp_path / "sourcedata" / "sub-01")
    assert (read_input(tmp_path).form, ids(read_input(tmp_path))) == ("BIDS dataset", ["sub-01"])


def test_dated_folders_of_patients_who_are_named_as_in_bids_are_a_cohort_folder(tmp_path: Path) -> None:
    write_patient(tmp_path / "sub-01", ("2020-01-05",), DWI[:1])
    assert read_input(tmp_path).form == "cohort folder"


@pytest.mark.parametrize("stray", ["export.nii.gz", "series/export.nii", "other/T1.nrrd"])
def test_dicom_with_an_image_of_another_format_among_it_is_refused(tmp_path: Path, stray: str) -> None:
    write_dicom(tmp_path / "series")
    (tmp_path / stray).parent.mkdir(exist_ok=True)
    (tmp_path / stray).write_bytes(b"x")
    assert "holds DICOM files and images of other formats" in message_of(tmp_path)
    assert "Give the folder of one kind, or move the others elsewhere." in message_of(tmp_path)


def test_a_patient_in_another_form_within_a_cohort_folder_is_told(tmp_path: Path) -> None:
    write_patient(tmp_path / "P1", ("2020-01-05",), DWI[:1])
    write_dicom(tmp_path / "P2" / "study")
    (tmp_path / "logs").mkdir()
    assert [problem.message for problem in read_input(tmp_path).problems] == [
        "The folder P2 was passed over: it holds no folder named by a date. It does hold images: if they are a patient's, give "
        "it as an INPUT of its own.",
        "The folder logs was passed over: it holds no folder named by a date.",
    ]


def test_a_patient_in_another_form_beside_subjects_of_bids_is_told(tmp_path: Path) -> None:
    write_subject(tmp_path / "sub-01")
    write_patient(tmp_path / "P1", ("2020-01-05",), DWI[:1])
    write_image(tmp_path / "derivatives" / "masks" / "mask.nii.gz")
    (tmp_path / "logs").mkdir()
    assert [problem.message for problem in read_input(tmp_path).problems] == [
        "The folder P1 was passed over: it is no subject (sub-*). It does hold images: if they are a patient's, give it as an "
        "INPUT of its own."
    ]


def test_a_dataset_one_folder_too_high_or_too_deep_is_told(tmp_path: Path) -> None:
    write_subject(tmp_path / "study" / "rawdata" / "sub-01")
    assert "The folder study holds a dataset. Give its folder rawdata." in message_of(tmp_path / "study")
    write_image(tmp_path / "published" / "nifti" / "DOE_000" / "T1A.nii.gz")
    (tmp_path / "published" / "labels").mkdir()
    message = message_of(tmp_path / "published" / "nifti")
    assert message.startswith("The folder nifti is part of the published layout. Give the folder that holds it.")
    assert "DOE" not in message


def test_images_deep_in_undated_folders_are_told(tmp_path: Path) -> None:
    write_image(tmp_path / "P1" / "baseline" / "DWI_b0.nii.gz")
    assert "holds images, but none in a folder named by its exam's date." in message_of(tmp_path)


def test_a_bids_subject_without_images_is_refused_in_a_sentence(tmp_path: Path) -> None:
    write_subject(tmp_path / "sub-01")
    (tmp_path / "sub-02" / "ses-1").mkdir(parents=True)
    refused = read_input(tmp_path).refused
    assert refused["sub-02"].message.startswith("No session of it holds an image in NIfTI or NRRD.")


def test_a_patient_folder_that_can_not_be_opened_is_refused_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_patient(tmp_path / "a")
    write_patient(tmp_path / "b")
    (tmp_path / "a" / "2019-01-01").mkdir()

    def guarded(real: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def opened(folder: Any) -> Any:
            if Path(folder).name == "2019-01-01":
                raise PermissionError("2019-01-01")
            return real(folder)

        return opened

    monkeypatch.setattr(os, "scandir", guarded(os.scandir))
    monkeypatch.setattr(Path, "iterdir", guarded(Path.iterdir))
    cohort = read_input(tmp_path)
    assert ids(cohort) == ["b"]
    assert [refusal.code for refusal in cohort.refused.values()] == ["no_permission"]
