"""Reading real files: forms 1 to 3 of the contract, and every mistake in a sentence."""

from __future__ import annotations

import datetime
import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from helpers import DWI, body, centred_affine, positions, rotation, write_nifti, write_patient

from HCCNetLib.readers import ReadingOptions, check_images, read_input, require_channels
from HCCNetLib.readers.channels import CHANNELS, assign_channels, suggest_channel
from HCCNetLib.readers.dates import date_in_name, parse_date
from HCCNetLib.readers.nifti import NiftiImage
from HCCNetLib.records import Grid, Patient, Problem, Refusal, landmark_label, months_between

SHAPE = (48, 40, 40)
AFFINE = centred_affine(SHAPE, (7.0, 7.0, 7.0), np.diag([-1.0, -1.0, 1.0]))


def refusal_of(action: Callable[[], object]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        action()
    return caught.value


def checked(path: Path, options: ReadingOptions | None = None) -> list[Problem]:
    """Reads the first patient and checks all that there is, as a model that reads every channel there would."""
    (patient,) = read_input(path, options).patients
    return [p for exam in patient.exams for p in [*exam.problems, *check_images(exam, list(exam.images))]]


# ---------------------------------------------------------------- names and dates


@pytest.mark.parametrize(
    ("name", "date"),
    [
        ("2021-03-14", datetime.date(2021, 3, 14)),
        ("20210314", datetime.date(2021, 3, 14)),
        ("2021-03-14_baseline", datetime.date(2021, 3, 14)),
        ("20210314_b", datetime.date(2021, 3, 14)),
        ("2021-0314", None),
        ("2021-02-30", None),
        ("14-03-2021", None),
        ("2021-03-14b", None),
        ("truth", None),
    ],
)
def test_dates_in_folder_names(name: str, date: datetime.date | None) -> None:
    assert date_in_name(name) == date


def test_a_table_s_dates_have_no_suffix_and_no_other_order() -> None:
    assert parse_date(" 2021-03-14 ") == datetime.date(2021, 3, 14)
    assert parse_date("2021-03-14_x") is None
    assert parse_date("14.03.2021") is None
    assert parse_date("03/04/2021") is None


def test_months_are_days_over_30_4375() -> None:
    assert months_between(datetime.date(2021, 3, 4), datetime.date(2023, 1, 11)) == pytest.approx(678 / 30.4375)


def test_published_names_are_accepted() -> None:
    names = ["T1WI", "T1A", "T1V", "T1D", "T1W_IP", "T1W_OOP", "T2W_TES", "T2W_TEL"]
    assigned, unknown, _ = assign_channels(names, "exam x")
    assert [assigned[n] for n in names] == [*CHANNELS[4:8], "T1_in", "T1_out", "T2_short", "T2_long"]
    assert unknown == []


def test_b_values_go_to_the_nearest_channel_within_50_one_to_one_and_say_so() -> None:
    assigned, unknown, problems = assign_channels(
        ["DWI_b0.001", "DWI_b50", "DWI_b140", "DWI_b800", "DWI_b1000"], "exam x"
    )
    # b50 is within ±50 of b0, but b0.001 is nearer and there is one b0
    assert assigned == {"DWI_b0.001": "DWI_b0", "DWI_b140": "DWI_b150", "DWI_b800": "DWI_b800"}
    assert unknown == ["DWI_b50", "DWI_b1000"]
    assert [p.message for p in problems] == [
        "exam x: DWI_b140 is used as DWI_b150 (the nearest b-value within ±50 s/mm²)."
    ]


def test_an_exact_b_value_wins_over_a_near_one() -> None:
    assigned, unknown, _ = assign_channels(["DWI_b790", "DWI_b800"], "exam x")
    assert assigned == {"DWI_b800": "DWI_b800"}
    assert unknown == ["DWI_b790"]


def test_two_names_for_one_channel_are_refused() -> None:
    refusal = refusal_of(lambda: assign_channels(["T1A", "T1_arterial"], "exam x"))
    assert refusal.message == "exam x: T1A and T1_arterial are both T1_arterial. Keep the right one."


def test_misspelt_names_are_guessed_only_in_words() -> None:
    assert suggest_channel("dwi_B400") == "DWI_b400"
    assert suggest_channel("T1_aterial") == "T1_arterial"
    assert suggest_channel("b400") == "DWI_b400"
    assert suggest_channel("dwi_400") == "DWI_b400"


@pytest.mark.parametrize(
    "name",
    ["localizer", "T1", "T1_post", "T1_pre", "T1_map", "T1C", "T2_HASTE", "DWI_b1000", "DWI_b80", "spleen_mask", "ADC"],
)
def test_a_hint_that_might_be_wrong_is_not_given(name: str) -> None:
    assert suggest_channel(name, ("liver_mask", *CHANNELS)) is None


# ---------------------------------------------------------------- form 1


def test_the_sample_patient_is_read_in_the_order_of_dates(sample_patient: Patient) -> None:
    assert sample_patient.patient_id == "RA01"
    assert [e.exam_id for e in sample_patient.exams] == ["2021-03-04", "2021-09-07", "2022-04-20", "2023-01-11"]
    assert all(tuple(e.images) == DWI for e in sample_patient.exams)
    first = sample_patient.exams[0].images["DWI_b0"]
    assert first.grid.shape == (117, 91, 20)
    assert first.grid.spacing == pytest.approx((3, 3, 3))
    assert nib.aff2axcodes(first.grid.affine) == ("L", "P", "S")
    assert float(first.read().max()) == 779


def test_dates_decide_the_order_and_not_the_spelling(tmp_path: Path) -> None:
    folder = write_patient(tmp_path / "P1", ("20210314", "2020-12-24", "2021-03-13_b"), ("DWI_b0",))
    patient = read_input(folder).patients[0]
    assert [e.exam_id for e in patient.exams] == ["2020-12-24", "2021-03-13_b", "20210314"]
    assert patient.landmark.exam_id == "20210314"
    assert [e.exam_id for e in patient.until(patient.exams[1]).exams] == ["2020-12-24", "2021-03-13_b"]


def test_two_folders_of_one_day_are_refused_or_merged_as_asked(tmp_path: Path) -> None:
    folder = write_patient(tmp_path / "P1", ("2021-03-14_dwi",), DWI[:2])
    write_patient(folder, ("20210314_t1",), ("T1_native",))
    refusal = refusal_of(lambda: read_input(folder))
    assert refusal.message == (
        "2021-03-14_dwi and 20210314_t1 are of one day (2021-03-14). If they are one exam, say --merge-same-day; else "
        "correct the dates."
    )
    patient = read_input(folder, ReadingOptions(merge_same_day=True)).patients[0]
    assert len(patient.exams) == 1
    assert set(patient.exams[0].images) == {"DWI_b0", "DWI_b150", "T1_native"}
    assert "same_day_merged" in {p.code for p in patient.exams[0].problems}


def test_merging_never_chooses_between_two_images_of_one_channel(tmp_path: Path) -> None:
    folder = write_patient(tmp_path / "P1", ("2021-03-14_a", "2021-03-14_b"), ("DWI_b0",))
    refusal = refusal_of(lambda: read_input(folder, ReadingOptions(merge_same_day=True)))
    assert "both hold DWI_b0: not one exam" in refusal.message


def test_an_undated_folder_with_images_is_refused_and_one_without_is_not(tmp_path: Path) -> None:
    folder = write_patient(tmp_path / "P1", ("2021-03-14",), ("DWI_b0",))
    (folder / "notes").mkdir()
    assert len(read_input(folder).patients[0].exams) == 1
    shutil.copytree(folder / "2021-03-14", folder / "baseline")
    assert "The folder baseline holds images but its name is no date" in refusal_of(lambda: read_input(folder)).message


def test_images_beside_the_exam_folders_are_refused(tmp_path: Path) -> None:
    folder = write_patient(tmp_path / "P1", ("2021-03-14",), ("DWI_b0",))
    shutil.copy(folder / "2021-03-14" / "DWI_b0.nii.gz", folder / "DWI_b150.nii.gz")
    assert "DWI_b150.nii.gz lies beside the exam folders" in refusal_of(lambda: read_input(folder)).message


def test_what_is_missing_is_named_with_what_is_there_and_what_was_meant(tmp_path: Path) -> None:
    folder = write_patient(tmp_path / "P1", ("2020-01-05", "2021-03-14"), DWI)
    (folder / "2021-03-14" / "DWI_b400.nii.gz").rename(folder / "2021-03-14" / "dwi_400.nii.gz")
    refusal = refusal_of(lambda: require_channels(read_input(folder).patients[0], DWI))
    assert refusal.exam_id == "2021-03-14"
    assert refusal.message.startswith(
        "Exam 2021-03-14 lacks DWI_b400 (it has DWI_b0, DWI_b150, DWI_b800); not understood: dwi_400 (did you mean "
        "DWI_b400?)."
    )


def test_a_liver_mask_and_a_box_are_read_beside_the_channels(tmp_path: Path) -> None:
    folder = write_patient(tmp_path / "P1", ("2020-01-05",), DWI[:1])
    write_nifti(folder / "2020-01-05" / "liver_mask.nii.gz", np.ones((5, 5, 5)), np.eye(4))
    box = {"low_mm": [0, 1, 2], "high_mm": [30, 31, 32]}
    (folder / "2020-01-05" / "liver_box.json").write_text(json.dumps(box))
    exam = read_input(folder).patients[0].exams[0]
    assert exam.liver_mask is not None
    assert exam.liver_mask.grid.shape == (5, 5, 5)
    assert exam.liver_box is not None
    assert exam.liver_box.high == (30.0, 31.0, 32.0)
    assert exam.unknown_files == ()


# ---------------------------------------------------------------- form 2


def test_a_cohort_reads_each_patient_apart_and_names_what_it_passed_over(tmp_path: Path) -> None:
    write_patient(tmp_path / "A", ("2020-01-05",), DWI[:1])
    write_patient(tmp_path / "B", ("2020-01-05",), DWI[:1])
    write_nifti(tmp_path / "B" / "2020-01-05" / "T1A.nii.gz", np.ones(SHAPE), AFFINE)
    write_nifti(tmp_path / "B" / "2020-01-05" / "T1_arterial.nii.gz", np.ones(SHAPE), AFFINE)
    (tmp_path / "docs").mkdir()
    (tmp_path / "outcomes.csv").write_text(
        "patient_id,diagnosis_date,last_seen_date\nA,2021-02-01,2021-02-01\nC,,2022-01-01\n"
    )
    cohort = read_input(tmp_path)
    assert [p.patient_id for p in cohort.patients] == ["A"]
    assert cohort.refused["B"].message == (
        "exam 2020-01-05: T1A and T1_arterial are both T1_arterial. Keep the right one."
    )
    assert cohort.outcomes["A"].diagnosis_date == datetime.date(2021, 2, 1)
    assert {p.code for p in cohort.problems} == {"passed_over", "outcomes_without_exams"}


def test_the_shared_series_are_a_cohort_of_three(shared_data: Path) -> None:
    cohort = read_input(shared_data / "series")
    assert [(p.patient_id, len(p.exams)) for p in cohort.patients] == [("RA01", 4), ("RA02", 3), ("RA03", 2)]
    assert [p.message for p in cohort.problems] == [
        "The folder truth was passed over: it holds no folder named by a date. It does hold images: if they are a patient's, "
        "give it as an INPUT of its own."
    ]
    missing = refusal_of(lambda: require_channels(cohort.patients[2], CHANNELS[:8]))
    assert missing.message.startswith("Exam 2021-06-20 lacks DWI_b400, T1_arterial")


COMPETING = "patient_id,diagnosis_date,last_seen_date,competing_event,competing_date"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("patient_id,last_seen_date\nA,2020-01-01\n", "outcomes.csv lacks the column(s) diagnosis_date"),
        (
            "patient_id,diagnosis_date,last_seen_date\nA,,soon\n",
            "outcomes.csv, row 2: dates must be written 2021-03-14",
        ),
        ("patient_id,diagnosis_date,last_seen_date\nA,1.2.2020,2020-02-01\n", "row 2: dates must be written"),
        (
            "patient_id,diagnosis_date,last_seen_date\nA,,2020-01-01\nA,,2020-01-01\n",
            "outcomes.csv, row 3: this patient stands there already",
        ),
        ("patient_id,diagnosis_date,last_seen_date\n", "outcomes.csv has no rows"),
        ("patient_id,diagnosis_date,last_seen_date\nA,,2020-01-01,x\n", "row 2 has more cells than the header"),
        (f"{COMPETING}\nA,,2020-05-01,death,\n", "row 2: competing_event names an event and competing_date is empty"),
        (f"{COMPETING}\nA,,2020-05-01,,May\n", "row 2: dates must be written 2021-03-14"),
        (
            f"{COMPETING}\nA,2020-04-01,2020-05-01,transplant,2020-03-01\n",
            "row 2: competing_date lies before diagnosis_date; no diagnosis can come after a competing event",
        ),
    ],
)
def test_wrong_outcomes_are_refused_with_their_row(tmp_path: Path, text: str, sentence: str) -> None:
    write_patient(tmp_path / "A", ("2020-01-05",), DWI[:1])
    (tmp_path / "outcomes.csv").write_text(text)
    cohort = read_input(tmp_path)
    assert cohort.outcomes_refused is not None
    assert sentence in cohort.outcomes_refused.message
    assert cohort.problems[0].message.endswith("Prediction does not need the outcomes; training and evaluation do.")
    assert [p.patient_id for p in cohort.patients] == ["A"]


def test_a_competing_event_ends_the_follow_up_unless_the_diagnosis_came_first(tmp_path: Path) -> None:
    for name in "AB":
        write_patient(tmp_path / name, ("2020-01-05",), DWI[:1])
    (tmp_path / "outcomes.csv").write_text(
        f"{COMPETING}\nA,,2022-05-01,transplant,2020-06-01\nB,2020-04-01,2020-06-01,death,2020-06-01\n"
    )
    a, b = (read_input(tmp_path).outcomes[name] for name in "AB")
    assert a.followed_until == a.event_date == datetime.date(2020, 6, 1)
    assert landmark_label(a, datetime.date(2020, 1, 5), 12) is False  # no diagnosis can come any more
    assert landmark_label(a, datetime.date(2020, 6, 1), 12) is None  # from the transplant on, another liver
    assert b.event_date == datetime.date(2020, 4, 1)
    assert landmark_label(b, datetime.date(2020, 1, 5), 12) is True


def test_semicolons_and_a_byte_order_mark_are_what_spreadsheets_write(tmp_path: Path) -> None:
    write_patient(tmp_path / "A", ("2020-01-05",), DWI[:1])
    (tmp_path / "outcomes.csv").write_text(
        "patient_id;diagnosis_date;last_seen_date\nA;;2021-02-01\n", encoding="utf-8-sig"
    )
    assert read_input(tmp_path).outcomes["A"].last_seen_date == datetime.date(2021, 2, 1)


# ---------------------------------------------------------------- form 3


def write_table(folder: Path, rows: list[str], header: str = "patient_id,exam_id,exam_date,DWI_b0,age") -> Path:
    table = folder / "cohort.csv"
    table.write_text("\n".join([header, *rows]) + "\n")
    return table


def test_a_table_gives_the_same_patient_as_the_folder(tmp_path: Path) -> None:
    write_patient(tmp_path / "images", ("2020-01-05", "2021-03-14"), DWI[:1])
    rows = [
        "P9,late,2021-03-14,images/2021-03-14/DWI_b0.nii.gz,63",
        "P9,early,20200105,images/2020-01-05/DWI_b0.nii.gz,61",
    ]
    cohort = read_input(write_table(tmp_path, rows))
    assert cohort.form == "cohort table"
    exams = cohort.patients[0].exams
    assert [(e.exam_id, e.date.isoformat(), list(e.images)) for e in exams] == [
        ("early", "2020-01-05", ["DWI_b0"]),
        ("late", "2021-03-14", ["DWI_b0"]),
    ]
    assert np.array_equal(
        exams[0].images["DWI_b0"].read(), nib.load(tmp_path / "images/2020-01-05/DWI_b0.nii.gz").get_fdata()
    )


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (["P1,e,,images/2020-01-05/DWI_b0.nii.gz,1"], "cohort.csv, row 2: exam_date is missing or not a date"),
        (["P1,e,2020-01-05,images/scan.mha,1"], "DWI_b0 of row 2 is no .nii.gz, .nii, .nrrd or .nhdr file"),
        (
            ["P1,e,2020-01-05,images/2020-01-05/DWI_b0.nii.gz,1", "P1,f,2020-01-05,images/2020-01-05/DWI_b0.nii.gz,1"],
            "e and f are of one day (2020-01-05)",
        ),
        (
            ["P1,e,2020-01-05,images/2020-01-05/DWI_b0.nii.gz,1", "P1,e,2020-01-06,images/2020-01-05/DWI_b0.nii.gz,1"],
            "The exam_id e stands there twice",
        ),
    ],
)
def test_mistakes_in_a_table_are_found_by_row(tmp_path: Path, rows: list[str], sentence: str) -> None:
    write_patient(tmp_path / "images", ("2020-01-05",), DWI[:1])
    assert sentence in read_input(write_table(tmp_path, rows)).refused["P1"].message


def test_a_table_s_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    table = write_table(tmp_path, ["P1,e,2020-01-05,images/nothing.nii.gz,1"])
    assert refusal_of(lambda: checked(table)).message == (
        "Exam e: DWI_b0 of row 2 does not exist. Check the name and the folder."
    )
    long = write_table(tmp_path, ["P1,e,2020-01-05," + "x" * 5000 + ".nii.gz,1"])
    assert "DWI_b0 of row 2" in read_input(long).refused["P1"].message


def test_a_stray_quotation_mark_swallows_no_exam(tmp_path: Path) -> None:
    write_patient(tmp_path / "images", ("2020-01-05",), DWI[:1])
    image = "images/2020-01-05/DWI_b0.nii.gz"
    rows = [
        f'P1,a,2020-01-05,{image},"12 mm lesion',
        f"P1,b,2021-01-05,{image},fine",
        f'P1,c,2022-01-05,{image},"fine"',
    ]
    for several in (rows, rows[:2]):
        table = write_table(tmp_path, several)
        assert "quotation mark" in refusal_of(lambda table=table: read_input(table)).message
    fine = [f'P1,a,2020-01-05,{image},"12 mm, ""growing"""', f"P1,b,2021-01-05,{image},\u2028 fine"]
    assert len(read_input(write_table(tmp_path, fine)).patients[0].exams) == 2


def test_a_table_without_its_columns_is_refused_as_a_whole(tmp_path: Path) -> None:
    table = write_table(tmp_path, ["P1,x"], header="patient_id,DWI_b0")
    assert "cohort.csv lacks the column(s) exam_id, exam_date" in refusal_of(lambda: read_input(table)).message


# ---------------------------------------------------------------- images


def write_one(tmp_path: Path, image: nib.Nifti1Image, name: str = "DWI_b0.nii.gz") -> Path:
    folder = tmp_path / "P1" / "2020-01-05"
    folder.mkdir(parents=True, exist_ok=True)
    nib.save(image, folder / name)
    return tmp_path / "P1"


def picture(dtype: type = np.float32) -> nib.Nifti1Image:
    image = nib.Nifti1Image(body(positions(SHAPE, AFFINE)).astype(dtype), AFFINE)
    image.set_sform(AFFINE, code="scanner")
    return image


def test_slope_intercept_and_byte_order_are_applied(tmp_path: Path) -> None:
    stored = np.arange(48 * 40 * 40, dtype=">i2").reshape(SHAPE) % 1000
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    header.set_data_shape(SHAPE)
    header.set_sform(AFFINE, code="scanner")
    header["scl_slope"], header["scl_inter"] = 0.5, -10
    header["vox_offset"] = 352
    path = tmp_path / "P1" / "2020-01-05" / "DWI_b0.nii"
    path.parent.mkdir(parents=True)
    path.write_bytes(header.binaryblock + bytes(4) + stored.astype(">i2").tobytes(order="F"))
    image = read_input(tmp_path / "P1").patients[0].exams[0].images["DWI_b0"]
    assert image.read() == pytest.approx(stored * 0.5 - 10)


def test_real_files_of_other_makers_are_read_or_refused_in_words(shared_data: Path) -> None:
    odd = shared_data / "real" / "odd" / "nibabel"
    anatomical = NiftiImage(odd / "anatomical.nii", "anatomical.nii")
    assert anatomical.grid.shape == (33, 41, 25)
    assert np.isfinite(anatomical.read()).all()
    four_d = refusal_of(lambda: NiftiImage(odd / "example4d.nii.gz", "example4d.nii.gz").grid)
    assert four_d.message.startswith("example4d.nii.gz has 2 volumes (4D) and nothing says which channel each is.")
    foreign = refusal_of(lambda: NiftiImage(odd / "test.mgz", "test.mgz").grid)
    assert foreign.message == "test.mgz is not a NIfTI image. Convert it to .nii.gz first."


@pytest.mark.parametrize("how", ["names", "b-values"])
def test_volumes_of_a_4d_file_are_channels_where_they_are_named(tmp_path: Path, how: str) -> None:
    points = positions(SHAPE, AFFINE)
    stack = np.stack([body(points, i) for i in range(4)], axis=-1)
    image = nib.Nifti1Image(stack, AFFINE)
    image.set_sform(AFFINE, code="scanner")
    name = "DWI_b0+DWI_b150+DWI_b400+DWI_b800" if how == "names" else "diffusion"
    folder = write_one(tmp_path, image, f"{name}.nii.gz")
    if how == "b-values":
        (folder / "2020-01-05" / "diffusion.bval").write_text("0 150 400 800\n")
    exam = read_input(folder).patients[0].exams[0]
    assert tuple(exam.images) == DWI
    for index, channel in enumerate(DWI):
        assert exam.images[channel].grid.shape == SHAPE
        assert np.array_equal(exam.images[channel].read(), stack[..., index])


def test_a_4d_file_needs_a_name_for_each_volume(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.random.default_rng(0).random((*SHAPE, 3), dtype=np.float32), AFFINE)
    image.set_sform(AFFINE, code="scanner")
    folder = write_one(tmp_path, image, "DWI_b0+DWI_b800.nii.gz")
    assert "has 3 volume(s), but 2 are named (DWI_b0, DWI_b800)" in refusal_of(lambda: read_input(folder)).message


def test_diffusion_directions_are_not_taken_for_channels(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.random.default_rng(0).random((*SHAPE, 3), dtype=np.float32), AFFINE)
    image.set_sform(AFFINE, code="scanner")
    folder = write_one(tmp_path, image, "diffusion.nii.gz")
    (folder / "2020-01-05" / "diffusion.bval").write_text("0 800 800")
    patient = read_input(folder).patients[0]
    assert patient.exams[0].images == {}
    missing = refusal_of(lambda: require_channels(patient, ("DWI_b0",))).message
    assert "not understood: diffusion (2020-01-05/diffusion.nii.gz has several volumes of one b-value" in missing
    # Beside the channels that a model reads, such a series is only named.
    write_nifti(folder / "2020-01-05" / "DWI_b0.nii.gz", body(positions(SHAPE, AFFINE)), AFFINE)
    assert "diffusion (" in checked(folder)[0].message


def test_an_image_that_does_not_say_how_it_lies_is_refused(tmp_path: Path) -> None:
    image = nib.Nifti1Image(body(positions(SHAPE, AFFINE)), None)
    image.header.set_sform(None, code=0)
    image.header.set_qform(None, code=0)
    message = refusal_of(lambda: checked(write_one(tmp_path, image))).message
    assert "does not say how it lies in the patient" in message


def test_two_orientations_in_one_header_are_pointed_out(tmp_path: Path) -> None:
    image = picture()
    flipped = AFFINE.copy()
    flipped[0] *= -1
    image.set_qform(flipped, code="scanner")
    folder = write_one(tmp_path, image)
    assert [p.code for p in checked(folder)] == ["orientation_conflict"]
    exam = read_input(folder).patients[0].exams[0]
    assert np.allclose(exam.images["DWI_b0"].grid.affine, AFFINE)


def test_grids_that_differ_within_an_exam_are_refused_unless_asked_for(tmp_path: Path) -> None:
    folder = write_one(tmp_path, picture())
    moved = AFFINE.copy()
    moved[:3, 3] += [4.0, 0, 0]
    write_nifti(folder / "2020-01-05" / "DWI_b150.nii.gz", body(positions(SHAPE, moved), 1), moved)
    refusal = refusal_of(lambda: checked(folder))
    assert refusal.code == "grids_differ"
    assert "DWI_b0: 48×40×40 voxels of 7×7×7 mm, LPS, centre at (5, -10, 40) mm" in refusal.message
    assert "DWI_b150: 48×40×40 voxels of 7×7×7 mm, LPS, centre at (9, -10, 40) mm" in refusal.message
    assert [p.code for p in checked(folder, ReadingOptions(resample_channels=True))] == ["channels_resampled"]
    # A model that does not read the second channel has no quarrel with its grid.
    patient = read_input(folder).patients[0]
    assert require_channels(patient, ("DWI_b0",)) == []


def test_grids_that_differ_by_rounding_are_one_grid() -> None:
    grid = Grid((512, 512, 80), centred_affine((512, 512, 80), (0.8, 0.8, 3.0), rotation(8, 3, 1)))
    rounded = Grid(grid.shape, grid.affine.astype(np.float32).astype(np.float64))
    turned = Grid(grid.shape, centred_affine((512, 512, 80), (0.8, 0.8, 3.0), rotation(8, 3, 1.1)))
    assert grid.matches(rounded)
    assert not grid.matches(turned)


def scaled(factor: float) -> nib.Nifti1Image:
    affine = AFFINE.copy()
    affine[:3, :3] *= factor
    image = nib.Nifti1Image(body(positions(SHAPE, AFFINE)), affine)
    image.set_sform(affine, code="scanner")
    return image


def sheared() -> nib.Nifti1Image:
    affine = AFFINE.copy()
    affine[1, 2] = 1.5
    image = nib.Nifti1Image(body(positions(SHAPE, AFFINE)), affine)
    image.set_sform(affine, code="scanner")
    return image


def spoiled(value: float) -> nib.Nifti1Image:
    data = body(positions(SHAPE, AFFINE))
    data[3, 4, 5] = value
    image = nib.Nifti1Image(data, AFFINE)
    image.set_sform(AFFINE, code="scanner")
    return image


def coloured() -> nib.Nifti1Image:
    data = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    image = nib.Nifti1Image(data, AFFINE)
    image.set_sform(AFFINE, code="scanner")
    return image


def flat(shape: tuple[int, ...]) -> nib.Nifti1Image:
    image = nib.Nifti1Image(np.random.default_rng(0).random(shape, dtype=np.float32), AFFINE)
    image.set_sform(AFFINE, code="scanner")
    return image


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (lambda: spoiled(np.nan), "2020-01-05/DWI_b0.nii.gz has 1 voxels that are not numbers (NaN or infinite)."),
        (lambda: spoiled(np.inf), "2020-01-05/DWI_b0.nii.gz has 1 voxels that are not numbers (NaN or infinite)."),
        (coloured, "2020-01-05/DWI_b0.nii.gz is a colour image."),
        (lambda: flat((48, 40)), "2020-01-05/DWI_b0.nii.gz is not a 3D volume (48 × 40 voxels)."),
        (lambda: flat((48, 40, 1)), "2020-01-05/DWI_b0.nii.gz is not a 3D volume (48 × 40 × 1 voxels)."),
        (lambda: scaled(1e-3), "voxels of 0.007 × 0.007 × 0.007 mm are not plausible"),
        (lambda: scaled(10), "voxels of 70 × 70 × 70 mm are not plausible"),
        (sheared, "the voxel axes are not at right angles (gantry tilt or shear)."),
        (lambda: nib.Nifti1Image(np.ones(SHAPE, np.complex64), AFFINE), "has complex voxels. Use the magnitude image."),
    ],
)
def test_images_that_cannot_be_used_are_refused_by_file(
    tmp_path: Path, image: Callable[[], nib.Nifti1Image], sentence: str
) -> None:
    folder = write_one(tmp_path, image())
    message = refusal_of(lambda: read_input(folder).patients[0].exams[0].images["DWI_b0"].read()).message
    assert sentence in message


@pytest.mark.parametrize("kept", [0, 100, 400, 20_000])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: int) -> None:
    folder = write_one(tmp_path, picture())
    file = folder / "2020-01-05" / "DWI_b0.nii.gz"
    file.write_bytes(file.read_bytes()[:kept])
    message = refusal_of(lambda: read_input(folder).patients[0].exams[0].images["DWI_b0"].read()).message
    assert "2020-01-05/DWI_b0.nii.gz" in message
    assert message.endswith("Export it again.")


def test_an_uncompressed_truncated_file_is_refused(tmp_path: Path) -> None:
    folder = write_one(tmp_path, picture(), "DWI_b0.nii")
    file = folder / "2020-01-05" / "DWI_b0.nii"
    file.write_bytes(file.read_bytes()[:9000])
    message = refusal_of(lambda: read_input(folder).patients[0].exams[0].images["DWI_b0"].read()).message
    assert "DWI_b0.nii is damaged or incomplete" in message


def test_a_gzip_with_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    folder = write_one(tmp_path, picture())
    file = folder / "2020-01-05" / "DWI_b0.nii.gz"
    raw = bytearray(gzip.compress(gzip.decompress(file.read_bytes())))
    raw[-6] ^= 0xFF
    file.write_bytes(bytes(raw))
    message = refusal_of(lambda: read_input(folder).patients[0].exams[0].images["DWI_b0"].read()).message
    assert "damaged" in message


# ---------------------------------------------------------------- what is no input


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda p: p / "nowhere", "does not exist. Check the path."),
        (lambda p: p, "is empty. Expected a patient folder"),
        (lambda p: (p / "a.txt").write_text("x") and p / "a.txt", "a.txt is no folder, table or DICOM file."),
        (lambda p: (p / "sub").mkdir() or p, "holds no exam folder named by a date."),
        (
            lambda p: write_nifti(p / "DWI_b0.nii.gz", np.ones(SHAPE), AFFINE) or p,
            "holds images but no folder named by a date: an exam without its date can't be used.",
        ),
        (
            lambda p: write_nifti(p / "baseline" / "DWI_b0.nii.gz", np.ones(SHAPE), AFFINE) or p,
            "The folder(s) baseline hold images but their names are no dates.",
        ),
    ],
)
def test_what_is_no_input_is_told_what_was_expected(
    tmp_path: Path, make: Callable[[Path], Path], sentence: str
) -> None:
    assert sentence in refusal_of(lambda: read_input(make(tmp_path))).message


@pytest.mark.parametrize("name", ["\x1b[31mred", "two\nlines", "\u202edetrevni"])
def test_names_that_would_steer_a_terminal_are_refused(tmp_path: Path, name: str) -> None:
    write_patient(tmp_path / "cohort" / name, ("2020-01-05",), DWI[:1])
    message = refusal_of(lambda: read_input(tmp_path / "cohort")).message
    assert message.isprintable()
    assert message.endswith("holds characters that can't be read. Rename it.")
    table = write_table(tmp_path, [f"P{name.replace(chr(10), chr(7))},e,2020-01-05,a.nii.gz,1"])
    assert "holds characters that are no text" in refusal_of(lambda: read_input(table)).message


def test_no_message_names_the_patient(tmp_path: Path) -> None:
    folder = write_patient(tmp_path / "Jane_Doe_1949", ("2020-01-05",), DWI[:1])
    (folder / "2020-01-05" / "DWI_b0.nii.gz").write_bytes(b"x")
    assert "Jane" not in refusal_of(lambda: checked(folder)).message
    (folder / "2020-01-05" / "DWI_b0.nii.gz").unlink()
    assert "Jane" not in refusal_of(lambda: require_channels(read_input(folder).patients[0], DWI)).message


# ---------------------------------------------------------------- what must not pass in silence


def test_patients_are_named_as_given_and_not_by_what_a_link_points_to(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_patient(tmp_path / "archive" / name / "nifti", ("2020-01-05",), DWI[:1])
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "P001").symlink_to(tmp_path / "archive" / "a" / "nifti")
    (tmp_path / "cohort" / "P002").symlink_to(tmp_path / "archive" / "b" / "nifti")
    assert [p.patient_id for p in read_input(tmp_path / "cohort").patients] == ["P001", "P002"]
    (tmp_path / "cohort" / "P003").symlink_to(tmp_path / "nowhere")
    assert "link that leads nowhere" in read_input(tmp_path / "cohort").refused["P003"].message


@pytest.mark.parametrize("what", ["2021-01-11", "2021-01-11.zip", "2021-01-11_baseline.zip", "20210111_x.tar.gz"])
def test_an_exam_that_cannot_be_opened_is_not_left_out(tmp_path: Path, what: str) -> None:
    folder = write_patient(tmp_path / "P1", ("2020-01-05",), DWI[:1])
    (folder / "2021-01-11_letter.pdf").write_text("not an exam")
    (folder / "2020-01-05_backup.zip").write_bytes(b"PK")  # its exam is there
    assert len(read_input(folder).patients[0].exams) == 1
    if what == "2021-01-11":
        (folder / what).symlink_to(tmp_path / "not-mounted")
    else:
        (folder / what).write_bytes(b"PK")
    refusal = refusal_of(lambda: read_input(folder))
    assert refusal.code == "unreadable_exam"
    assert what in refusal.message


def test_a_dated_folder_or_archive_beside_patients_is_no_exam(tmp_path: Path) -> None:
    write_patient(tmp_path / "P1", ("2020-01-05",), DWI[:1])
    (tmp_path / "2022-01-01_logs").mkdir()
    (tmp_path / "20230101.zip").write_bytes(b"PK")
    cohort = read_input(tmp_path)
    assert [p.patient_id for p in cohort.patients] == ["P1"]
    assert ["2022-01-01_logs" in p.message for p in cohort.problems] == [True]


def test_what_an_exam_folder_holds_and_is_not_read_is_named(tmp_path: Path) -> None:
    folder = write_patient(tmp_path / "P1", ("2020-01-05",), DWI[:1])
    exam = folder / "2020-01-05"
    write_nifti(exam / "seg" / "liver_mask.nii.gz", np.ones(SHAPE), AFFINE)
    (exam / "liver_mask.mha").write_bytes(b"x")
    (exam / "Liver_box.json").write_text("{}")
    (exam / "DWI_b0.json").write_text("{}")
    (exam / "report.pdf").write_bytes(b"x")
    (problem,) = read_input(folder).patients[0].exams[0].problems
    assert problem.message == (
        "not looked into: Liver_box.json, liver_mask.mha, the folder seg. Only NIfTI and NRRD images in the exam's own "
        "folder are read."
    )


def test_an_image_that_is_a_link_to_nowhere_is_missed(tmp_path: Path) -> None:
    folder = write_patient(tmp_path / "P1", ("2020-01-05",), DWI[:1])
    (folder / "2020-01-05" / "liver_mask.nii.gz").symlink_to(tmp_path / "nowhere.nii.gz")
    assert "liver_mask.nii.gz does not exist" in refusal_of(lambda: checked(folder)).message


def test_images_deep_in_an_undated_folder_are_not_passed_over(tmp_path: Path) -> None:
    folder = write_patient(tmp_path / "P1", ("2020-01-05",), DWI[:1])
    (folder / "notes").mkdir()
    assert [p.message for p in read_input(folder).patients[0].problems] == [
        "The folder notes was passed over: it holds no image."
    ]
    (folder / "20-02-2023" / "series").mkdir(parents=True)
    (folder / "20-02-2023" / "series" / "1.dcm").write_bytes(b"x")
    assert (
        "The folder 20-02-2023 holds images but its name is no date" in refusal_of(lambda: read_input(folder)).message
    )


def test_patients_whose_ids_look_like_dates_are_patients(tmp_path: Path) -> None:
    write_patient(tmp_path / "20010105", ("2020-01-05",), DWI[:1])
    write_patient(tmp_path / "20010106", ("2020-01-05",), DWI[:1])
    assert [p.patient_id for p in read_input(tmp_path).patients] == ["20010105", "20010106"]


@pytest.mark.parametrize(("date", "said"), [("2203-01-11", "in the future"), ("1969-01-11", "before there was MRI")])
def test_dates_that_are_hardly_right_are_pointed_out(tmp_path: Path, date: str, said: str) -> None:
    folder = write_patient(tmp_path / "P1", (date,), DWI[:1])
    (problem,) = read_input(folder).patients[0].exams[0].problems
    assert said in problem.message


def test_dates_that_cannot_be_are_refused(tmp_path: Path) -> None:
    folder = write_patient(tmp_path / "P1", ("0021-01-11",), DWI[:1])
    assert "0021-01-11 can't be the date of an exam" in refusal_of(lambda: read_input(folder)).message


def test_images_that_are_not_used_are_named_with_what_they_may_be(tmp_path: Path) -> None:
    folder = write_patient(tmp_path / "P1", ("2020-01-05",), ("DWI_b0", "Liver_mask", "localizer"))
    (problem,) = read_input(folder).patients[0].exams[0].problems
    assert problem.code == "images_not_used"
    assert problem.message == "not understood and not used: Liver_mask (did you mean liver_mask?), localizer."


def test_two_livers_are_refused(tmp_path: Path) -> None:
    folder = write_patient(tmp_path / "P1", ("2020-01-05",), ("DWI_b0", "liver_mask"))
    mask = folder / "2020-01-05" / "liver_mask.nii.gz"
    nib.save(nib.load(mask), mask.with_suffix(""))
    assert "both say where the liver is" in refusal_of(lambda: read_input(folder)).message
    mask.unlink()
    write_patient(folder, ("2020-01-05_b",), ("DWI_b150", "liver_mask"))
    merging = ReadingOptions(merge_same_day=True)
    assert "several say where the liver is" in refusal_of(lambda: read_input(folder, merging)).message


@pytest.mark.parametrize(
    "box",
    [
        {"low_mm": [0, 0, 0], "high_mm": [30, -1, 30]},
        {"low_mm": [-1000, -1000, -1000], "high_mm": [1000, 1000, 1000]},
        {"low_mm": "012", "high_mm": "789"},
        {"low_mm": [0, 0], "high_mm": [100, 100]},
        {"low_mm": [0, 0, None], "high_mm": [100, 100, 100]},
        {"low_mm": [True, 0, 0], "high_mm": [100, 100, 100]},
        [1, 2],
        "box",
    ],
)
def test_a_liver_box_that_is_none_is_refused(tmp_path: Path, box: object) -> None:
    folder = write_patient(tmp_path / "P1", ("2020-01-05",), DWI[:1])
    (folder / "2020-01-05" / "liver_box.json").write_text(json.dumps(box))
    assert "liver_box.json" in refusal_of(lambda: read_input(folder)).message


def test_of_two_b_values_equally_near_none_is_taken() -> None:
    assigned, unknown, problems = assign_channels(["DWI_b0", "DWI_b100", "DWI_b200"], "exam x")
    assert assigned == {"DWI_b0": "DWI_b0"}
    assert unknown == ["DWI_b100", "DWI_b200"]
    assert [p.message for p in problems] == [
        "exam x: DWI_b100 and DWI_b200 are equally near to DWI_b150; none is used. Keep or rename one."
    ]


@pytest.mark.parametrize(
    ("b_value", "sentence"), [("0", "is named b800, but the .bval file beside it says 0"), ("-5", "no b-values")]
)
def test_a_b_value_file_that_says_otherwise_is_refused(tmp_path: Path, b_value: str, sentence: str) -> None:
    folder = write_patient(tmp_path / "P1", ("2020-01-05",), ("DWI_b800",))
    (folder / "2020-01-05" / "DWI_b800.bval").write_text(b_value)
    assert sentence in refusal_of(lambda: read_input(folder)).message


def test_a_damaged_second_orientation_is_pointed_out(tmp_path: Path) -> None:
    folder = write_one(tmp_path, picture(), "DWI_b0.nii")
    file = folder / "2020-01-05" / "DWI_b0.nii"
    header = nib.Nifti1Header(file.read_bytes()[:348])
    header["qform_code"] = 1
    header["quatern_b"], header["quatern_c"] = 0.70711, 0.70711 + 1e-4
    file.write_bytes(header.binaryblock + file.read_bytes()[348:])
    assert [p.code for p in checked(folder)] == ["orientation_conflict"]


def test_a_header_spoilt_anywhere_gives_a_sentence_or_an_image(tmp_path: Path) -> None:
    folder = write_one(tmp_path, picture(), "DWI_b0.nii")
    file = folder / "2020-01-05" / "DWI_b0.nii"
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        spoilt = bytearray(whole)
        for at in rng.integers(0, 352, 3):
            spoilt[at] = rng.integers(0, 256)
        file.write_bytes(bytes(spoilt))
        try:
            checked(folder)
            read_input(folder).patients[0].exams[0].images["DWI_b0"].read()
        except Refusal:
            refused += 1
    assert 30 < refused < 400


def test_a_diagnosis_before_the_latest_exam_is_pointed_out(tmp_path: Path) -> None:
    write_patient(tmp_path / "A", ("2020-01-05", "2021-01-05"), DWI[:1])
    (tmp_path / "outcomes.csv").write_text("patient_id,diagnosis_date,last_seen_date\nA,2020-06-01,2021-02-01\n")
    assert [p.code for p in read_input(tmp_path).patients[0].problems] == ["diagnosed_before"]
    (tmp_path / "outcomes.csv").write_text("patient_id,diagnosis_date,last_seen_date\nA,2021-06-01,2021-02-01\n")
    cohort = read_input(tmp_path)
    assert cohort.outcomes_refused is not None
    assert "last_seen_date lies before diagnosis_date" in cohort.outcomes_refused.message
