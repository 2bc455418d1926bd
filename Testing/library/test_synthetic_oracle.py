from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from HCCNetLib.records import Refusal
from HCCNetLib.synthetic.disease import draw_courses, sphere_ml
from HCCNetLib.synthetic.growth import GrowthModel
from HCCNetLib.synthetic.oracle import (
    Landmark,
    Series,
    _auroc_resampled,
    ask_oracle,
    describe_oracle,
    latest_landmarks,
    measure,
    tabulate,
)

MODEL = GrowthModel()
SIZE_ERROR = 0.6


@pytest.fixture(scope="module")
def courses():
    return draw_courses(MODEL, 0, range(2000))


@pytest.fixture(scope="module")
def result(courses):
    return ask_oracle(courses, MODEL.horizon, SIZE_ERROR)


def auroc(positive, negative):
    return stats.mannwhitneyu(positive, negative).statistic / (len(positive) * len(negative))


def test_sizes_and_dates_together_decide(result):
    assert result.auroc["full"].value >= 0.92


def test_the_order_without_dates_is_clearly_worse(result):
    assert result.auroc["index"].value <= result.auroc["full"].value - 0.05
    assert result.full_above_index.low > 0.05


def test_sizes_without_order_are_worse_still(result):
    assert result.auroc["bag"].value < result.auroc["index"].value
    assert result.index_above_bag.low > 0


@pytest.mark.parametrize("view", ["last", "dates"])
def test_neither_the_last_exam_nor_the_dates_alone_tell_anything(result, view):
    assert abs(result.auroc[view].value - 0.5) <= 0.05


def test_the_classifier_comes_close_to_the_best_possible(courses, result):
    """The likelihood ratio under the very model that made the patients; nothing can do better on average."""
    known = latest_landmarks(courses, MODEL.horizon)
    doubling = np.linspace(0.5 / 40, 1 - 0.5 / 40, 40)
    fast = 1 / (3 + 3 * doubling)
    slow = 1 / (12 + 12 * doubling)
    diameters = np.linspace(20, 40, 81)[:, None]

    def likelihood(series, rates):
        log = np.zeros((len(diameters), len(rates)))
        for months, size in zip(series.months, series.sizes, strict=True):
            sizes = np.clip(diameters * 2 ** (-rates * months / 3), MODEL.smallest_mm, MODEL.largest_mm)
            log -= (size - np.log2(sphere_ml(1.0) * sizes**3)) ** 2 / (2 * SIZE_ERROR**2)
        return np.exp(log).mean()

    ratios = []
    for landmark in known:
        series = measure(landmark, SIZE_ERROR, 0)
        benign = 0.8 * likelihood(series, slow) + 0.2 * likelihood(series, -slow)
        ratios.append(likelihood(series, fast) / benign)
    labels = np.array([landmark.label for landmark in known])
    best = auroc(np.array(ratios)[labels], np.array(ratios)[~labels])
    assert best - 0.02 < result.auroc["full"].value < best + 0.01


def test_each_view_is_blind_to_what_it_leaves_out():
    rng = np.random.default_rng(0)
    series = [Series(np.sort(rng.uniform(1, 30, n))[::-1], rng.normal(3, 1, n)) for n in (2, 3, 4, 1)]
    before = tabulate(series)
    other_dates = tabulate([replace(s, months=s.months * 1.7 + 1) for s in series])
    reordered = tabulate([replace(s, sizes=s.sizes[::-1]) for s in series])
    other_sizes = tabulate([replace(s, sizes=s.sizes + 1) for s in series])
    assert all(np.isfinite(table[:3]).any() for table in before.values())
    for view in ("index", "bag", "last"):
        np.testing.assert_array_equal(before[view], other_dates[view])
    np.testing.assert_allclose(before["bag"], reordered["bag"], rtol=1e-12)
    np.testing.assert_array_equal(before["dates"], other_sizes["dates"])
    for view, others in (("full", other_dates), ("index", reordered), ("last", other_sizes), ("dates", other_dates)):
        assert not np.array_equal(before[view], others[view], equal_nan=True)


def test_an_auroc_is_the_share_of_pairs_in_the_right_order():
    rng = np.random.default_rng(0)
    labels = rng.random(200) < 0.3
    scores = np.round(rng.normal(labels, 1.0), 1)  # with ties
    once = np.ones((1, labels.sum())), np.ones((1, (~labels).sum()))
    expected = auroc(scores[labels], scores[~labels])
    assert _auroc_resampled(scores, labels, once)[0] == pytest.approx(expected)


def test_an_interval_holds_its_estimate_and_is_as_wide_as_theory_says(result):
    for interval in result.auroc.values():
        assert interval.low < interval.value < interval.high
    # Hanley and McNeil's standard error at AUROC 0.5 is sqrt((1/m + 1/n)/12), 0.0134 here.
    dates = result.auroc["dates"]
    assert dates.high - dates.low == pytest.approx(2 * 1.96 * 0.0134, rel=0.15)


def test_the_card_gets_a_row_per_size_error(courses):
    told = []
    table = describe_oracle(courses[:300], MODEL.horizon, 0, lambda *event: told.append(event))
    assert [row["size_error_doublings"] for row in table["results"]] == [0.0, 0.6]
    for row in table["results"]:
        assert set(row["auroc"]) == set(table["views"]) == {"full", "index", "bag", "last", "dates"}
    assert 280 < table["patients"] <= 300
    # Disclosed: over all landmarks, as in training, dates and number of exams tell something.
    assert table["all_labelled_landmarks"]["auroc"]["dates"] > 0.55
    order = table["sequence_order"]["auroc"]
    assert order["size error 0"]["low"] > 0.97
    assert 0.8 < order["size error 0.6"]["low"] < order["size error 0.6"]["high"] < order["size error 0"]["low"]
    assert told[-1] == ("asking the oracle", 2, 2)


def test_the_evaluated_landmark_is_the_latest_that_has_a_label(courses):
    landmarks = latest_landmarks(courses, MODEL.horizon)
    fallen_back = [x for x in landmarks if x.exam < len(x.course.dates) - 1]
    assert 0 < len(fallen_back) < 0.05 * len(landmarks)
    for landmark in landmarks:
        later = [landmark.course.label(e, MODEL.horizon) for e in range(landmark.exam + 1, len(landmark.course.dates))]
        assert set(later) <= {None}
        assert landmark.course.label(landmark.exam, MODEL.horizon) is landmark.label
    early = Landmark(courses[0], 0, False)
    assert measure(early, 0.0, 0).months.tolist() == [0.0]


def test_without_scikit_learn_the_oracle_says_what_to_install(courses, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(Refusal, match="scikit-learn"):
        ask_oracle(courses, MODEL.horizon, SIZE_ERROR)


def test_too_few_patients_are_refused(courses):
    with pytest.raises(Refusal, match="at least 10 patients with and without"):
        ask_oracle(courses[:12], MODEL.horizon, SIZE_ERROR)
