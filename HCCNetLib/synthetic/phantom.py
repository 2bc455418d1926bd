"""One phantom patient: course, anatomy, nodules and exams, drawn together; no voxel yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from HCCNetLib.synthetic.acquisition import Acquisition, AcquisitionModel, draw_acquisition
from HCCNetLib.synthetic.anatomy import Anatomy, draw_anatomy
from HCCNetLib.synthetic.disease import Course, DiseaseModel, draw_course, largest_conceivable
from HCCNetLib.synthetic.placement import Distractor, Form, NoduleModel, draw_form, place_distractors, place_target
from HCCNetLib.synthetic.randomness import Stream, generator
from HCCNetLib.synthetic.shapes import Ellipsoid, Vector
from HCCNetLib.synthetic.tissues import Tissue, check_channels, lesion_tissue

DEFAULT_CHANNELS = ("DWI_b0", "DWI_b150", "DWI_b400", "DWI_b800")
_ATTEMPTS = 50


@dataclass(frozen=True)
class PhantomModel:
    """Everything that decides what a cohort looks like, apart from seed and number of patients.

    Args:
        channels: to write, in this order.
        disease: dates, sizes, outcomes.
        nodules: form of the target lesion, distractors.
        acquisition: grids, poses, noise.
        lesion_s0_ratio: DWI signal of the target lesion at b 0 relative to the liver's, drawn uniformly per patient.
        lesion_adc: of the target lesion, 10⁻³ mm²/s, likewise.
        liver_texture: SD of the liver's signal, as a fraction.
        liver_surface: SD of the liver's surface, mm.
    """

    channels: tuple[str, ...] = DEFAULT_CHANNELS
    disease: DiseaseModel = field(default_factory=DiseaseModel)
    nodules: NoduleModel = field(default_factory=NoduleModel)
    acquisition: AcquisitionModel = field(default_factory=AcquisitionModel)
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
class Target:
    """The lesion whose growth decides; its look is drawn the same way for both kinds of patient."""

    centre: Vector
    form: Form
    tissue: Tissue

    def shape(self, diameter: float) -> Ellipsoid:
        """Its body in anatomical space at a given size (mm, of the sphere of its volume)."""
        return self.form.ellipsoid(self.centre, diameter)


@dataclass(frozen=True)
class Phantom:
    """One patient, complete but for the noise."""

    seed: int
    course: Course
    anatomy: Anatomy
    target: Target
    distractors: tuple[Distractor, ...]
    acquisitions: tuple[Acquisition, ...]


def draw_phantom(model: PhantomModel, seed: int, index: int) -> Phantom:
    """Draws one patient; the same for the same model, seed and index."""
    course = draw_course(model.disease, seed, index)
    anatomy = draw_anatomy(generator(seed, index, Stream.ANATOMY))
    rng = generator(seed, index, Stream.NODULES)
    form = draw_form(model.nodules, rng)
    tissue = lesion_tissue(float(rng.uniform(*model.lesion_s0_ratio)), float(rng.uniform(*model.lesion_adc)))
    # Not the largest that this lesion was: then its place would tell whether it had shrunk.
    largest = largest_conceivable(model.disease, course.diameters[-1], course.months_before_landmark[0])
    acquisitions, centre = _draw_exams(model, seed, course, anatomy, max(form.ratios) * largest / 2)
    target = Target(centre, form, tissue)
    distractors = place_distractors(model.nodules, anatomy, target.shape(largest), rng)
    return Phantom(seed, course, anatomy, target, distractors, acquisitions)


def _draw_exams(
    model: PhantomModel, seed: int, course: Course, anatomy: Anatomy, radius: float
) -> tuple[tuple[Acquisition, ...], Vector]:
    """Draws the exams and a place for the lesion that suits all of them; draws again where there is none."""
    rng = generator(seed, course.index, Stream.EXAM)
    for _ in range(_ATTEMPTS):
        acquisitions = tuple(draw_acquisition(model.acquisition, rng) for _ in course.dates)
        centre = place_target(anatomy, acquisitions, radius, rng)
        if centre is not None:
            return acquisitions, centre
    raise RuntimeError(f"no place for the lesion of patient {course.index} of seed {seed}")
