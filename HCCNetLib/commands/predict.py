"""``hccnet predict``: one patient or a cohort → predictions, maps and reports."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HCCNetLib.bundles import DEMONSTRATION_BUNDLE, Bundle
from HCCNetLib.commands.outputs import REPORT_FILE, SUMMARY_FILE, set_aside, unwritable, write_json, write_prediction
from HCCNetLib.commands.progress import Progress
from HCCNetLib.explanation import DESCRIPTION, METHOD, ClassActivation
from HCCNetLib.inference import NOTICE, Prediction, Predictor, Stopwatch
from HCCNetLib.readers import ReadingOptions, name_as_given, read_input
from HCCNetLib.records import Cohort, Patient, Problem, Refusal, names_exam

HELP = "predict the risk of one patient or of a cohort"
# A mistyped path or a share that is not mounted says nothing against an earlier result.
_NOT_ABOUT_A_PATIENT = ("missing_input", "unknown_input", "no_permission")
EXPLANATIONS = ("none", "attention", "saliency")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("input", type=Path, metavar="INPUT", help="patient folder, cohort folder or cohort table")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for the results, one per patient"
    )
    parser.add_argument(
        "--bundle", type=Path, metavar="DIR", help="bundle of networks (default: demonstration weights)"
    )
    parser.add_argument(
        "--explain",
        choices=EXPLANATIONS,
        default="saliency",
        help="none; attention over exams; saliency: also maps over voxels (default: %(default)s)",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print the predictions as JSON instead of sentences")
    add_reading_arguments(parser)


def add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of every command that reads INPUT."""
    parser.add_argument("--merge-same-day", action="store_true", help="two exam folders of one day are one exam")
    parser.add_argument(
        "--resample-channels",
        action="store_true",
        help="channels of an exam on different grids share one patient space; bring them onto the first one's grid",
    )


def reading_options(arguments: argparse.Namespace) -> ReadingOptions:
    """What the user allowed."""
    return ReadingOptions(arguments.merge_same_day, arguments.resample_channels)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    try:
        cohort = read_input(arguments.input, reading_options(arguments))
    except Refusal as refusal:
        if refusal.code not in _NOT_ABOUT_A_PATIENT:
            _tell_set_aside(arguments.out, name_as_given(arguments.input))
        raise
    bundle = open_bundle(arguments.bundle)
    job = Job(Predictor(bundle, arguments.device), arguments.out, arguments.explain)
    check_writable(arguments.out)
    if cohort.form == "patient folder":
        prediction, folder = job.predict(cohort.patients[0], Progress())
        _print_one(prediction, folder, arguments.json)
        return 0
    return _predict_cohort(job, cohort, arguments.json)


def _tell_set_aside(out: Path, patient_id: str) -> None:
    """After a refusal, an earlier result in the same folder would pass for today's."""
    earlier = set_aside(out, patient_id)
    if earlier is not None:
        suffix = earlier.name[earlier.name.rindex("(earlier") :]
        print(f"note: an earlier result was moved to a folder '… {suffix}' in {out}.", file=sys.stderr)


def open_bundle(path: Path | None) -> Bundle:
    """The bundle at a path, or the demonstration ensemble of the package."""
    return Bundle.open(DEMONSTRATION_BUNDLE if path is None else path)


def check_writable(out: Path) -> None:
    """Refuses an output folder before the work rather than after it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise unwritable(out, error) from error


@dataclass(frozen=True)
class Job:
    """Predicts, explains and writes one patient after the other."""

    predictor: Predictor
    out: Path
    explain: str

    def predict(self, patient: Patient, progress: Progress) -> tuple[Prediction, Path]:
        """Predicts a patient and writes the result; returns it and its folder. A refused patient keeps no result."""
        try:
            return self._predict(patient, progress)
        except Refusal as refusal:
            if refusal.code not in ("cannot_write", "output_exists"):
                _tell_set_aside(self.out, patient.patient_id)
            raise
        finally:
            progress.close()

    def _predict(self, patient: Patient, progress: Progress) -> tuple[Prediction, Path]:
        watch = Stopwatch()
        with watch.measure("read and prepare"):
            prepared = self.predictor.prepare(patient, progress)
        activation = ClassActivation()
        observers = [activation] if self.explain == "saliency" else []
        prediction = self.predictor.predict_prepared(patient, prepared, observers, progress)
        with watch.measure("map"):
            maps = activation.maps(prepared) if observers else None
        prediction = replace(prediction, seconds={**watch.seconds, **prediction.seconds})
        prediction = _with_explanation(prediction, self.explain, maps)
        channels = self.predictor.bundle.description.channels
        return write_prediction(self.out, patient, prepared, prediction, maps, channels)


def _with_explanation(prediction: Prediction, explain: str, maps: Sequence[NDArray[np.float32]] | None) -> Prediction:
    if explain == "none":
        return replace(prediction, exams=tuple(replace(exam, attention=None) for exam in prediction.exams))
    if maps is None:
        return prediction
    warnings = prediction.warnings
    if not any(m.any() for m in maps):
        message = "No voxel speaks for a higher risk: the maps are empty."
        warnings = (*warnings, Problem("empty_maps", message))
    return replace(prediction, warnings=warnings, explanation={"method": METHOD, "description": DESCRIPTION})


def _predict_cohort(job: Job, cohort: Cohort, as_json: bool) -> int:
    refused = dict(cohort.refused)
    for patient_id in refused:
        _tell_set_aside(job.out, patient_id)
    predicted: list[tuple[Prediction, Path]] = []
    for number, patient in enumerate(cohort.patients, start=1):
        try:
            result = job.predict(patient, Progress(f"patient {number} of {len(cohort.patients)}"))
        except Refusal as refusal:
            if refusal.code == "cannot_write":
                raise  # the next patient's result would not fit either
            refused[patient.patient_id] = refusal
            continue
        predicted.append(result)
        if not as_json:
            _print_one(*result, as_json=False)
    summary = _summary(job.predictor.bundle, cohort, predicted, refused)
    write_json(job.out / SUMMARY_FILE, summary)
    if as_json:
        print(json.dumps({**summary, "predictions": [p.to_dict() for p, _ in predicted]}, indent=2))
    else:
        _print_summary(cohort, refused, job.out)
    return 3 if refused else 0


def _summary(
    bundle: Bundle, cohort: Cohort, predicted: Sequence[tuple[Prediction, Path]], refused: dict[str, Refusal]
) -> dict[str, Any]:
    description = bundle.description
    return {
        "bundle": {
            "name": description.name,
            "version": description.version,
            "sha256": bundle.sha256,
            "demonstration": description.demonstration,
        },
        "horizon_months": description.horizon_months,
        "predicted": [
            {
                "patient_id": prediction.patient_id,
                "landmark": prediction.landmark,
                "risk": prediction.risk,
                "spread": dict(prediction.spread),
                "exams": len(prediction.exams),
                "warnings": len(prediction.warnings),
                "folder": folder.name,
            }
            for prediction, folder in predicted
        ],
        "refused": [
            {"patient_id": patient_id, "code": refusal.code, "exam_id": refusal.exam_id, "message": refusal.message}
            for patient_id, refusal in refused.items()
        ],
        "problems": [{"code": problem.code, "message": problem.message} for problem in cohort.problems],
        "notice": NOTICE,
    }


def _print_one(prediction: Prediction, folder: Path, as_json: bool) -> None:
    if as_json:
        print(json.dumps(prediction.to_dict(), indent=2))
        return
    low, high = prediction.spread["low"], prediction.spread["high"]
    exams = len(prediction.exams)
    spread = f" (members {low:.1%} to {high:.1%})" if len(prediction.members) > 1 else ""
    what = "risk" if prediction.bundle["calibrated"] else "uncalibrated output"
    risk = (
        f"{what} {prediction.risk:.1%}{spread} of a diagnosis within {prediction.horizon_months:g} months after "
        f"{prediction.landmark}, from {exams} exam{'s' * (exams > 1)}"
    )
    if prediction.has_no_meaning:
        risk = f"demonstration weights, no meaning for this patient; the arithmetic gives {risk}"
    elif prediction.phantom:
        risk = f"generated patient (phantom), {risk}"
    print(f"{prediction.patient_id}: {risk}")
    for warning in prediction.warnings:
        if warning.code != "demonstration":
            anonymous = warning.exam_id is not None and not names_exam(warning.message, warning.exam_id)
            print(f"  warning: {f'exam {warning.exam_id}: ' if anonymous else ''}{warning.message}")
    print(f"  report: {folder / REPORT_FILE}")


def _print_summary(cohort: Cohort, refused: dict[str, Refusal], out: Path) -> None:
    for patient_id, refusal in refused.items():
        print(f"{patient_id}: refused. {refusal.message}")
    for problem in cohort.problems:
        print(f"note: {problem.message}")
    count = len(cohort.patients) + len(cohort.refused)
    print(f"{count - len(refused)} of {count} patients predicted; {out / SUMMARY_FILE}")
    print(NOTICE, file=sys.stderr)
