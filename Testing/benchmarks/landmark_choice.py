"""Which exams are judged: the true risk of the surveillance process, which is calibrated, as each choice of landmarks sees it.

    python Testing/benchmarks/landmark_choice.py [--patients 1200] [--seed 3]

No image is made. An intercept above 0 means that risks seem too low.
"""

from __future__ import annotations

import argparse

import numpy as np

from HCCNetLib.evaluation.follow_up import follow_up_of
from HCCNetLib.evaluation.judgement import Landmarks, judge_sets
from HCCNetLib.evaluation.landmark_sets import Details
from HCCNetLib.evaluation.risks import Risks
from HCCNetLib.synthetic.disease import draw_courses
from HCCNetLib.synthetic.surveillance import SurveillanceModel
from HCCNetLib.synthetic.true_risk import TrueRisk, measure


def main() -> None:
    """Prints a row per set of landmarks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=3)
    arguments = parser.parse_args()
    model = SurveillanceModel()
    true = TrueRisk(model)
    courses = draw_courses(model, arguments.seed, range(arguments.patients))
    exams = [(course, exam) for course in courses for exam in range(len(course.dates))]
    risks = np.array([true.from_images(measure(course, exam, arguments.seed)) for course, exam in exams])
    visible = np.array([float(course.visible(exam)) for course, exam in exams])
    follow_up = follow_up_of((course.dates, course.outcome) for course in courses)
    landmarks = Landmarks(
        follow_up,
        Risks({months: risks[:, n] for n, months in enumerate(model.horizons)}),
        Details(np.full(len(exams), np.nan), visible),
        risks[:, :1],
    )
    print(f"{len(exams)} exams of {len(courses)} patients, at {model.horizon:g} months")
    print(f"{'set':58}{'exams':>7}{'observed':>10}{'risk':>8}{'AUROC':>8}{'intercept':>11}{'slope':>8}")
    for one in judge_sets(landmarks, model.horizons, model.horizon):
        at = one["horizons"][f"{model.horizon:g}"]
        figures = (
            (at["observed"] or {}).get("value"),
            at["mean_risk"],
            at["ipcw"]["auroc"]["value"],
            *((at[name] or {}).get("value") for name in ("calibration_intercept", "calibration_slope")),
        )
        words = "".join(
            f"{'–' if x is None else f'{x:.3f}':>{w}}" for x, w in zip(figures, (10, 8, 8, 11, 8), strict=True)
        )
        print(f"{one['kind'] + ': ' + one['name']:58}{one['landmarks']:7}{words}")


if __name__ == "__main__":
    main()
