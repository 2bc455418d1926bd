"""``hccnet evaluate`` as its users run it."""

from __future__ import annotations

import csv
import datetime
import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from random_bundle import write_random_bundle
from scipy.special import expit, logit

from HCCNetLib.commands import evaluate as command
from HCCNetLib.commands.main import main
from HCCNetLib.evaluation.discrimination import auroc
from HCCNetLib.inference import NOTICE
from HCCNetLib.records import Refusal
from HCCNetLib.synthetic.acquisition import AcquisitionModel
from HCCNetLib.synthetic.cohort import CohortPlan, synthesize
from HCCNetLib.synthetic.growth import GrowthModel
from HCCNetLib.synthetic.phantom import PhantomModel
from HCCNetLib.synthetic.truth import find_truth

FILES = {"evaluation.json", "evaluation.html", "predictions.csv"}
# By hand: patients of the phantom with seed 3. Every one but PH00005 is diagnosed.
RISKS = {"PH00001": 0.9, "PH00002": 0.3, "PH00003": 0.6, "PH00004": 0.2, "PH00005": 0.4}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """Five coarse phantom patients."""
    folder = tmp_path_factory.mktemp("phantom") / "cohort"
    synthesize(folder, CohortPlan(5, 3, PhantomModel(disease=GrowthModel(), acquisition=AcquisitionModel(spacing=6.0))))
    return folder


@pytest.fixture
def cohort(phantom, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(phantom, tmp_path / "cohort")


@pytest.fixture
def fast(monkeypatch):
    """Predictions by table instead of by networks; returns the patients that were asked for."""
    asked = []

    def predict(predictor, patient, caches):
        asked.append(patient)
        if patient.patient_id not in RISKS:
            raise Refusal("missing_channel", f"Exam {patient.landmark.exam_id} lacks DWI_b0.")
        # Lower at earlier exams.
        latest = np.array([RISKS[patient.patient_id]] * 9 + [RISKS[patient.patient_id] / 2])
        risks = latest[:, None] * np.linspace(0.5, 1, len(patient.exams))[-len(patient.exams) :]
        return at_horizons(risks, predictor.bundle.description)

    monkeypatch.setattr(command, "predict_patient", predict)
    return asked


def at_horizons(risks, description):
    """(members, exams) at the main horizon → (members, exams, horizons): half of it before, the root of it after."""
    powers = [{-1: 0.5, 0: 1.0, 1: None}[int(np.sign(h - description.horizon_months))] for h in description.horizons]
    return np.stack([np.sqrt(risks) if power is None else power * risks for power in powers], axis=-1)


def changed_bundle(demonstration, folder, **changes):
    """The demonstration bundle with other words in bundle.json, whose hash is its identity."""
    shutil.copytree(demonstration.path, folder)
    content = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps({**content, **changes}))
    return folder


def run(bundle, cohort, out, *words):
    return main([str(w) for w in ("evaluate", "--bundle", bundle, "--cohort", cohort, "--out", out, *words)])


def outcomes(cohort, change):
    """Rewrites outcomes.csv: patient id → (diagnosis, last seen) → changed or None to leave the row out."""
    file = cohort / "outcomes.csv"
    with file.open() as stream:
        rows = list(csv.DictReader(stream))
    kept = {r["patient_id"]: (r["diagnosis_date"], r["last_seen_date"]) for r in rows}
    kept.update(change)
    lines = [f"{name},{dates[0]},{dates[1]}" for name, dates in kept.items() if dates is not None]
    file.write_text("patient_id,diagnosis_date,last_seen_date\n" + "\n".join(lines) + "\n")


def read(out):
    return json.loads((out / "evaluation.json").read_text())


def rows_of(out):
    with (out / "predictions.csv").open() as stream:
        return list(csv.DictReader(stream))


def headline(content):
    return content["metrics"]["sets"][0]["horizons"]["12"]


def test_a_phantom_cohort_is_evaluated_with_real_networks_at_every_exam(demonstration, phantom, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(demonstration.path, phantom, out, "--resamples", 100, "--device", "cpu") == 0
    assert {p.name for p in out.iterdir()} == FILES
    content, rows = read(out), rows_of(out)
    exams = sum(len([f for f in (phantom / name).iterdir() if f.is_dir()]) for name in RISKS)
    assert len(rows) == exams == content["metrics"]["sets"][0]["landmarks"]
    known = [r for r in rows if r["label"]]
    labels, risks = np.array([r["label"] == "1" for r in known]), np.array([float(r["risk"]) for r in known])
    assert headline(content)["excluded"]["auroc"]["value"] == pytest.approx(auroc(labels, risks))
    members = np.array([[float(r[f"member_{n}"]) for n in range(1, 11)] for r in rows])
    np.testing.assert_allclose(members.mean(axis=1), [float(r["risk"]) for r in rows])
    # The risk at an exam is the one that a prediction from that exam has.
    last = [r for r in rows if r["patient_id"] == "PH00002"][-1]
    words = ("predict", phantom / "PH00002", "--bundle", demonstration.path, "--out", tmp_path / "p")
    assert main([*map(str, words), "--explain", "none"]) == 0
    said = json.loads((tmp_path / "p" / "PH00002" / "prediction.json").read_text())
    assert [point["risk"] for point in said["trajectory"]] == pytest.approx(
        [float(r["risk"]) for r in rows if r["patient_id"] == "PH00002"], abs=1e-6
    )
    assert said["landmark"] == last["landmark"]


def test_every_output_says_what_it_is_not(demonstration, phantom, tmp_path, fast, capsys):
    out = tmp_path / "out"
    assert run(demonstration.path, phantom, out, "--resamples", 100) == 0
    content, said = read(out), capsys.readouterr()
    page = (out / "evaluation.html").read_text()
    assert "not for clinical use" in page
    assert content["notice"] == NOTICE
    assert all(NOTICE in r["notice"] and "phantom" in r["notice"] for r in rows_of(out))
    for text in (page, json.dumps(content["warnings"]), said.out):
        assert "hold for generated (phantom) patients at most" in text
    assert NOTICE in said.err
    assert "predicting patients 0/5" in said.err
    assert f"AUROC {headline(content)['ipcw']['auroc']['value']:.3f}" in said.out
    assert "Draw no conclusion" in said.out


def test_the_page_stands_alone_names_no_patient_and_holds_every_section(demonstration, cohort, tmp_path, fast):
    thresholds = [{"name": "<youden>", "threshold": 0.35, "chosen_for": "a & b"}]
    calibration = [{"slope": 1.2, "intercept": -0.3, "fitted_on": None}]
    bundle = changed_bundle(demonstration, tmp_path / "b", operating_thresholds=thresholds, calibration=calibration)
    run(bundle, cohort, tmp_path / "out", "--compare", demonstration.path, "--resamples", 100)
    page = (tmp_path / "out" / "evaluation.html").read_text()
    headings = ("By horizon", "By exam, at 12 months", "By exam and horizon", "Curves, at 12 months", "Lead time", "Thresholds",
                "Members", "Comparison", "Who was evaluated", "TRIPOD+AI", "Provenance")  # fmt: skip
    for heading in headings:
        assert f"<h2>{heading}</h2>" in page
    assert "PH0000" not in page
    assert "&lt;youden&gt;" in page
    assert "chosen for a &amp; b" in page
    assert not re.search(r"src=|href=|<script|<youden|>nan<|None", page)
    drawings = re.findall(r'<svg [^>]*role="img" aria-label="([^"]+)"', page)
    assert sum(words.startswith(("ROC", "Precision", "Calibration", "Risks", "Net")) for words in drawings) == 5
    page = re.sub(r"^<!DOCTYPE html>|<meta[^>]*>|<br>", "", page)
    ElementTree.fromstring(re.sub(r"class=(warning|note)>", r'class="\1">', page))


def test_the_members_are_averaged_then_calibrated_and_written_raw(demonstration, cohort, tmp_path, fast):
    bundle = changed_bundle(
        demonstration, tmp_path / "b", calibration=[{"slope": 2.0, "intercept": -1.0, "fitted_on": "x"}]
    )
    assert run(bundle, cohort, tmp_path / "out", "--resamples", 100) == 0
    last = {row["patient_id"]: row for row in rows_of(tmp_path / "out")}
    for patient_id, raw in RISKS.items():
        row = last[patient_id]
        assert float(row["risk_uncalibrated"]) == pytest.approx(0.95 * raw)
        assert float(row["risk"]) == pytest.approx(expit(2 * logit(0.95 * raw) - 1))
        assert (float(row["member_1"]), float(row["member_10"])) == (pytest.approx(raw), pytest.approx(raw / 2))
    assert "not_calibrated" not in {w["code"] for w in read(tmp_path / "out")["warnings"]}


def test_everybody_is_counted_once_and_refused_patients_are_listed(demonstration, cohort, tmp_path, fast, capsys):
    for n in range(6, 10):  # copies under other names; the fast prediction refuses PH00009
        shutil.copytree(cohort / "PH00005", cohort / f"PH0000{n}")
    dates = sorted(p.name for p in (cohort / "PH00005").iterdir())
    first, exams = dates[0], len(dates)
    assert exams > 1
    outcomes(
        cohort,
        {
            "PH00003": None,
            "PH00006": (first, "2030-01-01"),  # diagnosed at the first exam
            "PH00008": ("", first),  # last seen before later exams
            "PH00009": ("", "2030-01-01"),
        },
    )
    status = run(demonstration.path, cohort, tmp_path / "out", "--resamples", 100)
    content, said = read(tmp_path / "out"), capsys.readouterr().out
    assert status == 3
    counts = content["cohort"]
    assert counts["patients"] == 9 == counts["evaluated"] + counts["refused"] + sum(counts["left_out"].values())
    assert counts["left_out"]["without_outcome"] == 2  # PH00007 too
    assert counts["left_out"]["diagnosed_before"] == 1
    assert counts["exams"]["from_event_on"] == exams
    refused = {entry["patient_id"]: entry["code"] for entry in content["refused"]}
    assert refused == {"PH00008": "seen_before_exam", "PH00009": "missing_channel"}
    assert "PH00009: refused. Exam" in said
    assert "PH00008: refused. The outcomes say that the patient was last seen on" in said
    assert "left out: 2 patient(s), no outcome known" in said
    assert "refused_patients" in {w["code"] for w in content["warnings"]}


def test_an_exam_on_the_day_of_the_diagnosis_is_not_predicted(demonstration, cohort, tmp_path, fast):
    exams = sorted(p.name for p in (cohort / "PH00001").iterdir())
    assert len(exams) > 1
    outcomes(cohort, {"PH00001": (exams[-1], exams[-1])})
    run(demonstration.path, cohort, tmp_path / "out", "--resamples", 100)
    patient = next(p for p in fast if p.patient_id == "PH00001")
    assert [e.exam_id for e in patient.exams] == exams[:-1]
    rows = [r for r in rows_of(tmp_path / "out") if r["patient_id"] == "PH00001"]
    assert [r["landmark"] for r in rows] == exams[:-1]
    assert [r["number"] for r in rows] == [str(n) for n in range(1, len(exams))]


def test_a_death_ends_the_follow_up_and_is_a_known_outcome(demonstration, cohort, tmp_path, fast):
    last = max(p.name for p in (cohort / "PH00005").iterdir())
    day = str(datetime.date.fromisoformat(last) + datetime.timedelta(days=60))
    text = (cohort / "outcomes.csv").read_text()
    row = next(line for line in text.splitlines() if line.startswith("PH00005"))
    (cohort / "outcomes.csv").write_text(text.replace(row, f"PH00005,,{day},death,{day}"))
    run(demonstration.path, cohort, tmp_path / "out", "--resamples", 100)
    rows = [r for r in rows_of(tmp_path / "out") if r["patient_id"] == "PH00005"]
    assert {r["ended_by"] for r in rows} == {"competing event"}
    assert {r["label"] for r in rows} == {"0"}  # known: no diagnosis can come
    content = read(tmp_path / "out")
    assert content["cohort"]["competing"] == 1
    assert headline(content)["competing"] >= 1


def test_a_bundle_compared_with_itself_differs_by_nothing(demonstration, cohort, tmp_path, fast, capsys):
    assert run(demonstration.path, cohort, tmp_path / "out", "--compare", demonstration.path, "--resamples", 100) == 0
    (comparison,) = read(tmp_path / "out")["comparisons"]
    assert comparison["patients"] == 5
    assert comparison["this"] == comparison["other"]
    at = comparison["difference"]["horizons"]["12"]
    for difference in (at["ipcw"]["auroc"], at["ipcw"]["auprc"], at["brier"]):
        assert difference["value"] == 0
    assert "minus random-weights-demonstration 1, on 5 patients: AUROC +0.000" in capsys.readouterr().out


def test_a_compared_bundle_that_refuses_patients_is_compared_on_the_others(
    demonstration, cohort, tmp_path, fast, monkeypatch
):
    other, known = changed_bundle(demonstration, tmp_path / "b", name="other"), command.predict_patient

    def predict(predictor, patient, caches):
        if predictor.bundle.path == other and patient.patient_id in lost:
            raise Refusal("missing_channel", "DWI_b0 is missing.")
        return known(predictor, patient, caches)

    monkeypatch.setattr(command, "predict_patient", predict)
    lost = {"PH00001"}
    assert run(demonstration.path, cohort, tmp_path / "out", "--compare", other, "--resamples", 100) == 0
    (comparison,) = read(tmp_path / "out")["comparisons"]
    assert (comparison["patients"], comparison["refused"], comparison["problem"]) == (4, 1, None)
    lost = {"PH00001", "PH00002", "PH00003", "PH00004"}  # every patient with a diagnosis
    run(demonstration.path, cohort, tmp_path / "out", "--compare", other, "--resamples", 100)
    (comparison,) = read(tmp_path / "out")["comparisons"]
    assert "have a diagnosis within the horizon of 12 months: both kinds are needed" in comparison["problem"]
    assert "Not compared with other 1" in (tmp_path / "out" / "evaluation.html").read_text()


def test_a_clinical_table_gives_subgroups_and_the_amap_score(demonstration, cohort, tmp_path, fast, capsys):
    lines = ["patient_id,exam_id,age,sex,albumin,bilirubin,platelets,centre,visible_lesion"]
    for n, patient_id in enumerate(RISKS):
        lines.append(f"{patient_id},,{50 + 5 * n},{'mf'[n % 2]},{40 - n},{15 + n},{150 - 10 * n},centre {n % 2},")
    first = min(p.name for p in (cohort / "PH00001").iterdir())
    lines.append(f"PH00001,{first},,,,,,,no")
    (cohort / "clinical.csv").write_text("\n".join(lines) + "\n")
    assert run(demonstration.path, cohort, tmp_path / "out", "--resamples", 100) == 0
    content = read(tmp_path / "out")
    names = [(one["kind"], one["name"]) for one in content["metrics"]["sets"]]
    assert ("centre", "centre 0") in names
    assert ("centre", "centre 1") in names
    assert ("tumour at the landmark", "future") in names
    baseline = content["clinical_baseline"]
    assert baseline["score"]["landmarks"] == content["metrics"]["sets"][0]["landmarks"]
    assert baseline["score"]["horizons"]["12"]["calibration_slope"] is None  # a score is no risk
    assert "aMAP: AUROC" in capsys.readouterr().out
    assert "Clinical baseline" in (tmp_path / "out" / "evaluation.html").read_text()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("P1,,,4.1,", "clinical.csv, row 2: albumin must be a number from 10 to 70 g/l, or empty. Check its unit."),
        ("P1,,x,,", "clinical.csv, row 2: sex must be m or f, or empty."),
        ("P1,old,,,", "clinical.csv, row 2: age must be a number from 0 to 120 years"),
        ("P1,,,,maybe", "clinical.csv, row 2: visible_lesion must be yes or no, or empty."),
        ("P1,,,,\nP1,,,,", "clinical.csv, row 3: this patient and exam stand there already"),
        (",50,,,", "clinical.csv, row 2: patient_id is empty"),
    ],
)
def test_a_clinical_table_that_can_not_be_used_is_refused_by_row(
    demonstration, cohort, tmp_path, fast, capsys, row, words
):
    (cohort / "clinical.csv").write_text(f"patient_id,age,sex,albumin,visible_lesion\n{row}\n")
    assert run(demonstration.path, cohort, tmp_path / "out") == 1
    assert words in capsys.readouterr().err
    assert not fast


def test_a_clinical_table_of_other_patients_or_columns_does_not_pass_in_silence(
    demonstration, cohort, tmp_path, fast, capsys
):
    (cohort / "clinical.csv").write_text("patient_id,age\nPH1,50\nPH00001,60\n")
    assert run(demonstration.path, cohort, tmp_path / "out", "--resamples", 100) == 0
    assert "note: 1 row(s) of the clinical table are of no patient or exam here." in capsys.readouterr().out
    (cohort / "clinical.csv").write_text("patient_id,Age\nPH00001,50\n")
    assert run(demonstration.path, cohort, tmp_path / "out") == 1
    assert "clinical.csv has none of the columns age, sex, albumin" in capsys.readouterr().err


def test_a_damaged_truth_is_refused_before_the_work(demonstration, cohort, tmp_path, fast, capsys):
    (cohort / "truth" / "exams.csv").unlink()
    assert run(demonstration.path, cohort, tmp_path / "out") == 1
    assert "In the folder truth: exams.csv does not exist" in capsys.readouterr().err
    assert not fast


def test_one_horizon_alone_is_judged_as_among_several(demonstration, cohort, tmp_path, fast, capsys):
    """Sets that are chosen by their outcomes have no risk of their own, however many horizons there are."""
    rows = [f"{name},{'yes' if n % 2 else 'no'}" for n, name in enumerate(RISKS)]
    (cohort / "clinical.csv").write_text("\n".join(["patient_id,visible_lesion", *rows]) + "\n")
    outcomes(cohort, {"PH00005": ("", "2025-01-01")})  # longer than anybody, and not for 200 months
    found = []
    for horizons in ((12,), (6, 12, 200)):
        assert run(demonstration.path, cohort, tmp_path / "out", "--resamples", 100, "--horizons", *horizons) == 0
        found.append({(one["kind"], one["name"]): one for one in read(tmp_path / "out")["metrics"]["sets"]})
    assert "within 200 months: no exam is followed for so long" in capsys.readouterr().out
    alone, among = found
    for key in (("tumour at the landmark", "future"), ("which landmarks", "without early diagnoses")):
        assert alone[key]["horizons"]["12"] == among[key]["horizons"]["12"]
        assert alone[key]["concordance"] is None
        for name in ("observed", "mean_risk", "brier", "calibration_intercept", "calibration_slope"):
            assert alone[key]["horizons"]["12"][name] is None
        assert alone[key]["horizons"]["12"]["ipcw"]["prevalence"] is not None


def test_horizons_can_be_chosen_and_the_bundle_s_own_is_one(demonstration, cohort, tmp_path, fast):
    assert run(demonstration.path, cohort, tmp_path / "out", "--horizons", 6, 9, "--resamples", 100) == 0
    content = read(tmp_path / "out")
    assert content["metrics"]["horizons"] == [6, 9, 12]
    at = content["metrics"]["sets"][0]["horizons"]
    assert at["12"]["brier"] is not None
    assert at["6"]["brier"] is None  # the bundle gives no risk within 6 months
    assert at["6"]["ipcw"]["auroc"]["value"] is not None
    assert "gives no risk within 6, 9 months" in (tmp_path / "out" / "evaluation.html").read_text()


def of_several_horizons(folder):
    """Six, 12 and 24 months, calibrated each in its own way."""
    bundle = write_random_bundle(folder / "several", horizons=(6.0, 12.0, 24.0))
    calibration = [{"slope": s, "intercept": i, "fitted_on": "x"} for s, i in ((1.0, 0.5), (2.0, -1.0), (0.5, 0.1))]
    return changed_bundle(bundle, folder / "calibrated", calibration=calibration)


def test_every_horizon_of_a_bundle_is_judged_by_its_own_calibrated_risk(cohort, tmp_path, fast):
    bundle = of_several_horizons(tmp_path)
    assert run(bundle, cohort, tmp_path / "out", "--horizons", 9, "--resamples", 100) == 0
    content, rows = read(tmp_path / "out"), rows_of(tmp_path / "out")
    assert content["metrics"]["horizons"] == [6, 9, 12, 24]
    at = content["metrics"]["sets"][0]["horizons"]
    assert at["9"]["brier"] is None
    assert list(rows[0])[7:12] == ["risk", "risk_uncalibrated", "risk_6_months", "risk_24_months", "member_1"]
    for row in rows:
        members = np.array([float(row[f"member_{n}"]) for n in range(1, 11)])
        raw = members.mean()
        assert float(row["risk_uncalibrated"]) == pytest.approx(raw)
        early = expit(logit(0.5 * raw) + 0.5)
        main_risk = max(early, expit(2 * logit(raw) - 1))
        late = max(main_risk, expit(0.5 * logit(np.sqrt(members).mean()) + 0.1))
        found = [float(row[name]) for name in ("risk_6_months", "risk", "risk_24_months")]
        assert found == pytest.approx([early, main_risk, late])
    for months, column in (("6", "risk_6_months"), ("12", "risk"), ("24", "risk_24_months")):
        assert at[months]["mean_risk"] == pytest.approx(np.mean([float(row[column]) for row in rows]))


def test_real_networks_of_several_horizons_give_the_risks_of_a_prediction(phantom, tmp_path):
    bundle = of_several_horizons(tmp_path)
    (tmp_path / "split.json").write_text('{"parts": {"test": ["PH00004", "PH00005"], "rest": ["PH00001"]}}')
    words = ("--split", tmp_path / "split.json", "--part", "test", "--resamples", 100, "--device", "cpu")
    assert run(bundle, phantom, tmp_path / "out", *words) == 0
    row = [r for r in rows_of(tmp_path / "out") if r["patient_id"] == "PH00005"][-1]
    predict = ("predict", phantom / "PH00005", "--bundle", bundle, "--out", tmp_path / "p", "--explain", "none")
    assert main([*map(str, predict)]) == 0
    said = json.loads((tmp_path / "p" / "PH00005" / "prediction.json").read_text())
    assert said["landmark"] == row["landmark"]
    by_horizon = {at["months"]: at["risk"] for at in said["risk_by_horizon"]}
    for months, column in ((6, "risk_6_months"), (12, "risk"), (24, "risk_24_months")):
        assert float(row[column]) == pytest.approx(by_horizon[months], abs=1e-6)


def test_bundles_of_unlike_horizons_are_compared_at_the_main_one(demonstration, cohort, tmp_path, fast):
    bundle = of_several_horizons(tmp_path)
    assert run(bundle, cohort, tmp_path / "out", "--compare", demonstration.path, "--resamples", 100) == 0
    (comparison,) = read(tmp_path / "out")["comparisons"]
    assert comparison["patients"] == 5
    assert comparison["difference"]["horizons"]["12"]["ipcw"]["auroc"]["value"] == pytest.approx(0, abs=1e-12)
    assert comparison["difference"]["horizons"]["12"]["brier"]["value"] != 0


def test_a_phantom_of_surveillance_brings_its_ceiling_and_says_which_tumours_were_visible(
    demonstration, tmp_path, monkeypatch
):
    folder = tmp_path / "cohort"
    synthesize(folder, CohortPlan(12, 4, PhantomModel(acquisition=AcquisitionModel(spacing=8.0))))
    truth = find_truth(folder)
    monkeypatch.setattr(
        command,
        "predict_patient",
        lambda _, patient, __: np.array(
            [[truth.risks["images"][12][patient.patient_id, exam.exam_id] for exam in patient.exams]] * 10
        )[..., None],
    )
    assert run(demonstration.path, folder, tmp_path / "out", "--resamples", 100) == 0
    content = read(tmp_path / "out")
    ceiling = {(one["kind"], one["name"]): one for one in content["true_risk"]["sets"]}
    assert ceiling["headline", "every landmark"]["horizons"]["36"]["calibration_slope"] is not None
    for one in content["metrics"]["sets"]:  # this model is the ceiling
        expected = ceiling[one["kind"], one["name"]]["horizons"]["12"]["ipcw"]["auroc"]["value"]
        assert one["horizons"]["12"]["ipcw"]["auroc"]["value"] == (expected and pytest.approx(expected))
    assert {one["kind"] for one in content["metrics"]["sets"]} >= {"tumour at the landmark", "scanner"}
    assert "the ceiling for any method" in (tmp_path / "out" / "evaluation.html").read_text()


def test_only_the_part_of_a_split_is_judged(demonstration, cohort, tmp_path, fast):
    split = tmp_path / "split.json"
    split.write_text(
        json.dumps({"parts": {"test": ["PH00001", "PH00004", "PH00005"], "train": ["PH00002", "PH00003"]}})
    )
    assert (
        run(demonstration.path, cohort, tmp_path / "out", "--split", split, "--part", "test", "--resamples", 100) == 0
    )
    assert {p.patient_id for p in fast} == {"PH00001", "PH00004", "PH00005"}
    counts = read(tmp_path / "out")["cohort"]
    assert (counts["part"], counts["evaluated"], counts["left_out"]["not_in_part"]) == ("test", 3, 2)
    assert "part test" in (tmp_path / "out" / "evaluation.html").read_text()


@pytest.mark.parametrize(
    ("text", "part", "words"),
    [
        (
            '{"parts": {"test": ["PH00001", "SECRET1", "SECRET2"]}}',
            "test",
            "2 of 3 patient(s) of the part test are not in",
        ),
        ('{"parts": {"dev": ["PH00001"], "train": []}}', "test", "has no part test. Its parts: dev, train."),
        ('{"parts": {"test": []}}', "test", "names no patient"),
        ('{"parts": {"test": ["SECRET1"], "train": ["SECRET1"]}}', "test", "names 1 patient(s) more than once"),
        ('{"parts": {"test": [1]}}', "test", "is not of the form"),
        ('{"parts": ["test"]}', "test", "is not of the form"),
        ("[]", "test", "is not of the form"),
        ("{", "test", "is not JSON"),
        (None, "test", "can't be opened"),
    ],
)
def test_a_split_that_does_not_fit_is_refused_without_naming_a_patient(
    demonstration, phantom, tmp_path, capsys, text, part, words
):
    split = tmp_path / "split.json"
    if text is not None:
        split.write_text(text)
    assert run(demonstration.path, phantom, tmp_path / "out", "--split", split, "--part", part) == 1
    said = capsys.readouterr().err
    assert words in said
    assert "SECRET" not in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("--split", "x.json"),
        ("--part", "test"),
        ("--resamples", 99),
        ("--horizons", 0),
        ("--seed", -1),
        ("--seed", "a"),
    ],
)
def test_wrong_usage_exits_with_2(phantom, tmp_path, words):
    with pytest.raises(SystemExit) as exit_status:
        run("bundle", phantom, tmp_path / "out", *words)
    assert exit_status.value.code == 2


def test_a_cohort_that_can_not_be_judged_is_refused_in_a_sentence(demonstration, cohort, tmp_path, fast, capsys):
    def refused(*words, cohort=cohort, bundle=demonstration.path):
        assert run(bundle, cohort, tmp_path / "out", *words) == 1
        return capsys.readouterr().err

    assert "the folder of one patient" in refused(cohort=cohort / "PH00001")
    later = changed_bundle(demonstration, tmp_path / "later", horizon_months=24.0, horizons_months=[24.0], name="later")
    assert "later 1 predicts a diagnosis within 24 months" in refused("--compare", later)
    bad = changed_bundle(demonstration, tmp_path / "bad", operating_thresholds=[{"name": "x"}])
    assert "operating threshold of the bundle can't be used" in refused(bundle=bad)
    outcomes(cohort, {"PH00005": None, **{name: ("", "2031-01-01") for name in RISKS if name != "PH00005"}})
    said = refused()
    assert "None of" in said
    assert "have a diagnosis within the horizon of 12 months" in said
    assert "Not judged: 1: no outcome known" in said
    (cohort / "outcomes.csv").write_text("patient_id,diagnosis_date,last_seen_date\nPH00001,soon,2020-01-01\n")
    assert "outcomes.csv, row 2: dates must be written 2021-03-14" in refused()
    (cohort / "outcomes.csv").write_text("patient_id,diagnosis_date,last_seen_date\nPH00001,2021-01-01,\n")
    assert (
        "outcomes.csv, row 2: dates must be written 2021-03-14 (diagnosis_date and competing_date may be empty, last_"
        in refused()
    )
    (cohort / "outcomes.csv").write_text("patient_id,diagnosis_date\nPH00001,2021-01-01\n")
    assert "outcomes.csv lacks the column(s) last_seen_date" in refused()
    header = "patient_id,diagnosis_date,last_seen_date,competing_event,competing_date"
    (cohort / "outcomes.csv").write_text(f"{header}\nPH00001,,2021-01-01,transplant,\n")
    assert (
        "outcomes.csv, row 2: competing_event names an event and competing_date is empty. Fill in its date."
        in refused()
    )
    (cohort / "outcomes.csv").unlink()
    assert "no outcomes were found. Put outcomes.csv with the columns patient_id" in refused()
    assert not fast
    assert not list((tmp_path / "out").glob("*"))


def test_where_nobody_could_be_predicted_the_first_reason_is_told(
    demonstration, cohort, tmp_path, fast, monkeypatch, capsys
):
    for patient_id in list(RISKS):
        monkeypatch.delitem(RISKS, patient_id)
    assert run(demonstration.path, cohort, tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert "There is nothing to evaluate" in said
    assert "5: refused, the first because: Exam" in said
    assert "lacks DWI_b0" in said


def test_a_failed_run_leaves_the_earlier_result_whole_and_nothing_aside(
    demonstration, cohort, tmp_path, fast, monkeypatch
):
    out = tmp_path / "out"
    assert run(demonstration.path, cohort, out, "--resamples", 100) == 0
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    monkeypatch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert run(demonstration.path, cohort, out, "--resamples", 100, "--seed", 5) == 1
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
