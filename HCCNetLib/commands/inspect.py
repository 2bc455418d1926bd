"""``hccnet inspect``: what would be read, and whether a bundle would refuse it."""

from __future__ import annotations

import argparse
from pathlib import Path

from HCCNetLib.bundles import Bundle, BundleDescription
from HCCNetLib.commands.predict import add_reading_arguments, reading_options
from HCCNetLib.preprocessing import prepare_exam
from HCCNetLib.readers import check_images, describe_grid, in_exam, read_input, require_channels
from HCCNetLib.records import Cohort, Exam, Image, Patient, Refusal, months_between

HELP = "show what would be read: patients, exams, dates, channels, geometry, problems"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "input", type=Path, metavar="INPUT", help="patient folder, cohort folder, table, BIDS or published layout"
    )
    parser.add_argument(
        "--bundle", type=Path, metavar="DIR", help="also say whether this bundle would refuse a patient"
    )
    add_reading_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; 1 where a patient can't be read or the bundle would refuse one."""
    cohort = read_input(arguments.input, reading_options(arguments))
    description = Bundle.open(arguments.bundle).description if arguments.bundle else None
    print(
        f"{arguments.input}: {cohort.form}, {len(cohort.patients)} readable patient(s), {len(cohort.refused)} refused"
    )
    refused = dict(cohort.refused)
    for patient in cohort.patients:
        _print_patient(patient, cohort)
        try:
            _try_all(patient, description)
        except Refusal as refusal:
            refused[patient.patient_id] = refusal
            print(f"  would be refused: {refusal.message}")
    for patient_id, reason in cohort.refused.items():
        print(f"{patient_id}\n  refused: {reason.message}")
    for problem in cohort.problems:
        print(f"note: {problem.message}")
    if description is not None and not refused:
        print(f"The bundle needs {', '.join(description.channels)}: every patient can be predicted.")
    return 1 if refused else 0


def _print_patient(patient: Patient, cohort: Cohort) -> None:
    print(patient.patient_id + _outcome_text(patient, cohort))
    for problem in patient.problems:
        print(f"  warning: {problem.message}")
    for exam in patient.exams:
        before = months_between(exam.date, patient.landmark.date)
        when = "landmark" if exam is patient.landmark else f"{before:.1f} months before the landmark"
        name = "" if exam.exam_id == exam.date.isoformat() else f" ({exam.exam_id})"
        print(f"  {exam.date.isoformat()}{name}  {when}")
        _print_channels(exam)


def _print_channels(exam: Exam) -> None:
    """One line per grid: the channels of an exam usually share one."""
    by_grid: dict[str, list[str]] = {}
    for channel, image in exam.images.items():
        by_grid.setdefault(_grid_or_reason(image), []).append(channel)
    for grid, channels in by_grid.items():
        print(f"    {', '.join(channels)}: {grid}")
    if not exam.images:
        print("    no known channel")
    if exam.liver_mask is not None or exam.liver_box is not None:
        print(f"    liver {'mask' if exam.liver_mask is not None else 'box'} given: centres the field")
    for problem in exam.problems:
        print(f"    warning: {problem.message}")


def _grid_or_reason(image: Image) -> str:
    try:
        return describe_grid(image.grid)
    except Refusal as refusal:
        return f"can't be used. {refusal.message}"


def _outcome_text(patient: Patient, cohort: Cohort) -> str:
    outcome = cohort.outcomes.get(patient.patient_id)
    if outcome is None:
        return ""
    if outcome.diagnosis_date is None:
        return f"  (no diagnosis until {outcome.last_seen_date.isoformat()})"
    return f"  (diagnosis {outcome.diagnosis_date.isoformat()})"


def _try_all(patient: Patient, description: BundleDescription | None) -> None:
    """Does all that a prediction does up to the networks; without a bundle, reads every image.

    Voxels are read because a truncated file shows only then.
    """
    if description is not None:
        if not description.missing_channels:
            require_channels(patient, description.channels)
        for exam in patient.exams:
            check_images(exam, description.channels)
            prepare_exam(exam, description.channels, description.preprocessing, description.missing_channels)
        return
    for exam in patient.exams:
        for image in exam.images.values():
            try:
                image.read()
            except Refusal as refusal:
                raise in_exam(refusal, exam.exam_id) from refusal
