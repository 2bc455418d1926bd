"""A phantom patient's NIfTI images written as DICOM are read back as the same patient, and predicted alike."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dcm2niix_reference import canonical, turned
from dicom_files import PatientWriting, Writing, quantisation_step, write_patient
from pydicom import dcmread

from HCCNetLib.bundles import Bundle, write_bundle
from HCCNetLib.commands.main import main
from HCCNetLib.inference import Predictor
from HCCNetLib.readers import read_input
from HCCNetLib.readers.dicom.files import is_dicom, walk
from HCCNetLib.records import PHANTOM_MARK, Patient
from HCCNetLib.synthetic.acquisition import AcquisitionModel
from HCCNetLib.synthetic.cohort import CohortPlan, synthesize
from HCCNetLib.synthetic.growth import GrowthModel
from HCCNetLib.synthetic.phantom import DEFAULT_CHANNELS, PhantomModel

COARSE = PhantomModel(disease=GrowthModel(), acquisition=AcquisitionModel(spacing=6.0))
LARGEST_RISK_DIFFERENCE = 1e-6
SCATTERED = Writing(dialect="Siemens", shuffled=True, scattered=True)
WRITINGS = {
    "classic": PatientWriting(SCATTERED, comments=PHANTOM_MARK),
    "enhanced": PatientWriting(replace(SCATTERED, dialect="nested"), is_enhanced=True, comments=PHANTOM_MARK),
}


@pytest.fixture(scope="module")
def nifti(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a coarse phantom patient with several exams."""
    cohort = tmp_path_factory.mktemp("phantom") / "cohort"
    synthesize(cohort, CohortPlan(1, 3, COARSE))
    (patient,) = read_input(cohort).patients
    assert len(patient.exams) > 1
    return cohort / patient.patient_id


@pytest.fixture(scope="module", params=WRITINGS)
def dicom(nifti: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The same patient as DICOM, with files between that are no images."""
    folder = tmp_path_factory.mktemp("dicom") / "disc"
    write_patient(folder, only_patient(nifti), WRITINGS[request.param])
    return folder


@pytest.fixture(scope="module")
def bundle(demonstration: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small network of random weights."""
    states = [(demonstration.member(0).state_dict(), 0)]
    description = replace(demonstration.description, name="one")
    return write_bundle(tmp_path_factory.mktemp("one") / "bundle", description, states, "card").path


def only_patient(folder: Path) -> Patient:
    cohort = read_input(folder)
    assert not cohort.refused
    (patient,) = cohort.patients
    return patient


def test_patient_exams_dates_and_channels_are_the_same(nifti: Path, dicom: Path) -> None:
    written, read = only_patient(nifti), only_patient(dicom)
    assert read.patient_id == written.patient_id
    assert [(exam.exam_id, exam.date, sorted(exam.images)) for exam in read.exams] == [
        (exam.exam_id, exam.date, sorted(DEFAULT_CHANNELS)) for exam in written.exams
    ]
    others = [found.reason for exam in read.exams for found in exam.found if found.channel is None]
    assert others == ["a map of diffusion", "no MR but SEG"] * len(read.exams)


def test_every_voxel_lies_where_it_lay_with_its_value(nifti: Path, dicom: Path) -> None:
    written, read = only_patient(nifti), only_patient(dicom)
    for before, after in zip(written.exams, read.exams, strict=True):
        for channel, image in before.images.items():
            other = after.images[channel]
            np.testing.assert_allclose(canonical(other.grid).affine, canonical(image.grid).affine, rtol=0, atol=1e-4)
            values = image.read()
            half_a_step = 0.5 * quantisation_step(values) + 1e-6 * float(np.abs(values).max())
            difference = np.abs(turned(other.read(), other.grid) - turned(values, image.grid))
            assert difference.max() <= half_a_step


def test_both_are_predicted_with_the_same_risk(
    dicom: Path, bundle: Path, of_nifti: dict[str, Any], tmp_path: Path
) -> None:
    of_dicom = predicted(dicom, bundle, tmp_path)
    exams = [[(exam["exam_id"], exam["date"]) for exam in result["exams"]] for result in (of_nifti, of_dicom)]
    assert exams[0] == exams[1]
    assert abs(of_nifti["risk"] - of_dicom["risk"]) < LARGEST_RISK_DIFFERENCE
    assert {warning["code"] for warning in of_dicom["warnings"]} == {"demonstration"}


def test_a_channel_in_another_one_s_place_would_make_another_risk(
    nifti: Path, bundle: Path, of_nifti: dict[str, Any]
) -> None:
    """What the comparison above is worth: random weights make little of anything."""
    patient = only_patient(nifti)
    exams = [
        replace(e, images={**e.images, "DWI_b0": e.images["DWI_b800"], "DWI_b800": e.images["DWI_b0"]})
        for e in patient.exams
    ]
    risk = Predictor(Bundle.open(bundle), "cpu").predict(replace(patient, exams=tuple(exams))).risk
    assert abs(risk - of_nifti["risk"]) > 100 * LARGEST_RISK_DIFFERENCE


@pytest.fixture(scope="module")
def of_nifti(nifti: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return predicted(nifti, bundle, tmp_path_factory.mktemp("predicted"))


def predicted(folder: Path, bundle: Path, out: Path) -> dict[str, Any]:
    assert main(["predict", str(folder), "--bundle", str(bundle), "--explain", "none", "--out", str(out)]) == 0
    result: dict[str, Any] = json.loads(next(out.glob("*/prediction.json")).read_text())
    return result


def test_images_whose_files_all_say_that_they_were_generated_are_a_phantom_s(nifti: Path, dicom: Path) -> None:
    images = [image for exam in only_patient(dicom).exams for image in exam.images.values()]
    assert [image.is_phantom for image in images] == [True] * len(DEFAULT_CHANNELS) * len(only_patient(nifti).exams)


def test_an_image_with_one_file_that_does_not_say_so_is_nobody_s_phantom(nifti: Path, tmp_path: Path) -> None:
    patient = only_patient(nifti)
    patient = replace(patient, exams=patient.exams[:1])
    write_patient(tmp_path, patient, WRITINGS["classic"])
    lowest = next(path for path in walk(tmp_path) if is_dicom(path) and b_value(path) == 0)
    dataset = dcmread(lowest)
    dataset.ImageComments = f"{PHANTOM_MARK}?"
    dataset.save_as(lowest)
    (exam,) = only_patient(tmp_path).exams
    assert {channel: image.is_phantom for channel, image in exam.images.items()} == {
        channel: channel != "DWI_b0" for channel in DEFAULT_CHANNELS
    }


def b_value(path: Path) -> float | None:
    """As Siemens writes it."""
    element = dcmread(path, stop_before_pixels=True).get(0x0019100C)
    return None if element is None else float(element.value)
