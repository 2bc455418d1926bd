"""Form 4, BIDS: ``sub-*/ses-*/<datatype>/sub-X_ses-Y_[entities]_suffix.nii.gz``.

Dates stand in ``sub-X_sessions.tsv``, outcomes in ``participants.tsv``. BIDS has no names for the channels of a liver
protocol: they are looked up in the labels of a file's name, in its b-values and in the words of its sidecar. Messages name
a file without its subject.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from HCCNetLib.readers.channel_table import DISPLACED, ExamChannels, Override
from HCCNetLib.readers.channels import (
    CHANNELS,
    PUBLISHED_ALIASES,
    assign_channels,
    b_value_name,
    b_value_of,
    plain_name,
)
from HCCNetLib.readers.exams import (
    NO_B_VALUE,
    NamedFile,
    NamedImage,
    ReadingOptions,
    as_clause,
    assemble_patient,
    b_value_confidence,
    b_values_beside,
    in_exam,
    look_at_date,
    not_used,
    split_volumes,
    with_grid,
)
from HCCNetLib.readers.folders import entries, holds_images, is_patient_folder, name_as_given, passed_over
from HCCNetLib.readers.images import image_stem, open_image
from HCCNetLib.readers.outcomes import OUTCOME_COLUMNS, make_cohort, outcomes_beside, outcomes_in
from HCCNetLib.readers.rows import CONTROLS, read_rows
from HCCNetLib.readers.series import SeriesFacts, is_derived, name_of_series
from HCCNetLib.records import Cohort, Confidence, Exam, FoundImage, Image, Outcome, Patient, Problem, Refusal

PARTICIPANTS, DESCRIPTION, DERIVATIVES = "participants.tsv", "dataset_description.json", "derivatives"
# Folders that a dataset has beside its subjects.
_NOT_RAW = (DERIVATIVES, "sourcedata", "rawdata", "code", "stimuli", "phenotype", "models")

_SUBJECT, _SESSION = "sub-", "ses-"
_DATATYPES = ("anat", "dwi")
_EMPTY = ("", "n/a")
_ISO_TIME = re.compile(r"(\d{4}-\d{2}-\d{2})(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?)?")

# Entities whose labels may name a channel, and those whose labels are words about the image.
_NAMING = ("acq", "ce", "desc", "rec")
_WORDS = (*_NAMING, "mod", "task", "dir")
_WEIGHTINGS = {"T1w": "T1", "T2w": "T2", "dwi": "DWI"}
_NO_IMAGES = (
    *("sbref", "mask", "dseg", "probseg", "adc", "fa", "expadc", "m0scan"),
    *("phase", "phasediff", "fieldmap", "epi"),
)
_NO_MAGNITUDES = ("phase", "real", "imag")

_UNKNOWN = "nothing in its name or its .json file says which channel it is"


@dataclass(frozen=True)
class BidsFile:
    """An image file and what its name says.

    Args:
        path: the file.
        place: its folder for messages, e.g. ``ses-01/anat``.
        entities: key → label, without subject and session.
        suffix: the name's last part, e.g. ``T1w``.
    """

    path: Path
    place: str
    entities: Mapping[str, str]
    suffix: str

    @property
    def name(self) -> str:
        """What to call it within its exam: datatype and name, without subject and session."""
        datatype = self.place.rpartition("/")[2]
        parts = [f"{key}-{label}" for key, label in self.entities.items()]
        return f"{datatype}/{'_'.join([*parts, self.suffix])}"

    @property
    def shown(self) -> str:
        """What messages call it."""
        stem = image_stem(self.path) or ""
        return f"{self.place}/{self.name.rpartition('/')[2]}{self.path.name[len(stem) :]}"

    @property
    def is_liver_mask(self) -> bool:
        """Whether its name says that it marks the liver."""
        label = self.entities.get("label", self.entities.get("desc", ""))
        return self.suffix == "mask" and plain_name(label) == "liver"

    @cached_property
    def sidecar(self) -> Mapping[str, Any]:
        """The .json file beside it; empty where there is none that can be read."""
        try:
            content = json.loads(self.path.with_name(f"{image_stem(self.path)}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return content if isinstance(content, dict) else {}

    @property
    def description(self) -> str:
        """The series description in the sidecar, or empty."""
        return " ".join(CONTROLS.sub(" ", str(self.sidecar.get("SeriesDescription", ""))).split())


@dataclass(frozen=True)
class Candidate:
    """An image and the name by which its channel is looked up.

    Args:
        found: what is remembered of it; its ``reason`` says why it can't be a channel, where that is known.
        named: the image under a channel's or a b-value's name; None where nothing is known of it.
        file: that it was read from.
        is_expected: whether it is of a kind that lies in many datasets and is no channel: nobody need be told.
    """

    found: FoundImage
    named: NamedImage | None
    file: BidsFile
    is_expected: bool = False


# ---------------------------------------------------------------- recognising the form


def is_bids_dataset(folder: Path) -> bool:
    """Whether a folder holds subjects of BIDS, and not patient folders that are named alike."""
    subjects = _folders(folder, _SUBJECT)
    if not any(map(_holds_images, subjects)) or any(is_patient_folder(subject) for subject in subjects):
        return False
    return any((folder / name).is_file() for name in (DESCRIPTION, PARTICIPANTS)) or any(map(_has_sessions, subjects))


def is_bids_subject(folder: Path) -> bool:
    """Whether a folder is one subject of BIDS."""
    return name_as_given(folder).startswith(_SUBJECT) and _has_sessions(folder) and _holds_images(folder)


def _holds_images(folder: Path) -> bool:
    """Whether there is any image; DICOM that waits to be converted may lie in folders of the same names."""
    return any(image_stem(path) is not None for path in folder.rglob("*"))


def _has_sessions(subject: Path) -> bool:
    return bool(_folders(subject, _SESSION)) or any((subject / name).is_dir() for name in _DATATYPES)


def _folders(folder: Path, prefix: str) -> list[Path]:
    return [path for path in entries(folder) if path.name.startswith(prefix) and path.is_dir()]


# ---------------------------------------------------------------- datasets and subjects


def read_bids_dataset(folder: Path, options: ReadingOptions | None = None) -> Cohort:
    """Reads form 4. A subject that can't be read is refused alone; patients of other forms beside them are named."""
    patients: list[Patient] = []
    refused: dict[str, Refusal] = {}
    for subject in _folders(folder, _SUBJECT):
        try:
            patients.append(read_bids_subject(subject, options))
        except Refusal as refusal:
            refused[subject.name] = refusal
    ids = [*(patient.patient_id for patient in patients), *refused]
    outcomes = outcomes_beside(folder / PARTICIPANTS, ids, read_participants)
    return make_cohort("BIDS dataset", patients, refused, outcomes, _beside_subjects(folder))


def _beside_subjects(folder: Path) -> list[Problem]:
    """What is no subject and may be a patient."""
    others = [p for p in entries(folder) if p.is_dir() and not p.name.startswith(_SUBJECT) and p.name not in _NOT_RAW]
    return [passed_over(other, "it is no subject (sub-*).") for other in others if holds_images(other.rglob("*"))]


def read_participants(path: Path) -> dict[str, Outcome]:
    """The outcomes in ``participants.tsv``: the columns of ``outcomes.csv``; none without them.

    Raises:
        Refusal: one of the columns alone, or a wrong date; names the row.
    """
    rows = read_rows(path, ("participant_id",))
    columns = [name for name in OUTCOME_COLUMNS if name in rows[0][1]]
    if not columns:
        return {}
    if not {"diagnosis_date", "last_seen_date"} <= set(columns):
        message = (
            f"{path.name} has the column(s) {', '.join(columns)}, but outcomes need diagnosis_date and last_seen_date."
        )
        raise Refusal("missing_column", message)
    known: list[tuple[int, dict[str, str]]] = []
    for number, row in rows:
        cells: dict[str, str] = {name: _cell(row[name]) for name in columns}
        if any(cells.values()):
            patient_id = _SUBJECT + row["participant_id"].removeprefix(_SUBJECT)
            known.append((number, {"patient_id": patient_id, **cells}))
    return outcomes_in(path.name, known)


def read_bids_subject(folder: Path, options: ReadingOptions | None = None) -> Patient:
    """Reads one subject; the folder's name is the patient id, a session is an exam.

    Raises:
        Refusal: a session without a date, two on one day, images outside the sessions, a name of another subject.
    """
    patient_id = name_as_given(folder)
    try:
        return _read_subject(folder, patient_id, options)
    except Refusal as refusal:
        message = refusal.message.replace(f"{patient_id}_", "").replace(patient_id, f"{_SUBJECT}…")
        raise Refusal(refusal.code, message, refusal.exam_id) from refusal


def _read_subject(folder: Path, patient_id: str, options: ReadingOptions | None) -> Patient:
    sessions = _folders(folder, _SESSION)
    loose = [path for path in _images_in(folder) if not path.relative_to(folder).parts[0].startswith(_SESSION)]
    if sessions and loose:
        message = f"{len(loose)} image(s) lie beside the sessions and belong to no exam. Move them into their session."
        raise Refusal("loose_images", message)
    times = _session_times(folder / f"{patient_id}_sessions.tsv")
    exams: list[Exam] = []
    problems: list[Problem] = []
    for session in sessions or [folder]:
        name = session.name if sessions else ""
        paths = _images_in(session)
        if paths:
            exams.append(_read_session(session, patient_id, name, times.get(name, ""), options))
        else:
            said = f"The session {name} was passed over" if name else "The folder was passed over"
            problems.append(Problem("passed_over", f"{said}: it holds no image."))
    missing = [name for name in times if sessions and name not in {session.name for session in sessions}]
    if missing:
        message = f"sessions.tsv lists {', '.join(missing)}, and there is no such folder: read without it."
        problems.append(Problem("sessions_missing", message))
    if not exams:
        raise Refusal(
            "no_exams", "No session of it holds an image in NIfTI or NRRD. Convert its images, or move it elsewhere."
        )
    return assemble_patient(patient_id, exams, options, problems)


def _images_in(folder: Path) -> list[Path]:
    """The images in a session's folder and in its datatypes' folders."""
    found = entries(folder)
    inside = [path for datatype in found if datatype.is_dir() for path in entries(datatype)]
    return [path for path in (*found, *inside) if image_stem(path) is not None and not path.is_dir()]


# ---------------------------------------------------------------- dates


def _cell(text: str) -> str:
    return "" if text.lower() in _EMPTY else text


def _session_times(path: Path) -> dict[str, str]:
    """Session → acquisition time as it is written, empty where it is not said."""
    if not path.is_file():
        return {}
    times: dict[str, str] = {}
    for number, row in read_rows(path, ("session_id",)):
        session = _SESSION + row["session_id"].removeprefix(_SESSION)
        if session in times:
            message = f"{path.name}, row {number}: {session} stands there already. Keep one row per session."
            raise Refusal("exam_twice", message)
        times[session] = _cell(row.get("acq_time", ""))
    return times


def _date_of(session: Path, prefix: str, time: str) -> datetime.date:
    """The day of a session by its time in sessions.tsv, else by the one day of all its scans.

    Raises:
        Refusal: neither says one day.
    """
    if time:
        day = _day(time)
        if day is None:
            message = f"acq_time {time} in sessions.tsv is no date. Write 2021-03-14 or 2021-03-14T09:30:00."
            raise Refusal("undated_exam", message)
        return day
    path = session / f"{prefix}_scans.tsv"
    rows = read_rows(path, ("filename",)) if path.is_file() else []
    times = [text for _, row in rows if (text := _cell(row.get("acq_time", "")))]
    days = {_day(text) for text in times}
    if len(days) == 1 and (day := days.pop()) is not None:
        return day
    reason = "The scans in scans.tsv are not" if times else "Neither sessions.tsv nor scans.tsv says that it is"
    advice = "an exam without its date can't be used. Write its acq_time (2021-03-14) into sessions.tsv."
    raise Refusal("undated_exam", f"{reason} of one day, and {advice}")


def _day(text: str) -> datetime.date | None:
    match = _ISO_TIME.fullmatch(text)
    try:
        return datetime.date.fromisoformat(match.group(1)) if match else None
    except ValueError:  # the 31st of February
        return None


# ---------------------------------------------------------------- one session


def _read_session(session: Path, patient_id: str, name: str, time: str, options: ReadingOptions | None) -> Exam:
    options = options or ReadingOptions()
    prefix = f"{patient_id}_{name}" if name else patient_id
    exam_id = name
    try:
        date = _date_of(session, prefix, time)
        exam_id = name or date.isoformat()
        problems = look_at_date(date)
        files = [_parsed(path, session, prefix, exam_id) for path in _images_in(session)]
        subject = session.parent if name else session
        made = list(_derived_masks(subject.parent / DERIVATIVES, patient_id, name, prefix))
        mask, mask_problems = _liver_mask([file for file in (*files, *made) if file.is_liver_mask])
        candidates = _by_echo([c for file in files if not file.is_liver_mask for c in _candidates(file)])
        table = options.channels_of(patient_id, exam_id, date)
        candidates = _with_table(_with_own_names(candidates), table, f"exam {exam_id}")
        images, found, more = _assigned(candidates, f"exam {exam_id}")
    except Refusal as refusal:
        if not exam_id:
            raise
        raise in_exam(refusal, exam_id) from refusal
    expected = {candidate.found.name for candidate in candidates if candidate.is_expected}
    unknown = [_told(f) for f in found if f.channel is None and f.confidence == "none" and f.name not in expected]
    return Exam(
        exam_id=exam_id,
        date=date,
        images=dict(sorted(images.items())),
        liver_mask=open_image(mask.path, mask.shown) if mask else None,
        problems=tuple(replace(p, exam_id=exam_id) for p in [*problems, *mask_problems, *more, *not_used(unknown)]),
        unknown_files=tuple(unknown),
        resample_channels=options.resample_channels,
        found=found,
    )


def _parsed(path: Path, session: Path, prefix: str, exam_id: str) -> BidsFile:
    """What a file's name says; raises Refusal where it says another subject or session than its folder."""
    stem = image_stem(path) or ""
    place = "/".join((exam_id, *path.parent.relative_to(session).parts))
    parts = stem.split("_")
    entities = dict(part.split("-", 1) for part in parts if "-" in part)
    says = "_".join(part for part in parts if part.startswith((_SUBJECT, _SESSION)))
    if says != prefix:
        rest = "_".join(part for part in parts if not part.startswith((_SUBJECT, _SESSION)))
        what = "another subject or session than its folder" if says else "neither its subject nor its session"
        message = f"{place}: the name of a file (…_{rest}) says {what}. Rename it, or move it to where it belongs."
        raise Refusal("foreign_file", message)
    suffix = parts[-1] if "-" not in parts[-1] else ""
    return BidsFile(path, place, {k: v for k, v in entities.items() if k not in ("sub", "ses")}, suffix)


def _derived_masks(derivatives: Path, patient_id: str, session: str, prefix: str) -> Iterator[BidsFile]:
    """The images of a session that others were worked out to, in ``derivatives/<any>/sub-X/ses-Y``."""
    if not derivatives.is_dir():
        return
    for pipeline in entries(derivatives):
        folder = pipeline / patient_id / session
        for path in sorted(folder.rglob(f"{prefix}_*")) if folder.is_dir() else ():
            if image_stem(path) is not None and path.is_file():
                yield _parsed(path, folder, prefix, f"{DERIVATIVES}/{pipeline.name}/{session}".rstrip("/"))


def _liver_mask(masks: Sequence[BidsFile]) -> tuple[BidsFile | None, list[Problem]]:
    """The mask that lies in the session's own space; raises Refusal where there are two."""
    own = [mask for mask in masks if mask.entities.get("space", "orig") == "orig"]
    if len(own) > 1:
        names = " and ".join(mask.shown for mask in own)
        raise Refusal("liver_twice", f"{names} both say where the liver is. Keep the right one.")
    problems = []
    if elsewhere := [mask for mask in masks if mask not in own]:
        names = ", ".join(mask.shown for mask in elsewhere)
        message = f"liver masks in another space than the images' own are not used: {names}."
        problems.append(Problem("liver_mask_elsewhere", message))
    return (own[0] if own else None), problems


# ---------------------------------------------------------------- which channel


def _candidates(file: BidsFile) -> list[Candidate]:
    """The images of a file with the names by which their channels are looked up."""
    found = FoundImage(file.name, description=file.description, files=(file.path,))
    labels = _names_by_label(file)
    expected = _why_no_image(file)
    reason = expected or _why_no_channel(file, labels)
    if reason:
        image = open_image(file.path, file.shown)
        return [Candidate(replace(with_grid(found, image), reason=reason), None, file, bool(expected))]
    label = next(iter(labels), None)
    try:
        images = split_volumes(NamedFile(label or file.name, file.path, file.shown))
        if images[0].named_by == "b-value":
            return [_of_volume(found, image, file) for image in images]
        named = _named_alone(images[0], label, file)
    except Refusal as refusal:
        return [Candidate(replace(found, reason=as_clause(refusal)), None, file)]
    return [Candidate(with_grid(found, images[0].image), named, file)]


def _of_volume(found: FoundImage, image: NamedImage, file: BidsFile) -> Candidate:
    b_value = f"{b_value_of(image.name):g}"
    volume = replace(found, name=f"{found.name}, b {b_value}", details={"b": b_value})
    return Candidate(with_grid(volume, image.image), image, file)


def _named_alone(image: NamedImage, label: str | None, file: BidsFile) -> NamedImage | None:
    """A 3D image under the name that its label, its .bval file, or words give it."""
    if label is not None:
        return replace(image, name=label)
    b_values = b_values_beside(NamedFile(file.name, file.path, file.shown))
    if b_values is not None and len(b_values) == 1:
        return replace(image, name=b_value_name(0.0 if b_values[0] < 1 else b_values[0]), named_by="b-value")
    by_words = name_of_series(SeriesFacts(" ".join(filter(None, (_words(file), file.description)))))
    if by_words is None:
        return None
    return replace(image, name=PUBLISHED_ALIASES.get(by_words[0], by_words[0]), named_by=by_words[1])


def _why_no_image(file: BidsFile) -> str:
    """Why a file is none of the images that channels are made of, or empty."""
    if file.suffix.lower() in _NO_IMAGES or file.suffix.lower().endswith("map"):
        return f"no image of a channel ({file.suffix})"
    part = file.entities.get("part")
    return f"no magnitude image (part-{part})" if part in _NO_MAGNITUDES else ""


def _why_no_channel(file: BidsFile, labels: set[str]) -> str:
    """Why an image can be no channel, whatever it is called, or empty."""
    if "inv" in file.entities:
        return "one of several inversion times"
    if is_derived(f"{_words(file)} {file.description}"):
        return "worked out from other images, by its words"
    weighting = _WEIGHTINGS.get(file.suffix)
    if len(labels) == 1 and (other := _contradiction(file, *labels)):
        return f"its label says {next(iter(labels))} and other words {other}"
    says = {*labels, *([file.suffix] if weighting and any(not name.startswith(weighting) for name in labels) else [])}
    return f"its name says {' and '.join(sorted(says))}" if len(says) > 1 else ""


def _contradiction(file: BidsFile, labelled: str) -> str:
    """Another channel than the labelled one that another label or the description is in words, or empty."""
    labels = [f"{file.entities[key]} {file.suffix}" for key in _WORDS if key in file.entities]
    for text in filter(None, (*labels, file.description)):
        by_words = name_of_series(SeriesFacts(text))
        name = PUBLISHED_ALIASES.get(by_words[0], by_words[0]) if by_words else labelled
        if name != PUBLISHED_ALIASES.get(labelled, labelled):
            return name
    return ""


def _words(file: BidsFile) -> str:
    return " ".join([*(file.entities[key] for key in _WORDS if key in file.entities), file.suffix])


def _names_by_label(file: BidsFile) -> set[str]:
    """The channels and b-values that labels of a name are equal to, but for case and separators.

    A label may leave out what the suffix says: ``acq-arterial_T1w``, ``acq-b800_dwi``.
    """
    weighting = _WEIGHTINGS.get(file.suffix, "")
    channels = {plain_name(name): channel for name, channel in _all_names()}
    if weighting:
        channels |= {plain_name(c.removeprefix(weighting)): c for c in CHANNELS if c.startswith(weighting)}
    names = set()
    for label in (plain_name(file.entities[key]) for key in _NAMING if key in file.entities):
        b_value = re.fullmatch(r"(dwi)?b(\d{1,4})", label)
        if b_value and (b_value.group(1) or weighting == "DWI"):
            names.add(b_value_name(float(b_value.group(2))))
        elif label in channels:
            names.add(channels[label])
    return names


def _all_names() -> Iterable[tuple[str, str]]:
    yield from ((channel, channel) for channel in CHANNELS)
    yield from PUBLISHED_ALIASES.items()


def _by_echo(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Gives the two echoes of a T2-weighted image their channels, by echo time, or by number where no time is said."""
    pairs: dict[tuple[tuple[str, str], ...], list[BidsFile]] = {}
    for candidate in candidates:
        file = candidate.file
        is_open = candidate.named is None and not candidate.found.reason
        if is_open and file.suffix == "T2w" and "echo" in file.entities:
            others = tuple((key, label) for key, label in file.entities.items() if key != "echo")
            pairs.setdefault(others, []).append(file)
    channels: dict[Path, str] = {}
    for pair in pairs.values():
        order = [_echo_time(file) for file in pair]
        if None in order:
            order = [{"1": 1.0, "2": 2.0}.get(file.entities["echo"].lstrip("0")) for file in pair]
        if len(pair) == 2 and order[0] is not None and order[1] is not None and order[0] != order[1]:
            short, long = pair if order[0] < order[1] else pair[::-1]
            channels |= {short.path: "T2_short", long.path: "T2_long"}
    return [_with_echo(c, channels[c.file.path]) if c.file.path in channels else c for c in candidates]


def _echo_time(file: BidsFile) -> float | None:
    """The echo time in the sidecar, seconds, or None."""
    time = file.sidecar.get("EchoTime")
    return float(time) if isinstance(time, int | float) else None


def _with_echo(candidate: Candidate, channel: str) -> Candidate:
    image = open_image(candidate.file.path, candidate.file.shown)
    time = _echo_time(candidate.file)
    details = {"echo": candidate.file.entities["echo"]} | ({} if time is None else {"echo time": f"{time:g} s"})
    named = NamedImage(channel, image, candidate.file.path, "echo time")
    return replace(candidate, found=replace(candidate.found, details=details), named=named)


def _with_own_names(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Names are unique within an exam: one image may be there as .nii and .nii.gz."""
    names = [candidate.found.name for candidate in candidates]
    return [c if names.count(c.found.name) == 1 else _renamed(c, c.file.shown) for c in candidates]


def _renamed(candidate: Candidate, name: str) -> Candidate:
    return replace(candidate, found=replace(candidate.found, name=name))


def _with_table(candidates: Sequence[Candidate], table: ExamChannels | None, where: str) -> list[Candidate]:
    """What the user's table says of the images comes first; whoever had a channel that it gives to another has none."""
    said = {c.found.name: table.look_up(c.found.name, c.found.description) for c in candidates} if table else {}
    given = [override.channel for override in said.values() if override is not None and override.channel is not None]
    for channel in given:
        if given.count(channel) > 1:
            message = (
                f"{where}: the table of channels gives {channel} to {given.count(channel)} images. Keep the right one."
            )
            raise Refusal("channel_twice", message)
    return [_said(candidate, said.get(candidate.found.name), given) for candidate in candidates]


def _said(candidate: Candidate, override: Override | None, given: Sequence[str | None]) -> Candidate:
    if override is None:
        name = candidate.named.name if candidate.named else ""
        if PUBLISHED_ALIASES.get(name, name) not in given:
            return candidate
        return replace(candidate, found=replace(candidate.found, reason=DISPLACED), named=None)
    if override.channel is None:
        return replace(candidate, found=replace(candidate.found, reason=override.reason), named=None, is_expected=True)
    file = candidate.file
    image = candidate.named.image if candidate.named else open_image(file.path, file.shown)
    named = NamedImage(override.channel, image, file.path, "table")
    return replace(candidate, found=replace(candidate.found, reason=""), named=named)


def _assigned(
    candidates: Sequence[Candidate], where: str
) -> tuple[dict[str, Image], tuple[FoundImage, ...], list[Problem]]:
    """Channel → image, what became of every image, and problems; of several for one channel none is taken."""
    by_name: dict[str, list[tuple[str, Image]]] = {}
    for candidate in candidates:
        if candidate.named is not None:
            by_name.setdefault(candidate.named.name, []).append((candidate.found.name, candidate.named.image))
    # A name that several images have keeps its place: another b-value must not move up to it.
    channels, _, problems = assign_channels(by_name, where)
    several = {name for name in channels if len(by_name[name]) > 1}
    problems = [p for p in problems if not several & set(p.message.split())]
    for name in sorted(several):
        files = ", ".join(file for file, _ in by_name[name])
        message = f"{channels[name]}: {len(by_name[name])} images may each be it ({files}); none was taken. Keep the right one."
        problems.append(Problem("channel_ambiguous", message))
    images = {channel: by_name[name][0][1] for name, channel in channels.items() if name not in several}
    return images, tuple(_outcome(c, channels, several) for c in candidates), problems


def _told(found: FoundImage) -> str:
    """An image that is not used, with the reason where its name does not say it."""
    return found.name if found.reason in (_UNKNOWN, NO_B_VALUE) else f"{found.name} ({found.reason})"


def _outcome(candidate: Candidate, channels: Mapping[str, str], several: set[str]) -> FoundImage:
    found, named = candidate.found, candidate.named
    if named is None:
        return replace(found, reason=found.reason or _UNKNOWN)
    if named.name in several:
        return replace(
            found, confidence="ambiguous", reason=f"one of several images that may be {channels[named.name]}"
        )
    if named.name not in channels:
        return replace(found, reason=found.reason or NO_B_VALUE)
    channel = channels[named.name]
    sure: Confidence = b_value_confidence(named.name, channel)
    confidence: Confidence = sure if named.named_by in ("name", "b-value", "table") else "probable"
    return replace(found, channel=channel, recognised_by=named.named_by, confidence=confidence)
