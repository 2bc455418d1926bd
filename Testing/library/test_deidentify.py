"""Pseudonyms, shifted dates, and no name in any output, file name, sentence or progress line."""

from __future__ import annotations

import base64
import datetime
import gzip
import hashlib
import hmac
import json
import re
import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import DWI, write_nifti, write_patient

from HCCNetLib.bundles import Bundle, write_bundle
from HCCNetLib.commands.main import main
from HCCNetLib.readers import Pseudonyms, ReadingOptions, open_key, read_input
from HCCNetLib.readers.deidentify import NO_DATE, WITHHELD, Names, deidentify, deidentify_refusal, is_harmless
from HCCNetLib.records import ArrayImage, Cohort, Exam, FoundImage, Outcome, Patient, Problem, Refusal

KEY = bytes(range(32))
WHO = "DOE_JOHN"
DATES = ("2020-01-05", "2021-03-17")
DAY = datetime.date(2021, 3, 17)


def refusal_of(action: Callable[[], object]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        action()
    return caught.value


def cleaned(text: str, patient_id: str = WHO, names: Names | None = None) -> str:
    refusal = Refusal("code", text)
    return deidentify_refusal(refusal, Pseudonyms(KEY), names or Names(), patient_id).message


# ---------------------------------------------------------------- pseudonyms and keys


def test_a_pseudonym_is_a_keyed_hash_and_so_is_the_shift() -> None:
    pseudonyms = Pseudonyms(KEY)
    digest = hmac.new(KEY, b"id" + WHO.encode(), hashlib.sha256).digest()
    assert pseudonyms.name_of(WHO) == "P" + base64.b32encode(digest).decode()[:16]
    assert re.fullmatch(r"P[A-Z2-7]{16}", pseudonyms.name_of("Ä/b"))
    days = [pseudonyms.days_of(f"patient {n}") for n in range(5000)]
    assert min(days) == 1
    assert max(days) == 1826
    assert pseudonyms.shift(WHO, DAY) == DAY - datetime.timedelta(pseudonyms.days_of(WHO))
    assert pseudonyms.shift(WHO, datetime.date.min) == datetime.date.min
    assert Pseudonyms(KEY).name_of(WHO) == pseudonyms.name_of(WHO) != Pseudonyms(KEY[::-1]).name_of(WHO)
    assert pseudonyms.name_of("Mu\u0308ller") == pseudonyms.name_of("Müller")


def test_a_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    key, is_new = open_key(tmp_path / "key")
    assert is_new
    assert len(key) == 32
    assert open_key(tmp_path / "key") == (key, False)
    if sys.platform != "win32":
        assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "ab" * 31, "not a key", "ü" * 80, "ab" * 32 + "x"])
def test_what_is_no_key_is_refused_and_not_quoted(tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text, encoding="utf-8")
    refusal = refusal_of(lambda: open_key(tmp_path / "key"))
    assert refusal.message == (
        "key is no key: expected at least 64 hexadecimal digits. Name the file that --deidentify made, or one that is not "
        "there yet: it will be made."
    )
    assert refusal.__cause__ is None


def test_a_key_that_cannot_be_made_or_read_is_told(tmp_path: Path) -> None:
    assert "can't be written" in refusal_of(lambda: open_key(tmp_path / "nowhere" / "key")).message
    assert "can't be read" in refusal_of(lambda: open_key(tmp_path)).message


# ---------------------------------------------------------------- texts


def shifted(date: str, patient_id: str = WHO) -> str:
    return Pseudonyms(KEY).shift(patient_id, datetime.date.fromisoformat(date)).isoformat()


def test_dates_are_shifted_without_their_suffixes_and_names_replaced() -> None:
    name = Pseudonyms(KEY).name_of(WHO)
    assert cleaned("2021-03-17_doe/T1 and 20210317 are of one day (2021-03-17).") == (
        f"{shifted('2021-03-17')}/T1 and {shifted('2021-03-17')} are of one day ({shifted('2021-03-17')})."
    )
    assert cleaned("doe_john, xDOE_JOHNx, John and Doe; does") == f"{name}, x{name}x, {name} and {name}; does"
    assert cleaned("T1 of 17.03.2021, 2021_03_17 or 3/17/21. 1.2.840.10008 stays, so do 12345678 and 3.5 mm") == (
        f"T1 of {NO_DATE}, {NO_DATE} or {NO_DATE}. 1.2.840.10008 stays, so do 12345678 and 3.5 mm"
    )


def test_our_own_examples_stay() -> None:
    text = "Name exam folders by their date (2021-03-14 or 20210314). Dates must be written 2021-03-14."
    assert cleaned(text) == text


def test_names_that_the_input_holds_are_withheld_and_those_of_channels_are_not() -> None:
    names = Names(others=frozenset({"SMITH.nii.gz", "Smith", "2021-03-17_x y", "DWI_b400.nii.gz", "the", "X"}))
    text = "2021-03-17_x y: Smith.nii.gz, DWI_b400.nii.gz, the smithy of SMITH are not used."
    assert cleaned(text, names=names) == (
        f"{shifted('2021-03-17')}: {WITHHELD}, DWI_b400.nii.gz, the smithy of {WITHHELD} are not used."
    )


@pytest.mark.parametrize(
    ("name", "harmless"),
    [
        ("DWI_b400.nii.gz", True),
        ("dwi_400", True),
        ("sub-01_T1w.nii.gz", True),
        ("T1_20210317", False),
        ("T1_2021_03", False),
        ("T1_DOE", False),
        ("1234567", False),
    ],
)
def test_harmless_is_what_is_made_of_the_words_of_channels(name: str, harmless: bool) -> None:
    assert is_harmless(name) == harmless


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("t1_vibe_fs_tra_bh native", "t1_vibe_fs_tra_bh native"),
        ("ep2d_diff b=800 p2", "ep2d_diff b=800 p2"),
        ("referral Anna Mueller, sister; t1 vibe arterial PAT-4711", "…; t1 vibe arterial …"),
        ("t1 vibe 05JAN2020", "t1 vibe …"),
        ("t1 JAN 5 2020 venous 20200105103000", "t1 … venous …"),
        ("dwi 200105 b800 of 05.01.20", "dwi … b800 …"),
    ],
)
def test_a_description_keeps_only_what_sequences_are_called_also_in_sentences(said: str, told: str) -> None:
    found = FoundImage("series 8", said)
    exam = Exam("7", DAY, {}, problems=(Problem("p", f"T1_native is series 8 ({said}).", "7"),), found=(found,))
    (patient,) = deidentify(Cohort((Patient("PAT-4712", (exam,)),)), Pseudonyms(KEY)).patients
    assert patient.exams[0].found[0].description == told
    assert patient.exams[0].problems[0].message == f"T1_native is series 8 ({told})."


def test_labels_of_bids_names_are_withheld_where_no_sequence_is_called_so(tmp_path: Path) -> None:
    session = tmp_path / "sub-07" / "ses-20210317"
    for label in ("haste", "JaneRoe", "20210317"):
        write_nifti(session / "anat" / f"sub-07_ses-20210317_acq-{label}_T2w.nii.gz", np.ones((8, 8, 8)), np.eye(4))
    (tmp_path / "sub-07" / "sub-07_sessions.tsv").write_text("session_id\tacq_time\nses-20210317\t2021-03-17\n")
    (patient,) = read_input(tmp_path, ReadingOptions(pseudonyms=Pseudonyms(KEY))).patients
    assert [found.name for found in patient.exams[0].found] == ["image 1", "image 2", "anat/acq-haste_T2w"]
    assert "JaneRoe" not in repr(patient.exams[0].problems)


def test_two_patients_whose_names_differ_in_how_accents_are_stored_are_not_made_one(tmp_path: Path) -> None:
    for name in ("Mu\u0308ller", "Müller"):
        write_patient(tmp_path / "cohort" / name, ("2021-03-17",))
    if len(list((tmp_path / "cohort").iterdir())) == 2:  # some file systems know but one way
        refusal = refusal_of(lambda: read_input(tmp_path / "cohort", ReadingOptions(pseudonyms=Pseudonyms(KEY))))
        assert refusal.code == "patient_twice"


def test_short_ids_do_not_spoil_sentences() -> None:
    assert cleaned("a folder of exam 1", "A") == "a folder of exam 1"
    assert cleaned("The image of exam 1", "images") == "The image of exam 1"


# ---------------------------------------------------------------- records


def test_every_text_of_a_cohort_is_cleaned_and_nothing_else_changes() -> None:
    pseudonyms = Pseudonyms(KEY)
    image = ArrayImage(np.zeros((2, 2, 2), np.float32), np.eye(4), "DOE_JOHN/scan.nii.gz")
    found = FoundImage(
        "DOE_JOHN scan",
        "T1 20210317",
        reason="as Doe says",
        details={"of": "2021-03-17"},
        series_uid="1.2",
        files=(Path(),),
    )
    exam = Exam(
        "visit Doe",
        DAY,
        {"T1_in": image},
        liver_mask=image,
        problems=(Problem("p", "visit Doe: 2021-03-17", "visit Doe"),),
        unknown_files=("JOHN (is DOE_JOHN.nii.gz)",),
        found=(found, replace(found, name="SMITH")),
    )
    cohort = Cohort(
        patients=(Patient(WHO, (exam,), (Problem("p", "of DOE_JOHN"),)),),
        refused={"DOE_JANE": Refusal("r", "exam 20210317_x: Jane", "20210317_x")},
        outcomes={WHO: Outcome(WHO, DAY, DAY)},
        outcomes_refused=Refusal("o", "DOE_JANE twice on 2021-03-17"),
        problems=(Problem("p", "DOE_JOHN and SMITH on 2021-03-17"),),
    )
    names = Names(people=frozenset({"SMITH"}))
    clean = deidentify(cohort, pseudonyms, names)
    john, jane, date = pseudonyms.name_of(WHO), pseudonyms.name_of("DOE_JANE"), shifted("2021-03-17")
    (patient,) = clean.patients
    (one,) = patient.exams
    assert (patient.patient_id, patient.problems[0].message) == (john, f"of {john}")
    assert (one.exam_id, one.date.isoformat(), one.images["T1_in"].source) == (date, date, f"{date}/T1_in")
    assert one.liver_mask is not None
    assert one.liver_mask.source == f"{date}/liver_mask"
    assert one.problems == (Problem("p", f"{date}: {date}", date),)
    assert one.unknown_files == (f"{john} (is {john}.nii.gz)",)
    assert one.found[0] == FoundImage(f"{john} scan", "T1 …", reason=f"as {john} says", details={"of": date})
    assert one.found[1].name == "image 2"
    day_of_jane = shifted("2021-03-17", "DOE_JANE")
    assert clean.refused[jane].message == f"exam {day_of_jane}: {jane}"
    assert clean.refused[jane].exam_id == day_of_jane
    assert clean.outcomes == {john: Outcome(john, one.date, one.date)}
    assert clean.outcomes_refused is not None
    assert clean.outcomes_refused.message == f"{jane} twice on {NO_DATE}"
    smith = pseudonyms.name_of("SMITH")
    assert clean.problems[0].message == f"{john} and {smith} on {NO_DATE}"


def test_the_order_of_patients_tells_nothing_of_their_names() -> None:
    exam = Exam("e", DAY, {})
    patients = tuple(Patient(f"P{letter}1", (exam,)) for letter in "ABCDEFGH")
    refused = {f"R{letter}1": Refusal("r", "x") for letter in "ABCDEFGH"}
    clean = deidentify(Cohort(patients, refused), Pseudonyms(KEY))
    assert [patient.patient_id for patient in clean.patients] == sorted(
        patient.patient_id for patient in clean.patients
    )
    assert list(clean.refused) == sorted(clean.refused)


def test_links_to_folders_are_looked_into_as_the_readers_do(tmp_path: Path) -> None:
    target = write_patient(tmp_path / "elsewhere", channels=DWI[:1])
    (target / "2020-01-05" / "DWI_b0.nii.gz").rename(target / "2020-01-05" / "SMITH.nii.gz")
    (target / "circle").symlink_to(target, target_is_directory=True)
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "P001").symlink_to(target, target_is_directory=True)
    cohort = read_input(tmp_path / "cohort", ReadingOptions(pseudonyms=Pseudonyms(KEY)))
    assert "SMITH" not in repr(cohort).replace(str(target), "")


# ---------------------------------------------------------------- commands: every byte


def run(*arguments: object) -> int:
    return main([str(a) for a in arguments])


@pytest.fixture(scope="module")
def one_member(demonstration: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small network of random weights."""
    states = [(demonstration.member(0).state_dict(), 0)]
    description = replace(demonstration.description, name="one", demonstration=False)
    return write_bundle(tmp_path_factory.mktemp("one") / "bundle", description, states, "card").path


def write_named_patient(folder: Path) -> Path:
    """A patient with the name in folders' and files' names, in the liver's mask, and in what is not understood."""
    write_patient(folder, [f"{date}_{WHO}" for date in DATES])
    late = folder / f"{DATES[1]}_{WHO}"
    write_nifti(late / f"{WHO}_T1_20210317.nii.gz", np.ones((4, 4, 4)), np.eye(4))
    (late / f"{WHO}.dcm").touch()
    (late / "liver_box.json").write_text('{"low_mm": [-50, -60, -10], "high_mm": [60, 40, 90]}')
    (folder / f"notes of {WHO}").mkdir()
    return folder


def write_named_cohort(folder: Path) -> Path:
    """Somebody who is predicted, two who are refused by the reader, one by the bundle, and one who is passed over."""
    write_named_patient(folder / WHO)
    undated = write_named_patient(folder / "DOE_JOHN jr")
    (undated / f"{DATES[1]}_{WHO}").rename(undated / f"visit_{WHO}_2021-03-17")
    twice = write_named_patient(folder / "20210317_DOE_JOHN")
    write_nifti(twice / f"{DATES[0]}_{WHO}_b" / f"{WHO}.nii.gz", np.ones((4, 4, 4)), np.eye(4))
    lacking = write_named_patient(folder / "doe_john the third") / f"{DATES[1]}_{WHO}"
    (lacking / "DWI_b400.nii.gz").rename(lacking / f"DWI_b400_{WHO}.nii.gz")
    damaged = write_named_patient(folder / f"{WHO}4") / f"{DATES[1]}_{WHO}"
    (damaged / "DWI_b150.nii.gz").write_bytes((damaged / "DWI_b150.nii.gz").read_bytes()[:-900])
    (folder / f"letters to {WHO}").mkdir()
    (folder / "outcomes.csv").write_text(
        f"patient_id,diagnosis_date,last_seen_date\n{WHO},{DATES[1]},{DATES[1]}\n{WHO}9,,{DATES[1]}\n"
    )
    return folder


def write_named_table(folder: Path) -> Path:
    write_named_cohort(folder / "images")
    header = ["patient_id", "exam_id", "exam_date", *DWI, f"{WHO} note"]
    rows = [header]
    for who in (WHO, f"{WHO}4", "DOE_JOHN jr"):
        for number, date in enumerate(DATES):
            place = f"images/{WHO if who != f'{WHO}4' else who}/{date}_{WHO}"
            exam_id = f"{WHO} visit" if who == "DOE_JOHN jr" else f"{WHO} visit {number}"
            rows.append([who, exam_id, date, *(f"{place}/{channel}.nii.gz" for channel in DWI), WHO])
    table = folder / f"{WHO}.csv"
    table.write_text("\n".join(",".join(row) for row in rows) + "\n")
    return table


TELLING = re.compile(
    rb"(?<![a-z])doe(?![a-z])|doe_?john|john|2020-?01-?05|2021-?03-?17|2020_01_05|2021_03_17", re.IGNORECASE
)
PICTURE = re.compile(rb"data:image/png;base64,[A-Za-z0-9+/=]*")  # any three letters stand in it by chance


def assert_nothing_tells(out: Path, said: str) -> None:
    """No byte and no file name holds the name, a part of it or a real date."""
    assert not TELLING.search(said.encode()), said
    for path in out.rglob("*"):
        assert not TELLING.search(str(path.relative_to(out)).encode()), path
        if path.is_file():
            content = gzip.decompress(path.read_bytes())[:352] if path.suffix == ".gz" else path.read_bytes()
            found = TELLING.search(PICTURE.sub(b"", content))
            assert not found, f"{path}: {content[found.start() - 80 : found.end() + 80]!r}"


WRITERS = {"patient": lambda f: write_named_patient(f / WHO), "cohort": write_named_cohort, "table": write_named_table}


@pytest.fixture
def fixed_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key that is made; of drawn ones, one in a thousand shifts a date onto another one that must not be seen."""
    drawn = SimpleNamespace(token_bytes=lambda count: bytes(range(count)))
    monkeypatch.setattr(sys.modules["HCCNetLib.readers.deidentify"], "secrets", drawn)


@pytest.mark.usefixtures("fixed_key")
@pytest.mark.parametrize("form", WRITERS)
def test_a_prediction_tells_no_name_and_no_date_and_is_the_same(
    form: str, tmp_path: Path, one_member: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = WRITERS[form](tmp_path / "in")
    explained = ("--method", "class-activation-4") if form == "patient" else ("--explain", "attention")
    predict = ("predict", path, "--bundle", one_member, *explained, "--csv", "--out")
    status = run(*predict, tmp_path / "plain")
    capsys.readouterr()
    assert (
        run(*predict, tmp_path / "out", "--deidentify", tmp_path / "key") == status == (0 if form == "patient" else 3)
    )
    captured = capsys.readouterr()
    assert_nothing_tells(tmp_path / "out", captured.out + captured.err)
    assert "a new key was made" in captured.err

    pseudonyms = Pseudonyms(open_key(tmp_path / "key")[0])
    plain = json.loads((tmp_path / "plain" / WHO / "prediction.json").read_text())
    clean = json.loads((tmp_path / "out" / pseudonyms.name_of(WHO) / "prediction.json").read_text())
    assert clean["patient_id"] == pseudonyms.name_of(WHO)
    for key in ("risk", "risk_uncalibrated", "members", "spread"):
        assert clean[key] == plain[key]
    assert [w["code"] for w in clean["warnings"]] == [w["code"] for w in plain["warnings"]]
    for one, other in zip(clean["exams"], plain["exams"], strict=True):
        for key in ("months_before_landmark", "attention", "risk_without", "field"):
            assert one[key] == other[key]
        assert one["date"] == pseudonyms.shift(WHO, datetime.date.fromisoformat(other["date"])).isoformat()
        assert form != "patient" or one["saliency"]["all"] == f"saliency/{one['date']}.nii.gz"
    if form != "patient":
        summaries = [json.loads((tmp_path / o / "summary.json").read_text()) for o in ("plain", "out")]
        refused = [{(r["patient_id"], r["code"]) for r in summary["refused"]} for summary in summaries]
        assert {(pseudonyms.name_of(who), code) for who, code in refused[0]} == refused[1]

    capsys.readouterr()
    assert run(*predict, tmp_path / "out", "--json", "--deidentify", tmp_path / "key") == status
    captured = capsys.readouterr()
    assert_nothing_tells(tmp_path / "out", captured.out + captured.err)
    assert "new key" not in captured.err


@pytest.mark.usefixtures("fixed_key")
@pytest.mark.parametrize("form", WRITERS)
def test_inspect_tells_no_name_and_no_date(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = WRITERS[form](tmp_path / "in")
    (tmp_path / f"{WHO}.csv").write_text(f"image,channel\n{WHO}*,-\nnothing,-\n")
    for options in ([], ["--channels", tmp_path / f"{WHO}.csv"], ["--merge-same-day"]):
        run("inspect", path, "--deidentify", tmp_path / "key", *options)
        captured = capsys.readouterr()
        assert_nothing_tells(tmp_path / "nowhere", captured.out + captured.err)
        assert captured.out.startswith("INPUT: ")


def test_a_patient_who_is_refused_as_a_whole_is_not_named_and_keeps_no_result(
    tmp_path: Path, one_member: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_named_patient(tmp_path / WHO)
    predict = ("predict", folder, "--bundle", one_member, "--explain", "none", "--out", tmp_path / "out")
    assert run(*predict, "--deidentify", tmp_path / "key") == 0
    (folder / f"{DATES[1]}_{WHO}").rename(folder / f"visit {WHO}")
    capsys.readouterr()
    assert run(*predict, "--deidentify", tmp_path / "key") == 1
    captured = capsys.readouterr()
    assert f"The folder {WITHHELD} holds images but its name is no date." in captured.err
    assert "an earlier result was moved" in captured.err
    assert_nothing_tells(tmp_path / "out", captured.out + captured.err)
    name = Pseudonyms(open_key(tmp_path / "key")[0]).name_of(WHO)
    assert [p.name for p in (tmp_path / "out").iterdir()] == [f"{name} (earlier)"]


def test_an_input_that_is_not_there_is_not_named_either(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", tmp_path / WHO / "x", "--deidentify", tmp_path / "key") == 1
    captured = capsys.readouterr()
    assert f"The input {WITHHELD} does not exist. Check the path." in captured.err
    assert_nothing_tells(tmp_path / "nowhere", captured.err)


def test_the_key_must_not_go_where_the_results_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run("predict", tmp_path, "--out", tmp_path / "out", "--deidentify", tmp_path / "out" / "key")
    assert stopped.value.code == 2
    assert "whoever gets the results must not get the key" in capsys.readouterr().err
