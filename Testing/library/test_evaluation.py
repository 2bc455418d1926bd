from __future__ import annotations

import datetime

import pytest

from HCCNetLib.evaluation import find_landmarks
from HCCNetLib.records import Exam, Outcome, Patient, Refusal

# Landmarks


def patient_of(*dates):
    return Patient("P1", tuple(Exam(date, datetime.date.fromisoformat(date), {}) for date in dates))


def outcome_of(diagnosis, last_seen):
    day = datetime.date.fromisoformat
    return Outcome("P1", day(diagnosis) if diagnosis else None, day(last_seen))


def test_exams_on_or_after_the_diagnosis_are_dropped_and_counted_and_the_others_labelled():
    patient = patient_of("2019-01-01", "2020-06-01", "2020-12-31", "2021-01-01", "2021-02-01")
    landmarks = find_landmarks(patient, outcome_of("2021-01-01", "2021-03-01"), 12)
    assert [exam.exam_id for exam in landmarks.patient.exams] == ["2019-01-01", "2020-06-01", "2020-12-31"]
    assert landmarks.labels == (False, True, True)
    assert (landmarks.dropped, landmarks.unlabelled, landmarks.labelled) == (2, 0, (0, 1, 2))


def test_an_exam_followed_for_less_than_the_horizon_has_no_label():
    patient = patient_of("2019-01-01", "2020-01-01", "2020-06-01")
    landmarks = find_landmarks(patient, outcome_of(None, "2020-12-31"), 12)
    assert landmarks.labels == (False, None, None)  # 365 days are less than 12 months of 30.4375 days
    assert (landmarks.dropped, landmarks.unlabelled, landmarks.labelled) == (0, 2, (0,))
    assert find_landmarks(patient, outcome_of(None, "2021-01-01"), 12).labels == (False, False, None)
    assert find_landmarks(patient, outcome_of(None, "2020-12-31"), 6).labels == (False, False, False)


def test_a_patient_whose_every_exam_follows_the_diagnosis_has_no_landmark():
    landmarks = find_landmarks(patient_of("2020-01-01", "2020-02-01"), outcome_of("2020-01-01", "2020-05-01"), 12)
    assert (landmarks.patient, landmarks.labels, landmarks.dropped, landmarks.labelled) == (None, (), 2, ())


def test_who_was_last_seen_before_an_exam_is_refused_with_both_dates():
    with pytest.raises(Refusal, match=r"last seen on 2020-01-31, before exam 2020-02-01") as refusal:
        find_landmarks(patient_of("2019-01-01", "2020-02-01"), outcome_of(None, "2020-01-31"), 12)
    assert (refusal.value.code, refusal.value.exam_id) == ("seen_before_exam", "2020-02-01")
    assert "P1" not in refusal.value.message
    find_landmarks(patient_of("2020-02-01"), outcome_of(None, "2020-02-01"), 12)


def test_the_outcome_of_another_patient_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="another patient"):
        find_landmarks(patient_of("2020-02-01"), Outcome("P2", None, datetime.date(2021, 1, 1)), 12)
