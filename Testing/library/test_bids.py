"""Form 4, BIDS: dates, outcomes, and which file is which channel."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from helpers import DWI, write_nifti, write_patient

from HCCNetLib.readers import ReadingOptions, check_images, read_input, require_channels
from HCCNetLib.records import Cohort, Exam, FoundImage, Refusal

SHAPE = (4, 5, 3)
AFFINE = np.diag([7.0, 7.0, 7.0, 1.0])


def refusal_of(action: Callable[[], object]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        action()
    return caught.value


def write_image(root: Path, file: str, session: str = "01", subject: str = "A", **sidecar: object) -> Path:
    """Writes ``anat/acq-x_T1w`` of a session, with a sidecar where something stands in it; no session where it is empty."""
    datatype, name = file.split("/")
    prefix = f"sub-{subject}_ses-{session}" if session else f"sub-{subject}"
    folder = root / f"sub-{subject}" / (f"ses-{session}" if session else "") / datatype
    path = folder / f"{prefix}_{name}.nii.gz"
    write_nifti(path, np.random.default_rng(len(file)).random(SHAPE) + 1, AFFINE)
    if sidecar:
        path.with_name(f"{prefix}_{name}.json").write_text(json.dumps(sidecar))
    return path


def write_table(path: Path, head: str, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(line.replace(" ", "\t") for line in (head, *rows)) + "\n")


def write_dates(root: Path, dates: Mapping[str, str], subject: str = "A") -> None:
    rows = [f"{session} {date}" for session, date in dates.items()]
    write_table(root / f"sub-{subject}" / f"sub-{subject}_sessions.tsv", "session_id acq_time", *rows)


def write_dataset(root: Path, subjects: Sequence[str] = ("A", "B")) -> Path:
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
    for subject in subjects:
        for session in ("01", "02"):
            for b_value in (0, 150, 400, 800):
                write_image(root, f"dwi/acq-b{b_value}_dwi", session, subject)
        write_dates(root, {"ses-01": "2020-05-04T10:20:30", "ses-02": "2021-01-05"}, subject)
    return root


def exam_of(root: Path, *files: str, **sidecar: object) -> Exam:
    """The exam of one session with these files, which share a sidecar."""
    for file in files:
        write_image(root, file, **sidecar)
    write_dates(root, {"ses-01": "2020-05-04"})
    (patient,) = read_input(root).patients
    return patient.exams[0]


def one_found(exam: Exam) -> FoundImage:
    (found,) = exam.found
    return found


# ---------------------------------------------------------------- the form


def test_a_dataset_s_subjects_are_patients_and_their_sessions_exams(tmp_path: Path) -> None:
    for folder in ("sourcedata/sub-A/ses-01/anat", "code", ".git/sub-X", "derivatives/x/sub-C/ses-01/anat"):
        (tmp_path / folder).mkdir(parents=True)
    cohort = read_input(write_dataset(tmp_path))
    assert cohort.form == "BIDS dataset"
    assert cohort.refused == {}
    assert cohort.problems == ()
    assert [p.patient_id for p in cohort.patients] == ["sub-A", "sub-B"]
    for patient in cohort.patients:
        assert [(e.exam_id, e.date.isoformat()) for e in patient.exams] == [
            ("ses-01", "2020-05-04"),
            ("ses-02", "2021-01-05"),
        ]
        assert require_channels(patient, DWI) == []


def test_dates_decide_the_order_and_not_the_session_s_label(tmp_path: Path) -> None:
    write_dataset(tmp_path, ("A",))
    write_dates(tmp_path, {"01": "2022-05-04", "02": "2021-01-05"})
    assert [e.exam_id for e in read_input(tmp_path).patients[0].exams] == ["ses-02", "ses-01"]


@pytest.mark.parametrize("mark", ["dataset_description.json", "participants.tsv", "sessions"])
def test_what_marks_a_dataset(tmp_path: Path, mark: str) -> None:
    write_dataset(tmp_path, ("A",))
    (tmp_path / "dataset_description.json").unlink()
    if mark != "sessions":
        (tmp_path / mark).write_text("participant_id\nsub-A\n")
    assert read_input(tmp_path).form == "BIDS dataset"


def test_patient_folders_that_are_named_like_subjects_stay_patient_folders(tmp_path: Path) -> None:
    write_patient(tmp_path / "sub-01", ("2020-01-05",), DWI[:1])
    write_patient(tmp_path / "sub-02", ("2020-01-05",), DWI[:1])
    (tmp_path / "participants.tsv").write_text("participant_id\nsub-01\n")
    assert read_input(tmp_path).form == "cohort folder"
    assert read_input(tmp_path / "sub-01").patients[0].exams[0].exam_id == "2020-01-05"


def test_one_subject_is_one_patient(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    cohort = read_input(tmp_path / "sub-B")
    assert cohort.form == "patient folder"
    assert [p.patient_id for p in cohort.patients] == ["sub-B"]
    (tmp_path / "sub-B" / "sub-B_sessions.tsv").unlink()
    assert refusal_of(lambda: read_input(tmp_path / "sub-B")).code == "undated_exam"


def test_a_subject_without_sessions_has_one_exam(tmp_path: Path) -> None:
    for b_value in (0, 150, 400, 800):
        write_image(tmp_path, f"dwi/acq-b{b_value}_dwi", session="")
    scans = (
        "dwi/sub-A_acq-b0_dwi.nii.gz 2020-05-04T10:00:00",
        "dwi/sub-A_acq-b150_dwi.nii.gz 2020-05-04T10:05:00.123Z",
    )
    write_table(tmp_path / "sub-A" / "sub-A_scans.tsv", "filename acq_time", *scans)
    (exam,) = read_input(tmp_path).patients[0].exams
    assert (exam.exam_id, exam.date.isoformat()) == ("2020-05-04", "2020-05-04")
    assert tuple(exam.images) == DWI


# ---------------------------------------------------------------- dates


def test_where_sessions_have_no_time_their_scans_have_one(tmp_path: Path) -> None:
    write_dataset(tmp_path, ("A",))
    write_dates(tmp_path, {"ses-01": "n/a", "ses-02": "2021-01-05"})
    scans = tmp_path / "sub-A" / "ses-01" / "sub-A_ses-01_scans.tsv"
    write_table(scans, "filename acq_time", "a 2020-05-04T09:00:00", "b n/a", "c 2020-05-04T09:10:00")
    assert read_input(tmp_path).patients[0].exams[0].date.isoformat() == "2020-05-04"
    write_table(scans, "filename acq_time", "a 2020-05-04T09:00:00", "c 2020-05-05T09:10:00")
    assert read_input(tmp_path).refused["sub-A"].message == (
        "Exam ses-01: The scans in scans.tsv are not of one day, and an exam without its date can't be used. Write its "
        "acq_time (2021-03-14) into sessions.tsv."
    )


@pytest.mark.parametrize("written", ["n/a", "", None])
def test_a_session_without_a_date_is_refused(tmp_path: Path, written: str | None) -> None:
    write_dataset(tmp_path)
    dates = {"ses-02": "2021-01-05"} | ({} if written is None else {"ses-01": written})
    write_dates(tmp_path, dates, "B")
    cohort = read_input(tmp_path)
    assert [p.patient_id for p in cohort.patients] == ["sub-A"]
    refusal = cohort.refused["sub-B"]
    assert (refusal.code, refusal.exam_id) == ("undated_exam", "ses-01")
    assert refusal.message == (
        "Exam ses-01: Neither sessions.tsv nor scans.tsv says that it is of one day, and an exam without its date can't be "
        "used. Write its acq_time (2021-03-14) into sessions.tsv."
    )


@pytest.mark.parametrize("time", ["14.03.2021", "2021-02-30", "03/04/2021", "2021-03", "2021-03-14T25", "soon"])
def test_a_time_that_is_no_date_is_no_reason_to_look_elsewhere(tmp_path: Path, time: str) -> None:
    write_dataset(tmp_path, ("A",))
    write_dates(tmp_path, {"ses-01": time, "ses-02": "2021-01-05"})
    scans = tmp_path / "sub-A" / "ses-01" / "sub-A_ses-01_scans.tsv"
    write_table(scans, "filename acq_time", "a 2020-05-04T09:00:00")
    assert read_input(tmp_path).refused["sub-A"].message == (
        f"Exam ses-01: acq_time {time} in sessions.tsv is no date. Write 2021-03-14 or 2021-03-14T09:30:00."
    )


def test_two_sessions_of_one_day_are_refused_or_merged_as_asked(tmp_path: Path) -> None:
    write_image(tmp_path, "dwi/acq-b0_dwi", "01")
    write_image(tmp_path, "dwi/acq-b800_dwi", "02")
    write_dates(tmp_path, {"ses-01": "2020-05-04T09:00:00", "ses-02": "2020-05-04T17:00:00"})
    assert "ses-01 and ses-02 are of one day (2020-05-04)" in read_input(tmp_path).refused["sub-A"].message
    (exam,) = read_input(tmp_path, ReadingOptions(merge_same_day=True)).patients[0].exams
    assert tuple(exam.images) == ("DWI_b0", "DWI_b800")
    assert [f.name for f in exam.found] == ["ses-01/dwi/acq-b0_dwi", "ses-02/dwi/acq-b800_dwi"]


def test_sessions_without_images_or_without_a_folder_are_told(tmp_path: Path) -> None:
    write_dataset(tmp_path, ("A",))
    (tmp_path / "sub-A" / "ses-03" / "eeg").mkdir(parents=True)
    write_dates(tmp_path, {"ses-01": "2020-05-04", "ses-02": "2021-01-05", "ses-04": "2022-01-05"})
    (patient,) = read_input(tmp_path).patients
    assert [p.message for p in patient.problems] == [
        "The session ses-03 was passed over: it holds no image.",
        "sessions.tsv lists ses-04, and there is no such folder: read without it.",
    ]


def test_a_session_that_stands_in_the_table_twice_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path, ("A",))
    path = tmp_path / "sub-A" / "sub-A_sessions.tsv"
    path.write_text(path.read_text() + "01\t2022-01-01\n")
    assert read_input(tmp_path).refused["sub-A"].message == (
        "sessions.tsv, row 4: ses-01 stands there already. Keep one row per session."
    )


# ---------------------------------------------------------------- outcomes


def with_participants(root: Path, head: str, *rows: str) -> Cohort:
    write_dataset(root)
    write_table(root / "participants.tsv", head, *rows)
    return read_input(root)


HEAD = "participant_id diagnosis_date last_seen_date sex"


def test_outcomes_stand_in_participants(tmp_path: Path) -> None:
    cohort = with_participants(tmp_path, HEAD, "sub-A 2021-06-01 2021-07-01 F", "B n/a 2022-01-01 n/a")
    assert {i: (str(o.diagnosis_date), str(o.last_seen_date)) for i, o in cohort.outcomes.items()} == {
        "sub-A": ("2021-06-01", "2021-07-01"),
        "sub-B": ("None", "2022-01-01"),
    }
    assert cohort.problems == ()


def test_without_the_columns_or_entries_there_are_no_outcomes(tmp_path: Path) -> None:
    cohort = with_participants(tmp_path, "participant_id sex", "sub-A F", "sub-B M")
    assert (cohort.outcomes, cohort.outcomes_refused, cohort.problems) == ({}, None, ())
    write_table(tmp_path / "participants.tsv", HEAD, "sub-A n/a n/a F", "sub-B n/a 2022-01-01 M")
    assert list(read_input(tmp_path).outcomes) == ["sub-B"]


@pytest.mark.parametrize(
    ("head", "rows", "sentence"),
    [
        (HEAD, ["sub-A 2021-06-01 n/a F"], "participants.tsv, row 2: dates must be written 2021-03-14"),
        (HEAD, ["sub-A n/a 2022-01-01 F", "A n/a 2022-01-01 F"], "row 3: this patient stands there already"),
        (HEAD, ["sub-A 2022-01-01 2021-01-01 F"], "row 2: last_seen_date lies before diagnosis_date"),
        (
            "participant_id diagnosis_date",
            ["sub-A n/a"],
            "participants.tsv has the column(s) diagnosis_date, but outcomes need diagnosis_date and last_seen_date.",
        ),
    ],
)
def test_wrong_outcomes_are_refused_and_stop_no_prediction(
    tmp_path: Path, head: str, rows: list[str], sentence: str
) -> None:
    cohort = with_participants(tmp_path, head, *rows)
    assert cohort.outcomes_refused is not None
    assert sentence in cohort.outcomes_refused.message
    assert len(cohort.patients) == 2


def test_participants_without_exams_are_counted_and_a_diagnosis_before_the_last_exam_is_told(tmp_path: Path) -> None:
    cohort = with_participants(tmp_path, HEAD, "sub-A 2020-06-01 2021-07-01 F", "sub-Z n/a 2022-01-01 F")
    assert [p.code for p in cohort.problems] == ["outcomes_without_exams"]
    assert [p.code for p in cohort.patients[0].problems] == ["diagnosed_before"]


# ---------------------------------------------------------------- channels


@pytest.mark.parametrize(
    ("file", "channel"),
    [
        ("dwi/acq-b800_dwi", "DWI_b800"),
        ("dwi/acq-B0_dwi", "DWI_b0"),
        ("dwi/acq-DWIb400_run-1_dwi", "DWI_b400"),
        ("anat/acq-T1arterial_T1w", "T1_arterial"),
        ("anat/acq-arterial_T1w", "T1_arterial"),
        ("anat/acq-vibe_ce-Venous_T1w", "T1_venous"),
        ("anat/rec-T1D_T1w", "T1_delayed"),
        ("anat/desc-native_T1w", "T1_native"),
        ("anat/acq-T1WOOP_T1w", "T1_out"),
        ("anat/acq-in_T1w", "T1_in"),
        ("anat/acq-T2Long_T2w", "T2_long"),
        ("anat/acq-short_part-mag_T2w", "T2_short"),
        ("anat/acq-T1arterial_VIBE", "T1_arterial"),
    ],
)
def test_a_label_that_is_a_channel_s_name_is_that_channel(tmp_path: Path, file: str, channel: str) -> None:
    exam = exam_of(tmp_path, file)
    assert tuple(exam.images) == (channel,)
    found = one_found(exam)
    assert (found.name, found.channel, found.recognised_by, found.confidence) == (file, channel, "name", "certain")
    assert found.grid is not None
    assert found.reason == ""
    assert exam.problems == ()


def test_a_near_b_value_is_told(tmp_path: Path) -> None:
    exam = exam_of(tmp_path, "dwi/acq-b140_dwi")
    assert (one_found(exam).channel, one_found(exam).confidence) == ("DWI_b150", "probable")
    assert [p.message for p in exam.problems] == [
        "exam ses-01: DWI_b140 is used as DWI_b150 (the nearest b-value within ±50 s/mm²)."
    ]


@pytest.mark.parametrize(
    ("file", "description", "channel"),
    [
        ("anat/acq-vibe_T1w", "t1_vibe_fs_tra_arterial", "T1_arterial"),
        ("anat/T1w", "LAVA portal venous", "T1_venous"),
        ("anat/ce-portal_T1w", "", "T1_venous"),
        ("dwi/dwi", "ep2d_diff b 400", "DWI_b400"),
        ("anat/T2w", "T2 long TE", "T2_long"),
    ],
)
def test_words_of_name_and_sidecar_make_a_channel_probable(
    tmp_path: Path, file: str, description: str, channel: str
) -> None:
    exam = exam_of(tmp_path, file, SeriesDescription=description)
    found = one_found(exam)
    assert (found.channel, found.recognised_by, found.confidence) == (channel, "description", "probable")
    assert found.description == description


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("anat/T1map", "no image of a channel (T1map)"),
        ("dwi/acq-b800_ADC", "no image of a channel (ADC)"),
        ("dwi/acq-b800_sbref", "no image of a channel (sbref)"),
        ("anat/acq-T1arterial_part-phase_T1w", "no magnitude image (part-phase)"),
        ("anat/acq-T1arterial_part-real_T1w", "no magnitude image (part-real)"),
        ("anat/label-spleen_mask", "no image of a channel (mask)"),
        ("anat/dseg", "no image of a channel (dseg)"),
        ("dwi/acq-b0_epi", "no image of a channel (epi)"),
    ],
)
def test_what_is_no_image_of_a_channel_is_kept_in_mind_and_not_told(tmp_path: Path, file: str, reason: str) -> None:
    exam = exam_of(tmp_path, file)
    assert exam.images == {}
    assert (one_found(exam).channel, one_found(exam).reason) == (None, reason)
    assert exam.problems == ()


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("anat/T1w", "anat/T1w"),
        ("anat/acq-T1arterial_inv-1_T1w", "anat/acq-T1arterial_inv-1_T1w (one of several inversion times)"),
        ("anat/acq-arterial_desc-subtracted_T1w", "worked out from other images, by its words"),
        ("anat/acq-T1arterial_ce-venous_T1w", "its name says T1_arterial and T1_venous"),
        ("anat/acq-T1arterial_T2w", "its name says T1_arterial and T2w"),
        ("dwi/acq-b1000_dwi", "dwi/acq-b1000_dwi"),
        ("anat/acq-A_T1w", "anat/acq-A_T1w"),
    ],
)
def test_what_may_mean_two_things_or_nothing_is_told(tmp_path: Path, file: str, told: str) -> None:
    exam = exam_of(tmp_path, file)
    assert exam.images == {}
    (problem,) = exam.problems
    assert problem.code == "images_not_used"
    assert told in problem.message


@pytest.mark.parametrize(
    "files",
    [
        ("anat/acq-T1arterial_run-1_T1w", "anat/acq-T1arterial_run-2_T1w"),
        ("anat/acq-T1A_T1w", "anat/acq-arterial_T1w"),
        ("anat/acq-arterial_echo-1_T1w", "anat/acq-arterial_echo-2_T1w"),
        ("anat/acq-arterial_T1w", "anat/ce-art_T1w"),
    ],
)
def test_of_several_images_for_one_channel_none_is_taken(tmp_path: Path, files: tuple[str, str]) -> None:
    exam = exam_of(tmp_path, *files, "anat/acq-venous_T1w")
    assert tuple(exam.images) == ("T1_venous",)
    (problem,) = exam.problems
    assert problem.code == "channel_ambiguous"
    assert problem.message == (
        f"T1_arterial: 2 images may each be it ({', '.join(sorted(files))}); none was taken. Keep the right one."
    )
    assert sorted(f.confidence for f in exam.found) == ["ambiguous", "ambiguous", "certain"]
    assert {f.reason for f in exam.found if f.channel is None} == {"one of several images that may be T1_arterial"}


def test_one_image_in_two_formats_is_two_images(tmp_path: Path) -> None:
    path = write_image(tmp_path, "dwi/acq-b800_dwi")
    write_nifti(path.with_suffix(""), np.ones(SHAPE), AFFINE)
    exam = exam_of(tmp_path, "dwi/acq-b0_dwi")
    assert tuple(exam.images) == ("DWI_b0",)
    assert len({f.name for f in exam.found}) == 3


def write_4d(root: Path, b_values: str, name: str = "dwi") -> np.ndarray:
    path = write_image(root, f"dwi/{name}")
    count = len(b_values.split())
    data = np.random.default_rng(0).random((*SHAPE, count), dtype=np.float32)
    write_nifti(path, data if count > 1 else data[..., 0], AFFINE)
    path.with_name(path.name.replace(".nii.gz", ".bval")).write_text(b_values)
    write_dates(root, {"ses-01": "2020-05-04"})
    return data


def test_volumes_with_b_values_are_channels(tmp_path: Path) -> None:
    data = write_4d(tmp_path, "0 140 400 800")
    (exam,) = read_input(tmp_path).patients[0].exams
    assert tuple(exam.images) == DWI
    assert np.array_equal(exam.images["DWI_b400"].read(), data[..., 2])
    assert [(f.name, f.channel, f.recognised_by, f.confidence) for f in exam.found] == [
        ("dwi/dwi, b 0", "DWI_b0", "b-value", "certain"),
        ("dwi/dwi, b 140", "DWI_b150", "b-value", "probable"),
        ("dwi/dwi, b 400", "DWI_b400", "b-value", "certain"),
        ("dwi/dwi, b 800", "DWI_b800", "b-value", "certain"),
    ]


def test_a_single_volume_with_a_b_value_is_that_channel_and_a_second_one_is_ambiguous(tmp_path: Path) -> None:
    write_4d(tmp_path, "800", "acq-late_dwi")
    (exam,) = read_input(tmp_path).patients[0].exams
    assert (one_found(exam).channel, one_found(exam).recognised_by) == ("DWI_b800", "b-value")
    write_4d(tmp_path, "0 800")
    (exam,) = read_input(tmp_path).patients[0].exams
    assert tuple(exam.images) == ("DWI_b0",)
    assert [p.code for p in exam.problems] == ["channel_ambiguous"]


def test_directions_and_contradicting_b_values_are_told_and_not_used(tmp_path: Path) -> None:
    write_4d(tmp_path, "0 800 800")
    write_4d(tmp_path, "400", "acq-b800_dwi")
    (exam,) = read_input(tmp_path).patients[0].exams
    assert exam.images == {}
    (problem,) = exam.problems
    assert "dwi/dwi (ses-01/dwi/dwi.nii.gz has several volumes of one b-value" in problem.message
    assert "is named b800, but the .bval file beside it says 400" in problem.message


@pytest.mark.parametrize(
    ("times", "short"),
    [((0.09, 0.18), "echo-1"), ((0.18, 0.09), "echo-2"), ((None, None), "echo-1"), ((0.09, None), "echo-1")],
)
def test_two_echoes_are_short_and_long(tmp_path: Path, times: tuple[float | None, float | None], short: str) -> None:
    for echo, time in zip((1, 2), times, strict=True):
        write_image(tmp_path, f"anat/echo-{echo}_T2w", **({} if time is None else {"EchoTime": time}))
    exam = exam_of(tmp_path)
    assert tuple(exam.images) == ("T2_long", "T2_short")
    found = {f.channel: f for f in exam.found}
    assert found["T2_short"].name == f"anat/{short}_T2w"
    assert {(f.recognised_by, f.confidence) for f in exam.found} == {("echo time", "probable")}


def test_three_echoes_or_equal_ones_are_not_sorted_out(tmp_path: Path) -> None:
    exam = exam_of(tmp_path, "anat/echo-1_T2w", "anat/echo-2_T2w", "anat/echo-3_T2w")
    assert exam.images == {}
    exam = exam_of(tmp_path / "equal", "anat/echo-1_T2w", "anat/echo-2_T2w", EchoTime=0.1)
    assert exam.images == {}


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    write_image(tmp_path, "dwi/acq-b800_dwi").write_bytes(b"x")
    exam = exam_of(tmp_path, "dwi/acq-b0_dwi")
    damaged = next(f for f in exam.found if f.channel == "DWI_b800")
    assert damaged.grid is None
    assert "ses-01/dwi/acq-b800_dwi.nii.gz is not a readable NIfTI file" in damaged.reason
    assert "sub-" not in refusal_of(lambda: check_images(exam, DWI)).message


# ---------------------------------------------------------------- the liver


@pytest.mark.parametrize("name", ["anat/label-liver_mask", "anat/desc-Liver_mask", "dwi/space-orig_label-liver_mask"])
@pytest.mark.parametrize("pipeline", ["", "derivatives/segmentation"])
def test_a_liver_mask_lies_in_the_session_or_in_derivatives(tmp_path: Path, name: str, pipeline: str) -> None:
    write_image(tmp_path / pipeline, name)
    write_image(tmp_path / "derivatives" / "other", "anat/label-spleen_mask")
    write_image(tmp_path / "derivatives" / "other", "anat/label-liver_dseg")
    exam = exam_of(tmp_path, "dwi/acq-b0_dwi")
    assert exam.liver_mask is not None
    assert exam.liver_mask.grid.shape == SHAPE
    assert exam.problems == ()
    assert [f.name for f in exam.found] == ["dwi/acq-b0_dwi"]
    assert "sub-" not in exam.liver_mask.source


def test_two_liver_masks_are_refused_and_one_in_another_space_is_not_used(tmp_path: Path) -> None:
    write_image(tmp_path / "derivatives" / "a", "anat/space-MNI_label-liver_mask")
    exam = exam_of(tmp_path, "dwi/acq-b0_dwi")
    assert exam.liver_mask is None
    assert [p.message for p in exam.problems] == [
        "liver masks in another space than the images' own are not used: "
        "derivatives/a/ses-01/anat/space-MNI_label-liver_mask.nii.gz."
    ]
    write_image(tmp_path, "anat/label-liver_mask")
    write_image(tmp_path / "derivatives" / "a", "anat/label-liver_mask")
    assert read_input(tmp_path).refused["sub-A"].message == (
        "ses-01/anat/label-liver_mask.nii.gz and derivatives/a/ses-01/anat/label-liver_mask.nii.gz both say "
        "where the liver is. Keep the right one."
    )


# ---------------------------------------------------------------- what must not pass in silence


def test_a_file_of_another_subject_or_session_is_refused(tmp_path: Path) -> None:
    path = write_image(tmp_path, "dwi/acq-b0_dwi")
    path.rename(path.with_name("sub-A_ses-02_acq-b0_dwi.nii.gz"))
    write_dates(tmp_path, {"ses-01": "2020-05-04"})
    assert read_input(tmp_path).refused["sub-A"].message == (
        "ses-01/dwi: the name of a file (…_acq-b0_dwi) says another subject or session than its folder. "
        "Rename it, or move it to where it belongs."
    )


def test_images_beside_the_sessions_are_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path, ("A",))
    write_image(tmp_path, "anat/T1w", session="")
    assert read_input(tmp_path).refused["sub-A"].message == (
        "1 image(s) lie beside the sessions and belong to no exam. Move them into their session."
    )


def test_no_message_names_the_subject(tmp_path: Path) -> None:
    write_image(tmp_path, "dwi/dwi", subject="JaneDoe").write_bytes(b"x")
    sessions = tmp_path / "sub-JaneDoe" / "sub-JaneDoe_sessions.tsv"
    for text in ("", "session_id\n", "session\tacq_time\n1\t2\n", "session_id\tacq_time\nses-01\t2020-01-05\n"):
        sessions.write_text(text)
        cohort = read_input(tmp_path)
        said = [r.message for r in cohort.refused.values()]
        for exam in (e for p in cohort.patients for e in p.exams):
            said += [p.message for p in exam.problems] + [f.reason + f.name for f in exam.found]
        assert said
        assert not any("Jane" in text for text in said)


def test_a_label_that_other_words_contradict_is_no_channel(tmp_path: Path) -> None:
    exam = exam_of(tmp_path / "a", "anat/acq-delayed_ce-portal_T1w")
    assert exam.images == {}
    assert exam.found[0].reason == "its label says T1_delayed and other words T1_venous"
    exam = exam_of(tmp_path / "b", "anat/acq-arterial_T1w", SeriesDescription="t1 vibe portal venous")
    assert exam.found[0].reason == "its label says T1_arterial and other words T1_venous"
    exam = exam_of(tmp_path / "c", "anat/acq-arterial_ce-gadoxetate_T1w", SeriesDescription="t1_vibe_fs_tra_bh art")
    assert list(exam.images) == ["T1_arterial"]


def test_a_description_holds_no_orders_to_a_terminal(tmp_path: Path) -> None:
    exam = exam_of(tmp_path, "anat/acq-arterial_T1w", SeriesDescription="t1 vibe\x1b[31m\n arterial")
    assert exam.found[0].description == "t1 vibe [31m arterial"
