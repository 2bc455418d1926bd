"""From named image files to an exam: one assignment and one set of checks for every form of input."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib

from HCCNetLib.readers.channels import assign_channels, b_value_name, suggest_channel
from HCCNetLib.readers.nifti import NiftiImage, image_stem, open_nifti, read_box
from HCCNetLib.records import Exam, Grid, Image, Patient, Problem, Refusal

LIVER_MASK, LIVER_BOX = "liver_mask", "liver_box"


@dataclass(frozen=True)
class NamedFile:
    """A file of an exam: the name under which it was given (a channel, or channels joined by '+'), where, and for messages."""

    name: str
    path: Path
    shown: str


@dataclass(frozen=True)
class ReadingOptions:
    """What the user allows beyond the strict reading.

    Args:
        merge_same_day: two exam folders of one day are one exam.
        resample_channels: channels of one exam may lie on different grids (of one patient space).
    """

    merge_same_day: bool = False
    resample_channels: bool = False


def assemble_exam(
    exam_id: str, date: datetime.date, files: Sequence[NamedFile], options: ReadingOptions | None = None
) -> Exam:
    """Makes an exam of its files: channels assigned, headers checked, grids compared; voxels are not read.

    Raises:
        Refusal: an image that can't be used, two images for one channel, grids that differ.
    """
    options = options or ReadingOptions()
    where = f"exam {exam_id}"
    special = {f.name: f for f in files if f.name in (LIVER_MASK, LIVER_BOX)}
    try:
        named, unknown, problems = _images_by_name([f for f in files if f.name not in special], where)
        images = dict(sorted(named.items()))
        problems += [problem for image in images.values() for problem in image.header_problems()]
        problems += _check_one_space(images, where, options)
        mask, box = special.get(LIVER_MASK), special.get(LIVER_BOX)
        mask_image = NiftiImage(mask.path, mask.shown) if mask else None
        if mask_image is not None:
            _ = mask_image.grid  # an unreadable mask is refused now, not after half of the work
        return Exam(
            exam_id=exam_id,
            date=date,
            images=images,
            liver_mask=mask_image,
            liver_box=read_box(box.path, box.shown) if box else None,
            problems=tuple(replace(p, exam_id=exam_id) for p in problems),
            unknown_files=tuple(unknown),
        )
    except Refusal as refusal:
        raise Refusal(refusal.code, _with_exam(refusal.message, exam_id), exam_id) from refusal


def _with_exam(message: str, exam_id: str) -> str:
    return message if exam_id in message else f"Exam {exam_id}: {message}"


def _images_by_name(files: Sequence[NamedFile], where: str) -> tuple[dict[str, NiftiImage], list[str], list[Problem]]:
    images: dict[str, NiftiImage] = {}
    for file in files:
        for name, image in _split_volumes(file):
            if name in images:
                raise Refusal("channel_twice", f"{where}: {name} is there twice ({image.source}). Keep the right one.")
            images[name] = image
    assigned, unknown, problems = assign_channels(images, where)
    return {channel: images[name] for name, channel in assigned.items()}, unknown, problems


def _split_volumes(file: NamedFile) -> list[tuple[str, NiftiImage]]:
    """A 4D file gives one image per named volume: names joined by '+', or b-values in a .bval file beside it."""
    names = _volume_names(file)
    if names is None:
        return [(file.name, NiftiImage(file.path, file.shown))]
    header = open_nifti(file.path, file.shown)
    count = int(header.shape[3]) if len(header.shape) > 3 else 1
    if len(header.shape) != 4 or count != len(names):
        message = f"{file.shown} has {count} volume(s), but {len(names)} are named ({', '.join(names)})."
        raise Refusal("volumes_and_names_differ", message)
    return [(name, NiftiImage(file.path, file.shown, volume)) for volume, name in enumerate(names)]


def _volume_names(file: NamedFile) -> list[str] | None:
    if "+" in file.name:
        return file.name.split("+")
    stem = image_stem(file.path)
    b_values = file.path.with_name(f"{stem}.bval")
    if stem is None or not b_values.is_file() or len(open_nifti(file.path, file.shown).shape) < 4:
        return None
    try:
        values = [float(v) for v in b_values.read_text(encoding="utf-8").split()]
    except (OSError, ValueError) as error:
        message = f"The .bval file beside {file.shown} can't be read as b-values."
        raise Refusal("bad_b_values", message) from error
    names = [b_value_name(0.0 if value < 1 else value) for value in values]
    if len(set(names)) < len(names):
        message = (
            f"{file.shown} has several volumes of one b-value (diffusion directions). Average them to one image per "
            f"b-value first."
        )
        raise Refusal("directions_not_averaged", message)
    return names


def _check_one_space(images: Mapping[str, Image], where: str, options: ReadingOptions) -> list[Problem]:
    if not images:
        return []
    first, *others = images
    differing = [name for name in others if not images[name].grid.matches(images[first].grid)]
    if not differing:
        return []
    grids = "; ".join(f"{name}: {describe_grid(images[name].grid)}" for name in (first, *differing))
    if not options.resample_channels:
        message = (
            f"{where}: the channels do not lie on one grid ({grids}). Check that they are one visit; if they share one "
            f"patient space, --resample-channels brings them onto the first channel's grid."
        )
        raise Refusal("grids_differ", message)
    message = (
        f"{where}: channels were resampled onto one grid as asked ({grids}); they are not registered to each other."
    )
    return [Problem("channels_resampled", message)]


def describe_grid(grid: Grid) -> str:
    """Shape, spacing and orientation in words, e.g. ``117×91×20 voxels of 3×3×3 mm, LPS``."""
    shape = "×".join(map(str, grid.shape))
    spacing = "×".join(f"{s:.3g}" for s in grid.spacing)
    x, y, z = (f"{v:.0f}" for v in (grid.affine @ [*((n - 1) / 2 for n in grid.shape), 1])[:3])
    return f"{shape} voxels of {spacing} mm, {orientation_letters(grid)}, centre at ({x}, {y}, {z}) mm"


def orientation_letters(grid: Grid) -> str:
    """The patient direction towards which each voxel axis runs, e.g. ``LPS``."""
    return "".join(str(code) for code in nib.aff2axcodes(grid.affine))


def assemble_patient(patient_id: str, exams: Sequence[Exam], options: ReadingOptions | None = None) -> Patient:
    """Puts exams in the order of their dates; two of one day are refused, or merged where that was allowed."""
    options = options or ReadingOptions()
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
    ordered = [_merge(by_date[date], options) for date in sorted(by_date)]
    return Patient(patient_id, tuple(ordered))


def _merge(same_day: Sequence[Exam], options: ReadingOptions) -> Exam:
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
    space = _check_one_space(images, f"exam {first.exam_id}", options)
    return replace(
        first,
        images=dict(sorted(images.items())),
        liver_mask=next((e.liver_mask for e in (first, *others) if e.liver_mask is not None), None),
        liver_box=next((e.liver_box for e in (first, *others) if e.liver_box is not None), None),
        problems=(*(p for e in (first, *others) for p in e.problems), merged, *space),
        unknown_files=tuple(name for e in (first, *others) for name in e.unknown_files),
    )


def require_channels(patient: Patient, channels: Sequence[str]) -> None:
    """Refuses a patient of whom an exam lacks a channel; names every such exam and every such channel.

    Raises:
        Refusal: code ``missing_channel``.
    """
    sentences = []
    exam_ids = []
    for exam in patient.exams:
        missing = [channel for channel in channels if channel not in exam.images]
        if not missing:
            continue
        exam_ids.append(exam.exam_id)
        sentence = (
            f"exam {exam.exam_id} lacks {', '.join(missing)} (it has {', '.join(exam.images) or 'no known channel'})"
        )
        hints = [
            f"{name} (did you mean {close}?)" if (close := suggest_channel(name, missing)) else name
            for name in exam.unknown_files
        ]
        sentences.append(sentence + (f"; not understood: {', '.join(hints)}" if hints else ""))
    if sentences:
        advice = "Add or rename the files, leave the exam out, or use a bundle for the channels that are there."
        message = f"{'; '.join(sentences)}. The model needs {', '.join(channels)} in every exam. {advice}"
        raise Refusal("missing_channel", message[0].upper() + message[1:], exam_ids[0])
