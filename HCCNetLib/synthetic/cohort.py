"""The phantom cohort as files: form 2 with outcomes, the truth beside it, and a card that says how it was made.

``<patient>/<date>/<channel>.nii.gz``, ``outcomes.csv``, ``clinical.csv`` (surveillance: the scanner of each exam),
``cohort.json``, ``README.md``, and what no model may read: ``truth/<patient>/truth.json``,
``truth/<patient>/<date>/lesion.nii.gz`` and ``organs.nii.gz``, and ``truth/exams.csv``: per exam the size of the lesions, which
training may use beside the labels (and then says so in the bundle), and, of surveillance, the true risk. Files are
byte-identical for one seed with one version of numpy, scipy and zlib on one kind of processor, whatever the number of
processes.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import scipy
from numpy.typing import NDArray

from HCCNetLib.readers.clinical import CLINICAL_FILE
from HCCNetLib.readers.outcomes import OUTCOMES_FILE
from HCCNetLib.records import PHANTOM_MARK, Grid, Refusal
from HCCNetLib.synthetic.brightness import ask_about_brightness, measure_brightness
from HCCNetLib.synthetic.disease import Course, Progress, draw_courses
from HCCNetLib.synthetic.growth import GrowthModel
from HCCNetLib.synthetic.oracle import describe_oracle
from HCCNetLib.synthetic.phantom import PhantomModel, draw_phantom
from HCCNetLib.synthetic.rendering import ORGAN_LABELS, render_exam
from HCCNetLib.synthetic.surveillance import SurveillanceModel
from HCCNetLib.synthetic.surveillance_oracle import describe_surveillance
from HCCNetLib.synthetic.truth_tables import count_lesions, exam_truth, exams_table, patient_truth
from HCCNetLib.version import __version__

DISEASES: Mapping[str, type[GrowthModel] | type[SurveillanceModel]] = {
    model.name: model for model in (SurveillanceModel, GrowthModel)
}
CARD_FILE = "cohort.json"
TRUTH_FOLDER = "truth"
TRUTH_FILE = "truth.json"
EXAMS_FILE = "exams.csv"
# To be raised whenever the same seed and parameters give other files.
GENERATOR_VERSION = 2

_UNFINISHED = ".unfinished"
_IDENTITY = ("generator_version", "disease", "seed", "parameters")  # what two runs of one cohort must agree on
_ORACLE_PATIENTS = {"growth": 2000, "surveillance": 5000}  # at least
_BRIGHTNESS_PATIENTS, _BRIGHTNESS_SPACING = 400, 5.0  # mm
# Noise has no repetitions to look for, so only runs of one value (air in masks) are: less time, a tenth more space.
_COMPRESSION = 1
_GZIP_WINDOW = 31  # zlib's code for a gzip header, which then holds no time and no name

_README = """# HCCNet phantom cohort

Generated images of patients who do not exist, made by `hccnet synthesize` (HCCNet {version}) with seed {seed}. They look
somewhat like liver MRI and show nobody's anatomy. {disease}
They serve to test whether a method can learn that; they say nothing about any real patient.

- `PH…/<date>/<channel>.nii.gz`: the exams; `outcomes.csv`: what became of the patients.
- `cohort.json`: all parameters, counts, the codes of the organ masks and, where asked for, how well an oracle does.
- `clinical.csv`, of surveillance: the scanner of each exam.
- `truth/`: masks, sizes, growth rates and, of surveillance, the true risk at each exam. Not for a model to read; `hccnet` passes
  over this folder and says so. A training that uses the sizes in `truth/exams.csv` beside the labels says so in its bundle.

Licence: CC0 1.0 (https://creativecommons.org/publicdomain/zero/1.0/). To the extent possible under law, the makers waive
all copyright and related rights to these files.
"""

_ABOUT_DISEASE = {
    "growth": "In these patients growth per time of one liver lesion decides the outcome, by construction.",
    "surveillance": """They are followed as in
surveillance: tumours begin at a constant rate and grow, benign nodules change slowly, exams come at irregular times. Growth per
time tells tumours apart, by construction; dates alone and brightness alone do not.""",
}


@dataclass(frozen=True)
class CohortPlan:
    """What is to be made.

    Args:
        patients: how many.
        seed: patient k is the same in every cohort of one seed and one model, however many patients it has.
        model: everything else.
    """

    patients: int
    seed: int = 0
    model: PhantomModel = field(default_factory=PhantomModel)

    def __post_init__(self) -> None:
        if self.patients < 1 or self.seed < 0:
            raise Refusal("bad_parameter", "The number of patients must be 1 or more, the seed 0 or more.")


def synthesize(
    folder: Path, plan: CohortPlan, oracle: bool = False, processes: int = 1, progress: Progress | None = None
) -> dict[str, Any]:
    """Writes a cohort, or what is still missing of it, and returns its card.

    Args:
        folder: new, empty, or an unfinished or smaller cohort of the same seed and parameters.
        plan: what is to be made.
        oracle: whether to put the oracle's table into the card.
        processes: how many work at once; more than one need an importable main module (``spawn``).
        progress: called with stage, done and total.

    Raises:
        Refusal: the folder holds something else or can't be written, or scikit-learn is missing for the oracle.
    """
    tell = progress or _silent
    try:
        before = _look_at(folder, plan)
        table = _oracle(plan, tell) if oracle else None
        _begin(folder, plan, before)
        try:
            _write_patients(folder, plan, processes, tell)
        finally:
            shutil.rmtree(folder / _UNFINISHED, ignore_errors=True)
        courses = draw_courses(plan.model.disease, plan.seed, range(plan.patients))
        _write_aside(folder / OUTCOMES_FILE, _outcomes_table(courses))
        _write_aside(
            folder / TRUTH_FOLDER / EXAMS_FILE, _as_text(exams_table(plan.model.disease, courses, plan.seed, tell))
        )
        if plan.model.disease.name == "surveillance":
            _write_aside(folder / CLINICAL_FILE, _as_text(_clinical_table(folder, courses)))
        words = {"version": __version__, "seed": plan.seed, "disease": _ABOUT_DISEASE[plan.model.disease.name]}
        _write_aside(folder / "README.md", _README.format(**words))
        card = _card(plan) | {"complete": True, "counts": count_labels(courses, plan.model.disease.horizon)}
        kept = before.get("oracle") if before.get("patients") == plan.patients else None
        if table or kept:
            card["oracle"] = table or kept
        _write_aside(folder / CARD_FILE, _json(card))
    except OSError as error:
        message = (
            f"The cohort can't be written to {folder}: {error.strerror or error}. Make room or choose another place."
        )
        raise Refusal("cannot_write", message) from error
    return card


def count_labels(courses: Sequence[Course], horizon: float) -> dict[str, Any]:
    """Patients, exams and landmarks by label."""
    latest = [course.label(-1, horizon) for course in courses]
    labelled = [course.label(exams[-1], horizon) for course in courses if (exams := course.labelled(horizon))]
    every = [course.label(exam, horizon) for course in courses for exam in range(len(course.dates))]

    def by_label(labels: Sequence[bool | None]) -> dict[str, int]:
        return {"positive": labels.count(True), "negative": labels.count(False), "unlabelled": labels.count(None)}

    return {
        "patients": len(courses),
        "exams": sum(len(course.dates) for course in courses),
        **count_lesions(courses),
        "diagnosed": sum(course.outcome.diagnosis_date is not None for course in courses),
        "competing": sum(course.outcome.competing_date is not None for course in courses),
        "censored": latest.count(None),
        "latest_landmarks": by_label(latest),
        "latest_labelled_landmarks": by_label(labelled),
        "all_landmarks": by_label(every),
    }


def _silent(stage: str, done: int, total: int) -> None:
    pass


def _oracle(plan: CohortPlan, tell: Progress) -> dict[str, Any]:
    """On the cohort's patients and, where they are few, the next ones of the same seed."""
    disease = plan.model.disease
    count = max(plan.patients, _ORACLE_PATIENTS[disease.name])
    courses = draw_courses(disease, plan.seed, range(count))
    if isinstance(disease, SurveillanceModel):
        table = describe_surveillance(disease, courses, plan.seed, tell)
        return table | {"brightness": _brightness(plan, tell)}
    return describe_oracle(courses, disease.horizon, plan.seed, tell)


def _brightness(plan: CohortPlan, tell: Progress) -> dict[str, Any]:
    """What brightness alone gives away, on coarse images of the first patients."""
    coarse = replace(plan.model, acquisition=replace(plan.model.acquisition, spacing=_BRIGHTNESS_SPACING))
    measured = measure_brightness(coarse, plan.seed, range(_BRIGHTNESS_PATIENTS), tell)
    return ask_about_brightness(measured, plan.model.disease.horizon)


def _card(plan: CohortPlan) -> dict[str, Any]:
    return {
        "name": "HCCNet phantom cohort",
        "licence": "CC0-1.0",
        "generator_version": GENERATOR_VERSION,
        "software": {"hccnet": __version__, "numpy": np.__version__, "scipy": scipy.__version__},
        "disease": plan.model.disease.name,
        "seed": plan.seed,
        "patients": plan.patients,
        "parameters": plan.model.to_dict(),
        "organ_labels": dict(ORGAN_LABELS),
        "complete": False,
    }


def _look_at(folder: Path, plan: CohortPlan) -> dict[str, Any]:
    """The card of an earlier run, empty in a new folder; refuses a folder that this plan can't go on with."""
    if not folder.is_dir():
        return {}
    if (folder / CARD_FILE).exists():
        before = _read_card(folder / CARD_FILE)
        _refuse_other(folder, before, plan)
        return before
    if any(folder.iterdir()):
        raise Refusal("not_empty", f"{folder} holds something else (no {CARD_FILE}). Choose a new or an empty folder.")
    return {}


def _begin(folder: Path, plan: CohortPlan, before: dict[str, Any]) -> None:
    """Makes the folder ours: the card stands before the first patient does, and says that the cohort isn't complete."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / _UNFINISHED, ignore_errors=True)
    if before.get("patients") != plan.patients:
        _write_aside(folder / CARD_FILE, _json(_card(plan)))


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Refusal("bad_card", f"{path} is no readable cohort card. Choose another folder.") from error
    if not isinstance(card, dict) or type(card.get("patients")) is not int:
        raise Refusal("bad_card", f"{path} is no cohort card. Choose another folder.")
    return card


def _refuse_other(folder: Path, before: dict[str, Any], plan: CohortPlan) -> None:
    """Refuses a folder that the plan can't continue; says what differs."""
    wanted = json.loads(_json(_card(plan)))
    old, new = (dict(_flat({k: c.get(k) for k in _IDENTITY})) for c in (before, wanted))
    differing = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if "disease" in differing:  # then so do all its parameters
        differing = ["disease"]
    if differing:
        shown = "; ".join(f"{key} is {old.get(key)}, not {new.get(key)}" for key in differing[:5])
        message = f"{folder} holds another phantom cohort: {shown}. Give the same parameters, or choose another folder."
        raise Refusal("other_cohort", message)
    if before["patients"] > plan.patients:
        message = f"{folder} is meant for {before['patients']} patients, not {plan.patients}. Ask for as many or more."
        raise Refusal("other_cohort", message)


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Nested dictionaries as dotted names and values."""
    if not isinstance(value, dict):
        yield name, value
        return
    for key, inner in value.items():
        yield from _flat(inner, f"{name}.{key}" if name else key)


def _write_patients(folder: Path, plan: CohortPlan, processes: int, tell: Progress) -> None:
    courses = draw_courses(plan.model.disease, plan.seed, range(plan.patients))
    missing = [course.index for course in courses if not _is_whole(folder, course, plan.model.channels)]
    done = plan.patients - len(missing)
    tell("writing patients", done, plan.patients)
    for _ in _each_written(folder, plan, missing, min(processes, len(missing))):
        done += 1
        tell("writing patients", done, plan.patients)


def _is_whole(folder: Path, course: Course, channels: Sequence[str]) -> bool:
    """Whether all of a patient's files are there; somebody may have taken some away since."""
    truth = folder / TRUTH_FOLDER / course.patient_id
    days = [date.isoformat() for date in course.dates]
    images = [folder / course.patient_id / day / f"{channel}.nii.gz" for day in days for channel in channels]
    masks = [truth / day / f"{mask}.nii.gz" for day in days for mask in ("lesion", "organs")]
    return all(path.is_file() for path in (*images, *masks, truth / TRUTH_FILE))


def _each_written(folder: Path, plan: CohortPlan, missing: Sequence[int], processes: int) -> Iterator[None]:
    if processes <= 1:
        for index in missing:
            write_patient(folder, plan, index)
            yield
        return
    # Not forked: threads of whoever calls us would be copied half alive.
    context = get_context("spawn")
    executor = ProcessPoolExecutor(processes, mp_context=context, initializer=_prepare_worker)
    try:
        for future in as_completed([executor.submit(write_patient, folder, plan, index) for index in missing]):
            future.result()
            yield
    except BrokenProcessPool as error:
        message = "A process ended unexpectedly; memory may be short. Give the same command with fewer --processes."
        raise Refusal("process_ended", message) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _prepare_worker() -> None:
    """Ctrl-C reaches every process of a terminal: the patient in work is finished, the parent gives out no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    """A parent that was killed can't stop its workers; they would write into a folder that somebody else continues."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def write_patient(folder: Path, plan: CohortPlan, index: int) -> None:
    """Writes one patient's exams and truth aside, then moves them in: the exams' folder is there when all is."""
    phantom = draw_phantom(plan.model, plan.seed, index)
    name = phantom.course.patient_id
    exams, truth = folder / _UNFINISHED / name, folder / _UNFINISHED / f"{name}-truth"
    horizon = plan.model.disease.horizon
    records = []
    for number, date in enumerate(phantom.course.dates):
        exam = render_exam(plan.model, phantom, number)
        for channel, voxels in exam.images.items():
            _write_image(exams / date.isoformat() / f"{channel}.nii.gz", voxels, exam.grid)
        for mask, values in (("lesion", exam.lesion), ("organs", exam.organs)):
            _write_image(truth / date.isoformat() / f"{mask}.nii.gz", values, exam.grid)
        records.append(exam_truth(phantom, number, exam) | {"label": phantom.course.label(number, horizon)})
    patient = patient_truth(phantom) | {"label": phantom.course.label(-1, horizon), "exams": records}
    (truth / TRUTH_FILE).write_text(_json(patient), encoding="utf-8")
    (folder / TRUTH_FOLDER).mkdir(exist_ok=True)
    final_truth = folder / TRUTH_FOLDER / name
    for part in (final_truth, folder / name):  # of a run that ended between the two moves, or no longer whole
        if part.exists():
            shutil.rmtree(part)
    truth.rename(final_truth)
    exams.rename(folder / name)


def _write_image(path: Path, voxels: NDArray[Any], grid: Grid) -> None:
    """Writes a NIfTI file with sform and qform, compressed without a time stamp."""
    image = nib.Nifti1Image(voxels, grid.affine)
    image.set_sform(grid.affine, code=1)
    image.set_qform(grid.affine, code=1)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = PHANTOM_MARK.encode()
    compressor = zlib.compressobj(_COMPRESSION, wbits=_GZIP_WINDOW, strategy=zlib.Z_RLE)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(compressor.compress(image.to_bytes()) + compressor.flush())


def _outcomes_table(courses: Sequence[Course]) -> str:
    rows = [["patient_id", "diagnosis_date", "last_seen_date", "competing_event", "competing_date"]]
    for outcome in (course.outcome for course in courses):
        competing = ["death or transplant", str(outcome.competing_date)] if outcome.competing_date else ["", ""]
        rows.append([outcome.patient_id, str(outcome.diagnosis_date or ""), str(outcome.last_seen_date), *competing])
    return _as_text(rows)


def _clinical_table(folder: Path, courses: Sequence[Course]) -> list[list[str]]:
    """The scanner of each exam, as the patients' truth has it."""
    rows = [["patient_id", "exam_id", "scanner"]]
    for course in courses:
        truth = json.loads((folder / TRUTH_FOLDER / course.patient_id / TRUTH_FILE).read_text(encoding="utf-8"))
        rows += [[course.patient_id, exam["exam_id"], exam["scanner"]] for exam in truth["exams"]]
    return rows


def _as_text(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _json(value: Any) -> str:
    return json.dumps(value, indent=1) + "\n"


def _write_aside(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    aside = path.with_name(f".{path.name}.part")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
