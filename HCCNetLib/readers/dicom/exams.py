"""Form 6, a DICOM folder of any depth or a list of files: frames → series → volumes → channels of dated exams."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from HCCNetLib.readers.assignment import SeriesChannels, channels_of_series
from HCCNetLib.readers.channel_table import Override
from HCCNetLib.readers.channels import b_value_of
from HCCNetLib.readers.dicom.files import begins_like_dicom, quietly, read_header, require_pydicom, walk
from HCCNetLib.readers.dicom.frames import MR_CLASSES, Alike, Frame, frames_of
from HCCNetLib.readers.dicom.geometry import directions_of
from HCCNetLib.readers.dicom.image import image_of
from HCCNetLib.readers.dicom.kinds import MAGNITUDE, kind_of
from HCCNetLib.readers.dicom.stacks import Stack, name_of, stacks_of
from HCCNetLib.readers.dicom.studies import Visit, by_patient, look_at_body_parts, look_at_patient, visits_of
from HCCNetLib.readers.exams import ReadingOptions, in_exam, look_at_date, without_left_out
from HCCNetLib.readers.folders import name_as_given
from HCCNetLib.readers.image_types import dixon_of_type
from HCCNetLib.readers.outcomes import OUTCOMES_FILE, Outcomes, make_cohort, outcomes_beside
from HCCNetLib.readers.series import SeriesFacts, is_t1, plane_of, protocol_of
from HCCNetLib.readers.timing import seconds_after_contrast
from HCCNetLib.records import Cohort, Confidence, Exam, FoundImage, Patient, Problem, Refusal

FORM = "DICOM folder"
# Why an image that may be a channel is none.
NOTHING_SAYS, OTHER_B_VALUE = "nothing says which channel it is", "no channel has this b-value"
_NO_ID = "(no patient id)"
_SURE = ("name", "b-value", "table")


def read_dicom(path: Path, options: ReadingOptions | None = None) -> Cohort:
    """Reads form 6, or a single file of it; voxels are not read yet.

    Raises:
        Refusal: pydicom is missing, or no MR image is among the files; a patient who can't be read is refused alone.
    """
    options = options or ReadingOptions()
    require_pydicom()
    folder, files = (path, walk(path)) if path.is_dir() else (path.parent, [path])
    scan = _scan(files)
    groups = {name_as_given(path): list(scan.frames)} if options.one_patient else by_patient(scan.frames)
    patients, refused = _read_patients(scan, groups, options, "Give the folder that holds the MR series.")
    outcomes = outcomes_beside(folder / OUTCOMES_FILE, [*(p.patient_id for p in patients), *refused])
    return make_cohort(FORM, patients, refused, outcomes, scan.problems())


def read_dicom_files(files: Iterable[Path]) -> Cohort:
    """Reads DICOM files that lie anywhere, by the same rules as a folder of them; voxels are not read yet.

    Raises:
        Refusal: as of a folder; or files are missing.
    """
    require_pydicom()
    paths = sorted(set(files))
    missing = sum(map(_is_missing, paths))
    if missing:
        message = (
            f"{missing} of {len(paths)} DICOM files can't be found any more. Connect the drive that they are on, or import "
            f"them again."
        )
        raise Refusal("missing_files", message)
    scan = _scan(paths)
    patients, refused = _read_patients(scan, by_patient(scan.frames), ReadingOptions(), "Choose the MR series.")
    return make_cohort(FORM, patients, refused, Outcomes({}, None, ()), scan.problems())


def _is_missing(path: Path) -> bool:
    try:
        return not path.exists()
    except OSError:  # it may be there: opening it will tell
        return False


def _read_patients(
    scan: _Scan, groups: Mapping[str, list[Frame]], options: ReadingOptions, advice: str
) -> tuple[list[Patient], dict[str, Refusal]]:
    """The patients of grouped frames, and why others can't be read.

    Args:
        scan: the files.
        groups: its frames by patient id.
        options: what is allowed.
        advice: what to do where there is no MR image.

    Raises:
        Refusal: there is no MR image at all.
    """
    patients: list[Patient] = []
    refused: dict[str, Refusal] = {}
    for patient_id, frames in groups.items():
        try:
            patient = _read_patient(patient_id, frames, options)
        except Refusal as refusal:
            refused[patient_id or _NO_ID] = refusal
        else:
            patients += [patient] if patient is not None else []
    if not patients and not refused:
        raise Refusal("no_images", f"{_nothing_found(scan)} {advice}")
    return patients, refused


# ---------------------------------------------------------------- files


@dataclass
class _Scan:
    """What the files held: their frames, and how many files gave none."""

    frames: list[Frame]
    damaged: int = 0
    copies: int = 0
    unreadable: int = 0

    def problems(self) -> list[Problem]:
        """What was passed over, by number: a file's name may be a patient's."""
        found = (
            (
                "damaged_files",
                self.damaged,
                "begins like DICOM and can't be read",
                "begin like DICOM and can't be read",
            ),
            ("unreadable_files", self.unreadable, "can't be opened", "can't be opened"),
            ("copies", self.copies, "is a copy of another one", "are copies of others"),
        )
        return [
            Problem(
                code,
                f"1 file {one}; it was passed over." if count == 1 else f"{count} files {many}; they were passed over.",
            )
            for code, count, one, many in found
            if count
        ]


def _scan(files: Iterable[Path]) -> _Scan:
    scan = _Scan([])
    seen: dict[tuple[str, int], Frame] = {}
    read: dict[Hashable, Alike] = {}
    with quietly():
        for file in files:
            try:
                if not begins_like_dicom(file):
                    continue
            except OSError:
                scan.unreadable += 1
                continue
            header = read_header(file)
            frames = [] if header is None else frames_of(header, read)
            images = [frame for frame in frames if min(frame.shape) > 0 and frame.series_uid]
            if not images:
                scan.damaged += not any(map(_is_no_image, frames)) and not _is_directory(file)
                continue
            new = [frame for frame in images if not _is_copy(frame, seen)]
            scan.copies += not new
            scan.frames += new
    return scan


def _is_no_image(frame: Frame) -> bool:
    """A report, a protocol, raw data: something that is whole and is no MR image."""
    return frame.modality not in ("", "MR") or bool(frame.sop_class and frame.sop_class not in MR_CLASSES)


def _is_directory(file: Path) -> bool:
    return file.name.upper().startswith("DICOMDIR")


def _is_copy(frame: Frame, seen: dict[tuple[str, int], Frame]) -> bool:
    """Whether a frame of the same object that says the same was there before."""
    if not frame.instance_uid:
        return False
    first = seen.setdefault((frame.instance_uid, frame.index), frame)
    return first is not frame and replace(frame, path=first.path) == first


def _nothing_found(scan: _Scan) -> str:
    others = Counter(kind_of(frame) for frame in scan.frames)
    there = "; ".join(f"{kind} ({count})" for kind, count in others.most_common(5) if kind)
    there = f" Found instead: {there}." if there else ""
    damaged = f" {scan.damaged} file(s) that begin like DICOM can't be read." if scan.damaged else ""
    return f"The DICOM files hold no MR image that can be used.{there}{damaged}"


# ---------------------------------------------------------------- patients and exams


def _read_patient(patient_id: str, frames: list[Frame], options: ReadingOptions) -> Patient | None:
    """None where nothing of the patient's is an MR image."""
    visits = visits_of(frames, options.merge_same_day)
    if not visits:
        return None
    if not patient_id:
        message = (
            f"{len({frame.path for frame in frames})} files have no patient id: whose they are can't be told. If all of the "
            f"input is one patient's, say --one-patient."
        )
        raise Refusal("missing_patient_id", message)
    problems = [] if options.one_patient else look_at_patient(frames)
    exams, left_out = without_left_out([_read_exam(patient_id, visit, options) for visit in visits])
    return Patient(patient_id, tuple(exams), (*problems, *left_out))


@dataclass(frozen=True)
class _Candidate:
    """A volume of an exam: its name there, what it is, and what is known of it for the rules."""

    name: str
    stack: Stack
    facts: SeriesFacts


def _read_exam(patient_id: str, visit: Visit, options: ReadingOptions) -> Exam:
    """An exam with the channels that its volumes surely are."""
    exam_id = visit.date.isoformat()
    where = f"exam {exam_id}"
    try:
        problems = [*look_at_date(visit.date), *visit.problems, *look_at_body_parts(visit)]
        candidates = _candidates(visit)
        table = options.channels_of(patient_id, exam_id, visit.date)
        looked_up = {c.name: table.look_up(c.name, c.facts.description) for c in candidates} if table else {}
        said = {name: override for name, override in looked_up.items() if override is not None}
        chosen = {name: override.channel for name, override in said.items()}
        _refuse_unusable_choice(candidates, chosen)
        assigned = channels_of_series({c.name: c.facts for c in candidates}, where, chosen)
    except Refusal as refusal:
        raise in_exam(refusal, exam_id) from refusal
    found = tuple(_found(candidate, assigned, said) for candidate in candidates)
    stacks = {candidate.name: candidate.stack for candidate in candidates}
    images = {
        channel: image_of(stacks[name].frames, grid, name)
        for channel, (name, _) in sorted(assigned.channels.items())
        if (grid := stacks[name].grid) is not None
    }
    problems += [Problem(p.code, f"{p.channel} of {where}: {_for_command(p.says)}") for p in assigned.problems]
    return Exam(
        exam_id=exam_id,
        date=visit.date,
        images=images,
        problems=tuple(replace(problem, exam_id=exam_id) for problem in problems),
        unknown_files=_worth_naming(found),
        resample_channels=options.resample_channels,
        found=found,
    )


def _for_command(says: str) -> str:
    """What the rules say, with the way in which a user of the command chooses."""
    return says.replace("Choose the right one", "Say with --channels which one is right")


def _candidates(visit: Visit) -> list[_Candidate]:
    """All volumes of an exam, in the order of series numbers, each with a name of its own."""
    by_series: dict[str, list[Frame]] = {}
    for frame in visit.frames:
        by_series.setdefault(frame.series_uid, []).append(frame)
    series = sorted(by_series.values(), key=_series_order)
    titles = _unique([f"series {frames[0].series_number or '(no number)'}" for frames in series])
    stacks = [
        (title, stack) for title, frames in zip(titles, series, strict=True) for stack in stacks_of(frames, title)
    ]
    names = _unique([name_of(title, stack) for title, stack in stacks])
    facts = [_facts(name, stack) for name, (_, stack) in zip(names, stacks, strict=True)]
    told = _with_phases([stack for _, stack in stacks], facts)
    return [_Candidate(*parts) for parts in zip(names, told, facts, strict=True)]


def _series_order(frames: Sequence[Frame]) -> tuple[int, str, str]:
    number = frames[0].series_number
    return (int(number) if number.lstrip("-").isdigit() else 10**9, number, frames[0].series_uid)


def _unique(names: Sequence[str]) -> list[str]:
    """Names with a number behind those that occur again."""
    counts: Counter[str] = Counter()
    unique = []
    for name in names:
        counts[name] += 1
        unique.append(name if counts[name] == 1 else f"{name} ({counts[name]})")
    return unique


def _facts(name: str, stack: Stack) -> SeriesFacts:
    first, directions = stack.frames[0], directions_of(stack.frames[0])
    return SeriesFacts(
        name=name,
        description=first.description,
        b_value=first.b_value,
        unfit=stack.kind or stack.part_of,
        is_diffusion=stack.is_diffusion,
        dixon=dixon_of_type(first.image_type),
        series=first.series_uid,
        echo_time=first.echo_time,
        field_strength=first.field_strength,
        acquired=_seconds_of_day(stack.acquired),
        contrast_given=next((f.contrast_seconds for f in stack.frames if f.contrast_seconds is not None), None),
        protocol=_protocol(stack),
        plane="" if directions is None else plane_of(directions[:, 2].tolist()),
        is_broken=stack.refusal is not None,
    )


def _seconds_of_day(moment: datetime.datetime | None) -> float | None:
    if moment is None or moment.time() == datetime.time():  # a day without a time
        return None
    return (moment - datetime.datetime.combine(moment.date(), datetime.time())).total_seconds()


def _protocol(stack: Stack) -> str:
    first = stack.frames[0]
    spacing = " ".join(f"{s:.3f}" for s in first.spacing or ())
    return protocol_of(
        first.description, first.echo_time, f"{first.shape} {len(stack.frames)} {spacing} {first.image_type[2:]}"
    )


def _with_phases(stacks: Sequence[Stack], facts: Sequence[SeriesFacts]) -> list[Stack]:
    """Phases of a dynamic examination told in the order of their times, also where each is a series of its own."""
    since = seconds_after_contrast({known.name: known for known in facts})
    groups: dict[str, list[int]] = {}
    for number, (stack, known) in enumerate(zip(stacks, facts, strict=True)):
        if stack.refusal is None and stack.acquired is not None and is_t1(known):
            groups.setdefault(known.protocol, []).append(number)
    told = list(stacks)
    for numbers in groups.values():
        if len(numbers) < 2 or len({stacks[n].acquired for n in numbers}) < len(numbers):
            continue
        ordered = sorted(numbers, key=lambda n: stacks[n].acquired or datetime.datetime.min)
        for place, number in enumerate(ordered, start=1):
            when = _when(stacks[number], stacks[ordered[0]], since.get(facts[number].name))
            details = {**stacks[number].details, "phase": f"{place} of {len(ordered)} ({when})"}
            told[number] = replace(stacks[number], details=details)
    return told


def _when(stack: Stack, first: Stack, since: float | None) -> str:
    """Seconds from the injection, or else from the first phase."""
    if since is not None:
        return f"{since:+.0f} s from contrast"
    assert stack.acquired is not None
    assert first.acquired is not None
    return f"{(stack.acquired - first.acquired).total_seconds():+.0f} s"


# ---------------------------------------------------------------- what became of each


def _found(candidate: _Candidate, assigned: SeriesChannels, said: Mapping[str, Override]) -> FoundImage:
    stack, facts = candidate.stack, candidate.facts
    channel, by = next(((c, by) for c, (name, by) in assigned.channels.items() if name == candidate.name), (None, ""))
    confidence: Confidence = "none"
    if channel is not None:
        is_near = by == "b-value" and round(facts.b_value or 0.0) != b_value_of(channel)
        confidence = "certain" if by in _SURE and not is_near else "probable"
    elif candidate.name in assigned.ambiguous:
        confidence = "ambiguous"
    return FoundImage(
        name=candidate.name,
        description=facts.description,
        channel=channel,
        recognised_by=by,
        confidence=confidence,
        reason="" if channel is not None else _reason(candidate, assigned, said),
        grid=stack.grid,
        details=stack.details,
        series_uid=stack.frames[0].series_uid,
        files=tuple(dict.fromkeys(frame.path for frame in stack.frames)),
    )


def _reason(candidate: _Candidate, assigned: SeriesChannels, said: Mapping[str, Override]) -> str:
    """Why a volume is no channel, as a clause."""
    stack, name = candidate.stack, candidate.name
    if name in said:
        return said[name].reason
    if candidate.facts.unfit:
        return candidate.facts.unfit
    if stack.refusal is not None:
        return stack.refusal.message.removeprefix(name).removeprefix(":").strip().rstrip(".")
    if name in assigned.ambiguous:
        return f"may be {assigned.ambiguous[name]}, as others may or its words and times disagree"
    if stack.kind == MAGNITUDE and candidate.facts.b_value is not None and candidate.facts.b_value >= 1:
        return OTHER_B_VALUE if stack.is_diffusion else "its words and its b-value disagree"
    return NOTHING_SAYS


def _refuse_unusable_choice(candidates: Sequence[_Candidate], chosen: Mapping[str, str | None]) -> None:
    """The user's table may call a map a channel, but not what has no place in the patient."""
    for candidate in candidates:
        if chosen.get(candidate.name) is not None and candidate.stack.refusal is not None:
            raise candidate.stack.refusal


def _worth_naming(found: Sequence[FoundImage]) -> tuple[str, ...]:
    """Volumes that a missing channel may be: not the maps, nor what is obviously another plane or a localizer."""
    return tuple(
        f"{image.name} ({', '.join(filter(None, (image.description, image.reason)))})"
        for image in found
        if image.channel is None and (image.confidence == "ambiguous" or image.grid is None)
    )
