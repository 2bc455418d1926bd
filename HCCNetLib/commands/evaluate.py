"""``hccnet evaluate``: how well a bundle predicts on a cohort whose outcomes are known."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HCCNetLib.bundles import Bundle
from HCCNetLib.commands.arguments import whole_number
from HCCNetLib.commands.outputs import EVALUATION_FILES, write_evaluation
from HCCNetLib.commands.predict import add_reading_arguments, check_writable, reading_options
from HCCNetLib.commands.progress import Progress
from HCCNetLib.evaluation.amap import amap
from HCCNetLib.evaluation.follow_up import CENSORED, COMPETING, DIAGNOSED, FollowUp, follow_up_of
from HCCNetLib.evaluation.horizons import compare, judge
from HCCNetLib.evaluation.judgement import HORIZONS, Landmarks, judge_bundle, judge_sets
from HCCNetLib.evaluation.landmark_sets import Details
from HCCNetLib.evaluation.lead_time import RESAMPLES
from HCCNetLib.evaluation.risks import Risks
from HCCNetLib.evaluation.scores import Floats, check_classes
from HCCNetLib.evaluation.selection import LEFT_OUT, Followed, Selection, select
from HCCNetLib.evaluation.thresholds import checked_threshold
from HCCNetLib.inference import NOTICE, Predictor, software_versions
from HCCNetLib.inference.cache import Preparation, PreparedCache
from HCCNetLib.inference.predictor import calibrate
from HCCNetLib.readers import name_as_given, read_input
from HCCNetLib.readers.clinical import CLINICAL_FILE, GROUPS, Clinical, read_clinical
from HCCNetLib.readers.split import part_of, read_split
from HCCNetLib.records import Cohort, Exam, Patient, Problem, Refusal, months_between
from HCCNetLib.synthetic.truth import Truth, find_truth

HELP = "judge a bundle on a cohort with outcomes, at every exam and horizon: discrimination, calibration, lead time"

DEMONSTRATION = (
    "Demonstration weights: these figures hold for generated (phantom) patients at most, not for any patient."
)
_AMAP = ("age", "sex", "albumin", "bilirubin", "platelets")
_STATUS = {CENSORED: "followed", DIAGNOSED: "diagnosed", COMPETING: "competing event"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.epilog = (
        "A prediction is made from every exam before a diagnosis or a competing event (death, transplant), with that exam "
        "and the earlier ones as input. Patients who leave the follow-up are accounted for. Writes evaluation.json, "
        "evaluation.html and predictions.csv. Use held-out patients, which training, calibration and the choice of thresholds "
        "have not used."
    )
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR", help="bundle of networks to judge")
    parser.add_argument(
        "--cohort",
        type=Path,
        required=True,
        metavar="DIR",
        help="cohort in any form that hccnet inspect reads, with outcomes",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--compare",
        type=Path,
        nargs="+",
        default=[],
        metavar="BUNDLE",
        help="bundles to compare with, on the same patients",
    )
    parser.add_argument("--split", type=Path, metavar="FILE", help='JSON: {"parts": {"test": [patient ids], ...}}')
    parser.add_argument("--part", metavar="NAME", help="the part of the split to judge")
    parser.add_argument(
        "--horizons",
        type=float,
        nargs="+",
        default=list(HORIZONS),
        metavar="MONTHS",
        help="at which the risks are judged, besides the bundle's own (default: 6 12 18 24 36)",
    )
    parser.add_argument(
        "--clinical",
        type=Path,
        metavar="FILE",
        help="table with patient_id, perhaps exam_id, and any of age, sex (m, f), albumin (g/l), bilirubin (µmol/l), "
        "platelets (10⁹/l), centre, scanner, visible_lesion (yes, no): for subgroups and the aMAP score (default: "
        f"{CLINICAL_FILE} in the cohort's folder, where there is one)",
    )
    parser.add_argument(
        "--resamples",
        type=whole_number(100),
        default=RESAMPLES,
        metavar="N",
        help="of the bootstrap, for the intervals of lead times, at least 100 (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=whole_number(0),
        default=0,
        metavar="S",
        help="of the intervals and of random choices, 0 or more (default: %(default)s)",
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="folder that keeps prepared exams, for the next time (default: none)"
    )
    parser.add_argument(
        "--processes",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="that prepare exams into --cache; 0: one per core (default)",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: %(default)s")
    add_reading_arguments(parser)
    parser.set_defaults(wrong_usage=parser.error)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; 3 where patients were refused."""
    if (arguments.split is None) != (arguments.part is None):
        arguments.wrong_usage("--split and --part go together")
    if not all(0 < months <= 240 for months in arguments.horizons):
        arguments.wrong_usage("--horizons must be more than 0 and at most 240 months")
    cohort = read_input(arguments.cohort, reading_options(arguments))
    _require_outcomes(cohort)
    clinical, truth = _read_clinical(arguments), find_truth(arguments.cohort)
    part = part_of(read_split(arguments.split), arguments.part, cohort) if arguments.split else None
    predictors = _open_all(arguments.bundle, arguments.compare, arguments.device)
    check_writable(arguments.out)
    horizon = predictors[0].bundle.description.horizon_months
    selection = select(cohort, part)
    _require_both_classes(selection.followed, horizon, selection)
    caches = _fill_caches(predictors, selection.followed, arguments)
    results = _predict_all(predictors, selection.followed, caches)
    first, *others = results
    followed = [one for one in selection.followed if one.patient.patient_id in first.raw]
    _require_both_classes(followed, horizon, selection, first.refused)
    details = _details(followed, clinical, truth)
    landmarks = first.landmarks(followed, details)
    own = first.bundle.description.horizons
    horizons = sorted({float(f"{months:g}") for months in (*arguments.horizons, *own)})
    thresholds = first.bundle.description.operating_thresholds
    metrics = judge_bundle(landmarks, horizons, horizon, thresholds, arguments.seed, arguments.resamples)
    content = {
        "bundle": first.describe(),
        "horizon_months": horizon,
        "warnings": [*_bundle_warnings(first), *metrics.pop("warnings")],
        "metrics": metrics,
        "true_risk": _judge_true_risk(landmarks, followed, truth, horizons, horizon, arguments.seed),
        "clinical_baseline": _judge_amap(landmarks, followed, clinical, horizons, arguments.seed),
        "comparisons": [_compare(first, other, followed, horizon, arguments.seed) for other in others],
        "cohort": _describe(cohort, selection, first, followed, arguments),
        "refused": _refused_entries(selection, first),
        "problems": [
            {"code": problem.code, "message": problem.message}
            for problem in (*cohort.problems, *_clinical_problems(cohort, clinical))
        ],
        "training_data": first.bundle.description.training_data,
        "software": software_versions(),
        "notice": NOTICE,
    }
    write_evaluation(arguments.out, content, _table(first, followed, landmarks))
    _print(content, arguments.out)
    return 3 if content["refused"] else 0


def _read_clinical(arguments: argparse.Namespace) -> Clinical | None:
    """The table that was named, or the one in the cohort's folder."""
    if arguments.clinical is not None:
        return read_clinical(arguments.clinical)
    root = arguments.cohort if arguments.cohort.is_dir() else arguments.cohort.parent
    return read_clinical(root / CLINICAL_FILE) if (root / CLINICAL_FILE).is_file() else None


def require_cohort(cohort: Cohort, purpose: str) -> None:
    """Refuses one patient's folder, and outcomes that are there and can't be used."""
    if cohort.form == "patient folder":
        message = (
            f"This is the folder of one patient; {purpose} needs a cohort: a folder of patient folders, or a table."
        )
        raise Refusal("not_a_cohort", message)
    if cohort.outcomes_refused is not None:
        raise cohort.outcomes_refused


def _require_outcomes(cohort: Cohort) -> None:
    require_cohort(cohort, "evaluation")
    if not cohort.outcomes:
        message = (
            "Evaluation needs to know what became of the patients, and no outcomes were found. Put outcomes.csv with the "
            "columns patient_id, diagnosis_date (empty if none) and last_seen_date into the cohort's folder, or beside "
            "its table."
        )
        raise Refusal("no_outcomes", message)


def _open_all(path: Path, others: Sequence[Path], device: str) -> list[Predictor]:
    """Every bundle before any work, so that nothing can be found wrong with one at the end of it."""
    predictors = [Predictor(bundle, device) for bundle in (path, *others)]
    first = predictors[0].bundle.description
    for entry in first.operating_thresholds:
        checked_threshold(entry)
    for predictor in predictors[1:]:
        other = predictor.bundle.description
        if other.horizon_months != first.horizon_months:
            message = (
                f"{other.name} {other.version} predicts a diagnosis within {other.horizon_months:g} months and "
                f"{first.name} {first.version} within {first.horizon_months:g}: they can't be compared. Leave it out of "
                f"--compare."
            )
            raise Refusal("other_horizon", message)
    return predictors


def _require_both_classes(
    followed: Sequence[Followed], horizon: float, selection: Selection, refused: Mapping[str, Refusal] | None = None
) -> None:
    """Refuses a cohort with one class, and says where the other patients went."""
    follow_up = _follow_up(followed)
    known = follow_up.known(horizon)
    try:
        check_classes(follow_up.cases(horizon)[known], horizon)
    except Refusal as refusal:
        lost = {**selection.refused, **(refused or {})}
        counts = [f"{len(ids)}: {LEFT_OUT[reason]}" for reason, ids in selection.left_out.items() if ids]
        counts += [f"{(~known).sum()} exam(s): not followed for the horizon"] if (~known).any() else []
        counts += [f"{len(lost)}: refused, the first because: {next(iter(lost.values())).message}"] if lost else []
        told = f" Not judged: {'; '.join(counts)}" if counts else ""
        raise Refusal(refusal.code, refusal.message + told) from refusal


def _follow_up(followed: Sequence[Followed]) -> FollowUp:
    return follow_up_of(([exam.date for exam in one.patient.exams], one.outcome) for one in followed)


def exams_of(followed: Sequence[Followed]) -> list[tuple[str, Exam]]:
    """Patient id and exam of every landmark, in the order of all arrays."""
    return [(one.patient.patient_id, exam) for one in followed for exam in one.patient.exams]


def _clinical_problems(cohort: Cohort, clinical: Clinical | None) -> list[Problem]:
    exams = {(patient.patient_id, exam.exam_id) for patient in cohort.patients for exam in patient.exams}
    strangers = 0 if clinical is None else clinical.unmatched(exams)
    if not strangers:
        return []
    message = f"{strangers} row(s) of the clinical table are of no patient or exam here. Check how their ids are spelt."
    return [Problem("clinical_without_exams", message)]


def _details(followed: Sequence[Followed], clinical: Clinical | None, truth: Truth | None) -> Details:
    """What else is known of every landmark: from the clinical table and, of a phantom, from its truth."""
    exams = exams_of(followed)
    before = [None, *exams[:-1]]
    since = [
        months_between(last[1].date, exam.date) if last and last[0] == patient_id else np.nan
        for last, (patient_id, exam) in zip(before, exams, strict=True)
    ]
    visible = _clinical_numbers(followed, clinical, "visible_lesion")
    if truth is not None:
        told = [truth.visible.get((patient_id, exam.exam_id)) for patient_id, exam in exams]
        visible = np.where(np.isnan(visible), np.array(told, dtype=np.float64), visible)
    groups = {}
    for name in GROUPS if clinical else ():
        assert clinical is not None
        values = [clinical.group(patient_id, exam.exam_id, name) or "" for patient_id, exam in exams]
        if any(values):
            groups[name] = np.array(values)
    return Details(np.array(since, dtype=np.float64), visible, groups)


def _clinical_numbers(followed: Sequence[Followed], clinical: Clinical | None, column: str) -> Floats:
    """(N,), NaN where not known."""
    values = [
        None if clinical is None else clinical.number(patient_id, exam.exam_id, column)
        for patient_id, exam in exams_of(followed)
    ]
    return np.array(values, dtype=np.float64)


@dataclass(frozen=True)
class BundleResults:
    """One bundle's raw risks (members, exams, horizons) by patient id, and why there are none."""

    bundle: Bundle
    raw: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    refused: dict[str, Refusal] = field(default_factory=dict)

    def members(self, followed: Sequence[Followed]) -> Floats:
        """(N, M, K) at every exam of the given patients and every horizon of the bundle."""
        return np.concatenate([self.raw[one.patient.patient_id].swapaxes(0, 1) for one in followed])

    def risks(self, followed: Sequence[Followed]) -> Risks:
        """The ensemble's calibrated risks at every exam of the given patients."""
        description = self.bundle.description
        calibrated = calibrate(self.members(followed).mean(axis=1), description.calibration)
        return Risks(dict(zip(description.horizons, calibrated.T, strict=True)))

    def landmarks(self, followed: Sequence[Followed], details: Details) -> Landmarks:
        """All that is judged."""
        members = self.members(followed)[:, :, self.bundle.description.main]
        return Landmarks(_follow_up(followed), self.risks(followed), details, members)

    def describe(self) -> dict[str, Any]:
        """Which bundle it is."""
        description = self.bundle.description
        return {
            "name": description.name,
            "version": description.version,
            "sha256": self.bundle.sha256,
            "demonstration": description.demonstration,
            "calibrated": bool(description.calibration),
            "members": len(description.members),
            "channels": list(description.channels),
            "intended_use": description.intended_use,
            "licence": description.licence,
        }


Caches = Mapping[Preparation, PreparedCache]


def preparation_of(predictor: Predictor) -> Preparation:
    """How a bundle's exams are prepared, for a cache of them."""
    description = predictor.bundle.description
    return Preparation(description.channels, description.preprocessing, description.missing_channels)


def _fill_caches(
    predictors: Sequence[Predictor], followed: Sequence[Followed], arguments: argparse.Namespace
) -> Caches:
    """Prepares all exams into ``--cache``, once for all bundles that prepare alike; refusals show when predicting."""
    if arguments.cache is None:
        return {}
    caches = {p: PreparedCache(arguments.cache, p) for p in map(preparation_of, predictors)}
    patients = [one.patient.exams for one in followed]
    count = sum(map(len, patients))
    progress = Progress()
    try:
        for cache in {cache.preparation.kept_alike: cache for cache in caches.values()}.values():
            for done, _ in enumerate(cache.fill(patients, arguments.processes or os.cpu_count() or 1), start=1):
                progress("preparing exams", done, count)
    finally:
        progress.close()
    return caches


def predict_patient(predictor: Predictor, patient: Patient, caches: Caches) -> NDArray[np.float64]:
    """Raw risks (members, exams, horizons) with each exam as landmark, from prepared exams where they are kept."""
    cache = caches.get(preparation_of(predictor))
    prepared = predictor.prepare(patient) if cache is None else cache.get(patient.exams)
    return predictor.risks_at_every_exam(patient, prepared)


def _predict_all(predictors: Sequence[Predictor], followed: Sequence[Followed], caches: Caches) -> list[BundleResults]:
    """Every patient by every bundle; a refused one does not stop the others."""
    results = [BundleResults(predictor.bundle) for predictor in predictors]
    progress = Progress()
    try:
        for done, one in enumerate(followed):
            progress("predicting patients", done, len(followed))
            for predictor, result in zip(predictors, results, strict=True):
                _predict_into(result, predictor, one.patient, caches)
        progress("predicting patients", len(followed), len(followed))
    finally:
        progress.close()
    return results


def _predict_into(result: BundleResults, predictor: Predictor, patient: Patient, caches: Caches) -> None:
    try:
        result.raw[patient.patient_id] = predict_patient(predictor, patient, caches)
    except Refusal as refusal:
        if refusal.code in ("not_finite", "out_of_memory", "cannot_write"):
            raise  # not the patient's fault: the next one would fare alike
        result.refused[patient.patient_id] = refusal


def _bundle_warnings(result: BundleResults) -> list[dict[str, str]]:
    description = result.bundle.description
    warnings = []
    if description.demonstration:
        warnings.append({"code": "demonstration", "message": DEMONSTRATION})
    if not description.calibration:
        message = (
            "The bundle is not calibrated: its risks are the mean of the networks' raw outputs. Discrimination can be "
            "judged; Brier score and calibration are those of the raw outputs."
        )
        warnings.append({"code": "not_calibrated", "message": message})
    if result.refused:
        message = (
            f"{len(result.refused)} patient(s) could not be predicted. If that is more likely for one kind of patient, the "
            f"figures are skewed."
        )
        warnings.append({"code": "refused_patients", "message": message})
    return warnings


def _judge_true_risk(
    landmarks: Landmarks,
    followed: Sequence[Followed],
    truth: Truth | None,
    horizons: Sequence[float],
    horizon: float,
    seed: int,
) -> dict[str, Any] | None:
    """Of a phantom whose truth holds it, the true risk given what images show: the ceiling for any method."""
    known = {} if truth is None else truth.risks.get("images", {})
    exams = [(patient_id, exam.exam_id) for patient_id, exam in exams_of(followed)]
    if horizon not in known or any(exam not in known[horizon] for exam in exams):
        return None
    risks = Risks({months: np.array([values[exam] for exam in exams]) for months, values in known.items()})
    metrics = judge_sets(replace(landmarks, risks=risks), horizons, horizon, seed)
    return {"words": "the true risk given what images show, the ceiling for any method (phantom)", "sets": metrics}


def _judge_amap(
    landmarks: Landmarks, followed: Sequence[Followed], clinical: Clinical | None, horizons: Sequence[float], seed: int
) -> dict[str, Any] | None:
    """The aMAP score and the bundle on the landmarks where the score is known; None where it nowhere is."""
    score = amap(*(_clinical_numbers(followed, clinical, column) for column in _AMAP))
    known = np.flatnonzero(np.isfinite(score))
    if not len(known):
        return None
    ranking = Risks({0.0: np.where(np.isfinite(score), score, 0.0) / 100})  # calibrated for no horizon: it only ranks
    follow_up = landmarks.follow_up
    return {
        "name": "aMAP",
        "score": judge(follow_up, ranking, horizons, known, seed=seed),
        "bundle": judge(follow_up, landmarks.risks, horizons, known, seed=seed),
        "difference": compare(follow_up, landmarks.risks, ranking, horizons, known, seed=seed),
    }


def _compare(
    first: BundleResults, other: BundleResults, followed: Sequence[Followed], horizon: float, seed: int
) -> dict[str, Any]:
    """Differences at the main horizon on the patients that both have predicted; why there are none where there are none."""
    common = [one for one in followed if one.patient.patient_id in other.raw]
    content: dict[str, Any] = {"bundle": other.describe(), "patients": len(common), "refused": len(other.refused)}
    follow_up = _follow_up(common)
    try:
        check_classes(follow_up.cases(horizon)[follow_up.known(horizon)], horizon)
    except Refusal as refusal:
        return {**content, "problem": refusal.message}
    mine, theirs = first.risks(common), other.risks(common)
    return {
        **content,
        "problem": None,
        "this": judge(follow_up, mine, [horizon], seed=seed),
        "other": judge(follow_up, theirs, [horizon], seed=seed),
        "difference": compare(follow_up, mine, theirs, [horizon], seed=seed),
    }


def _describe(
    cohort: Cohort,
    selection: Selection,
    first: BundleResults,
    followed: Sequence[Followed],
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """Which cohort, and what became of each of its patients, in numbers that add up."""
    dates = [exam.date for _, exam in exams_of(followed)]
    ends = [one.outcome.followed_until for one in followed]
    return {
        "name": name_as_given(arguments.cohort),
        "form": cohort.form,
        "part": arguments.part,
        "patients": len(cohort.patients) + len(cohort.refused),
        "evaluated": len(followed),
        "refused": len(selection.refused) + len(first.refused),
        "left_out": {reason: len(ids) for reason, ids in selection.left_out.items()},
        "exams": {"used": len(dates), "from_event_on": selection.dropped},
        "first_exam": min(dates).isoformat(),
        "last_exam": max(dates).isoformat(),
        "followed_until": max(ends).isoformat(),
        "diagnosed": sum(one.outcome.diagnosis_date is not None for one in followed),
        "competing": sum(one.outcome.ended_by_competing for one in followed),
    }


def _refused_entries(selection: Selection, first: BundleResults) -> list[dict[str, Any]]:
    return [
        {"patient_id": patient_id, "code": refusal.code, "exam_id": refusal.exam_id, "message": refusal.message}
        for patient_id, refusal in {**selection.refused, **first.refused}.items()
    ]


def _table(first: BundleResults, followed: Sequence[Followed], landmarks: Landmarks) -> list[list[str]]:
    """The rows of predictions.csv, one per landmark, its header first; the members' raw probabilities."""
    description, follow_up, members = first.bundle.description, landmarks.follow_up, landmarks.members
    horizon = description.horizon_months
    risk, known, cases = landmarks.risks.ranking(horizon), follow_up.known(horizon), follow_up.cases(horizon)
    notice = f"{NOTICE} {DEMONSTRATION}" if description.demonstration else NOTICE
    names = [f"member_{n}" for n in range(1, members.shape[1] + 1)]
    columns = ["patient_id", "exam_id", "landmark", "number", "months_followed", "ended_by", "label", "risk"]
    others = [months for months in landmarks.risks.horizons if months != horizon]
    further = [f"risk_{months:g}_months" for months in others]
    rows = [[*columns, "risk_uncalibrated", *further, *names, "notice"]]
    for n, (patient_id, exam) in enumerate(exams_of(followed)):
        at_others = [landmarks.risks.ranking(months)[n] for months in others]
        numbers = [follow_up.months[n], risk[n], members[n].mean(), *at_others, *members[n]]
        months, *figures = (repr(float(x)) for x in numbers)
        label = str(int(cases[n])) if known[n] else ""
        about = [patient_id, exam.exam_id, exam.date.isoformat(), str(follow_up.numbers[n]), months]
        rows.append([*about, _STATUS[int(follow_up.status[n])], label, *figures, notice])
    return rows


def _print(content: Mapping[str, Any], out: Path) -> None:
    metrics, bundle, cohort = content["metrics"], content["bundle"], content["cohort"]
    headline, months = metrics["sets"][0], content["horizon_months"]
    part = f", part {cohort['part']}" if cohort["part"] else ""
    print(
        f"{bundle['name']} {bundle['version']} on {cohort['name']}{part}: {headline['landmarks']} exams of "
        f"{headline['patients']} patient(s); {cohort['diagnosed']} diagnosed"
    )
    for key, at in headline["horizons"].items():
        if at["observed"]["value"] is None:
            print(f"within {key} months: no exam is followed for so long")
            continue
        print(f"within {key} months: observed {_figure(at['observed'])}, AUROC {_figure(at['ipcw']['auroc'])}")
    at = headline["horizons"][f"{months:g}"]
    print(f"at {months:g} months: AUPRC {_figure(at['ipcw']['auprc'])}; chance is {_number(at['ipcw']['prevalence'])}")
    print(f"Brier score {_figure(at['brier'])}; {_number(at['brier_of_incidence'])} for the observed risk alone")
    print(f"calibration slope {_figure(at['calibration_slope'])}; 1 is ideal")
    print(f"calibration intercept {_figure(at['calibration_intercept'])}; 0 is ideal")
    for one in metrics["sets"]:
        if one["kind"] == "landmark number":
            auroc = one["horizons"][f"{months:g}"]["ipcw"]["auroc"]
            print(f"exam {one['name']}: AUROC at {months:g} months {_figure(auroc)}")
    lead = metrics["lead_time"]
    print(
        f"at 90% specificity: alarm in {_figure(lead['alarmed'])} of {lead['diagnosed']} diagnosed patients, median "
        f"{_figure(lead['median'])} months before the diagnosis"
    )
    for threshold in metrics["thresholds"]:
        print(
            f"threshold {threshold['name']} ({threshold['threshold']:.3f}): sensitivity "
            f"{_figure(threshold['sensitivity'])}, specificity {_figure(threshold['specificity'])}"
        )
    baseline = content["clinical_baseline"]
    if baseline:
        auroc, difference = (
            baseline[name]["horizons"][f"{months:g}"]["ipcw"]["auroc"] for name in ("score", "difference")
        )
        print(f"aMAP: AUROC {_figure(auroc)}; bundle minus aMAP {_figure(difference, '+')}")
    for comparison in content["comparisons"]:
        _print_comparison(comparison, f"{months:g}")
    for reason, words in LEFT_OUT.items():
        count = cohort["left_out"][reason]
        if count:
            print(f"left out: {count} patient(s), {words}")
    for entry in content["refused"]:
        print(f"{entry['patient_id']}: refused. {entry['message']}")
    for problem in content["problems"]:
        print(f"note: {problem['message']}")
    for warning in content["warnings"]:
        print(f"warning: {warning['message']}")
    for name in EVALUATION_FILES:
        print(out / name)
    print(NOTICE, file=sys.stderr)


def _print_comparison(comparison: Mapping[str, Any], key: str) -> None:
    other = f"{comparison['bundle']['name']} {comparison['bundle']['version']}"
    if comparison["problem"]:
        print(f"not compared with {other}: {comparison['problem']}")
        return
    at = comparison["difference"]["horizons"][key]
    figures = {"AUROC": at["ipcw"]["auroc"], "AUPRC": at["ipcw"]["auprc"], "Brier score": at["brier"]}
    differences = "; ".join(f"{name} {_figure(figure, '+')}" for name, figure in figures.items())
    print(f"minus {other}, on {comparison['patients']} patients: {differences}")


def _figure(interval: Mapping[str, float | None], sign: str = "") -> str:
    """A figure in three decimals, with its interval where it is determined."""
    value, low, high = (_number(interval[name], sign) for name in ("value", "low", "high"))
    determined = interval["low"] is not None or interval["high"] is not None
    return f"{value} (95% interval {low} to {high})" if determined else f"{value} (interval not determined)"


def _number(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.3f}"
