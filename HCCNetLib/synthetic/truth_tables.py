"""What is written of the truth of a phantom: one table of all exams, and a record of each patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from HCCNetLib.synthetic.disease import Course, Progress, sphere_ml
from HCCNetLib.synthetic.growth import GrowthCourse
from HCCNetLib.synthetic.phantom import Phantom
from HCCNetLib.synthetic.rendering import RenderedExam
from HCCNetLib.synthetic.surveillance import SurveillanceCourse, SurveillanceModel
from HCCNetLib.synthetic.true_risk import TrueRisk, measure

# The logarithm of a volume is that of this one where there is less: a sphere of 3 mm.
SMALLEST_ML = sphere_ml(3.0)
RISK_VIEWS = ("state", "images")


def risk_column(view: str, months: float) -> str:
    """Name of a column of true risks, e.g. ``risk_images_12``."""
    return f"risk_{view}_{months:g}"


def exams_table(disease: Any, courses: Sequence[Course], seed: int, progress: Progress) -> list[list[str]]:
    """A row per exam, a header first.

    ``lesion_*``: of growth, the lesion; of surveillance, all solid nodules (``_diameter_mm``: the largest). Of surveillance also
    the largest tumour, whether one is visible, and the true risks: given the whole state, and given what images show.
    """
    columns = ["patient_id", "exam_id", "lesion_diameter_mm", "lesion_ml", "lesion_log_ml"]
    true = TrueRisk(disease) if isinstance(disease, SurveillanceModel) else None
    if true is not None:
        columns += ["tumour_diameter_mm", "visible_tumour"]
        columns += [risk_column(view, months) for view in RISK_VIEWS for months in true.model.horizons]
    rows = [columns]
    for done, course in enumerate(courses):
        progress("computing the truth", done, len(courses))
        for exam, date in enumerate(course.dates):
            row = [course.patient_id, date.isoformat(), *(f"{number:.6f}" for number in _lesion(course, exam))]
            if true is not None:
                row += _surveillance(true, course, exam, seed)
            rows.append(row)
    progress("computing the truth", len(courses), len(courses))
    return rows


def _surveillance(true: TrueRisk, course: Any, exam: int, seed: int) -> list[str]:
    risks = [*true.from_state(course, exam), *true.from_images(measure(course, exam, seed))]
    largest = course.largest("tumour")[exam]
    return [f"{largest:.6f}", "yes" if course.visible(exam) else "no", *(f"{risk:.6f}" for risk in risks)]


def _lesion(course: Course, exam: int) -> tuple[float, float, float]:
    """Diameter of the largest solid nodule, mm, volume of all, ml, and its logarithm."""
    sizes = _solid(course, exam)
    volume = sum(sphere_ml(size) for size in sizes)
    return max(sizes, default=0.0), volume, float(np.log(max(volume, SMALLEST_ML)))


def _solid(course: Course, exam: int) -> list[float]:
    """Diameters of the solid nodules that are there."""
    if isinstance(course, GrowthCourse):
        return [course.diameters[exam]]
    assert isinstance(course, SurveillanceCourse)
    return [n.diameters[exam] for n in course.nodules if n.kind != "cyst" and n.diameters[exam] > 0]


def count_lesions(courses: Sequence[Any]) -> dict[str, int]:
    """For the card."""
    if all(isinstance(course, GrowthCourse) for course in courses):
        return {
            "malignant": sum(course.kind == "malignant" for course in courses),
            "benign_shrinking": sum(course.doublings_per_month < 0 for course in courses),
        }
    kinds = Counter(nodule.kind for course in courses for nodule in course.nodules)
    visible = sum(course.visible(exam) for course in courses for exam in range(len(course.dates)))
    return {
        "tumours": kinds["tumour"],
        "benign": kinds["benign"],
        "cysts": kinds["cyst"],
        "exams_with_visible": visible,
    }


def patient_truth(phantom: Phantom) -> dict[str, Any]:
    """Of a patient as a whole; the number of a solid nodule in the lesion masks is its place in the list, from 1."""
    course = phantom.course
    if isinstance(course, GrowthCourse):
        about: dict[str, Any] = {"kind": course.kind, "doublings_per_month": _round(course.doublings_per_month)}
    else:
        about = {"threshold_mm": _round(course.threshold)}
    return {
        "patient_id": course.patient_id,
        **about,
        "nodules": [
            {
                "kind": nodule.kind,
                "diameters_mm": _round(nodule.diameters),
                "semi_axes_per_radius": _round(nodule.form.ratios),
                "s0": _round([tissue.s0 for tissue in nodule.tissues]),
                "adc": _round([tissue.adc for tissue in nodule.tissues]),
            }
            for nodule in phantom.nodules
        ],
    }


def exam_truth(phantom: Phantom, exam: int, rendered: RenderedExam) -> dict[str, Any]:
    """Of one exam."""
    course, acquisition = phantom.course, phantom.acquisitions[exam]
    voxel_ml = float(np.prod(rendered.grid.spacing) / 1000)
    diameter, volume, logarithm = _lesion(course, exam)
    centres = acquisition.to_patient(np.array([nodule.centre for nodule in phantom.nodules]).reshape(-1, 3))
    masks = [int((rendered.lesion == n).sum()) for n in range(1, len(phantom.nodules) + 1)]
    return {
        "exam_id": course.dates[exam].isoformat(),
        "date": course.dates[exam].isoformat(),
        "months_before_landmark": _round(course.months_before_landmark[exam]),
        "lesion_diameter_mm": _round(diameter),
        "lesion_ml": _round(volume),
        "lesion_log_ml": _round(logarithm),
        "nodule_centres_mm": _round(centres),
        "nodule_mask_ml": _round(np.array(masks) * voxel_ml),
        "scanner": acquisition.scanner.name,
        "anatomy_to_patient": _round(acquisition.body),
        "breath_mm": _round(acquisition.breath),
        "intensity_scale": _round(acquisition.intensity_scale),
        "shading": _round(acquisition.shading),
        "noise": _round(acquisition.noise),
    }


def _round(values: Any) -> Any:
    """Numbers and arrays as plain data of six decimals."""
    return np.round(np.asarray(values, dtype=np.float64), 6).tolist()
