"""What follow-up says of each interval, the likelihood that is learned from it, and the calibration at each horizon."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, logit
from torch.autograd.functional import hessian, jacobian
from training_helpers import example, tiny_config

from HCCNetLib.bundles import Calibration
from HCCNetLib.evaluation.calibration import fit_recalibration
from HCCNetLib.evaluation.follow_up import CENSORED, COMPETING, DIAGNOSED, FollowUp
from HCCNetLib.inference.predictor import calibrate
from HCCNetLib.records import Refusal
from HCCNetLib.training import ensemble
from HCCNetLib.training.distributed import Workers
from HCCNetLib.training.examples import Example, training_cache
from HCCNetLib.training.finetune import Batch, FinetuneTask, Normalisation, trained_intervals
from HCCNetLib.training.intervals import Intervals
from HCCNetLib.training.settings import FinetuneConfig
from HCCNetLib.training.visits import VisitPlan

HORIZONS = (6.0, 12.0, 24.0)
ALONE = Workers(0, 1, torch.device("cpu"))


# ---------------------------------------------------------------- intervals


@pytest.mark.parametrize(
    ("months", "status", "at_risk", "diagnosed"),
    [
        # A diagnosis counts for the whole of its own interval, which it ends too when it falls on its end.
        (0.0, DIAGNOSED, [1, 0, 0], [1, 0, 0]),
        (3.0, DIAGNOSED, [1, 0, 0], [1, 0, 0]),
        (6.0, DIAGNOSED, [1, 0, 0], [1, 0, 0]),
        (6.1, DIAGNOSED, [1, 1, 0], [0, 1, 0]),
        (12.0, DIAGNOSED, [1, 1, 0], [0, 1, 0]),
        (24.0, DIAGNOSED, [1, 1, 1], [0, 0, 1]),
        (24.1, DIAGNOSED, [1, 1, 1], [0, 0, 0]),
        # Who leaves the follow-up says something of the part of the interval that they were followed.
        (0.0, CENSORED, [0, 0, 0], [0, 0, 0]),
        (3.0, CENSORED, [1 / 2, 0, 0], [0, 0, 0]),
        (6.0, CENSORED, [1, 0, 0], [0, 0, 0]),
        (10.5, CENSORED, [1, 3 / 4, 0], [0, 0, 0]),
        (15.0, CENSORED, [1, 1, 1 / 4], [0, 0, 0]),
        (30.0, CENSORED, [1, 1, 1], [0, 0, 0]),
        # A death ends the follow-up in the same way: it is not "no diagnosis" for the hazard of its interval.
        (0.0, COMPETING, [0, 0, 0], [0, 0, 0]),
        (8.0, COMPETING, [1, 1 / 3, 0], [0, 0, 0]),
        (12.0, COMPETING, [1, 1, 0], [0, 0, 0]),
        (30.0, COMPETING, [1, 1, 1], [0, 0, 0]),
    ],
)
def test_each_end_of_follow_up_by_hand(
    months: float, status: int, at_risk: Sequence[float], diagnosed: Sequence[int]
) -> None:
    end = np.array([months]), np.array([status])
    found, whole = Intervals.of(*end, HORIZONS), Intervals.of(*end, HORIZONS, whole=True)
    assert found.at_risk[0].tolist() == pytest.approx(at_risk)
    assert whole.at_risk[0].tolist() == [float(share == 1) for share in at_risk]
    for one in (found, whole):
        assert one.diagnosed[0].tolist() == [bool(x) for x in diagnosed]
        assert one.cases.tolist() == [any(diagnosed)]
        assert one.informative.tolist() == [bool(one.at_risk.any())]


# Months of follow-up and how it ended, one landmark each. By hand below, for intervals that end at 6, 12 and 24 months.
COURSES = [
    *((2.0, DIAGNOSED), (5.0, DIAGNOSED), (8.0, DIAGNOSED), (9.0, DIAGNOSED), (11.0, DIAGNOSED), (20.0, DIAGNOSED)),
    *((4.0, CENSORED), (7.0, CENSORED), (12.0, CENSORED), (30.0, CENSORED), (40.0, CENSORED)),
    *((3.0, COMPETING), (10.0, COMPETING), (26.0, COMPETING), (26.0, DIAGNOSED)),
]
# At risk in the first interval: 13 and those who leave after 4 and 3 of its 6 months; 2 are diagnosed. In the second: 9 and
# those who leave after 1 and 4 of its 6; 3 are diagnosed. In the third: 5, who leaves at 12 is not; 1 is diagnosed.
AT_RISK = (13 + 4 / 6 + 3 / 6, 9 + 1 / 6 + 4 / 6, 5)
LIFE_TABLE = (2 / AT_RISK[0], 3 / AT_RISK[1], 1 / AT_RISK[2])


def test_hazards_are_a_life_table() -> None:
    months, status = np.array([m for m, _ in COURSES]), np.array([s for _, s in COURSES])
    found = Intervals.of(months, status, HORIZONS)
    assert found.at_risk.sum(axis=0).tolist() == pytest.approx(AT_RISK)
    assert found.diagnosed.sum(axis=0).tolist() == [2, 3, 1]
    assert found.hazards.tolist() == pytest.approx(LIFE_TABLE)
    whole = Intervals.of(months, status, HORIZONS, whole=True)
    assert whole.at_risk.sum(axis=0).tolist() == [13, 9, 5]
    assert whole.hazards.tolist() == pytest.approx([2 / 13, 3 / 9, 1 / 5])


@pytest.mark.parametrize(
    ("longest", "horizons", "excess"),
    [(20.0, (6.0, 12.0, 18.0), (1.1, 1.2, 1.5)), (8.0, (6.0,), (2.0,))],
    ids=["all landmarks", "third half-yearly exams of a study of 20 months"],
)
def test_a_constant_rate_is_found_where_most_follow_up_ends_within_an_interval(
    longest: float, horizons: Sequence[float], excess: Sequence[float]
) -> None:
    rng, rate, count = np.random.default_rng(5), 0.01, 20_000
    end, onset = rng.uniform(0, longest, count), rng.exponential(1 / rate, count)
    months, status = np.minimum(end, onset), np.where(onset <= end, DIAGNOSED, CENSORED)
    found, whole = (Intervals.of(months, status, horizons, whole=counted_whole) for counted_whole in (False, True))
    risk, true = 1 - np.cumprod(1 - found.hazards), 1 - np.exp(-rate * np.array(horizons))
    events, at_risk = found.diagnosed.sum(axis=0), found.at_risk.sum(axis=0)
    sd = (1 - risk) * np.sqrt(np.cumsum(events / (at_risk * (at_risk - events))))  # Greenwood
    assert (sd < 0.04 * true).all()
    assert (np.abs(risk - true) < 3 * sd).all()
    # Without the shares those who are diagnosed early count, and those who leave early don't.
    assert (1 - np.cumprod(1 - whole.hazards) > np.array(excess) * true).all()


def test_horizons_that_nobody_is_followed_for_or_without_a_diagnosis_are_refused_by_name() -> None:
    months, status = np.array([m for m, _ in COURSES]), np.array([s for _, s in COURSES])

    def refusal_at(*horizons: float) -> Refusal:
        with pytest.raises(Refusal) as caught:
            Intervals.of(months, status, horizons).require_events(months, horizons)
        return caught.value

    Intervals.of(months, status, HORIZONS).require_events(months, HORIZONS)
    beyond = refusal_at(6, 12, 41, 60)
    assert beyond.code == "beyond_follow_up"
    assert beyond.message == (
        "No exam of the cohort is followed for 41 months; the longest follow-up after an exam is 40.0 months. Leave 41, 60 out "
        "of horizons_months."
    )
    none = refusal_at(6, 12, 18)
    assert none.code == "no_events"
    assert none.message == (
        "No diagnosis falls between 12 and 18 months after an exam of the cohort, so that no risk can be learned for this "
        "interval. Change horizons_months so that each interval has a diagnosis."
    )
    assert "between 0 and 1.5 months" in refusal_at(1.5, 12).message


# ---------------------------------------------------------------- the likelihood


class NoImages:
    """In place of a cache, for what does not depend on images."""

    def __init__(self, config: FinetuneConfig) -> None:
        self.preparation = training_cache(config).preparation

    def data(self, key: str) -> np.ndarray:
        return np.zeros((2, 28, 28, 28), np.float16)


def course(number: int, months: float, status: int) -> Example:
    """A patient with one exam."""
    return Example(f"P{number}", number, (f"P{number}",), (0.0,), (None,), (None,), ("1",), months, status)


def task_of(examples: Sequence[Example], **changes: Any) -> FinetuneTask:
    plain = {"exam_dropout": 0.0, "subsequences": 1, "batch": len(examples)}
    config = tiny_config(**{**plain, **changes})
    model = ensemble.first_model(config, 0)
    return FinetuneTask(config, VisitPlan(config, 0, examples), (), NoImages(config), model)  # type: ignore[arg-type]


def label_loss(task: FinetuneTask, batch: Batch, hazards: torch.Tensor) -> torch.Tensor:
    """The loss that the task computes for a network whose hazards (Q, K) are given."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task.model.network, "classify", lambda *_: (hazards, None))
        errors = task._label_errors(batch, torch.zeros(len(batch.images), 128))
    return (batch.weights * errors).sum()


def best_hazards(task: FinetuneTask) -> np.ndarray:
    """What one hazard per interval, the same for everybody, is driven to."""
    (batch,) = task.load(0, ALONE)

    def loss(free: torch.Tensor) -> torch.Tensor:
        return label_loss(task, batch, free.expand(len(batch.lengths), -1))

    free = torch.zeros(len(task.config.horizons_months))
    for _ in range(20):  # Newton's steps
        free = free - torch.linalg.solve(hessian(loss, free), jacobian(loss, free))
    return free.sigmoid().double().numpy()


# A and B are followed for 21, 15, 9 and 3 months after their exams, C for 27, 21 and 15, D for 21 and 15; A is diagnosed.
SERIES = [
    example([False, False, True, True], "A", 0),
    example([False, False, None, None], "B", 1),
    example([False, False, False], "C", 2),
    example([False, False], "D", 3),
]


@pytest.mark.parametrize("landmark_weight", ["number", "equal"])
def test_a_weighted_landmark_counts_for_its_weight_in_each_interval(landmark_weight: str) -> None:
    diagnosed, at_risk = np.zeros(3), np.zeros(3)
    for patient in SERIES:
        for n, months in enumerate(patient.months, start=1):
            weight = 1 / n if landmark_weight == "number" else 1.0
            for k, (start, end) in enumerate(itertools.pairwise((0.0, *HORIZONS))):
                followed = patient.followed + months
                falls = patient.status == DIAGNOSED and start < followed <= end
                diagnosed[k] += weight * falls
                at_risk[k] += weight * (1 if falls else min(max((followed - start) / (end - start), 0), 1))
    assert best_hazards(task_of(SERIES, landmark_weight=landmark_weight)) == pytest.approx(
        diagnosed / at_risk, abs=1e-4
    )


@pytest.mark.parametrize("loss", ["balanced", "focal"])
def test_with_one_horizon_the_loss_of_classes_is_the_published_one_of_the_labels(loss: str) -> None:
    task = task_of(SERIES, horizons_months=[12], loss=loss, landmark_weight="equal", focal_gamma=1.5)
    (batch,) = task.load(0, ALONE)
    count = len(batch.lengths)
    logits = torch.randn(count, 1, generator=torch.Generator().manual_seed(0))
    labels = np.array(
        [label for v in task.plan.batch(0) for s in v.sequences if (label := v.example.labels[s[-1]]) is not None]
    )
    assert count == len(labels) == sum(label is not None for e in SERIES for label in e.labels) == 11
    assert labels.sum() == 2
    truth = expit(np.where(labels, 1, -1) * logits[:, 0].double().numpy())
    errors = -np.log(truth)
    if loss == "focal":
        errors = (1 - truth) ** 1.5 * errors
    weights = np.where(labels, 11 / (2 * 2), 11 / (2 * 9)) if loss == "balanced" else np.ones(11)
    expected = (weights * errors).sum() / weights.sum()
    assert float(label_loss(task, batch, logits)) == pytest.approx(expected, abs=1e-6)
    if loss == "balanced":
        assert Normalisation.of(SERIES, task.config).class_weights == pytest.approx((11 / 18, 11 / 4))


class TrainingPart:
    """The part of a run that a member's first weights need."""

    def __init__(self, courses: Sequence[tuple[float, int]], **changes: Any) -> None:
        self.config = tiny_config(**changes)
        examples = [course(n, months, status) for n, (months, status) in enumerate(courses)]
        self.examples = [e for e in examples if e.intervals(self.config).informative.any()]
        self.start = self

    def apply(self, network: object) -> list[object]:
        """Nothing is taken over."""
        return []

    def parts(self, member: int) -> tuple[list[Example], list[Example]]:
        return self.examples, []

    @property
    def first_hazards(self) -> list[float]:
        model, _ = ensemble._start(self, 0)  # type: ignore[arg-type]
        return model.network.head.bias.detach().sigmoid().tolist()


def test_the_heads_begin_at_the_observed_hazards_where_weights_are_scaled_and_the_loss_is_plain() -> None:
    assert TrainingPart(COURSES).first_hazards == pytest.approx(LIFE_TABLE, abs=1e-6)
    assert TrainingPart(COURSES, start="published").first_hazards == [0.5] * 3
    balanced = TrainingPart(COURSES, horizons_months=[12], loss="balanced")
    assert balanced.first_hazards == [0.5]  # there are as many of each class


@pytest.mark.parametrize("reach_the_interval", [True, False])
def test_an_interval_without_diagnosis_in_a_training_part_begins_at_a_finite_hazard(reach_the_interval: bool) -> None:
    """The development patients have a diagnosis in each interval, but it may be of the fold that is left out."""
    undiagnosed = [(m, s) for m, s in COURSES if not (s == DIAGNOSED and 12 < m <= 24)]
    courses = undiagnosed if reach_the_interval else [(m, s) for m, s in COURSES if m <= 12]
    hazards = TrainingPart(courses).first_hazards
    assert np.isfinite(hazards).all()
    assert 0 < hazards[2] < 0.5


def test_the_hazards_of_training_are_of_the_landmarks_that_are_trained() -> None:
    config = tiny_config(landmarks="latest")
    found = trained_intervals(SERIES, config)  # the latest landmark whose outcome at 12 months is known
    assert found.at_risk.tolist() == [[1, 0, 0], *[[1, 1, 1 / 4]] * 3]  # A for 3 months, the others for 15
    assert found.diagnosed.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert len(trained_intervals(SERIES, tiny_config()).at_risk) == 4 + 4 + 3 + 2
    balanced = trained_intervals(SERIES, tiny_config(horizons_months=[12], loss="balanced"))
    assert balanced.at_risk.tolist() == [[1.0]] * (4 + 2 + 3 + 2)  # B's last two exams are not followed for a year


@pytest.mark.parametrize("label", [False, True])
def test_classes_of_which_there_is_one_can_t_be_balanced(label: bool) -> None:
    examples, balanced = [example([label], f"P{n}", n) for n in range(3)], {"loss": "balanced", "horizons_months": [12]}
    with pytest.raises(Refusal) as caught:
        Normalisation.of(examples, tiny_config(**balanced))
    assert caught.value.code == "one_class"
    assert caught.value.message == (
        "Classes can't be balanced: of a member's training patients no exam, or every exam whose outcome is known, is "
        "followed by the diagnosis within the horizon. Take another horizon, or loss plain."
    )
    both = [*examples, example([not label], "P3", 3)]
    assert sorted(Normalisation.of(both, tiny_config(**balanced)).class_weights) == pytest.approx([4 / 6, 4 / 2])


# ---------------------------------------------------------------- calibration


SLOPES, INTERCEPTS = (0.6, 0.8, 1.3), (0.4, -0.3, 0.8)
LANDMARKS = 40_000
# Of the fit to so many landmarks, over 30 seeds.
SLOPE_SD, INTERCEPT_SD = (0.013, 0.016, 0.019), (0.056, 0.021, 0.023)


def simulated() -> tuple[FollowUp, np.ndarray, np.ndarray]:
    """Follow-up, networks' risks that are wrong by a known line at each horizon, and the true risks (N, 3).

    Diagnoses and deaths come at constant rates and the follow-up ends at random: the risk of a diagnosis within h months is
    rate / (rate + death) · (1 − exp(−(rate + death) · h)).
    """
    rng = np.random.default_rng(4)
    rate, death = np.exp(rng.normal(-4.2, 0.9, LANDMARKS)), 0.01
    true = np.stack([rate / (rate + death) * (1 - np.exp(-(rate + death) * h)) for h in HORIZONS], axis=1)
    raw = expit((logit(true) - INTERCEPTS) / SLOPES)
    times = np.stack([rng.exponential(1 / rate), rng.exponential(1 / death, LANDMARKS), rng.uniform(0, 40, LANDMARKS)])
    status = np.array([DIAGNOSED, COMPETING, CENSORED])[times.argmin(axis=0)]
    numbers = np.arange(LANDMARKS)
    return FollowUp(numbers, np.ones_like(numbers), times.min(axis=0), status), raw, true


def test_the_calibration_at_each_horizon_recovers_a_known_distortion_in_spite_of_censoring() -> None:
    follow_up, raw, true = simulated()
    weights, labels = ensemble.at_horizons(follow_up, HORIZONS)
    fitted, problem = ensemble._calibrate(raw, labels, weights, HORIZONS)
    assert problem is None
    for k, one in enumerate(fitted):
        assert one.slope == pytest.approx(SLOPES[k], abs=4 * SLOPE_SD[k])
        assert one.intercept == pytest.approx(INTERCEPTS[k], abs=4 * INTERCEPT_SD[k])
    calibrated = calibrate(raw, fitted)
    assert calibrated.mean(axis=0) == pytest.approx(true.mean(axis=0), rel=0.05)
    # Who is diagnosed is known early, who is not only at the horizon: without the weights the known ones are too often ill.
    known = weights[2] > 0
    unweighted = Calibration(*fit_recalibration(raw[known, 2], labels[2][known]))
    assert unweighted.intercept - fitted[2].intercept > 10 * INTERCEPT_SD[2]
    assert calibrate(raw[:, 2:], (unweighted,)).mean() > 1.2 * true[:, 2].mean()


def test_where_a_horizon_can_t_be_calibrated_none_is_and_the_reason_names_it() -> None:
    follow_up, raw, _ = simulated()
    weights, labels = ensemble.at_horizons(follow_up, HORIZONS)
    wrong = raw.copy()
    wrong[:, 1] = 1 - wrong[:, 1]
    fitted, problem = ensemble._calibrate(wrong, labels, weights, HORIZONS)
    assert fitted == []
    assert problem is not None
    assert problem.startswith("At 12 months: ")
    assert "does not mean a higher risk" in problem


def test_landmarks_not_followed_to_a_horizon_have_no_weight_there_and_the_others_stand_for_them() -> None:
    months = np.array([3.0, 8.0, 9.0, 15.0, 30.0, 30.0])
    status = np.array([CENSORED, DIAGNOSED, COMPETING, CENSORED, CENSORED, DIAGNOSED])
    numbers = np.arange(6)
    weights, labels = ensemble.at_horizons(FollowUp(numbers, numbers + 1, months, status), HORIZONS)
    # Of six one leaves at 3 months, 5/6 stay; of the three left after 9 months one leaves at 15, 2/3 stay.
    assert weights == pytest.approx(
        np.array([[0, 1.2, 1.2, 1.2, 1.2, 1.2], [0, 1.2, 1.2, 1.2, 1.2, 1.2], [0, 1.2, 1.2, 0, 1.8, 1.8]])
    )
    assert labels.tolist() == [[False] * 6, [False, True, *[False] * 4], [False, True, *[False] * 4]]
