"""Frames → patients and their visits: which studies are one exam, and of which day."""

from __future__ import annotations

import datetime
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from HCCNetLib.readers.dicom.frames import Frame
from HCCNetLib.readers.dicom.kinds import MAGNITUDE, kind_of
from HCCNetLib.records import Problem, Refusal

# Two studies on two days are one visit if the second began so soon after the first one's last image.
ONE_VISIT = datetime.timedelta(hours=6)
_DAY = datetime.timedelta(days=1)


@dataclass
class Visit:
    """The frames of one or several studies that are one exam.

    Args:
        date: its day.
        frames: of all its series.
        problems: what was decided about it.
    """

    date: datetime.date
    frames: list[Frame]
    problems: list[Problem] = field(default_factory=list)

    @property
    def began(self) -> datetime.datetime | None:
        """The earliest moment that it tells of, by the clock of its studies."""
        moments = [
            datetime.datetime.combine(frame.study_date, datetime.time())
            + datetime.timedelta(seconds=frame.study_seconds)
            for frame in self.frames
            if frame.study_date is not None and frame.study_seconds is not None
        ]
        return min(moments, default=None)

    @property
    def ended(self) -> datetime.datetime | None:
        """When its last image was acquired."""
        moments = [frame.acquired for frame in self.frames if frame.acquired is not None]
        return max(moments, default=self.began)


def by_patient(frames: Iterable[Frame]) -> dict[str, list[Frame]]:
    """Frames by patient id, white space left out of account; the id most often written so, tidied, names the patient.

    Frames without an id are under an empty name.
    """
    groups: dict[str, list[Frame]] = {}
    for frame in frames:
        groups.setdefault("".join(frame.patient_id.split()), []).append(frame)
    named: dict[str, list[Frame]] = {}
    for group in groups.values():
        spellings = Counter(" ".join(frame.patient_id.split()) for frame in group)
        most = max(spellings.values())
        named[min(name for name, count in spellings.items() if count == most)] = group
    return named


def look_at_patient(frames: Sequence[Frame]) -> list[Problem]:
    """What was decided about who the frames are of.

    Raises:
        Refusal: they are of people with different dates of birth.
    """
    problems = _look_at_people(frames)
    births = {frame.birth_date for frame in frames if frame.birth_date}
    if len(births) > 1:
        message = (
            f"The files give this patient {len(births)} different dates of birth: they may be of different people. Sort "
            f"them into one folder per patient and correct the patient ids."
        )
        raise Refusal("patient_conflict", message)
    if len({frame.patient_id for frame in frames}) > 1:
        message = (
            "The patient id is written with different spacing in different files; they were read as one patient's."
        )
        problems.append(Problem("patient_id_spacing", message))
    return problems


def _look_at_people(frames: Sequence[Frame]) -> list[Problem]:
    """Whether one id, e.g. ``ANON`` or one of two hospitals, may be that of several people.

    Raises:
        Refusal: it is, as their sex, the issuers of the id, or names that have nothing in common say.
    """
    people = {frame.person for frame in frames}
    births = {frame.birth_date for frame in frames}
    sexes, issuers = {p.sex for p in people if p.sex}, {p.issuer for p in people if p.issuer is not None}
    names = [p.name for p in people if p.name]
    differ = any(one.isdisjoint(other) for one, other in itertools.combinations(names, 2))
    # Whoever was born on one day and has one id is one person, whatever became of the name.
    is_confirmed = len(births) == 1 and "" not in births
    said = ["sexes"] * (len(sexes) > 1) + ["issuers of the id"] * (len(issuers) > 1)
    said += ["names"] * (differ and not is_confirmed)
    if said:
        message = (
            f"The files of this patient id have different {' and '.join(said)}: they may be of different people. Sort them into "
            f"one folder per patient and correct the patient ids; if all of the input is one patient's, say --one-patient."
        )
        raise Refusal("patient_conflict", message)
    if differ:
        message = (
            "The files give this patient different names but one id and one date of birth; they were read as one's."
        )
        return [Problem("patient_names_differ", message)]
    return []


# Body Part Examined of what is not the liver. It is often only what the protocol was made from, so that it is told, no more.
_OTHER_PARTS = {
    *("BRAIN", "HEAD", "SKULL", "ORBIT", "NECK", "CSPINE", "TSPINE", "LSPINE", "SPINE"),
    *("SHOULDER", "ELBOW", "WRIST", "HAND", "KNEE", "ANKLE", "FOOT", "HIP", "LEG", "ARM", "EXTREMITY"),
    *("BREAST", "HEART", "PROSTATE", "UTERUS", "JAW"),
}


def look_at_body_parts(visit: Visit) -> list[Problem]:
    """What to say of an exam all of whose images claim to show something else than the abdomen."""
    parts = {frame.body_part for frame in visit.frames if kind_of(frame) == MAGNITUDE}
    if not parts or not parts <= _OTHER_PARTS:
        return []
    message = f"The images say that they show: {', '.join(sorted(parts)).lower()}. If it is no exam of the liver, leave it out."
    return [Problem("other_body_part", message)]


def visits_of(frames: Sequence[Frame], merge: bool) -> list[Visit]:
    """The visits of a patient in the order of their dates.

    Args:
        frames: of one patient.
        merge: studies of one visit are one exam.

    Raises:
        Refusal: a study without a date or with several, or two studies of one visit where merging was not allowed.
    """
    studies: dict[str, list[Frame]] = {}
    for frame in frames:
        studies.setdefault(frame.study_uid or f"of {frame.study_date}", []).append(frame)
    found = [_visit(study) for study in studies.values() if any(kind_of(frame) == MAGNITUDE for frame in study)]
    visits: list[Visit] = []
    for visit in sorted(found, key=lambda visit: (visit.date, visit.began or datetime.datetime.min)):
        if visits and _is_same(visits[-1], visit):
            _merge(visits[-1], visit, merge)
        else:
            visits.append(visit)
    return visits


def _visit(frames: list[Frame]) -> Visit:
    """One study's visit; its day is the study's, not that of single images."""
    dates = sorted({frame.study_date for frame in frames if frame.study_date is not None})
    acquired = sorted({frame.acquired.date() for frame in frames if frame.acquired is not None})
    problems: list[Problem] = []
    if not dates:
        if not acquired:
            message = "A study has neither a date nor a time of acquisition. Export it again with its dates."
            raise Refusal("undated_exam", message)
        dates = acquired[:1]
        message = f"A study has no date of its own; that of its first acquisition, {dates[0].isoformat()}, is taken."
        problems.append(Problem("date_of_acquisition", message))
    if dates[-1] - dates[0] > _DAY:
        message = (
            f"One study has several dates ({', '.join(date.isoformat() for date in dates)}). Which one is right is not "
            f"ours to guess: correct them, or export the exams again."
        )
        raise Refusal("study_dates_differ", message)
    problems += _look_at_acquisition(dates, acquired)
    return Visit(dates[0], frames, problems)


def _look_at_acquisition(dates: Sequence[datetime.date], acquired: Sequence[datetime.date]) -> list[Problem]:
    day = dates[0].isoformat()
    if any(not -_DAY <= date - dates[0] <= _DAY for date in acquired):
        other = next(date for date in acquired if not -_DAY <= date - dates[0] <= _DAY).isoformat()
        message = f"The study of {day} holds images that say they were acquired on {other}. Check the date."
        return [Problem("dates_disagree", message)]
    if len(dates) > 1 or any(date > dates[0] for date in acquired):
        return [Problem("study_over_midnight", f"The study of {day} ended after midnight; it is one exam of {day}.")]
    return []


def _is_same(earlier: Visit, later: Visit) -> bool:
    if earlier.date == later.date:
        return True
    if later.date - earlier.date > _DAY or earlier.ended is None or later.began is None:
        return False
    return later.began - earlier.ended < ONE_VISIT


def _merge(earlier: Visit, later: Visit, allowed: bool) -> None:
    one_day = earlier.date == later.date
    days = (
        earlier.date.isoformat()
        if one_day
        else f"{earlier.date.isoformat()} and, within hours, {later.date.isoformat()}"
    )
    if not allowed:
        message = (
            f"There are two studies of {days}. If they are one exam, say --merge-same-day; else correct the dates or leave "
            f"one out."
        )
        raise Refusal("two_exams_one_day", message)
    earlier.frames += later.frames
    problem = Problem("same_day_merged", f"Two studies of {days} were read as one exam, as asked.")
    earlier.problems += [*later.problems, problem]
