"""``hccnet inspect``: what would be read, and whether a bundle would refuse it.

``--json`` prints one object: ``form``, ``bundle_channels`` (what the bundle of ``--bundle`` needs, or null), ``patients``
[{``patient_id``, ``exams`` [{``exam_id``, ``date``, ``months_before_latest``, ``channels`` {channel: {``name``,
``description``, ``shape``, ``spacing_mm``, ``orientation``, ``details``, ``recognised_by``, ``confidence``}}, ``liver``
(``mask``, ``box`` or null), ``not_used`` [the same, and ``reason``], ``problems``}], ``problems``, ``outcome``
{``diagnosis_date`` or null, ``last_seen_date``} or null, ``would_be_refused`` {``code``, ``message``} or null}], ``refused``
[{``patient_id``, ``code``, ``message``}], ``problems`` and ``notice``. Problems are {``code``, ``message``}. An image whose
header can't be used has null for ``shape``, ``spacing_mm`` and ``orientation``. Series UIDs and paths are left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from HCCNetLib.bundles import Bundle, BundleDescription
from HCCNetLib.commands.outputs import folder_name, write_file, write_table
from HCCNetLib.commands.predict import (
    add_deidentify_argument,
    add_reading_arguments,
    check_writable,
    reading_options,
)
from HCCNetLib.inference import NOTICE
from HCCNetLib.preprocessing import prepare_patient
from HCCNetLib.preprocessing.field import locate_liver
from HCCNetLib.readers import channel_rows, check_images, in_exam, read_input, require_channels
from HCCNetLib.records import Cohort, Exam, Patient, Problem, Refusal
from HCCNetLib.reporting import png
from HCCNetLib.reporting.contact_sheet import draw_contact_sheet
from HCCNetLib.reporting.inspection import describe_patient, describe_problems, patient_text

HELP = "show what would be read: patients, exams, dates, channels, geometry, problems"
_PNG = ".png"
_REFUSED = (
    "the {} refused patient(s): their images were not told apart. Write rows for them by hand, or correct their files."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "input",
        type=Path,
        metavar="INPUT",
        help="patient folder, cohort folder, table, DICOM, BIDS or published layout",
    )
    parser.add_argument(
        "--bundle", type=Path, metavar="DIR", help="also say whether this bundle would refuse a patient"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the same as JSON instead of sentences: form, bundle_channels, patients (exams with channels, not_used "
        "and problems; outcome, would_be_refused), refused, problems, notice; no series UIDs, no paths",
    )
    parser.add_argument(
        "--png",
        type=Path,
        metavar="PATH",
        help="write a contact sheet: a row per exam, a column per channel, an axial and a coronal slice of each. Of one "
        "patient PATH is the file (….png) or an existing folder, of several a folder with a <patient>.png for each",
    )
    parser.add_argument(
        "--write-channels",
        type=Path,
        metavar="FILE",
        help="write a table (.csv, .tsv) of every image that was found and the channel that it became: correct its column "
        "channel (- is: not used) and give it back with --channels",
    )
    add_reading_arguments(parser)
    add_deidentify_argument(parser)
    parser.set_defaults(wrong_usage=parser.error)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; 1 where a patient can't be read or the bundle would refuse one."""
    if arguments.write_channels:
        _check_write_channels(arguments)
    cohort = read_input(arguments.input, reading_options(arguments))
    description = Bundle.open(arguments.bundle).description if arguments.bundle else None
    sheets = None if arguments.png is None else _place_sheets(arguments.png, len(cohort.patients) + len(cohort.refused))
    if arguments.write_channels:
        write_table(arguments.write_channels, channel_rows(cohort))
        if cohort.refused:
            print(
                f"note: {arguments.write_channels} has no rows for {_REFUSED.format(len(cohort.refused))}",
                file=sys.stderr,
            )
    inspection = _Inspection(cohort, description, sheets)
    if arguments.json:
        contents = list(inspection.patients())
        print(json.dumps(_describe_cohort(cohort, description, contents), indent=2))
    else:
        counts = f"{len(cohort.patients)} readable patient(s), {len(cohort.refused)} refused"
        print(f"{_name_of_input(arguments)}: {cohort.form}, {counts}")
        contents = []
        for content in inspection.patients():
            contents.append(content)
            print(f"\n{patient_text(content)}")
        _print_refused(cohort)
    passed = not cohort.refused and all(content["would_be_refused"] is None for content in contents)
    if not arguments.json:
        _print_notes(cohort, sheets, description if passed else None)
    return 0 if passed else 1


def _check_write_channels(arguments: argparse.Namespace) -> None:
    """Refuses what would make a table that is of no use, or take the place of one that was corrected."""
    path = arguments.write_channels
    if path.suffix.lower() not in (".csv", ".tsv"):
        arguments.wrong_usage("--write-channels: the name must end in .csv or .tsv")
    if arguments.deidentify:
        arguments.wrong_usage("--write-channels: the table must name patients as INPUT does; not with --deidentify")
    if path.exists():
        raise Refusal("output_exists", f"{path} is there already. Choose another name, or remove it first.")


def _name_of_input(arguments: argparse.Namespace) -> str:
    """What to call the input: its path, in which there may be a name."""
    return "INPUT" if arguments.deidentify else str(arguments.input)


def _print_refused(cohort: Cohort) -> None:
    for patient_id, reason in cohort.refused.items():
        print(f"\n{patient_id}\n  refused: {reason.message}")


def _print_notes(cohort: Cohort, sheets: _Sheets | None, satisfied: BundleDescription | None) -> None:
    """What is told after all patients; ``satisfied`` is a bundle that would refuse none of them."""
    lines = [f"note: {problem.message}" for problem in _problems_of(cohort)]
    if sheets is not None and cohort.patients:
        lines.append(f"contact sheet: {sheets.path}" if sheets.is_file else f"contact sheets: {sheets.path}")
    if satisfied is not None:
        lines.append(f"The bundle needs {', '.join(satisfied.channels)}: every patient can be predicted.")
    if lines:
        print("\n" + "\n".join(lines))
    print(NOTICE, file=sys.stderr)


def _describe_cohort(
    cohort: Cohort, description: BundleDescription | None, patients: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "form": cohort.form,
        "bundle_channels": None if description is None else list(description.channels),
        "patients": patients,
        "refused": [
            {"patient_id": patient_id, "code": reason.code, "message": reason.message}
            for patient_id, reason in cohort.refused.items()
        ],
        "problems": describe_problems(_problems_of(cohort)),
        "notice": NOTICE,
    }


def _problems_of(cohort: Cohort) -> list[Problem]:
    """What was passed over, and why outcomes that are there can't be used."""
    outcomes = cohort.outcomes_refused
    return [*cohort.problems, *([] if outcomes is None else [Problem(outcomes.code, outcomes.message)])]


@dataclass(frozen=True)
class _Inspection:
    """Looks at one patient after the other; draws each where that was asked."""

    cohort: Cohort
    description: BundleDescription | None
    sheets: _Sheets | None

    def patients(self) -> Iterator[dict[str, Any]]:
        """What is to be told of each patient who could be read."""
        for patient in self.cohort.patients:
            problems, refusals = _try_all(patient, self.description)
            problems += [Problem(more.code, more.message, more.exam_id) for more in refusals[1:]]
            first = refusals[0] if refusals else None
            if self.sheets is not None:
                self.sheets.write(patient)
            yield describe_patient(patient, self.cohort.outcomes.get(patient.patient_id), problems, first)


def _try_all(patient: Patient, description: BundleDescription | None) -> tuple[list[Problem], list[Refusal]]:
    """Does all that a prediction does up to the networks; without a bundle, reads every image.

    Voxels are read because a truncated file shows only then.

    Returns:
        What is odd and yet usable, and why no prediction could be made.
    """
    if description is None:
        tried = [_read_all(exam) for exam in patient.exams]
        return [p for problems, _ in tried for p in problems], [r for _, refusals in tried for r in refusals]
    problems: list[Problem] = []
    try:
        if not description.missing_channels:
            require_channels(patient, description.channels)
        settings = description.channels, description.preprocessing, description.missing_channels
        prepared = prepare_patient(patient.exams, *settings)
        for exam in patient.exams:
            problems += check_images(exam, description.channels)
            problems += next(prepared).problems
    except Refusal as refusal:
        return problems, [refusal]
    return problems, []


def _read_all(exam: Exam) -> tuple[list[Problem], list[Refusal]]:
    """Reads every image of an exam: what is odd in the headers, and what can't be read."""
    problems: list[Problem] = []
    refusals = []
    for image in exam.images.values():
        try:
            problems += image.header_problems()
            image.read()
        except Refusal as refusal:
            refusals.append(in_exam(refusal, exam.exam_id))
    try:
        locate_liver(exam.liver_mask, exam.liver_box)
    except Refusal as refusal:
        refusals.append(in_exam(refusal, exam.exam_id))
    return [replace(problem, exam_id=exam.exam_id) for problem in problems], refusals


# ---------------------------------------------------------------- contact sheets


@dataclass(frozen=True)
class _Sheets:
    """Where contact sheets go: into one file, or into a folder under the patients' names."""

    path: Path
    is_file: bool

    def write(self, patient: Patient) -> None:
        """Draws a patient's contact sheet and writes it."""
        path = self.path if self.is_file else self.path / f"{folder_name(patient.patient_id)}{_PNG}"
        write_file(path, png.encode(draw_contact_sheet(patient)))


def _place_sheets(path: Path, patients: int) -> _Sheets:
    """Where the sheets of so many patients go; refuses a wrong place before the work rather than after it."""
    looks_like_file = path.suffix.lower() == _PNG
    if patients > 1 and (looks_like_file or path.is_file()):
        message = f"INPUT holds {patients} patients, so --png must name a folder, not a file ({path.name})."
        raise Refusal("bad_output", message)
    if patients == 1 and not looks_like_file and not path.is_dir():
        message = f"INPUT holds one patient, so --png must name a file that ends in {_PNG}, or a folder that exists."
        raise Refusal("bad_output", message)
    if looks_like_file and path.is_dir():
        raise Refusal("bad_output", f"{path.name} is a folder. Choose another file for --png.")
    check_writable(path.parent if looks_like_file else path)
    return _Sheets(path, looks_like_file)
