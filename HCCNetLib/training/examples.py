"""A cohort as training sees it: landmarks, follow-up, times, exam-level targets, and the exams' keys in the cache."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from HCCNetLib.evaluation.follow_up import CENSORED, COMPETING, DIAGNOSED, FollowUp, follow_up_of
from HCCNetLib.evaluation.landmarks import find_landmarks
from HCCNetLib.inference.cache import Preparation, PreparedCache
from HCCNetLib.readers import ReadingOptions, read_channel_table, read_input
from HCCNetLib.readers.rows import read_rows
from HCCNetLib.records import Cohort, Exam, Outcome, Patient, Refusal, months_between
from HCCNetLib.training.intervals import Intervals
from HCCNetLib.training.settings import BackboneConfig, FinetuneConfig, PretrainConfig, StageConfig

Progress = Callable[[str, int, int], None]
# A patient's number, the exams that are used, their labels, and what became of the patient.
Draft = tuple[int, Patient, tuple[bool | None, ...], Outcome | None]


@dataclass(frozen=True)
class Example:
    """One patient with at least one exam before an event.

    Args:
        patient_id: the patient.
        number: of the patient among all, by which random draws are keyed.
        exams: keys of the prepared exams, oldest first; none on or after an event.
        exam_ids: their names.
        months: of each exam before the latest one.
        labels: of each exam as landmark at the main horizon, None where it is not known.
        targets: exam-level target, None where there is none.
        followed: months from the latest exam to the end of follow-up; NaN for a stage without outcomes.
        status: how the follow-up ended, as in ``evaluation.follow_up``.
        masks: names of the lesion masks kept beside the prepared exams, None where an exam has none; empty where none are used.
    """

    patient_id: str
    number: int
    exams: tuple[str, ...]
    months: tuple[float, ...]
    labels: tuple[bool | None, ...]
    targets: tuple[float | None, ...]
    exam_ids: tuple[str, ...] = ()
    followed: float = math.nan
    status: int = CENSORED
    masks: tuple[str | None, ...] = ()

    @property
    def labelled(self) -> tuple[int, ...]:
        """Indices of the labelled landmarks, oldest first."""
        return tuple(i for i, label in enumerate(self.labels) if label is not None)

    @property
    def label(self) -> bool:
        """Of the latest labelled landmark, by which patients are dealt into folds; False where there is none."""
        return bool(self.labels[self.labelled[-1]]) if self.labelled else False

    def intervals(self, config: FinetuneConfig) -> Intervals:
        """The outcome of each exam as landmark in the intervals that end at the horizons."""
        follow_up = self.follow_up()
        return Intervals.of(follow_up.months, follow_up.status, config.horizons_months, whole=config.loss != "plain")

    def follow_up(self, landmarks: Sequence[int] | None = None, patient: int = 0) -> FollowUp:
        """What became of the patient after the given exams, or all of them."""
        chosen = np.arange(len(self.exams)) if landmarks is None else np.array(landmarks, dtype=np.int64)
        months = self.followed + np.array(self.months)[chosen]
        same = np.ones_like(chosen)
        return FollowUp(patient * same, chosen + 1, months, self.status * same)


@dataclass(frozen=True)
class Examples:
    """All patients of a cohort that can be trained on or tested with.

    Args:
        all: in the order of their ids.
        left_out: patient id → why.
        counts: exams dropped, exams with a short follow-up.
        phantom: whether the patients are generated.
    """

    all: tuple[Example, ...]
    left_out: Mapping[str, str]
    counts: Mapping[str, int] = field(default_factory=dict)
    phantom: bool = False

    def reasons(self) -> dict[str, int]:
        """Reason → patients left out; a sentence about one patient's files counts by its kind."""
        return dict(Counter(reason.split(": ")[0] for reason in self.left_out.values()))

    def digest(self, members: Sequence[str], with_targets: bool = True) -> str:
        """A digest of what these patients' examples hold: images, times, labels and, where they decide, targets."""
        wanted = set(members)
        chosen = [
            [e.exams, e.months, (e.targets, e.masks) if with_targets else (), e.number, e.followed, e.status]
            for e in self.all
            if e.patient_id in wanted
        ]
        return hashlib.sha256(json.dumps(chosen).encode()).hexdigest()


def gather_examples(
    cohort: Cohort,
    config: FinetuneConfig,
    cache: PreparedCache,
    targets: Mapping[tuple[str, str], float],
    progress: Progress,
) -> Examples:
    """A cohort's exams with what became of their patients, prepared into the cache.

    Args:
        cohort: with outcomes.
        config: horizons, landmarks, processes.
        cache: filled here.
        targets: (patient id, exam id) → exam-level target; may be empty.
        progress: called with stage, done and total.

    Raises:
        Refusal: no outcomes, or no patient is left.
    """
    _require_outcomes(cohort)
    left_out = _unreadable(cohort)
    counts: Counter[str] = Counter()
    drafts = []
    for number, patient in enumerate(sorted(cohort.patients, key=lambda p: p.patient_id)):
        draft = _draft(number, patient, cohort, config, left_out, counts)
        if draft is not None:
            drafts.append(draft)
    return _examples(drafts, left_out, counts, (config, cache, targets), progress)


def gather_exams(
    cohort: Cohort,
    config: PretrainConfig,
    cache: PreparedCache,
    targets: Mapping[tuple[str, str], float],
    without: Collection[str],
    progress: Progress,
) -> Examples:
    """All exams of a cohort for a stage that needs no labels, prepared into the cache; no example has a label.

    Exams on or after a diagnosis are dropped where it is known, as in the supervised stage.

    Args:
        cohort: with or without outcomes.
        config: processes.
        cache: filled here.
        targets: (patient id, exam id) → exam-level target; may be empty.
        without: ids of patients that are not read.
        progress: called with stage, done and total.

    Raises:
        Refusal: outcomes that are there can't be used, or no patient is left.
    """
    if cohort.outcomes_refused is not None:
        raise cohort.outcomes_refused
    left_out = _unreadable(cohort)
    counts: Counter[str] = Counter()
    drafts: list[Draft] = []
    for number, patient in enumerate(sorted(cohort.patients, key=lambda p: p.patient_id)):
        if patient.patient_id in without:
            left_out[patient.patient_id] = "set aside as test"
            continue
        outcome = cohort.outcomes.get(patient.patient_id)
        event = None if outcome is None else outcome.event_date
        kept = tuple(exam for exam in patient.exams if event is None or exam.date < event)
        counts["exams on or after the diagnosis"] += len(patient.exams) - len(kept)
        if kept:
            drafts.append((number, replace(patient, exams=kept), (None,) * len(kept), None))
        else:
            left_out[patient.patient_id] = "no exam before the diagnosis"
    return _examples(drafts, left_out, counts, (config, cache, targets), progress)


def _unreadable(cohort: Cohort) -> dict[str, str]:
    return {name: f"can't be read: {refusal.message}" for name, refusal in cohort.refused.items()}


Tools = tuple[StageConfig, PreparedCache, Mapping[tuple[str, str], float]]


def _examples(
    drafts: list[Draft], left_out: dict[str, str], counts: Mapping[str, int], tools: Tools, progress: Progress
) -> Examples:
    """Prepares the drafts' exams; who has one that can't be prepared is left out."""
    config, cache, targets = tools
    keys = iter(_prepare(cache, [patient.exams for _, patient, *_ in drafts], config, progress))
    examples = []
    for number, patient, labels, outcome in drafts:
        own = [next(keys) for _ in patient.exams]
        refusal = next((key for key in own if isinstance(key, Refusal)), None)
        if refusal is not None:
            left_out[patient.patient_id] = f"can't be used: {refusal.message}"
            continue
        examples.append(_example(number, patient, labels, outcome, [str(key) for key in own], targets))
    result = Examples(tuple(examples), left_out, dict(counts), _is_phantom([patient for _, patient, *_ in drafts]))
    if not examples:
        reasons = "; ".join(f"{reason} ({n})" for reason, n in result.reasons().items()) or "there is no patient"
        first = next((text.split(": ", 1)[1] for text in left_out.values() if ": " in text), "")
        example = f" The first because: {first}" if first else ""
        raise Refusal("no_examples", f"No patient of the cohort can be used: {reasons}.{example}")
    return result


def count_examples(examples: Sequence[Example]) -> dict[str, int]:
    """Patients, exams and landmarks by label."""
    return {
        "patients": len(examples),
        "exams": sum(len(e.exams) for e in examples),
        "diagnosed patients": sum(e.status == DIAGNOSED for e in examples),
        "patients with a competing event": sum(e.status == COMPETING for e in examples),
        "positive landmarks": sum(e.labels.count(True) for e in examples),
        "negative landmarks": sum(e.labels.count(False) for e in examples),
    }


def _is_phantom(patients: Sequence[Patient]) -> bool:
    """Whether a cohort is generated, by the first exam of each patient; both kinds together are refused."""
    marked = [any(image.is_phantom for image in patient.exams[0].images.values()) for patient in patients]
    if any(marked) and not all(marked):
        message = (
            f"{sum(marked)} of {len(marked)} patients are generated (phantom), the others are not. Keep them apart."
        )
        raise Refusal("mixed_cohort", message)
    return bool(marked) and all(marked)


def _require_outcomes(cohort: Cohort) -> None:
    if cohort.outcomes_refused is not None:
        raise cohort.outcomes_refused
    if not cohort.outcomes:
        message = (
            "The cohort has no outcomes. Put outcomes.csv (patient_id, diagnosis_date, last_seen_date) into the cohort "
            "folder or beside the table."
        )
        raise Refusal("no_outcomes", message)


def _draft(
    number: int,
    patient: Patient,
    cohort: Cohort,
    config: FinetuneConfig,
    left_out: dict[str, str],
    counts: Counter[str],
) -> Draft | None:
    """A patient's exams before an event and their labels; None, and counted, where there is none."""
    outcome = cohort.outcomes.get(patient.patient_id)
    if outcome is None:
        left_out[patient.patient_id] = "no outcome"
        return None
    try:
        landmarks = find_landmarks(patient, outcome, config.horizon_months)
    except Refusal as refusal:
        left_out[patient.patient_id] = f"can't be used: {refusal.message}"
        return None
    counts["exams on or after the diagnosis"] += landmarks.dropped
    if landmarks.patient is None:
        left_out[patient.patient_id] = "no exam before the diagnosis"
        return None
    follow_up = follow_up_of([([exam.date for exam in landmarks.patient.exams], outcome)])
    counts["exams censored before the first horizon"] += int((~follow_up.known(config.horizons_months[0])).sum())
    if config.landmarks == "latest" and not landmarks.labelled:
        left_out[patient.patient_id] = "not followed for the main horizon"
        return None
    return number, landmarks.patient, landmarks.labels, outcome


def _prepare(
    cache: PreparedCache, patients: list[tuple[Exam, ...]], config: StageConfig, progress: Progress
) -> list[str | Refusal]:
    keys: list[str | Refusal] = []
    count = sum(map(len, patients))
    progress("preparing exams", 0, count)
    for key in cache.fill(patients, config.processes or os.cpu_count() or 1):
        keys.append(key)
        progress("preparing exams", len(keys), count)
    return keys


def _example(
    number: int,
    patient: Patient,
    labels: tuple[bool | None, ...],
    outcome: Outcome | None,
    keys: list[str],
    targets: Mapping[tuple[str, str], float],
) -> Example:
    follow_up = None if outcome is None else follow_up_of([([patient.landmark.date], outcome)])
    return Example(
        patient_id=patient.patient_id,
        number=number,
        exams=tuple(keys),
        months=tuple(months_between(exam.date, patient.landmark.date) for exam in patient.exams),
        labels=labels,
        targets=tuple(targets.get((patient.patient_id, exam.exam_id)) for exam in patient.exams),
        exam_ids=tuple(exam.exam_id for exam in patient.exams),
        followed=math.nan if follow_up is None else float(follow_up.months[0]),
        status=CENSORED if follow_up is None else int(follow_up.status[0]),
    )


def training_cache(config: StageConfig) -> PreparedCache:
    """Where a stage keeps its prepared exams: with room for the crops that it draws, in half precision."""
    preparation = Preparation(config.channels, config.preparation, config.missing_channels, config.jitter, half=True)
    return PreparedCache(config.cache_folder, preparation)


def read_cohort(config: StageConfig) -> Cohort:
    """The cohort that a stage names, with the user's table of channels where one is named. Raises Refusal."""
    table = read_channel_table(Path(config.channel_table)) if config.channel_table else None
    return read_input(Path(config.cohort), ReadingOptions(channel_table=table))


def cohort_targets(config: FinetuneConfig | BackboneConfig) -> dict[tuple[str, str], float]:
    """The exam-level target that a stage names, from a table in its cohort; see ``read_targets``."""
    root = Path(config.cohort)
    return read_targets((root if root.is_dir() else root.parent) / config.target_file, config.target_column)


def read_targets(path: Path, column: str) -> dict[tuple[str, str], float]:
    """Reads an exam-level target: a table with ``patient_id``, ``exam_id`` and the column; empty cells are no target.

    Raises:
        Refusal: the table or a column is missing, a cell is no finite number, an exam stands there twice; names the row.
    """
    if not path.is_file():
        raise Refusal("missing_targets", f"The table of exam-level targets {path} does not exist. Check target_file.")
    targets: dict[tuple[str, str], float] = {}
    for number, row in read_rows(path, ("patient_id", "exam_id", column)):
        key, text = (row["patient_id"], row["exam_id"]), row[column]
        where = f"{path.name}, row {number}"
        if key in targets:
            raise Refusal("target_twice", f"{where}: this exam stands there already. Keep one row per exam.")
        if text:
            targets[key] = _number(text, f"{where}: {column}")
    return targets


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise Refusal("bad_targets", f"{where} must be a finite number, or empty where there is none.")
    return value
