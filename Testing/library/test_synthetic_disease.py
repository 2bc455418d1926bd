from __future__ import annotations

import datetime

import numpy as np
import pytest
from scipy import stats

from HCCNetLib.records import DAYS_PER_MONTH, Outcome, Refusal, landmark_label, months_between
from HCCNetLib.synthetic.disease import draw_courses, sphere_ml
from HCCNetLib.synthetic.growth import (
    GrowthModel,
    diameter_before,
    largest_conceivable,
)

MODEL = GrowthModel()
LANDMARK = datetime.date(2020, 1, 1)


@pytest.fixture(scope="module")
def courses():
    return draw_courses(MODEL, 0, range(4000))


def of_kind(courses, kind):
    return [course for course in courses if course.kind == kind]


def gaps(courses):
    return [months_between(a, b) for c in courses for a, b in zip(c.dates, c.dates[1:], strict=False)]


@pytest.mark.parametrize(
    ("diagnosed_after", "seen_until", "label"),
    [
        (30, 30, True),
        (365, 365, True),
        (366, 366, False),
        (None, 366, False),
        (None, 365, None),
        (None, 30, None),
        (0, 30, None),
        (-30, 30, None),
    ],
)
def test_a_landmark_is_labelled_by_what_was_seen_within_the_horizon(diagnosed_after, seen_until, label):
    diagnosis = None if diagnosed_after is None else LANDMARK + datetime.timedelta(days=diagnosed_after)
    outcome = Outcome("A", diagnosis, LANDMARK + datetime.timedelta(days=seen_until))
    assert landmark_label(outcome, LANDMARK, 12) is label


def test_both_kinds_have_the_same_sizes_at_the_landmark_and_the_same_dates(courses):
    malignant, benign = of_kind(courses, "malignant"), of_kind(courses, "benign")
    assert stats.ks_2samp([c.diameters[-1] for c in malignant], [c.diameters[-1] for c in benign]).pvalue > 0.05
    assert stats.ks_2samp(gaps(malignant), gaps(benign)).pvalue > 0.05
    counts = [[sum(len(c.dates) == n for c in group) for n in (2, 3, 4)] for group in (malignant, benign)]
    assert stats.chi2_contingency(counts).pvalue > 0.05


def test_sizes_gaps_and_numbers_of_exams_keep_to_their_ranges(courses):
    assert {len(c.dates) for c in courses} == {2, 3, 4}
    half_a_day = 0.5 / DAYS_PER_MONTH
    assert min(gaps(courses)) >= 1 - half_a_day
    assert max(gaps(courses)) <= 24 + half_a_day
    assert stats.kstest(np.log(gaps(courses)), "uniform", (0, np.log(24))).pvalue > 0.05
    landmark = [c.diameters[-1] for c in courses]
    assert stats.kstest(landmark, "uniform", (20, 20)).pvalue > 0.05


def test_only_the_doubling_time_differs_and_a_fifth_of_the_benign_shrinks(courses):
    malignant = [1 / c.doublings_per_month for c in of_kind(courses, "malignant")]
    assert 3 <= min(malignant) <= max(malignant) <= 6
    benign = np.array([1 / c.doublings_per_month for c in of_kind(courses, "benign")])
    assert np.abs(benign).min() >= 12
    assert np.abs(benign).max() <= 24
    assert 0.17 < (benign < 0).mean() < 0.23


def test_between_its_limits_a_lesion_grows_as_its_doubling_time_says(courses):
    for course in courses[:500]:
        months, volumes = course.months_before_landmark, course.volumes_ml
        for t, volume, diameter in zip(months, volumes, course.diameters, strict=True):
            if MODEL.smallest_mm < diameter < MODEL.largest_mm:
                assert np.log2(volumes[-1] / volume) == pytest.approx(course.doublings_per_month * t, abs=1e-9)
        assert all(MODEL.smallest_mm <= d <= MODEL.largest_mm for d in course.diameters)


def test_a_sphere_of_20_mm_has_4_ml():
    assert sphere_ml(20) == pytest.approx(4.18879)


def test_where_a_lesion_can_lie_is_decided_without_its_growth(courses):
    for course in courses:
        limit = largest_conceivable(MODEL, course.diameters[-1], course.months_before_landmark[0])
        assert max(course.diameters) <= limit
    assert diameter_before(MODEL, 30, 1 / 3, 9) == pytest.approx(15)
    assert largest_conceivable(MODEL, 30, 12) == pytest.approx(30 * 2 ** (1 / 3))


def test_malignant_patients_are_diagnosed_within_the_horizon_unless_lost_and_benign_ones_never(courses):
    for course in courses:
        label = course.label(-1, MODEL.horizon)
        if course.kind == "benign":
            assert course.outcome.diagnosis_date is None
            assert label is not True
        elif course.outcome.diagnosis_date is None:
            assert label is None
        else:
            assert label is True
            assert course.dates[-1] < course.outcome.diagnosis_date <= course.outcome.last_seen_date
        assert course.outcome.last_seen_date > course.dates[-1]


def test_a_twentieth_of_the_patients_is_lost_to_follow_up_whatever_their_kind(courses):
    lost = [c.label(-1, MODEL.horizon) is None for c in of_kind(courses, "benign")]
    assert 0.04 < np.mean(lost) < 0.06
    # Of the malignant ones, those whose diagnosis came first are not lost.
    lost = [c.label(-1, MODEL.horizon) is None for c in of_kind(courses, "malignant")]
    assert 0.015 < np.mean(lost) < 0.04


def test_an_exam_long_before_the_diagnosis_is_a_negative_landmark(courses):
    early = [
        course.label(0, 12)
        for course in of_kind(courses, "malignant")
        if course.outcome.diagnosis_date and months_between(course.dates[0], course.outcome.diagnosis_date) > 12
    ]
    assert early
    assert not any(early)


def test_a_patient_does_not_depend_on_who_else_is_drawn(courses):
    assert MODEL.draw(0, 3210) == courses[3210]
    assert MODEL.draw(1, 3210) != courses[3210]


def test_a_chance_outside_0_to_1_is_refused_by_name():
    with pytest.raises(Refusal, match="malignant_fraction must lie between 0 and 1"):
        GrowthModel(malignant_fraction=1.5)
