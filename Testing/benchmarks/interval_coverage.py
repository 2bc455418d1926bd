"""How often the 95% intervals of an evaluation contain the truth, by figure and by way of making them.

    python Testing/benchmarks/interval_coverage.py [--process surveillance] [--patients 200] [--first] [--processes 1]

The truth is what the same figures are in 200,000 patients of the same process (censoring included), in parts of 5,000. Ways:

- jackknife: patients left out, on the figure's scale, degrees of freedom after Satterthwaite: what the library does
- normal: the same without a scale, ±1.96 standard errors
- bootstrap: patients drawn again with all their landmarks, percentiles of 400: what the library does for lead times

A coverage from 500 cohorts has a standard error of 1 percentage point.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is loaded; the processes are what runs at once

import numpy as np
from scipy.special import expit, logit

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from HCCNetLib.evaluation.follow_up import FollowUp, follow_up_of  # noqa: E402
from HCCNetLib.evaluation.horizons import SCALES, figures_resampled  # noqa: E402
from HCCNetLib.evaluation.intervals import Interval, percentile_interval  # noqa: E402
from HCCNetLib.evaluation.lead_time import lead_times_resampled  # noqa: E402
from HCCNetLib.evaluation.replicates import bootstrap_weights, jackknife_interval, jackknife_weights  # noqa: E402
from HCCNetLib.evaluation.risks import Risks  # noqa: E402
from HCCNetLib.synthetic.disease import draw_courses  # noqa: E402
from HCCNetLib.synthetic.surveillance import SurveillanceModel  # noqa: E402
from HCCNetLib.synthetic.true_risk import TrueRisk  # noqa: E402

HORIZONS = (12.0, 24.0, 36.0)
THRESHOLD = 0.2  # of the alarms that are judged by a given threshold

_TRUTH, _PART = 200_000, 5_000
_RESAMPLES = 400

# A generator and a number of patients → their landmarks and the model's risks.
Source = Callable[[np.random.Generator, int], tuple[FollowUp, Risks]]


def simulate(rng: np.random.Generator, patients: int) -> tuple[FollowUp, Risks]:
    """Constant hazards that differ between patients, a landmark every six months, and a noisy look at the hazard.

    Diagnosis: 0.0075 a month × exp(1.3 b), b standard normal: 14% within a year of the first landmark. Competing event: 0.005
    × exp(0.3 b). Censored uniformly between 3 and 90 months. Of a
    patient's landmarks (at most 8) the model sees b plus a noise of SD 0.7 that stays and one of SD 0.7 that changes; its
    risks are 1 − exp(−0.007 exp(0.75 seen) h).
    """
    burden = rng.normal(size=patients)
    diagnosis = rng.exponential(1 / (0.0075 * np.exp(1.3 * burden)))
    competing = rng.exponential(1 / (0.005 * np.exp(0.3 * burden)))
    censored = rng.uniform(3, 90, patients)
    ends = np.stack([censored, diagnosis, competing])
    end, status = ends.min(axis=0), ends.argmin(axis=0)
    landmarks = np.clip(np.ceil(end / 6), 1, 8).astype(int)
    patient = np.repeat(np.arange(patients), landmarks)
    number = np.arange(len(patient)) - np.repeat(np.cumsum(landmarks) - landmarks, landmarks)
    noise = 0.7 * rng.normal(size=patients)[patient] + 0.7 * rng.normal(size=len(patient))
    hazard = 0.007 * np.exp(0.75 * (burden[patient] + noise))
    follow_up = FollowUp(patient, number + 1, end[patient] - 6 * number, status[patient])
    return follow_up, Risks({horizon: 1 - np.exp(-hazard * horizon) for horizon in HORIZONS})


def surveil(rng: np.random.Generator, patients: int) -> tuple[FollowUp, Risks]:
    """The phantom's process of surveillance, and the true risk of its state, flattened, with a noise per patient and per exam."""
    model = SurveillanceModel()
    true = _true_risk()
    courses = draw_courses(model, int(rng.integers(2**31)), range(patients))
    state = np.array([true.from_state(course, exam) for course in courses for exam in range(len(course.dates))])
    follow_up = follow_up_of((course.dates, course.outcome) for course in courses)
    noise = 0.8 * rng.normal(size=patients)[follow_up.patients] + 0.8 * rng.normal(size=len(follow_up))
    columns = [model.horizons.index(horizon) for horizon in HORIZONS]
    odds = 0.2 * logit(np.clip(state[:, columns], 0.01, 0.99)) + noise[:, None] - 1.5
    return follow_up, Risks(dict(zip(HORIZONS, expit(odds).T, strict=True)))


@cache
def _true_risk() -> TrueRisk:
    return TrueRisk(SurveillanceModel())


PROCESSES: dict[str, Source] = {"hazard": simulate, "surveillance": surveil}


def main() -> None:
    """Prints a row per figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--process", choices=PROCESSES, default="hazard")
    parser.add_argument("--cohorts", type=int, default=500)
    parser.add_argument("--patients", type=int, default=200)
    parser.add_argument(
        "--first", action="store_true", help="each patient's first landmark only (default: all landmarks)"
    )
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    with ProcessPoolExecutor(arguments.processes) as pool:
        source = PROCESSES[arguments.process]
        one = partial(intervals_of_cohort, source, arguments.patients, arguments.first)
        parts = list(pool.map(partial(true_part, source, arguments.first), range(_TRUTH // _PART)))
        truth = {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}
        cohorts = list(pool.map(one, range(arguments.cohorts), chunksize=5))
    print(
        f"{arguments.cohorts} cohorts of {arguments.patients} patients: coverage in %, of intervals that are determined in %"
    )
    print(f"{'figure':32} {'truth':>7} {'mean':>7}" + "".join(f"{way:>22}" for way in cohorts[0]))
    for name, true in truth.items():
        values = [one["bootstrap"][name].value for one in cohorts]
        mean = np.mean([value for value in values if value is not None])
        cells = "".join(coverage([one[way][name] for one in cohorts], true) for way in cohorts[0])
        print(f"{name:32} {true:7.3f} {mean:7.3f}{cells}")


def coverage(intervals: list[Interval], truth: float) -> str:
    """A cell: how many of those determined contain the truth, and how many are determined."""
    known = [one for one in intervals if one.low is not None and one.high is not None]
    if not known:
        return f"{'–':>14}{0:8.0%}"
    return f"{np.mean([one.low <= truth <= one.high for one in known]):14.1%} {len(known) / len(intervals):7.0%}"


def chosen_rows(source: Source, rng: np.random.Generator, patients: int, first: bool) -> tuple[FollowUp, Risks]:
    """A cohort, or its first landmarks."""
    follow_up, risks = source(rng, patients)
    rows = follow_up.numbers == 1 if first else np.full(len(follow_up), True)
    return follow_up.of(rows), risks.of(rows)


def true_part(source: Source, first: bool, seed: int) -> dict[str, np.ndarray]:
    """Figures of many patients; the truth is the mean of such parts."""
    follow_up, risks = chosen_rows(source, np.random.default_rng([1, seed]), _PART, first)
    return all_figures(follow_up, risks, np.ones((1, len(follow_up))))


def all_figures(follow_up: FollowUp, risks: Risks, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Name → (R,); alarms at a given threshold, and at one that is found in the same cohort."""
    found = figures_resampled(follow_up, risks, HORIZONS, weights)
    for kind, threshold in (("given", THRESHOLD), ("found", None)):
        alarms = lead_times_resampled(follow_up, risks.by_horizon[HORIZONS[0]], HORIZONS[0], threshold, weights)
        found |= {("alarms", kind, *place): values for place, values in alarms.items() if place != ("threshold",)}
    return {" ".join(place).removeprefix("horizons "): values for place, values in found.items()}


def intervals_of_cohort(source: Source, patients: int, first: bool, seed: int) -> dict[str, dict[str, Interval]]:
    """Way → figure → interval."""
    follow_up, risks = chosen_rows(source, np.random.default_rng([2, seed]), patients, first)
    weights = np.ones(len(follow_up))
    left_out = all_figures(follow_up, risks, jackknife_weights(follow_up.patients, weights))
    drawn = all_figures(follow_up, risks, bootstrap_weights(follow_up.patients, weights, _RESAMPLES))
    scales = SCALES | {"mean": "log", "mean_of_all": "log", "median": "log", "specificity": "logit"}
    scales |= dict.fromkeys(("alarmed", "3", "6", "12"), "logit")
    return {
        "jackknife": {
            n: jackknife_interval(values, scales.get(n.split()[-1], "identity")) for n, values in left_out.items()
        },
        "normal": {name: normal_interval(values) for name, values in left_out.items()},
        "bootstrap": {name: percentile_interval(values) for name, values in drawn.items()},
    }


def normal_interval(values: np.ndarray) -> Interval:
    """±1.96 standard errors of the jackknife."""
    groups = len(values) - 1
    half = 1.96 * np.sqrt((groups - 1) * values[1:].var())
    return Interval(*(float(value) for value in (values[0], values[0] - half, values[0] + half)))


if __name__ == "__main__":
    main()
