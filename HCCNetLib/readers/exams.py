"""From named image files to an exam: one assignment and one set of checks for every form of input."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from HCCNetLib.readers.channel_table import LEFT_OUT, NOT_USED_BY_TABLE, ChannelTable, ExamChannels, assign_with_table
from HCCNetLib.readers.channels import (
    B_VALUES,
    CHANNELS,
    b_value_name,
    b_value_of,
    is_channel_name,
    suggest_channel,
)
from HCCNetLib.readers.deidentify import Pseudonyms
from HCCNetLib.readers.images import (
    LIVER_BOX,
    LIVER_MASK,
    b_values_in_header,
    image_stem,
    open_image,
    volume_count,
)
from HCCNetLib.readers.nifti import read_box
from HCCNetLib.records import Box, Confidence, Exam, FoundImage, Grid, Image, Patient, Problem, Refusal, names_exam

# De-identified data may carry shifted dates; beyond these nothing is a date of an MRI.
FIRST_YEAR, LAST_YEAR = 1900, 2299
FIRST_MRI = datetime.date(1980, 1, 1)

# Why an image is not used.
NO_NAME = "its name is no channel's"
NO_B_VALUE = "its b-value is no channel's, or another is as near or nearer"


@dataclass(frozen=True)
class NamedFile:
    """A file of an exam: the name it was given (a channel, or channels joined by '+'), where, and what to call it."""

    name: str
    path: Path
    shown: str


@dataclass(frozen=True)
class NamedImage:
    """An image of an exam: the name by which its channel is looked up, and by what it has that name.

    Args:
        name: a channel's, an alias, or a b-value's; else the file's.
        image: the file or one volume of it.
        path: the file.
        named_by: ``name``, or ``b-value`` where a .bval file or the header gives it.
    """

    name: str
    image: Image
    path: Path
    named_by: str = "name"


@dataclass(frozen=True)
class ReadingOptions:
    """What the user allows beyond the strict reading.

    Args:
        merge_same_day: two exam folders of one day are one exam.
        resample_channels: channels of one exam may lie on different grids (of one patient space).
        channel_table: says which image is which channel, before any rule does.
        one_patient: all DICOM of the input is one patient's, whatever its patient IDs say.
        pseudonyms: patient ids and dates are replaced by these.
    """

    merge_same_day: bool = False
    resample_channels: bool = False
    channel_table: ChannelTable | None = None
    one_patient: bool = False
    pseudonyms: Pseudonyms | None = None

    def channels_of(self, patient_id: str, exam_id: str, date: datetime.date) -> ExamChannels | None:
        """What the channel table, if there is one, says of an exam."""
        return self.channel_table.for_exam(patient_id, exam_id, date) if self.channel_table else None


def assemble_exam(
    exam_id: str,
    date: datetime.date,
    files: Sequence[NamedFile],
    options: ReadingOptions | None = None,
    not_looked_into: Sequence[str] = (),
    table: ExamChannels | None = None,
) -> Exam:
    """Makes an exam of its files: every image gets its channel.

    Headers and grids are checked by ``require_channels``, for the channels that a model reads. An image that is no
    channel stops nobody: it is named, with the reason, and not used.

    Args:
        exam_id: the exam.
        date: its day.
        files: its images and boxes.
        options: what is allowed beyond the strict reading.
        not_looked_into: names of what lies beside the files and may be thought to be read.
        table: what the user says of the exam's images.

    Raises:
        Refusal: two images for one channel, volumes without names, a box that is none, a date that can't be.
    """
    options = options or ReadingOptions()
    where = f"exam {exam_id}"
    try:
        problems = look_at_date(date)
        masks, boxes = ([f for f in files if f.name == name] for name in (LIVER_MASK, LIVER_BOX))
        for twice in (masks, boxes):
            if len(twice) > 1:
                names = " and ".join(f.shown for f in twice)
                raise Refusal("liver_twice", f"{names} both say where the liver is. Keep the right one.")
        images, unusable = _images_by_name([f for f in files if f.name not in (LIVER_MASK, LIVER_BOX)], where, table)
        assigned, unknown, more = assign_with_table(images, table, where)
        unknown += [f"{found.name} ({found.reason})" for found in unusable if found.reason not in NOT_USED_BY_TABLE]
        if not_looked_into:
            message = (
                f"not looked into: {', '.join(not_looked_into)}. Only NIfTI and NRRD images in the exam's own folder are "
                f"read."
            )
            more.append(Problem("not_looked_into", message))
        return Exam(
            exam_id=exam_id,
            date=date,
            images=dict(sorted((channel, images[name].image) for name, channel in assigned.items())),
            liver_mask=open_image(masks[0].path, masks[0].shown) if masks else None,
            liver_box=read_box(boxes[0].path, boxes[0].shown) if boxes else None,
            problems=tuple(replace(p, exam_id=exam_id) for p in [*problems, *more, *not_used(unknown)]),
            unknown_files=tuple(unknown),
            resample_channels=options.resample_channels,
            found=(*(_found(image, assigned.get(name), table) for name, image in images.items()), *unusable),
        )
    except Refusal as refusal:
        raise in_exam(refusal, exam_id) from refusal


def _found(named: NamedImage, channel: str | None, table: ExamChannels | None) -> FoundImage:
    """What to remember of an image, where the user's table may have said what it is."""
    found = found_image(named, channel)
    said = table.look_up(named.name) if table else None
    if said is None:
        return found
    if channel is None:
        return replace(found, reason=said.reason)
    return replace(found, recognised_by="table", confidence="certain")


def found_image(named: NamedImage, channel: str | None) -> FoundImage:
    """What to remember of an image that became a channel by its name or b-value, or None."""
    b_value = b_value_of(named.name)
    by_b_value = b_value is not None and (named.named_by == "b-value" or named.name not in CHANNELS)
    details = {"b": f"{b_value:g}"} if b_value is not None else {}
    found = with_grid(FoundImage(named.name, channel=channel, details=details, files=(named.path,)), named.image)
    if channel is not None:
        by = "b-value" if by_b_value else named.named_by
        return replace(found, recognised_by=by, confidence=b_value_confidence(named.name, channel))
    return replace(found, reason=found.reason or (NO_NAME if b_value is None else NO_B_VALUE))


def b_value_confidence(name: str, channel: str) -> Confidence:
    """How sure a channel is by its name: only a b-value that is not equal leaves a doubt."""
    b_value = b_value_of(name)
    is_equal = b_value is None or B_VALUES.get(0.0 if b_value < 1 else b_value) == channel
    return "certain" if is_equal else "probable"


def with_grid(found: FoundImage, image: Image) -> FoundImage:
    """The same with its image's grid, or with the reason why that can't be said."""
    try:
        return replace(found, grid=image.grid)
    except Refusal as refusal:
        return replace(found, reason=as_clause(refusal))


def as_clause(refusal: Refusal) -> str:
    """A refusal's sentence as a reason in brackets or after a colon."""
    return refusal.message.rstrip(".")


def in_exam(refusal: Refusal, exam_id: str) -> Refusal:
    """The refusal with its exam named."""
    named = names_exam(refusal.message, exam_id)
    message = refusal.message if named else f"Exam {exam_id}: {refusal.message}"
    return Refusal(refusal.code, message, exam_id)


def look_at_date(date: datetime.date) -> list[Problem]:
    """What is odd about an exam's date; raises Refusal where it can't be one."""
    if not FIRST_YEAR <= date.year <= LAST_YEAR:
        raise Refusal("implausible_date", f"{date.isoformat()} can't be the date of an exam. Correct it.")
    tomorrow = datetime.date.today() + datetime.timedelta(days=1)
    if FIRST_MRI <= date <= tomorrow:
        return []
    message = (
        f"{date.isoformat()} is {'before there was MRI' if date < FIRST_MRI else 'in the future'}. Check the date."
    )
    return [Problem("implausible_date", message)]


def not_used(unknown: Sequence[str]) -> list[Problem]:
    """What to say of images that belong to no channel, with what they may have been meant to be."""
    if not unknown:
        return []
    hints = ", ".join(_with_hint(name, (LIVER_MASK, *CHANNELS)) for name in unknown)
    return [Problem("images_not_used", f"not understood and not used: {hints}.")]


def _with_hint(name: str, channels: Sequence[str]) -> str:
    close = suggest_channel(name, channels)
    return f"{name} (did you mean {close}?)" if close else name


def _images_by_name(
    files: Sequence[NamedFile], where: str, table: ExamChannels | None
) -> tuple[dict[str, NamedImage], list[FoundImage]]:
    """Name → image, and the files that are no channel and can't be taken apart, with the reason."""
    images: dict[str, NamedImage] = {}
    unusable = []
    for file in files:
        try:
            parts = split_volumes(file)
        except Refusal as refusal:
            override = table.look_up(file.name) if table else None
            if override is not None and override.channel is None:
                unusable.append(FoundImage(file.name, reason=override.reason, files=(file.path,)))
                continue
            if override is not None or all(is_channel_name(name) for name in file.name.split("+")):
                raise
            unusable.append(FoundImage(file.name, reason=as_clause(refusal), files=(file.path,)))
            continue
        for part in parts:
            if part.name in images:
                message = f"{where}: {part.name} is there twice ({part.image.source}). Keep the right one."
                raise Refusal("channel_twice", message)
            images[part.name] = part
    return images, unusable


def split_volumes(file: NamedFile) -> list[NamedImage]:
    """A 4D file gives one image per named volume.

    The names are the file's, joined by '+', or b-values in a .bval file beside it or in an NRRD header.

    Raises:
        Refusal: volumes and names differ in number, or several volumes have one b-value.
    """
    by = "name" if "+" in file.name else "b-value"
    names = file.name.split("+") if "+" in file.name else _names_by_b_value(file)
    if names is None:
        return [NamedImage(file.name, open_image(file.path, file.shown), file.path)]
    count = volume_count(file.path, file.shown)
    if count != len(names):
        message = f"{file.shown} has {count or 1} volume(s), but {len(names)} are named ({', '.join(names)})."
        raise Refusal("volumes_and_names_differ", message)
    return [NamedImage(n, open_image(file.path, file.shown, i), file.path, by) for i, n in enumerate(names)]


def _names_by_b_value(file: NamedFile) -> list[str] | None:
    """Names of a 4D file's volumes from its b-values; of a 3D file these are only compared with the name."""
    values, place = b_values_beside(file), "the .bval file beside it"
    if values is None:
        values, place = b_values_in_header(file.path, file.shown), "its header"
    if values is None:
        return None
    if volume_count(file.path, file.shown) is None:
        named = b_value_of(file.name)
        if named is not None and len(values) == 1 and abs(named - values[0]) > 1:
            message = f"{file.shown} is named b{named:g}, but {place} says {values[0]:g}. Correct one."
            raise Refusal("b_values_differ", message)
        return None
    names = [b_value_name(0.0 if value < 1 else value) for value in values]
    if len(set(names)) < len(names):
        message = (
            f"{file.shown} has several volumes of one b-value (diffusion directions). Average them to one image per "
            f"b-value first."
        )
        raise Refusal("directions_not_averaged", message)
    return names


def b_values_beside(file: NamedFile) -> list[float] | None:
    """The b-values (s/mm²) in the .bval file beside an image, None where there is none."""
    stem = image_stem(file.path)
    if stem is None:
        return None
    try:
        text = file.path.with_name(f"{stem}.bval").read_text(encoding="utf-8")
        values = [float(v) for v in text.split()]
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise Refusal("bad_b_values", f"The .bval file beside {file.shown} can't be read as b-values.") from error
    if any(not 0 <= value < 1e5 for value in values):
        raise Refusal("bad_b_values", f"The .bval file beside {file.shown} holds values that are no b-values.")
    return values


def assemble_patient(
    patient_id: str,
    exams: Sequence[Exam],
    options: ReadingOptions | None = None,
    problems: Sequence[Problem] = (),
) -> Patient:
    """Puts exams in the order of their dates; two of one day are refused, or merged where that was allowed."""
    options = options or ReadingOptions()
    exams, left_out = without_left_out(exams)
    by_date: dict[datetime.date, list[Exam]] = {}
    for exam in exams:
        by_date.setdefault(exam.date, []).append(exam)
    for date, same_day in by_date.items():
        if len(same_day) > 1 and not options.merge_same_day:
            names = " and ".join(sorted(exam.exam_id for exam in same_day))
            message = (
                f"{names} are of one day ({date.isoformat()}). If they are one exam, say --merge-same-day; else correct "
                f"the dates."
            )
            raise Refusal("two_exams_one_day", message)
    in_order = tuple(_merge(by_date[date]) for date in sorted(by_date))
    return Patient(patient_id, in_order, (*problems, *left_out))


def without_left_out(exams: Sequence[Exam]) -> tuple[list[Exam], list[Problem]]:
    """The exams but for those of which the user's table leaves out every image, and a problem for each of these.

    Raises:
        Refusal: no exam stays.
    """
    kept = [exam for exam in exams if not exam.found or any(image.reason != LEFT_OUT for image in exam.found)]
    if exams and not kept:
        raise Refusal("no_exams", "The table of channels leaves out every image of the patient. Correct it.")
    message = "exam {} was left out: the table of channels leaves out all of its images."
    gone = [
        Problem("exam_left_out", message.format(exam.exam_id)) for exam in exams if not any(exam is one for one in kept)
    ]
    return kept, gone


def _merge(same_day: Sequence[Exam]) -> Exam:
    """One exam of several folders of one day; never chooses between two images or two livers."""
    if len(same_day) == 1:
        return same_day[0]
    first, *others = sorted(same_day, key=lambda exam: exam.exam_id)
    images = dict(first.images)
    for exam in others:
        if twice := sorted(images.keys() & exam.images.keys()):
            message = (
                f"{first.exam_id} and {exam.exam_id} are of one day and both hold {', '.join(twice)}: not one exam."
            )
            raise Refusal("channel_twice", message, first.exam_id)
        images |= exam.images
    names = " and ".join(exam.exam_id for exam in (first, *others))
    merged = Problem("same_day_merged", f"{names} were read as one exam, as asked.", first.exam_id)
    masks: list[Image] = [e.liver_mask for e in same_day if e.liver_mask is not None]
    boxes: list[Box] = [e.liver_box for e in same_day if e.liver_box is not None]
    if len(masks) > 1 or len(boxes) > 1:
        message = f"{names} are of one day and several say where the liver is. Keep the right one."
        raise Refusal("liver_twice", message, first.exam_id)
    return replace(
        first,
        images=dict(sorted(images.items())),
        liver_mask=masks[0] if masks else None,
        liver_box=boxes[0] if boxes else None,
        problems=(*(p for e in (first, *others) for p in e.problems), merged),
        unknown_files=tuple(name for e in (first, *others) for name in e.unknown_files),
        found=tuple(replace(f, name=f"{e.exam_id}/{f.name}") for e in (first, *others) for f in e.found),
    )


# ---------------------------------------------------------------- what a model needs


def require_channels(patient: Patient, channels: Sequence[str]) -> list[Problem]:
    """Checks that every exam has the channels that a model reads, with usable headers, on one grid.

    Returns:
        What is odd and yet usable.

    Raises:
        Refusal: code ``missing_channel`` names every exam and channel that is missing; else the first image that
            can't be used, or ``grids_differ``.
    """
    _refuse_missing(patient, channels)
    return [problem for exam in patient.exams for problem in check_images(exam, channels)]


def check_images(exam: Exam, channels: Sequence[str]) -> list[Problem]:
    """Checks headers and grids of those of ``channels`` that an exam has, and of its liver mask.

    Raises:
        Refusal: an image can't be used, or channels lie on different grids and that was not allowed.
    """
    images = {channel: exam.images[channel] for channel in channels if channel in exam.images}
    problems = check_headers(exam, channels)
    try:
        problems += [replace(problem, exam_id=exam.exam_id) for problem in _check_one_grid(images, exam)]
    except Refusal as refusal:
        raise in_exam(refusal, exam.exam_id) from refusal
    return [*problems, *probable_channels(exam, channels)]


def probable_channels(exam: Exam, channels: Sequence[str]) -> list[Problem]:
    """Says which of ``channels`` were recognised by words or times alone; that a b-value is only near is told elsewhere."""
    probable = [
        i for i in exam.found if i.channel in channels and i.confidence == "probable" and i.recognised_by != "b-value"
    ]
    if not probable:
        return []
    names = ", ".join(f"{i.channel} is {i.name}{f' ({i.description})' if i.description else ''}" for i in probable)
    message = (
        f"recognised by words or times alone: {names}. Look whether they are right; with hccnet, --channels overrides."
    )
    return [Problem("channel_probable", message, exam.exam_id)]


def check_headers(exam: Exam, channels: Sequence[str]) -> list[Problem]:
    """Checks the headers of those of ``channels`` that an exam has, and of its liver mask, each for itself.

    Raises:
        Refusal: an image can't be used.
    """
    images = [exam.images[channel] for channel in channels if channel in exam.images]
    try:
        masks = [exam.liver_mask] if exam.liver_mask is not None else []
        problems = [problem for image in (*images, *masks) for problem in image.header_problems()]
    except Refusal as refusal:
        raise in_exam(refusal, exam.exam_id) from refusal
    return [replace(problem, exam_id=exam.exam_id) for problem in problems]


def _refuse_missing(patient: Patient, channels: Sequence[str]) -> None:
    sentences = []
    exam_ids = []
    for exam in patient.exams:
        missing = [channel for channel in channels if channel not in exam.images]
        if not missing:
            continue
        exam_ids.append(exam.exam_id)
        there = ", ".join(exam.images) or "no known channel"
        sentence = f"exam {exam.exam_id} lacks {', '.join(missing)} (it has {there})"
        hints = [_with_hint(name, missing) for name in exam.unknown_files]
        sentences.append(sentence + (f"; not understood: {', '.join(hints)}" if hints else ""))
    if sentences:
        advice = "Add or rename the files, leave the exam out, or use a bundle for the channels that are there."
        message = f"{'; '.join(sentences)}. The model needs {', '.join(channels)} in every exam. {advice}"
        raise Refusal("missing_channel", message[0].upper() + message[1:], exam_ids[0])


def _check_one_grid(images: Mapping[str, Image], exam: Exam) -> list[Problem]:
    if not images:
        return []
    first, *others = images
    differing = [name for name in others if not images[name].grid.matches(images[first].grid)]
    if not differing:
        return []
    grids = "; ".join(f"{name}: {describe_grid(images[name].grid)}" for name in (first, *differing))
    if not exam.resample_channels:
        message = (
            f"exam {exam.exam_id}: the channels do not lie on one grid ({grids}). Check that they are one visit; if they "
            f"share one patient space, --resample-channels brings them onto the first channel's grid."
        )
        raise Refusal("grids_differ", message)
    message = f"channels were resampled onto one grid as asked ({grids}); they are not registered to each other."
    return [Problem("channels_resampled", message)]


def describe_grid(grid: Grid) -> str:
    """Shape, spacing and orientation in words, e.g. ``117×91×20 voxels of 3×3×3 mm, LPS, centre at …``."""
    shape = "×".join(map(str, grid.shape))
    spacing = "×".join(f"{s:.3g}" for s in grid.spacing)
    x, y, z = (str(round(v)) for v in (grid.affine @ [*((n - 1) / 2 for n in grid.shape), 1])[:3])
    return f"{shape} voxels of {spacing} mm, {orientation_letters(grid)}, centre at ({x}, {y}, {z}) mm"


def orientation_letters(grid: Grid) -> str:
    """The patient direction towards which each voxel axis runs, e.g. ``LPS``."""
    from nibabel.orientations import aff2axcodes  # here, as in nifti.py: the rules above need no nibabel

    return "".join(str(code) for code in aff2axcodes(grid.affine))
