"""``--deidentify KEYFILE``: patients by pseudonyms, dates shifted by a constant per patient; voxels stay as they are.

Pseudonyms and shifts are keyed hashes (HMAC-SHA256): the same key gives the same again, and without it they can't be
guessed from a list of names. Intervals between exams are kept, and with them all that a prediction rests on.

A name may stand where nobody looks for it: in the name of a file that a message quotes. So every name that the input holds is
withheld from every text, unless its words are those of channels.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import os
import re
import secrets
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from HCCNetLib.readers.channels import CHANNELS, PUBLISHED_ALIASES
from HCCNetLib.readers.dates import date_in_name
from HCCNetLib.records import Cohort, Exam, FoundImage, Image, Outcome, Patient, Problem, Refusal

WITHHELD, NO_DATE = "(name withheld)", "(date withheld)"

_KEY_BYTES = 32
_LONGEST_SHIFT = 1826  # days, five years
_SHORTEST_NAME = 3  # letters; fewer tell nobody from another, and stand in every text

_WORD = re.compile(r"[^\W_]+")
_B_VALUE = re.compile(r"b\d{1,4}")
_CALLED = re.compile(r"\bb ?=? ?\d{1,4}(?![^\W_])|[^\W_]+")  # a b-value or a word
_FACTOR = re.compile(r"[a-z]\d")  # e.g. p2, by how much an acquisition was sped up
# How our own sentences explain dates.
_EXAMPLES = r"2021-03-14 or 20210314|written 2021-03-14|write it as 2021-03-14"
_ISO = r"(?<!\d)(?:\d{4}-\d{2}-\d{2}|\d{8})(?!\d)(?:_[\w-]*)?"
# Other ways to write a date are not read as one, so they can't be shifted.
_OTHER_DATE = r"(?<![\d.])(?:\d{1,2}[./_-]\d{1,2}[./_-](?:\d{4}|\d{2})|\d{4}[./_]\d{1,2}[./_]\d{1,2})(?!\d|\.\d)"

# Words of file names that tell nothing about anybody.
_HARMLESS = {word.lower() for name in (*CHANNELS, *PUBLISHED_ALIASES) for word in _WORD.findall(name)} | set(
    _WORD.findall("""
    liver mask box adc diff t1 t2 t1w t2w pre post localizer sub ses anat
    nii gz json csv tsv bval bvec dcm nrrd mha zip tar dicom dicomdir nifti
    id date diagnosis last seen age sex site cohort outcomes channels participants sessions labels data
    patient patients case subject study exam exams image images series volume volumes file files folder folders
    table row column mri hcc the and not no was were are has have phantom true false
    """)
)
# Besides, words by which scanners and people call sequences; none that is a person's name too.
_OF_SEQUENCES = _HARMLESS | set(
    _WORD.findall("""
    abdomen arterial ax axial bh blade bolus breath breathhold breathold btfe bssfp calc caipi ce cine contrast cor coronal
    csi delayed derived dephase dixon dl dual dwi dyn dynamic echo ep ep2d epi equilibrium fat fatsat ffe fiesta fl fl2d fl3d
    flair flash free fs fse gd gre haste hbp hepatobiliary hold ideal idl in inphase inv ip iso isotropic late lava ls
    map mbh mdixon mip motion mpr mrcp multi native nav navigator obl oop op opp oppphase opposed out outphase phase plain
    portal portalvenous propeller qmap r2star radial resolve resp respiratory scout sense space spair spgr spir ssfse star
    starvibe stir subtraction survey t1wi t2wi tf tfe thrive trace tracew tra transverse transversal trig trigger
    triggered trufi tse turbo twist unenhanced venous vibe vol water with without
    run acq desc rec dir part mag b p s t w
    """)
)

# ---------------------------------------------------------------- key and pseudonyms


def open_key(path: Path) -> tuple[bytes, bool]:
    """The key in a file, which is made where there is none; and whether it was made.

    Raises:
        Refusal: the file can't be read or written, or holds no key.
    """
    try:
        return _read_key(path), False
    except FileNotFoundError:
        return _make_key(path), True
    except PermissionError as error:
        raise Refusal("no_permission", f"The key {path.name} can't be opened: no permission to read it.") from error
    except OSError as error:
        raise Refusal("bad_key", f"The key {path.name} can't be read: {error.strerror}. Name a file.") from error


def _read_key(path: Path) -> bytes:
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except ValueError:  # and not from it: its text quotes what may be part of a key
        key = b""
    if len(key) < _KEY_BYTES:
        message = (
            f"{path.name} is no key: expected at least {2 * _KEY_BYTES} hexadecimal digits. Name the file that "
            f"--deidentify made, or one that is not there yet: it will be made."
        )
        raise Refusal("bad_key", message)
    return key


def _make_key(path: Path) -> bytes:
    key = secrets.token_bytes(_KEY_BYTES)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "w", encoding="ascii") as file:  # noqa: PTH123 - no other way to set the mode from the start
            file.write(f"{key.hex()}\n")
    except OSError as error:
        message = f"The key {path.name} can't be written: {error.strerror}. Name a file in a folder of your own."
        raise Refusal("cannot_write", message) from error
    return key


class Pseudonyms:
    """Who is called what, and by how many days whose dates are shifted.

    Args:
        key: secret; at least 32 random bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def name_of(self, patient_id: str) -> str:
        """``P`` and 16 letters and digits (80 bits)."""
        return "P" + base64.b32encode(self._digest("id", patient_id)[:10]).decode("ascii")

    def days_of(self, patient_id: str) -> int:
        """By how many days the patient's dates are set back, 1 to 1826."""
        return 1 + int.from_bytes(self._digest("shift", patient_id), "big") % _LONGEST_SHIFT

    def shift(self, patient_id: str, date: datetime.date) -> datetime.date:
        """A date of the patient's, set back; the first day of the calendar where it would lie before it."""
        return datetime.date.fromordinal(max(1, date.toordinal() - self.days_of(patient_id)))

    def _digest(self, purpose: str, patient_id: str) -> bytes:
        # A name with accents has two spellings, and which one comes depends on the file system.
        text = purpose + unicodedata.normalize("NFC", patient_id)
        return hmac.digest(self._key, text.encode("utf-8", "surrogateescape"), hashlib.sha256)


# ---------------------------------------------------------------- names that the input holds


@dataclass(frozen=True)
class Names:
    """Names that must stand in no text.

    Args:
        people: of top folders, which may be patients.
        others: of files, folders and columns, and what cells say.
    """

    people: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()

    @cached_property
    def _by_first_word(self) -> dict[str, list[str]]:
        telling = [name for name in self.others if len(name) >= _SHORTEST_NAME and not is_harmless(name)]
        by_word: dict[str, list[str]] = {}
        for name in {*telling, *filter(is_telling, self.people)}:
            for word in _WORD.findall(name.lower())[:1]:
                by_word.setdefault(word, []).append(name)
        return by_word

    def within(self, text: str) -> list[str]:
        """Those whose first word stands in a text."""
        return [name for word in set(_WORD.findall(text.lower())) for name in self._by_first_word.get(word, ())]


def is_harmless(name: str) -> bool:
    """Whether a name is made of the words of channels and images and at most one short number."""
    words = _WORD.findall(name.lower())
    numbers = [word for word in words if word.isdigit()]
    others = (word for word in words if not word.isdigit())
    is_short = len(numbers) <= 1 and all(len(number) <= 3 for number in numbers)
    return is_short and all(word in _HARMLESS or _B_VALUE.fullmatch(word) for word in others)


def is_technical(text: str) -> bool:
    """Whether a text is made of the words of sequences, b-values and short numbers alone."""
    words = _WORD.findall(text.lower())
    return all(_is_of_sequences(word) or (word.isdigit() and len(word) <= 3) for word in words)


def without_others(text: str) -> str:
    """A description of an image, free text, without all that is no word of sequences: names, dates and numbers among them."""
    kept = _CALLED.sub(lambda match: match.group() if _is_of_sequences(match.group().lower()) else "…", text)
    return re.sub(r"…(?:[\W_]*…)+", "…", kept)


def _is_of_sequences(word: str) -> bool:
    return word in _OF_SEQUENCES or bool(_FACTOR.fullmatch(word) or re.fullmatch(r"b ?=? ?\d{1,4}", word))


def is_telling(identifier: str) -> bool:
    """Whether an identifier tells a patient from others: ``sub-01`` does, ``images`` and ``A`` do not."""
    has_number = any(letter.isdigit() for letter in identifier)
    return len(identifier) >= _SHORTEST_NAME and (has_number or not is_harmless(identifier))


def names_in(path: Path, *also: str) -> Names:
    """Every name that an input holds: of it, of all that lies in it, and what its tables say; and other names."""
    others = {str(path), *_spellings(path.name), *also}
    if not is_folder(path):
        return Names(others=frozenset(others | _cells(path)))
    people: set[str] = set()
    for folder, folders, files in _walk(path):
        if folder == path:
            people.update(folders)
            tables = (path / file for file in files if file.lower().endswith((".csv", ".tsv")))
            others.update(cell for table in tables for cell in _cells(table))
        others.update(spelling for name in (*folders, *files) for spelling in _spellings(name))
    return Names(frozenset(people), frozenset(others))


def is_folder(path: Path) -> bool:
    """Whether a path is a folder; one that can't be asked is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _walk(path: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Folders with what is in them, through links as the readers go, each once: links may lead in a circle."""
    seen = set()
    for folder, folders, files in os.walk(path, followlinks=True):
        real = Path(folder).resolve()
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        yield Path(folder), folders, files


def _spellings(name: str) -> set[str]:
    """A name in whole, as messages print one that is no text, without its suffixes, and its parts (``a+b.nii.gz``).

    Of a name in BIDS so are the labels (``sub-1_acq-label_T1w``), as far as they are not what sequences are called.
    """
    printed = name.encode("utf-8", "replace").decode("utf-8")
    stem = re.sub(r"(\.[A-Za-z0-9]{1,6}){1,2}$", "", printed)
    parts = stem.split("_") if stem.startswith("sub-") else []
    labels = {label for part in parts for label in (part, part.partition("-")[2]) if not is_technical(label)}
    return {name, printed, Path(printed).stem, stem, *stem.split("+"), *labels}


def _cells(table: Path) -> set[str]:
    try:
        text = table.read_text(encoding="utf-8", errors="replace") if table.is_file() else ""
    except OSError:
        return set()
    cells = {cell.strip() for cell in re.split(r'[,;\t\r\n"/\\]+', text)}
    return {spelling for cell in cells for spelling in _spellings(cell)}


# ---------------------------------------------------------------- texts


@dataclass(frozen=True)
class _Texts:
    """Cleans the texts about one patient; or about no one patient, where ``patient_id`` is None.

    Args:
        pseudonyms: of everybody.
        names: that must stand in no text.
        patient_id: whose texts they are.
        known: further names → what to say instead, e.g. of exams.
    """

    pseudonyms: Pseudonyms
    names: Names
    patient_id: str | None = None
    known: Mapping[str, str] = field(default_factory=dict)

    def clean(self, text: str) -> str:
        """The text without names and with shifted dates; all in one go, so that nothing new is replaced again."""
        instead = {name.lower(): self._instead(name) for name in self.names.within(text)} | self._own_and_known
        names = sorted((name for name in instead if name in text.lower()), key=len, reverse=True)
        # Part of a longer word it is another word; but identifiers may be joined to anything.
        parts = [rf"(?<![^\W_]){re.escape(name)}(?![^\W_])" for name in names]
        if self.patient_id is not None and is_telling(self.patient_id):
            parts.append(re.escape(self.patient_id.lower()))
        pattern = re.compile("|".join([_EXAMPLES, *parts, _ISO, _OTHER_DATE]), re.IGNORECASE)
        return pattern.sub(lambda match: self._replaced(match.group(), instead), text)

    @cached_property
    def _own_and_known(self) -> dict[str, str]:
        """The patient's id and the words of it, which may be a name, and what else is known."""
        known = {name.lower(): instead for name, instead in self.known.items()}
        if self.patient_id is None:
            return known
        words = [word for word in _WORD.findall(self.patient_id) if len(word) >= _SHORTEST_NAME]
        own = [word for word in words if not is_harmless(word)]
        own += [self.patient_id] if is_telling(self.patient_id) else []
        return dict.fromkeys(map(str.lower, own), self.pseudonyms.name_of(self.patient_id)) | known

    def _instead(self, name: str) -> str:
        date = date_in_name(name)
        if date is not None:
            return self._shifted(date)
        is_person = self.patient_id is None and name in self.names.people
        return self.pseudonyms.name_of(name) if is_person else WITHHELD

    def _replaced(self, found: str, instead: Mapping[str, str]) -> str:
        if re.fullmatch(_EXAMPLES, found):
            return found
        if found.lower() in instead:
            return instead[found.lower()]
        if re.fullmatch(_ISO, found):
            date = date_in_name(found)
            return found if date is None else self._shifted(date)  # eight digits may be no date
        return NO_DATE if re.fullmatch(_OTHER_DATE, found) else WITHHELD

    def _shifted(self, date: datetime.date) -> str:
        return NO_DATE if self.patient_id is None else self.pseudonyms.shift(self.patient_id, date).isoformat()


# ---------------------------------------------------------------- records


def deidentify(cohort: Cohort, pseudonyms: Pseudonyms, names: Names | None = None) -> Cohort:
    """The cohort with pseudonyms, shifted dates, and no name in any text.

    Args:
        cohort: as it was read.
        pseudonyms: by which.
        names: that the input holds, ``names_in``.
    """
    names = names or Names()
    ids = [*(patient.patient_id for patient in cohort.patients), *cohort.refused, *cohort.outcomes]
    texts = _Texts(pseudonyms, names, known={i: pseudonyms.name_of(i) for i in ids if is_telling(i)})
    patients = (_patient(patient, pseudonyms, names) for patient in cohort.patients)
    _refuse_same_name([*(patient.patient_id for patient in cohort.patients), *cohort.refused])
    refused = {
        pseudonyms.name_of(i): deidentify_refusal(refusal, pseudonyms, names, i)
        for i, refusal in cohort.refused.items()
    }
    return replace(
        cohort,
        # In the order of names a pseudonym would tell where in the alphabet the name stands.
        patients=tuple(sorted(patients, key=lambda patient: patient.patient_id)),
        refused=dict(sorted(refused.items())),
        outcomes={pseudonyms.name_of(i): _outcome(o, pseudonyms) for i, o in cohort.outcomes.items()},
        outcomes_refused=None if cohort.outcomes_refused is None else _refusal(cohort.outcomes_refused, texts),
        problems=_problems(cohort.problems, texts),
    )


def _refuse_same_name(patient_ids: Sequence[str]) -> None:
    """Two patients must not become one."""
    if len({unicodedata.normalize("NFC", patient_id) for patient_id in patient_ids}) < len(patient_ids):
        message = (
            "The ids of two patients differ only in how their accents are stored, so they would have one pseudonym. If they "
            "are one patient, put the exams together; else rename one."
        )
        raise Refusal("patient_twice", message)


def deidentify_refusal(
    refusal: Refusal, pseudonyms: Pseudonyms, names: Names, patient_id: str | None = None
) -> Refusal:
    """A refusal of a patient, or of the input as a whole, without names and with shifted dates."""
    return _refusal(refusal, _Texts(pseudonyms, names, patient_id))


def _refusal(refusal: Refusal, texts: _Texts) -> Refusal:
    exam_id = None if refusal.exam_id is None else texts.clean(refusal.exam_id)
    return Refusal(refusal.code, texts.clean(refusal.message), exam_id)


def _problems(problems: Iterable[Problem], texts: _Texts, exam_id: str | None = None) -> tuple[Problem, ...]:
    """The problems; one of an exam is of ``exam_id`` now."""
    return tuple(Problem(p.code, texts.clean(p.message), p.exam_id and exam_id) for p in problems)


def _outcome(outcome: Outcome, pseudonyms: Pseudonyms) -> Outcome:
    def shifted(date: datetime.date | None) -> datetime.date | None:
        return None if date is None else pseudonyms.shift(outcome.patient_id, date)

    return Outcome(
        patient_id=pseudonyms.name_of(outcome.patient_id),
        diagnosis_date=shifted(outcome.diagnosis_date),
        last_seen_date=pseudonyms.shift(outcome.patient_id, outcome.last_seen_date),
        competing_date=shifted(outcome.competing_date),
    )


def _patient(patient: Patient, pseudonyms: Pseudonyms, names: Names) -> Patient:
    who = patient.patient_id
    exam_ids = {exam.exam_id: pseudonyms.shift(who, exam.date).isoformat() for exam in patient.exams}
    # An exam may be called 2, and so may much else.
    said = {image.description: without_others(image.description) for exam in patient.exams for image in exam.found}
    known = {old: new for old, new in (said | exam_ids).items() if len(old) >= _SHORTEST_NAME}
    texts = _Texts(pseudonyms, names, who, known)
    exams = tuple(_exam(exam, pseudonyms.shift(who, exam.date), texts) for exam in patient.exams)
    return Patient(pseudonyms.name_of(who), exams, _problems(patient.problems, texts))


def _exam(exam: Exam, date: datetime.date, texts: _Texts) -> Exam:
    exam_id = date.isoformat()
    mask = exam.liver_mask
    return replace(
        exam,
        exam_id=exam_id,
        date=date,
        images={channel: _called(image, f"{exam_id}/{channel}") for channel, image in exam.images.items()},
        liver_mask=None if mask is None else _called(mask, f"{exam_id}/liver_mask"),
        problems=_problems(exam.problems, texts, exam_id),
        unknown_files=tuple(map(texts.clean, exam.unknown_files)),
        found=tuple(_found(image, number, texts) for number, image in enumerate(exam.found, start=1)),
    )


def _called(image: Image, name: str) -> Image:
    """The image under another name: what is wrong with its voxels is told later, and by its name."""
    held: Any = image
    called = [f.name for f in fields(held) if f.name in ("shown", "source")]
    renamed: Image = replace(held, **{called[0]: name})
    return renamed


def _found(image: FoundImage, number: int, texts: _Texts) -> FoundImage:
    name = texts.clean(image.name)
    return replace(
        image,
        name=f"image {number}" if WITHHELD in name else name,  # names differ within an exam
        description=texts.clean(without_others(image.description)),
        reason=texts.clean(image.reason),
        details={key: texts.clean(value) for key, value in image.details.items()},
        series_uid="",
        files=(),
    )
