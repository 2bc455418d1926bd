"""``hccnet evaluate``: how well a bundle foretells on a cohort whose outcomes are known."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from HCCNetLib.bundles import Bundle, Calibration
from HCCNetLib.commands.arguments import whole_number
from HCCNetLib.commands.outputs import EVALUATION_FILES, write_evaluation
from HCCNetLib.commands.predict import add_reading_arguments, check_writable, reading_options
from HCCNetLib.commands.progress import Progress
from HCCNetLib.evaluation import COMPARED, RESAMPLES, Scores, check_classes, evaluate, paired_difference
from HCCNetLib.evaluation.selection import LEFT_OUT, Chosen, Selection, select_latest_labelled
from HCCNetLib.evaluation.thresholds import checked_threshold
from HCCNetLib.inference import NOTICE, Prediction, Predictor, software_versions
from HCCNetLib.inference.cache import Preparation, PreparedCache
from HCCNetLib.inference.predictor import calibrate
from HCCNetLib.readers import name_as_given, read_input
from HCCNetLib.readers.split import part_of, read_split
from HCCNetLib.records import Cohort, Patient, Refusal

HELP = "judge a bundle on a cohort with outcomes: discrimination, calibration and thresholds, with intervals"

DEMONSTRATION = (
    "Demonstration weights: these figures hold for generated (phantom) patients at most, not for any patient."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.epilog = (
        "A prediction is made from each patient's latest exam before a diagnosis whose outcome within the bundle's horizon "
        "is known. Writes evaluation.json, evaluation.html and predictions.csv. Use patients that the networks, the "
        "calibration and the thresholds have not seen."
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
        "--resamples",
        type=whole_number(100),
        default=RESAMPLES,
        metavar="N",
        help="of the bootstrap, at least 100 (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=whole_number(0),
        default=0,
        metavar="S",
        help="of the bootstrap, 0 or more (default: %(default)s)",
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
    cohort = read_input(arguments.cohort, reading_options(arguments))
    _require_outcomes(cohort)
    part = part_of(read_split(arguments.split), arguments.part, cohort) if arguments.split else None
    predictors = _open_all(arguments.bundle, arguments.compare, arguments.device)
    check_writable(arguments.out)
    horizon = predictors[0].bundle.description.horizon_months
    selection = select_latest_labelled(cohort, horizon, part)
    _require_both_classes(selection.chosen, horizon, selection)
    caches = _fill_caches(predictors, selection.chosen, arguments)
    results = _predict_all(predictors, selection.chosen, caches)
    _require_both_classes(
        [one for one in selection.chosen if results[0].has(one)], horizon, selection, results[0].refused
    )
    content = {
        **_judge(results, selection.chosen, arguments),
        "cohort": _describe(cohort, selection, results[0], arguments),
        "refused": _refused_entries(selection, results[0]),
        "problems": [{"code": problem.code, "message": problem.message} for problem in cohort.problems],
        "software": software_versions(),
        "notice": NOTICE,
    }
    write_evaluation(arguments.out, content, _table(results[0], selection.chosen))
    _print(content, arguments.out)
    return 3 if content["refused"] else 0


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
    judged: Sequence[Chosen], horizon: float, selection: Selection, refused: Mapping[str, Refusal] | None = None
) -> None:
    """Refuses a cohort with one class, and says where the other patients went."""
    try:
        check_classes(np.array([one.label for one in judged], dtype=np.bool_), horizon)
    except Refusal as refusal:
        lost = {**selection.refused, **(refused or {})}
        counts = [f"{len(ids)}: {LEFT_OUT[reason]}" for reason, ids in selection.left_out.items() if ids]
        counts += [f"{len(lost)}: refused, the first because: {next(iter(lost.values())).message}"] if lost else []
        told = f" Not judged: {'; '.join(counts)}" if counts else ""
        raise Refusal(refusal.code, refusal.message + told) from refusal


@dataclass(frozen=True)
class BundleResults:
    """One bundle's predictions by patient id, and why there is none."""

    bundle: Bundle
    predictions: dict[str, Prediction] = field(default_factory=dict)
    refused: dict[str, Refusal] = field(default_factory=dict)

    def scores(self, chosen: Sequence[Chosen]) -> Scores:
        """The risks of the patients that this bundle has predicted."""
        rows = [(one, self.predictions[one.patient.patient_id]) for one in chosen if self.has(one)]
        description = self.bundle.description
        members = np.array([prediction.members for _, prediction in rows])
        return Scores(
            patient_ids=tuple(one.patient.patient_id for one, _ in rows),
            labels=np.array([one.label for one, _ in rows], dtype=np.bool_),
            risks=np.array([prediction.risk for _, prediction in rows]),
            uncalibrated=np.array([prediction.risk_uncalibrated for _, prediction in rows]),
            members=calibrate(members, _inverse(description.calibration)) if rows else None,
            horizon_months=description.horizon_months,
        )

    def has(self, one: Chosen) -> bool:
        """Whether this bundle has predicted the patient."""
        return one.patient.patient_id in self.predictions

    def describe(self) -> dict[str, Any]:
        """Which bundle it is."""
        description = self.bundle.description
        return {
            "name": description.name,
            "version": description.version,
            "sha256": self.bundle.sha256,
            "demonstration": description.demonstration,
            "calibrated": description.calibration is not None,
            "members": len(description.members),
        }


def _inverse(calibration: Calibration | None) -> Calibration | None:
    """What takes calibrated probabilities back to raw ones."""
    if calibration is None:
        return None
    return Calibration(1 / calibration.slope, -calibration.intercept / calibration.slope)


Caches = Mapping[Preparation, PreparedCache]


def preparation_of(predictor: Predictor) -> Preparation:
    """How a bundle's exams are prepared, for a cache of them."""
    description = predictor.bundle.description
    return Preparation(description.channels, description.preprocessing, description.missing_channels)


def _fill_caches(predictors: Sequence[Predictor], chosen: Sequence[Chosen], arguments: argparse.Namespace) -> Caches:
    """Prepares all exams into ``--cache``, once for all bundles that prepare alike; refusals show when predicting."""
    if arguments.cache is None:
        return {}
    caches = {p: PreparedCache(arguments.cache, p) for p in map(preparation_of, predictors)}
    exams = [exam for one in chosen for exam in one.patient.exams]
    progress = Progress()
    try:
        for cache in {cache.preparation.kept_alike: cache for cache in caches.values()}.values():
            for done, _ in enumerate(cache.fill(exams, arguments.processes or os.cpu_count() or 1), start=1):
                progress("preparing exams", done, len(exams))
    finally:
        progress.close()
    return caches


def predict_patient(predictor: Predictor, patient: Patient, caches: Caches) -> Prediction:
    """The prediction at the patient's latest exam, from prepared exams where they are kept."""
    cache = caches.get(preparation_of(predictor))
    if cache is None:
        return predictor.predict(patient)
    return predictor.predict_prepared(patient, [cache.get(exam) for exam in patient.exams])


def _predict_all(predictors: Sequence[Predictor], chosen: Sequence[Chosen], caches: Caches) -> list[BundleResults]:
    """Every patient by every bundle; a refused one does not stop the others."""
    results = [BundleResults(predictor.bundle) for predictor in predictors]
    progress = Progress()
    try:
        for done, one in enumerate(chosen):
            progress("predicting patients", done, len(chosen))
            for predictor, result in zip(predictors, results, strict=True):
                _predict_into(result, predictor, one.patient, caches)
        progress("predicting patients", len(chosen), len(chosen))
    finally:
        progress.close()
    return results


def _predict_into(result: BundleResults, predictor: Predictor, patient: Patient, caches: Caches) -> None:
    try:
        result.predictions[patient.patient_id] = predict_patient(predictor, patient, caches)
    except Refusal as refusal:
        if refusal.code in ("not_finite", "out_of_memory", "cannot_write"):
            raise  # not the patient's fault: the next one would fare alike
        result.refused[patient.patient_id] = refusal


def _judge(results: Sequence[BundleResults], chosen: Sequence[Chosen], arguments: argparse.Namespace) -> dict[str, Any]:
    """Bundle, figures, warnings and comparisons."""
    first = results[0]
    scores, description = first.scores(chosen), first.bundle.description
    evaluation = evaluate(scores, description.operating_thresholds, arguments.resamples, arguments.seed)
    metrics = evaluation.to_dict()
    warnings = [*_bundle_warnings(first), *metrics.pop("warnings")]
    compared = [_compare(scores, other, chosen, arguments) for other in results[1:]]
    return {
        "bundle": first.describe(),
        "horizon_months": description.horizon_months,
        "metrics": metrics,
        "comparisons": compared,
        "warnings": warnings,
    }


def _bundle_warnings(result: BundleResults) -> list[dict[str, str]]:
    description = result.bundle.description
    warnings = []
    if description.demonstration:
        warnings.append({"code": "demonstration", "message": DEMONSTRATION})
    if description.calibration is None:
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


def _compare(
    scores: Scores, other: BundleResults, chosen: Sequence[Chosen], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Differences on the patients that both have predicted; the sentence of why not where there are none."""
    common = [patient_id for patient_id in scores.patient_ids if patient_id in other.predictions]
    content: dict[str, Any] = {"bundle": other.describe(), "patients": len(common), "refused": len(other.refused)}
    try:
        mine, theirs = scores.of(common), other.scores(chosen).of(common)
    except Refusal as refusal:
        return {**content, "problem": refusal.message, "differences": {}}
    once = np.ones((1, len(common)))
    differences = {
        name: {
            "this": float(metric(mine.labels, mine.risks, once)[0]),
            "other": float(metric(theirs.labels, theirs.risks, once)[0]),
            "difference": paired_difference(mine, theirs, metric, arguments.resamples, arguments.seed).to_dict(),
        }
        for name, metric in COMPARED.items()
    }
    return {**content, "positive": mine.positives, "problem": None, "differences": differences}


def _describe(
    cohort: Cohort, selection: Selection, first: BundleResults, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Which cohort, and what became of each of its patients, in numbers that add up."""
    return {
        "name": name_as_given(arguments.cohort),
        "form": cohort.form,
        "part": arguments.part,
        "patients": len(cohort.patients) + len(cohort.refused),
        "evaluated": len(first.predictions),
        "refused": len(selection.refused) + len(first.refused),
        "left_out": {reason: len(ids) for reason, ids in selection.left_out.items()},
        "exams": dict(selection.exams),
    }


def _refused_entries(selection: Selection, first: BundleResults) -> list[dict[str, Any]]:
    return [
        {"patient_id": patient_id, "code": refusal.code, "exam_id": refusal.exam_id, "message": refusal.message}
        for patient_id, refusal in {**selection.refused, **first.refused}.items()
    ]


def _table(first: BundleResults, chosen: Sequence[Chosen]) -> list[list[str]]:
    """The rows of predictions.csv, its header first; the members' raw probabilities."""
    scores = first.scores(chosen)
    count = len(first.bundle.description.members)
    notice = f"{NOTICE} {DEMONSTRATION}" if first.bundle.description.demonstration else NOTICE
    columns = ["patient_id", "landmark", "label", "risk", "risk_uncalibrated"]
    rows = [[*columns, *(f"member_{n}" for n in range(1, count + 1)), "notice"]]
    assert scores.members is not None
    for n, patient_id in enumerate(scores.patient_ids):
        numbers = [scores.risks[n], scores.uncalibrated[n], *scores.members[n]]
        landmark = first.predictions[patient_id].landmark
        rows.append([patient_id, landmark, str(int(scores.labels[n])), *(repr(float(x)) for x in numbers), notice])
    return rows


def _print(content: Mapping[str, Any], out: Path) -> None:
    metrics, bundle, cohort = content["metrics"], content["bundle"], content["cohort"]
    part = f", part {cohort['part']}" if cohort["part"] else ""
    print(
        f"{bundle['name']} {bundle['version']} on {cohort['name']}{part}: {metrics['patients']} patients, "
        f"{metrics['positive']} of them diagnosed within {content['horizon_months']:g} months"
    )
    print(f"AUROC {_figure(metrics['auroc'])}")
    print(f"AUPRC {_figure(metrics['auprc'])}; chance is the prevalence, {metrics['prevalence']:.3f}")
    print(f"Brier score {_figure(metrics['brier'])}; {metrics['brier_of_prevalence']:.3f} for the prevalence alone")
    print(f"calibration slope {_figure(metrics['calibration_slope'])}; 1 is ideal")
    print(f"calibration intercept {_figure(metrics['calibration_intercept'])}; 0 is ideal")
    for threshold in metrics["thresholds"]:
        print(
            f"threshold {threshold['name']} ({threshold['threshold']:.3f}): sensitivity "
            f"{_figure(threshold['sensitivity'])}, specificity {_figure(threshold['specificity'])}"
        )
    for comparison in content["comparisons"]:
        _print_comparison(comparison)
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


def _print_comparison(comparison: Mapping[str, Any]) -> None:
    other = f"{comparison['bundle']['name']} {comparison['bundle']['version']}"
    if comparison["problem"]:
        print(f"not compared with {other}: {comparison['problem']}")
        return
    differences = "; ".join(
        f"{name.upper() if name != 'brier' else 'Brier score'} {_figure(entry['difference'], '+')}"
        for name, entry in comparison["differences"].items()
    )
    print(f"minus {other}, on {comparison['patients']} patients: {differences}")


def _figure(interval: Mapping[str, float | None], sign: str = "") -> str:
    """A figure with its interval, in three decimals."""
    value, low, high = (
        "–" if number is None else f"{number:{sign}.3f}"
        for number in (interval["value"], interval["low"], interval["high"])
    )
    return f"{value} (95% interval {low} to {high})"
