"""The table in which a person says which image is which channel: read, applied, written, read again."""

from __future__ import annotations

import csv
import datetime
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dicom_files import series_tags, write_series
from helpers import DWI, centred_affine, write_nifti, write_patient

from HCCNetLib.commands.main import main
from HCCNetLib.commands.outputs import write_table
from HCCNetLib.readers import ReadingOptions, channel_rows, read_channel_table, read_input
from HCCNetLib.readers.channel_table import ChannelTable, Override
from HCCNetLib.records import Cohort, Exam, FoundImage, Patient, Problem, Refusal

DAY = datetime.date(2021, 3, 14)
SHAPE = (8, 8, 8)
AFFINE = centred_affine(SHAPE, (20.0, 20.0, 20.0), np.diag([-1.0, -1.0, 1.0]))


def refusal_of(action: Callable[[], object]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        action()
    return caught.value


def table(folder: Path, *rows: str, header: str = "image,channel", name: str = "channels.csv") -> ChannelTable:
    path = folder / name
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return read_channel_table(path)


def write_exam(folder: Path, names: Sequence[str]) -> Path:
    for index, name in enumerate(names):
        write_nifti(folder / f"{name}.nii.gz", np.full(SHAPE, float(index)), AFFINE)
    return folder


def read_exam(patient: Path, channels: ChannelTable) -> Exam:
    return read_input(patient, ReadingOptions(channel_table=channels)).patients[0].exams[0]


def messages(problems: Sequence[Problem]) -> list[str]:
    return [problem.message for problem in problems]


# ---------------------------------------------------------------- rows


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("scan7", "SCAN7", True),
        ("series 8*", "series 8, b 400", True),
        ("series ?", "series 8, b 400", False),
        ("*b 400", "series 8, b 400", True),
        ("scan[7]", "scan[7]", True),
        ("scan[7]", "scan7", False),
        ("a.b", "axb", False),
        ("Leber_a\u0308", "leber_Ä", True),  # an accent as file systems write it
    ],
)
def test_names_are_matched_without_case_and_with_two_wildcards(
    tmp_path: Path, pattern: str, name: str, matches: bool
) -> None:
    exam = table(tmp_path, f'"{pattern}",T1_in').for_exam("P1", "e", DAY)
    assert exam.look_up(name) == (Override("T1_in", 2) if matches else None)


def test_the_first_row_that_matches_in_all_its_cells_wins(tmp_path: Path) -> None:
    rows = ["P2,,,x*,T1_in", "P*,2021-03-14,scan7,,T1A", "P1,visit 2,,*portal*,T1_venous", ",,scan*,,-"]
    channels = table(tmp_path, *rows, header="patient_id,exam,image,description,channel")
    exam = channels.for_exam("P1", "visit 2", DAY)
    assert exam.look_up("scan7", "x") == Override("T1_arterial", 3)
    assert exam.look_up("scan8", "T1 Portal venous") == Override("T1_venous", 4)
    assert exam.look_up("scan8") == Override(None, 5)
    assert exam.look_up("other") is None
    assert channels.for_exam("p2", "e", DAY).look_up("scan7", "X") == Override("T1_in", 2)
    other_day = channels.for_exam("P1", "visit 3", datetime.date(2022, 1, 1))
    assert other_day.look_up("scan7") == Override(None, 5)


def test_rows_of_no_use_are_told_with_what_to_do(tmp_path: Path) -> None:
    channels = table(tmp_path, "scan*,T1_in", "scan7,T1_out", "scna8,T1_native")
    channels.for_exam("P1", "e", DAY).look_up("scan7")
    assert messages(channels.unused()) == [
        "Row 3 of channels.csv decides nothing: earlier rows match all that it matches. Move it up.",
        "Row 4 of channels.csv matches no image that was read. Check the spelling.",
    ]


@pytest.mark.parametrize(
    ("header", "row", "sentence"),
    [
        (
            "image,channel",
            "scan7,T1_aterial",
            "channels.csv, row 2: there is no channel T1_aterial. Did you mean T1_arterial? For an image that is not used "
            "write -.",
        ),
        (
            "image,channel",
            "scan7,ADC",
            "channels.csv, row 2: there is no channel ADC. The channels are DWI_b0, DWI_b150,",
        ),
        (
            "image,channel",
            ",T1_in",
            "channels.csv, row 2 does not say which image it is about. Fill at least one of its cells patient_id, exam, "
            "image, description.",
        ),
        ("image,chanel", "scan7,T1_in", "channels.csv lacks the column(s) channel; it has: image, chanel."),
    ],
)
def test_mistakes_are_refused_with_their_row(tmp_path: Path, header: str, row: str, sentence: str) -> None:
    assert refusal_of(lambda: table(tmp_path, row, header=header)).message.startswith(sentence)


# ---------------------------------------------------------------- use


def test_a_file_becomes_the_channel_that_the_table_says(tmp_path: Path) -> None:
    write_exam(tmp_path / "P1" / "2021-03-14", ["T1_native", "scan7", "scan8", "scan9"])
    exam = read_exam(tmp_path / "P1", table(tmp_path, "scan7,T1_arterial", "scan8,-"))
    assert {channel: float(image.read().max()) for channel, image in exam.images.items()} == {
        "T1_native": 0,
        "T1_arterial": 1,
    }
    assert messages(exam.problems) == [
        "as channels.csv says, scan7 is T1_arterial (row 2).",
        "left out, as channels.csv says: scan8 (row 3).",
        "not understood and not used: scan9.",
    ]
    assert {problem.exam_id for problem in exam.problems} == {"2021-03-14"}


def test_the_table_comes_before_names_and_b_values(tmp_path: Path) -> None:
    write_exam(tmp_path / "P1" / "2021-03-14", ["T1A", "late", "DWI_b140", "trace"])
    exam = read_exam(tmp_path / "P1", table(tmp_path, "late,T1_arterial", "trace,DWI_b150"))
    assert {channel: float(image.read().max()) for channel, image in exam.images.items()} == {
        "T1_arterial": 1,
        "DWI_b150": 3,
    }
    assert "not used, because channels.csv gives their channel to another image: T1A." in messages(exam.problems)
    assert exam.unknown_files == ("DWI_b140",)


def test_two_images_for_one_channel_are_refused(tmp_path: Path) -> None:
    write_exam(tmp_path / "P1" / "2021-03-14", ["scan7", "scan8"])
    channels = table(tmp_path, "scan*,T1_in")
    assert refusal_of(lambda: read_exam(tmp_path / "P1", channels)).message == (
        "exam 2021-03-14: channels.csv makes each of scan7 (row 2) and scan8 (row 2) T1_in. Keep the right one."
    )


def test_a_channel_twice_is_settled_by_the_table(tmp_path: Path) -> None:
    write_exam(tmp_path / "P1" / "2021-03-14", ["T1A", "T1_arterial"])
    exam = read_exam(tmp_path / "P1", table(tmp_path, "T1A,-"))
    assert float(exam.images["T1_arterial"].read().max()) == 1


def test_a_file_that_cannot_be_taken_apart_is_left_out_or_refused_with_the_reason(tmp_path: Path) -> None:
    write_exam(tmp_path / "P1" / "2021-03-14", ["T1_native"])
    folder = tmp_path / "P1" / "2021-03-14"
    write_nifti(folder / "dwi.nii.gz", np.ones((*SHAPE, 3)), AFFINE)
    (folder / "dwi.bval").write_text("0 800 800")
    assert messages(read_exam(tmp_path / "P1", table(tmp_path, "dwi,-")).problems) == []
    refusal = refusal_of(lambda: read_exam(tmp_path / "P1", table(tmp_path, "dwi,DWI_b800")))
    assert "dwi.nii.gz has several volumes of one b-value" in refusal.message


def test_a_cohort_table_is_corrected_alike(tmp_path: Path) -> None:
    write_exam(tmp_path / "images", ["a", "b"])
    (tmp_path / "cohort.csv").write_text(
        "patient_id,exam_id,exam_date,T1_in,T1_out\nP1,e,2021-03-14,images/a.nii.gz,images/b.nii.gz\n"
    )
    channels = table(
        tmp_path, "P1,e,T1_in,T1_out", "P1,E,T1_out,T1_in", "P2,e,*,-", header="patient_id,exam,image,channel"
    )
    cohort = read_input(tmp_path / "cohort.csv", ReadingOptions(channel_table=channels))
    exam = cohort.patients[0].exams[0]
    assert {channel: float(image.read().max()) for channel, image in exam.images.items()} == {"T1_in": 1, "T1_out": 0}
    assert messages(cohort.problems) == ["Row 4 of channels.csv matches no image that was read. Check the spelling."]


# ---------------------------------------------------------------- written, corrected, read again


FOUND = (
    FoundImage("=cmd()", "-T1 portal", reason="nothing says which channel it is"),
    FoundImage("series 8, b 400", "ep2d; trace", "DWI_b400", "b-value", "certain", details={"b": "400", "echo": "1"}),
    FoundImage("2021-03-14", "'t1' ü"),
    FoundImage("007", "", "T1_in", "name", "certain"),
)


MASK = FoundImage("liver_mask", "", "liver_mask", "name", "certain")


def found_cohort(exam_id: str = "20210314") -> Cohort:
    return Cohort((Patient("0012", (Exam(exam_id, DAY, {}, found=(*FOUND, MASK)),)),))


@pytest.mark.parametrize("name", ["channels.csv", "channels.tsv"])
def test_a_written_table_reads_back_as_it_was(tmp_path: Path, name: str) -> None:
    write_table(tmp_path / name, channel_rows(found_cohort()))
    channels = read_channel_table(tmp_path / name)
    exam = channels.for_exam("0012", "20210314", DAY)
    overrides = [exam.look_up(image.name, image.description) for image in FOUND]
    said = [(override.channel, override.row) for override in overrides if override is not None]
    assert said == [(image.channel, row) for row, image in enumerate(FOUND, start=2)]
    assert channels.unused() == []
    assert channels.for_exam("12", "20210314", DAY).look_up("007") is None


def test_no_cell_of_a_written_table_is_changed_by_a_spreadsheet(tmp_path: Path) -> None:
    write_table(tmp_path / "channels.csv", channel_rows(found_cohort()))
    with (tmp_path / "channels.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[1] == {
        "patient_id": "'0012",
        "exam": "'20210314",
        "date": "'2021-03-14",
        "image": "series 8, b 400",
        "description": "ep2d; trace",
        "found": "b 400, echo 1",
        "recognised_by": "b-value",
        "confidence": "certain",
        "reason": "",
        "channel": "DWI_b400",
    }
    assert rows[0]["image"] == "'=cmd()"


def test_an_exam_merged_of_several_folders_is_named_by_its_day(tmp_path: Path) -> None:
    cohort = found_cohort("2021-03-14_a")
    exam = replace(cohort.patients[0].exams[0], problems=(Problem("same_day_merged", "x"),))
    write_table(tmp_path / "c.csv", channel_rows(replace(cohort, patients=(Patient("0012", (exam,)),))))
    channels = read_channel_table(tmp_path / "c.csv")
    assert channels.for_exam("0012", "2021-03-14_b", DAY).look_up("007") == Override("T1_in", 5)


# ---------------------------------------------------------------- commands


def run(*arguments: object) -> int:
    return main([str(a) for a in arguments])


def test_inspect_applies_a_table_and_tells_what_was_of_no_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    patient = write_patient(tmp_path / "P1", channels=DWI[:1])
    table(tmp_path, "DWI_b0,T2_long", "x,-")
    assert run("inspect", patient, "--channels", tmp_path / "channels.csv") == 0
    said = capsys.readouterr().out
    assert re.search(r"T2_long +DWI_b0 +48×40×40", said)
    assert "warning: as channels.csv says, DWI_b0 is T2_long (row 2)." in said
    assert "note: Row 3 of channels.csv matches no image that was read. Check the spelling." in said
    assert run("inspect", patient, "--channels", tmp_path / "chanels.csv") == 1
    assert "chanels.csv does not exist. Check the name" in capsys.readouterr().err


def test_inspect_writes_a_table_and_never_over_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    patient, written = write_patient(tmp_path / "P1", channels=DWI[:1]), tmp_path / "channels.csv"
    assert run("inspect", patient, "--write-channels", written) == 0
    before = written.read_bytes()
    assert before.startswith("\ufeffpatient_id,exam,date,image,".encode())
    capsys.readouterr()
    assert run("inspect", patient, "--write-channels", written) == 1
    assert "channels.csv is there already. Choose another name, or remove it first." in capsys.readouterr().err
    assert written.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--write-channels", "c.xlsx"], "the name must end in .csv or .tsv"),
        (["--write-channels", "c.csv", "--deidentify", "key"], "must name patients as INPUT does"),
    ],
)
def test_a_table_of_no_use_is_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run("inspect", tmp_path, *arguments)
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err


# ---------------------------------------------------------------- whole exams


def test_an_exam_is_left_out_where_each_image_has_a_dash_and_that_is_told(tmp_path: Path) -> None:
    patient = write_patient(tmp_path / "P1", ("2020-01-05", "2021-03-14"))
    channels = table(tmp_path, "2021-03-14,-", header="exam,channel")
    (read,) = read_input(patient, ReadingOptions(channel_table=channels)).patients
    assert [exam.exam_id for exam in read.exams] == ["2020-01-05"]
    assert messages(read.problems) == [
        "exam 2021-03-14 was left out: the table of channels leaves out all of its images."
    ]


def test_an_exam_stays_where_its_cells_were_left_empty(tmp_path: Path) -> None:
    patient = write_patient(tmp_path / "P1", ("2020-01-05", "2021-03-14"))
    channels = table(tmp_path, "2021-03-14,", header="exam,channel")
    (read,) = read_input(patient, ReadingOptions(channel_table=channels)).patients
    assert [len(exam.images) for exam in read.exams] == [4, 0]
    assert {image.reason for image in read.exams[1].found} == {"the table of channels names no channel for it"}


def test_a_table_that_leaves_out_everything_is_refused(tmp_path: Path) -> None:
    patient = write_patient(tmp_path / "P1", ("2020-01-05",))
    channels = table(tmp_path, "*,-")
    refusal = refusal_of(lambda: read_input(patient, ReadingOptions(channel_table=channels)))
    assert refusal.code == "no_exams"


def test_a_dicom_exam_stays_unless_the_table_leaves_it_out(tmp_path: Path) -> None:
    volume = np.arange(8**3, dtype=np.float32).reshape(SHAPE)
    for date in ("20200105", "20210317"):
        write_series(tmp_path / "dicom" / date, volume, AFFINE, series_tags("P1", date, description="ep2d_diff b800"))
    for cell, days in (("", ["2020-01-05", "2021-03-17"]), ("-", ["2020-01-05"])):
        channels = table(tmp_path, f"2021-03-17,{cell}", header="exam,channel")
        (read,) = read_input(tmp_path / "dicom", ReadingOptions(channel_table=channels)).patients
        assert [exam.exam_id for exam in read.exams] == days
        assert ("exam_left_out" in {problem.code for problem in read.problems}) == (cell == "-")


def test_names_with_wildcards_line_ends_and_months_read_back_as_they_were(tmp_path: Path) -> None:
    names = {"T2* axial": "T2_short", "T2w axial": None, "which?": "T2_long", "MAR01": "T1_in", "two\nlines": "T1_out"}
    found = tuple(FoundImage(name, name, channel=channel) for name, channel in names.items())
    cohort = Cohort((Patient("SEP?1", (Exam("e*", DAY, {}, found=found),)),))
    write_table(tmp_path / "channels.csv", channel_rows(cohort))
    assert "'MAR01" in (tmp_path / "channels.csv").read_text(encoding="utf-8")
    exam = read_channel_table(tmp_path / "channels.csv").for_exam("SEP?1", "e*", DAY)
    overrides = [exam.look_up(image.name, image.description) for image in found]
    assert [override and (override.channel, override.row) for override in overrides] == [
        (image.channel, row) for row, image in enumerate(found, start=2)
    ]


def test_a_written_table_tells_whose_rows_it_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("P1", "P2"):
        write_patient(tmp_path / "cohort" / name, ("2020-01-05",))
    write_exam(tmp_path / "cohort" / "P2" / "2020-01-05", ("T1A", "T1_arterial"))
    path = tmp_path / "channels.csv"
    assert main(["inspect", str(tmp_path / "cohort"), "--write-channels", str(path)]) == 1
    assert "has no rows for the 1 refused patient(s)" in capsys.readouterr().err
    assert "P2" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_csv_file_may_have_any_mark_between_its_cells_that_spreadsheets_write(tmp_path: Path, mark: str) -> None:
    (tmp_path / "channels.csv").write_bytes(f"\ufeffimage{mark}channel\r\nscan7{mark}T1_in\r\n".encode())
    exam = read_channel_table(tmp_path / "channels.csv").for_exam("P1", "e", DAY)
    found = exam.look_up("scan7")
    assert found is not None
    assert (found.channel, found.row) == ("T1_in", 2)


def test_the_table_of_an_exam_merged_of_two_folders_is_read_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for suffix, channel in (("a", "DWI_b0"), ("b", "odd")):
        write_patient(tmp_path / "P1", dates=(f"2021-03-14_{suffix}",), channels=(channel,))
    written = tmp_path / "c.csv"
    assert run("inspect", tmp_path / "P1", "--merge-same-day", "--write-channels", written) == 0
    lines = written.read_text(encoding="utf-8").splitlines()
    written.write_text("\n".join(f"{line}T2_long" if "odd" in line else line for line in lines), encoding="utf-8")
    capsys.readouterr()
    assert run("inspect", tmp_path / "P1", "--merge-same-day", "--channels", written) == 0
    said = capsys.readouterr().out
    assert "matches no image" not in said
    assert re.search(r"T2_long +2021-03-14_b/odd", said)


def test_a_table_below_a_file_is_refused_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    patient = write_patient(tmp_path / "P1", channels=DWI[:1])
    (tmp_path / "afile").write_text("")
    assert run("inspect", patient, "--write-channels", tmp_path / "afile" / "x.csv") == 1
    assert "Traceback" not in (said := capsys.readouterr().err)
    assert said.startswith("hccnet: ")


def test_nothing_is_written_where_another_argument_is_wrong(tmp_path: Path) -> None:
    patient = write_patient(tmp_path / "P1", channels=DWI[:1])
    written = tmp_path / "c.csv"
    assert run("inspect", patient, "--write-channels", written, "--bundle", tmp_path / "none") == 1
    assert not written.exists()
