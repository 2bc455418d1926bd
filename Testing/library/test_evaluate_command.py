"""``hccnet evaluate`` as its users run it."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit

from HCCNetLib.commands import evaluate as command
from HCCNetLib.commands.main import main
from HCCNetLib.evaluation import auroc, brier
from HCCNetLib.inference import NOTICE, Prediction
from HCCNetLib.records import Refusal
from HCCNetLib.synthetic.acquisition import AcquisitionModel
from HCCNetLib.synthetic.cohort import CohortPlan, synthesize
from HCCNetLib.synthetic.phantom import PhantomModel

FILES = {"evaluation.json", "evaluation.html", "predictions.csv"}
# By hand: patients of the phantom with seed 3. Every one but PH00005 is diagnosed.
RISKS = {"PH00001": 0.9, "PH00002": 0.3, "PH00003": 0.6, "PH00004": 0.2, "PH00005": 0.4}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """Five coarse phantom patients."""
    folder = tmp_path_factory.mktemp("phantom") / "cohort"
    synthesize(folder, CohortPlan(5, 3, PhantomModel(acquisition=AcquisitionModel(spacing=6.0))))
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
        calibration = predictor.bundle.description.calibration
        raw = RISKS[patient.patient_id]
        members = [raw, *[raw] * 8, raw / 2]

        def calibrated(p):
            return p if calibration is None else float(expit(calibration.slope * logit(p) + calibration.intercept))

        return Prediction(
            patient_id=patient.patient_id,
            bundle={},
            landmark=patient.landmark.date.isoformat(),
            horizon_months=12,
            risk=calibrated(raw),
            risk_uncalibrated=raw,
            members=tuple(calibrated(m) for m in members),
            spread={},
            exams=(),
            trajectory=(),
            warnings=(),
            software={},
            seconds={},
        )

    monkeypatch.setattr(command, "predict_patient", predict)
    return asked


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


def test_a_phantom_cohort_is_evaluated_with_real_networks(demonstration, phantom, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(demonstration.path, phantom, out, "--resamples", 100, "--device", "cpu") == 0
    assert {p.name for p in out.iterdir()} == FILES
    content = read(out)
    assert content["bundle"]["sha256"] == demonstration.sha256
    assert (content["metrics"]["patients"], content["metrics"]["positive"]) == (5, 4)
    with (out / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    labels, risks = np.array([r["label"] == "1" for r in rows]), np.array([float(r["risk"]) for r in rows])
    assert content["metrics"]["auroc"]["value"] == pytest.approx(auroc(labels, risks))
    assert content["metrics"]["brier"]["value"] == pytest.approx(brier(labels, risks))
    members = np.array([[float(r[f"member_{n}"]) for n in range(1, 11)] for r in rows])
    np.testing.assert_allclose(members.mean(axis=1), risks)
    # Every output says what it is not.
    said = capsys.readouterr()
    page = (out / "evaluation.html").read_text()
    assert "not for clinical use" in page
    assert content["notice"] == NOTICE
    assert all(NOTICE in r["notice"] and "phantom" in r["notice"] for r in rows)
    for text in (page, json.dumps(content["warnings"]), said.out):
        assert "hold for generated (phantom) patients at most" in text
    assert NOTICE in said.err
    assert "predicting patients 0/5" in said.err
    assert f"AUROC {content['metrics']['auroc']['value']:.3f}" in said.out
    assert "only 1 negative patient" in said.out


def test_the_page_stands_alone_names_no_patient_and_holds_every_section(demonstration, cohort, tmp_path, fast):
    thresholds = [{"name": "<youden>", "threshold": 0.35, "chosen_for": "a & b"}]
    calibration = {"slope": 1.2, "intercept": -0.3, "fitted_on": None}
    bundle = changed_bundle(demonstration, tmp_path / "b", operating_thresholds=thresholds, calibration=calibration)
    run(bundle, cohort, tmp_path / "out", "--compare", demonstration.path, "--resamples", 100)
    page = (tmp_path / "out" / "evaluation.html").read_text()
    for heading in ("Key figures", "Curves", "Thresholds", "Comparison", "Who was evaluated", "Provenance"):
        assert f"<h2>{heading}</h2>" in page
    assert "PH0000" not in page
    assert "&lt;youden&gt;" in page
    assert "chosen for a &amp; b" in page
    assert not re.search(r"src=|href=|<script|<youden|>nan<|None", page)
    assert len(re.findall(r'role="img" aria-label="[^"]+"', page)) == 4
    assert "only 1 negative patient" in page


def test_calibrated_risks_are_judged_and_the_members_written_raw(demonstration, cohort, tmp_path, fast):
    bundle = changed_bundle(
        demonstration, tmp_path / "b", calibration={"slope": 2.0, "intercept": -1.0, "fitted_on": "x"}
    )
    assert run(bundle, cohort, tmp_path / "out", "--resamples", 100) == 0
    with (tmp_path / "out" / "predictions.csv").open() as stream:
        for row in csv.DictReader(stream):
            raw = RISKS[row["patient_id"]]
            assert float(row["risk_uncalibrated"]) == raw
            assert float(row["risk"]) == pytest.approx(expit(2 * logit(raw) - 1))
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
            "PH00007": ("", dates[-1]),  # followed for less than the horizon after the last exam
            "PH00008": ("", first),  # last seen before later exams
            "PH00009": ("", "2030-01-01"),
        },
    )
    status = run(demonstration.path, cohort, tmp_path / "out", "--resamples", 100)
    content, said = read(tmp_path / "out"), capsys.readouterr().out
    assert status == 3
    counts = content["cohort"]
    assert counts["patients"] == 9 == counts["evaluated"] + counts["refused"] + sum(counts["left_out"].values())
    assert counts["left_out"]["without_outcome"] == 1
    assert counts["left_out"]["diagnosed_before"] == 1
    assert counts["exams"]["from_diagnosis_on"] == exams
    refused = {entry["patient_id"]: entry["code"] for entry in content["refused"]}
    assert refused == {"PH00008": "seen_before_exam", "PH00009": "missing_channel"}
    assert "PH00009: refused. Exam" in said
    assert "PH00008: refused. The outcomes say that the patient was last seen on" in said
    assert "left out: 1 patient(s), no outcome known" in said
    assert "refused_patients" in {w["code"] for w in content["warnings"]}


def test_the_prediction_is_made_from_the_latest_labelled_exam_and_sees_nothing_later(
    demonstration, cohort, tmp_path, fast
):
    exams = sorted(p.name for p in (cohort / "PH00001").iterdir())
    assert len(exams) > 1
    outcomes(cohort, {"PH00001": (exams[-1], exams[-1])})
    run(demonstration.path, cohort, tmp_path / "out", "--resamples", 100)
    patient = next(p for p in fast if p.patient_id == "PH00001")
    assert [e.exam_id for e in patient.exams] == exams[:-1]
    with (tmp_path / "out" / "predictions.csv").open() as stream:
        assert next(csv.DictReader(stream))["landmark"] == exams[-2]


def test_a_bundle_compared_with_itself_differs_by_nothing(demonstration, cohort, tmp_path, fast, capsys):
    assert run(demonstration.path, cohort, tmp_path / "out", "--compare", demonstration.path, "--resamples", 100) == 0
    (comparison,) = read(tmp_path / "out")["comparisons"]
    assert comparison["patients"] == 5
    assert set(comparison["differences"]) == {"auroc", "auprc", "brier"}
    for entry in comparison["differences"].values():
        assert entry["this"] == entry["other"]
        assert entry["difference"] == {"value": 0, "low": 0, "high": 0}
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
    lost = {"PH00005"}
    run(demonstration.path, cohort, tmp_path / "out", "--compare", other, "--resamples", 100)
    (comparison,) = read(tmp_path / "out")["comparisons"]
    assert comparison["problem"].startswith("There is no negative among 4 patient(s)")
    assert "Not compared with other 1" in (tmp_path / "out" / "evaluation.html").read_text()


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
    "words", [("--split", "x.json"), ("--part", "test"), ("--resamples", 99), ("--seed", -1), ("--seed", "a")]
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
    later = changed_bundle(demonstration, tmp_path / "later", horizon_months=24.0, name="later")
    assert "later 1 predicts a diagnosis within 24 months" in refused("--compare", later)
    bad = changed_bundle(demonstration, tmp_path / "bad", operating_thresholds=[{"name": "x"}])
    assert "operating threshold of the bundle can't be used" in refused(bundle=bad)
    outcomes(cohort, {"PH00005": None})
    said = refused()
    assert "There is no negative among 4 patient(s) within the horizon of 12 months" in said
    assert "Not judged: 1: no outcome known" in said
    (cohort / "outcomes.csv").write_text("patient_id,diagnosis_date,last_seen_date\nPH00001,soon,2020-01-01\n")
    assert "outcomes.csv, row 2: dates must be written 2021-03-14" in refused()
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
    assert "No patient is left to evaluate" in said
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
