"""``hccnet predict``: one patient or a cohort → predictions, maps and reports."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from HCCNetLib.bundles import DEMONSTRATION_BUNDLE, Bundle
from HCCNetLib.commands.outputs import (
    EXAMS_FILE,
    PATIENTS_FILE,
    REPORT_FILE,
    SUMMARY_FILE,
    set_aside,
    set_table_aside,
    unwritable,
    write_json,
    write_prediction,
    write_table,
)
from HCCNetLib.commands.progress import Progress, Teller
from HCCNetLib.explanation import DEFAULT_METHOD, METHODS, PatientExplanation, make_explainer
from HCCNetLib.explanation.check import find_check
from HCCNetLib.inference import NOTICE, Prediction, Predictor, Stopwatch
from HCCNetLib.readers import (
    Pseudonyms,
    ReadingOptions,
    name_as_given,
    open_key,
    read_channel_table,
    read_input,
)
from HCCNetLib.records import Cohort, Patient, Refusal, names_exam
from HCCNetLib.reporting.tables import patient_table

HELP = "predict the risk of one patient or of a cohort"
# A mistyped path or a share that is not mounted says nothing against an earlier result.
_NOT_ABOUT_A_PATIENT = ("missing_input", "unknown_input", "no_permission")
EXPLANATIONS = ("none", "attention", "saliency")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "input",
        type=Path,
        metavar="INPUT",
        help="patient folder, cohort folder, table, DICOM, BIDS or published layout",
    )
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
    parser.add_argument(
        "--method",
        choices=tuple(METHODS),
        help=f"that makes the maps (default: {DEFAULT_METHOD}). Integrated gradients tell channels apart; they and occlusion "
        "take many times as long",
    )
    parser.add_argument(
        "--check",
        type=Path,
        metavar="FILE",
        help="explain_check.json of this bundle (`hccnet explain-check`), to be quoted in the report (default: the one "
        "beside the bundle, if any)",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print the predictions as JSON instead of sentences")
    parser.add_argument(
        "--csv",
        action="store_true",
        help=f"write tables besides: {EXAMS_FILE} per patient and, of a cohort, {PATIENTS_FILE}",
    )
    add_reading_arguments(parser)
    add_deidentify_argument(parser)
    parser.set_defaults(wrong_usage=parser.error)


def add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of every command that reads INPUT."""
    parser.add_argument(
        "--merge-same-day", action="store_true", help="two exam folders or DICOM studies of one day are one exam"
    )
    parser.add_argument(
        "--resample-channels",
        action="store_true",
        help="channels of an exam on different grids share one patient space; bring them onto the first one's grid",
    )
    parser.add_argument(
        "--channels",
        type=Path,
        metavar="FILE",
        help="table (.csv, .tsv) that says which image is which channel: columns channel and any of patient_id, exam, "
        "image, description (`hccnet inspect --write-channels` writes one to start from)",
    )
    parser.add_argument(
        "--one-patient",
        action="store_true",
        help="DICOM: all of the input is one patient's, whatever its patient IDs say",
    )


def add_deidentify_argument(parser: argparse.ArgumentParser) -> None:
    """The argument of commands whose outputs may be given to others."""
    parser.add_argument(
        "--deidentify",
        type=Path,
        metavar="KEYFILE",
        help="pseudonyms for patients and their dates shifted, by the key in this file (made where there is none); "
        "voxels stay as they are",
    )


def reading_options(arguments: argparse.Namespace) -> ReadingOptions:
    """What the user allowed; raises Refusal where the channel table or the key can't be used."""
    keyfile = getattr(arguments, "deidentify", None)
    return ReadingOptions(
        merge_same_day=arguments.merge_same_day,
        resample_channels=arguments.resample_channels,
        channel_table=read_channel_table(arguments.channels) if arguments.channels else None,
        one_patient=arguments.one_patient,
        pseudonyms=_pseudonyms(keyfile) if keyfile else None,
    )


def _pseudonyms(keyfile: Path) -> Pseudonyms:
    key, is_new = open_key(keyfile)
    if is_new:
        print(
            f"note: a new key was made, {keyfile}. The same key gives the same pseudonyms and dates again; whoever has it "
            f"can find the patients again. Keep it, and keep it apart from the results.",
            file=sys.stderr,
        )
    return Pseudonyms(key)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    if arguments.explain != "saliency" and (arguments.method or arguments.check):
        arguments.wrong_usage("--method and --check go with --explain saliency")
    if arguments.deidentify and arguments.out.resolve() in arguments.deidentify.resolve().parents:
        arguments.wrong_usage("--deidentify: whoever gets the results must not get the key; keep it outside --out")
    options = reading_options(arguments)
    try:
        cohort = read_input(arguments.input, options)
    except Refusal as refusal:
        if refusal.code not in _NOT_ABOUT_A_PATIENT:
            name = name_as_given(arguments.input)
            tell_set_aside(arguments.out, options.pseudonyms.name_of(name) if options.pseudonyms else name)
        raise
    bundle = open_bundle(arguments.bundle)
    method = arguments.method or DEFAULT_METHOD
    check = find_check(bundle, method, arguments.check) if arguments.explain == "saliency" else None
    how = Explaining(arguments.explain, method, check)
    job = Job(Predictor(bundle, arguments.device), arguments.out, how, arguments.csv)
    check_writable(arguments.out)
    if cohort.form == "patient folder":
        prediction, folder = job.predict(cohort.patients[0], Progress())
        _print_one(prediction, folder, arguments.json)
        return 0
    return _predict_cohort(job, cohort, arguments.json)


def tell_set_aside(out: Path, patient_id: str) -> None:
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
class Explaining:
    """What the user wants explained.

    Args:
        what: none, attention or saliency.
        method: that makes the maps, of ``METHODS``.
        check: what is known of its faithfulness with this bundle, or None.
    """

    what: str
    method: str
    check: Mapping[str, Any] | None

    def begin(self, bundle: Bundle) -> PatientExplanation | None:
        """What observes one prediction."""
        if self.what == "none":
            return None
        explainer = make_explainer(self.method) if self.what == "saliency" else None
        return PatientExplanation(bundle.description, explainer, self.check)


@dataclass(frozen=True)
class Job:
    """Predicts, explains and writes one patient after the other."""

    predictor: Predictor
    out: Path
    explaining: Explaining
    tables: bool = False

    def predict(self, patient: Patient, progress: Teller) -> tuple[Prediction, Path]:
        """Predicts a patient and writes the result; returns it and its folder. A refused patient keeps no result."""
        try:
            return self._predict(patient, progress)
        except Refusal as refusal:
            if refusal.code not in ("cannot_write", "output_exists"):
                tell_set_aside(self.out, patient.patient_id)
            raise
        finally:
            progress.close()

    def _predict(self, patient: Patient, progress: Teller) -> tuple[Prediction, Path]:
        watch = Stopwatch()
        with watch.measure("read and prepare"):
            prepared = self.predictor.prepare(patient, progress)
        explanation = self.explaining.begin(self.predictor.bundle)
        observers = explanation.observers if explanation else []
        prediction = self.predictor.predict_prepared(patient, prepared, observers, progress)
        with watch.measure("map"):
            if explanation is None:
                prediction, maps = _without_attention(prediction), None
            else:
                progress("explaining", 0, 1)
                prediction, maps = explanation.complete(prediction, prepared)
        prediction = replace(prediction, seconds={**watch.seconds, **prediction.seconds})
        channels = self.predictor.bundle.description.channels
        progress("writing", 0, 1)
        return write_prediction(self.out, patient, prepared, prediction, maps, channels, self.tables)


def _without_attention(prediction: Prediction) -> Prediction:
    return replace(prediction, exams=tuple(replace(exam, attention=None) for exam in prediction.exams))


def _predict_cohort(job: Job, cohort: Cohort, as_json: bool) -> int:
    refused = dict(cohort.refused)
    for patient_id in refused:
        tell_set_aside(job.out, patient_id)
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
    set_table_aside(job.out / PATIENTS_FILE)  # of an earlier run; it would pass for this one's
    if job.tables:
        reasons = {patient_id: refusal.message for patient_id, refusal in refused.items()}
        write_table(job.out / PATIENTS_FILE, patient_table([p.to_dict() for p, _ in predicted], reasons))
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
                "risk_by_horizon": [dict(at) for at in prediction.risk_by_horizon],
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
    if len(prediction.risk_by_horizon) > 1 and not prediction.has_no_meaning:
        each = ", ".join(f"{at['months']:g} months {at['risk']:.1%}" for at in prediction.risk_by_horizon)
        print(f"  {what} within {each}")
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
