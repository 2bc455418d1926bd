"""One phantom patient: course, anatomy, nodules and exams, drawn together; no voxel yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HCCNetLib.synthetic.acquisition import (
    Acquisition,
    AcquisitionModel,
    Scanner,
    draw_acquisition,
    draw_deformed,
    draw_scanners,
)
from HCCNetLib.synthetic.anatomy import Anatomy, draw_anatomy
from HCCNetLib.synthetic.growth import GrowthCourse, GrowthModel, largest_conceivable
from HCCNetLib.synthetic.looks import ExamLooks, LooksModel, draw_looks, draw_nodule
from HCCNetLib.synthetic.placement import (
    Ball,
    Form,
    Nodule,
    NoduleModel,
    draw_form,
    place_apart,
    place_distractors,
    place_solid,
    place_target,
)
from HCCNetLib.synthetic.randomness import Stream, generator
from HCCNetLib.synthetic.shapes import Vector
from HCCNetLib.synthetic.surveillance import NoduleCourse, SurveillanceCourse, SurveillanceModel
from HCCNetLib.synthetic.tissues import check_channels, lesion_tissue

DEFAULT_CHANNELS = ("DWI_b0", "DWI_b150", "DWI_b400", "DWI_b800")
_ATTEMPTS = 50
# Gap between solid nodules, mm: the later ones are for patients whose nodules find no place with the first.
_GAPS = (4.0,) * 25 + (2.0,) * 25 + (0.5,) * 50
_PLACINGS = 10  # per draw of the exams


@dataclass(frozen=True)
class PhantomModel:
    """Everything that decides what a cohort looks like, apart from seed and number of patients.

    Args:
        channels: to write, in this order.
        disease: dates, sizes, outcomes.
        nodules: their form; of growth, distractors.
        acquisition: grids, poses, noise, scanners, deformation.
        looks: of surveillance: what changes from patient to patient and from exam to exam.
        lesion_s0_ratio: of growth: DWI signal of the lesion at b 0 relative to the liver's, drawn uniformly per patient.
        lesion_adc: of growth: of the lesion, 10⁻³ mm²/s, drawn in the same way.
        liver_texture: of growth: SD of the liver's signal, as a fraction.
        liver_surface: SD of the liver's surface, mm.
    """

    channels: tuple[str, ...] = DEFAULT_CHANNELS
    disease: GrowthModel | SurveillanceModel = field(default_factory=SurveillanceModel)
    nodules: NoduleModel = field(default_factory=NoduleModel)
    acquisition: AcquisitionModel = field(default_factory=AcquisitionModel)
    looks: LooksModel = field(default_factory=LooksModel)
    lesion_s0_ratio: tuple[float, float] = (1.3, 1.7)
    lesion_adc: tuple[float, float] = (0.8, 1.0)
    liver_texture: float = 0.06
    liver_surface: float = 1.2

    def __post_init__(self) -> None:
        check_channels(self.channels)

    def to_dict(self) -> Mapping[str, Any]:
        """As plain data for the cohort card."""
        return asdict(self)


@dataclass(frozen=True)
class Phantom:
    """One patient, complete but for the noise.

    Args:
        seed: of the cohort.
        course: dates, sizes, outcome.
        anatomy: all but the nodules.
        nodules: growth: the lesion, then distractors. Surveillance: as in the course, less cysts that found no place; solid
            ones come first.
        acquisitions: one per exam.
        looks: one per exam.
        gap: between solid nodules, mm, with which they found their places.
    """

    seed: int
    course: GrowthCourse | SurveillanceCourse
    anatomy: Anatomy
    nodules: tuple[Nodule, ...]
    acquisitions: tuple[Acquisition, ...]
    looks: tuple[ExamLooks, ...]
    gap: float = _GAPS[0]


def draw_phantom(model: PhantomModel, seed: int, index: int) -> Phantom:
    """Draws one patient; the same for the same model, seed and index."""
    course = model.disease.draw(seed, index)
    if isinstance(course, GrowthCourse):
        assert isinstance(model.disease, GrowthModel)
        return _draw_growth(model, model.disease, seed, course)
    return _draw_surveillance(model, seed, course)


def _draw_growth(model: PhantomModel, disease: GrowthModel, seed: int, course: GrowthCourse) -> Phantom:
    anatomy = draw_anatomy(generator(seed, course.index, Stream.ANATOMY))
    rng = generator(seed, course.index, Stream.NODULES)
    form = draw_form(model.nodules, rng)
    tissue = lesion_tissue(float(rng.uniform(*model.lesion_s0_ratio)), float(rng.uniform(*model.lesion_adc)))
    # Not the largest that this lesion was: then its place would tell whether it had shrunk.
    largest = largest_conceivable(disease, course.diameters[-1], course.months_before_landmark[0])
    acquisitions, centre = _draw_exams(model, seed, course, anatomy, max(form.ratios) * largest / 2)
    exams = len(course.dates)
    target = Nodule("lesion", centre, form, course.diameters, (tissue,) * exams)
    distractors = place_distractors(model.nodules, anatomy, form.ellipsoid(centre, largest), exams, rng)
    looks = (ExamLooks(texture=model.liver_texture),) * exams
    return Phantom(seed, course, anatomy, (target, *distractors), acquisitions, looks)


def _draw_exams(
    model: PhantomModel, seed: int, course: GrowthCourse, anatomy: Anatomy, radius: float
) -> tuple[tuple[Acquisition, ...], Vector]:
    """Draws the exams and a place for the lesion that suits all of them; draws again where there is none."""
    rng = generator(seed, course.index, Stream.EXAM)
    for _ in range(_ATTEMPTS):
        acquisitions = tuple(draw_acquisition(model.acquisition, rng) for _ in course.dates)
        centre = place_target(anatomy, acquisitions, radius, rng)
        if centre is not None:
            return acquisitions, centre
    raise RuntimeError(f"no place for the lesion of patient {course.index} of seed {seed}")


def _draw_surveillance(model: PhantomModel, seed: int, course: SurveillanceCourse) -> Phantom:
    anatomy = draw_anatomy(generator(seed, course.index, Stream.ANATOMY))
    scanner_rng, looks_rng = generator(seed, course.index, Stream.LOOKS).spawn(2)
    scanners = draw_scanners(model.acquisition, course.dates, scanner_rng)
    looks = draw_looks(model.looks, course.dates, [scanner.contrast for scanner in scanners], looks_rng)
    rng = generator(seed, course.index, Stream.NODULES)
    forms = [draw_form(model.nodules, rng) for _ in course.nodules]
    radii = np.array([max(f.ratios) * np.array(n.diameters) / 2 for f, n in zip(forms, course.nodules, strict=True)])
    radii = radii.reshape(-1, len(course.dates))
    solid = sum(nodule.kind != "cyst" for nodule in course.nodules)
    acquisitions, centres, gap = _draw_exams_with_places(model, seed, course, scanners, anatomy, radii[:solid])
    nodules = [
        _nodule(model, nodule, centre, form, looks, rng)
        for nodule, centre, form in zip(course.nodules[:solid], centres, forms, strict=False)
    ]
    largest = radii.max(axis=1).tolist()
    taken = [Ball(centre, radius) for centre, radius in zip(centres, largest, strict=False)]
    for nodule, form, radius in zip(course.nodules[solid:], forms[solid:], largest[solid:], strict=True):
        place = place_apart(anatomy, radius, taken, rng)
        if place is not None:
            nodules.append(_nodule(model, nodule, place, form, looks, rng))
            taken.append(Ball(place, radius))
    return Phantom(seed, course, anatomy, tuple(nodules), acquisitions, looks, gap)


def _draw_exams_with_places(
    model: PhantomModel,
    seed: int,
    course: SurveillanceCourse,
    scanners: tuple[Scanner, ...],
    anatomy: Anatomy,
    radii: NDArray[np.float64],
) -> tuple[tuple[Acquisition, ...], list[Vector], float]:
    """Draws the exams, and places for all solid nodules that suit all of them; again, and closer, where there are none."""
    assert isinstance(model.disease, SurveillanceModel)
    room = max(model.disease.nodule_size) / 2
    rng = generator(seed, course.index, Stream.EXAM)
    for gap in _GAPS:
        acquisitions = draw_deformed(model.acquisition, scanners, rng)
        for _ in range(_PLACINGS):
            centres = place_solid(anatomy, acquisitions, radii, room, gap, rng)
            if centres is not None:
                return acquisitions, centres, gap
    raise RuntimeError(f"no place for the nodules of patient {course.index} of seed {seed}")


def _nodule(
    model: PhantomModel,
    course: NoduleCourse,
    centre: Vector,
    form: Form,
    looks: tuple[ExamLooks, ...],
    rng: np.random.Generator,
) -> Nodule:
    if course.kind == "cyst":
        tissues = tuple(look.tissues["cyst"] for look in looks)
    else:
        tissues = draw_nodule(model.looks.nodules, [look.tissues["liver"] for look in looks], rng)
    return Nodule(course.kind, centre, form, course.diameters, tissues)
