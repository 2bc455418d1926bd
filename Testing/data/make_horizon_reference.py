"""Makes horizon_reference.json: figures of published software on small data, for Testing/library/test_horizons.py.

    python -m venv /tmp/reference; /tmp/reference/bin/pip install scikit-survival lifelines statsmodels
    /tmp/reference/bin/python Testing/data/make_horizon_reference.py

Times have no ties: software differs in what comes first, and lifelines moves tied times at random.
"""

import json
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import statsmodels.api as sm
from lifelines import AalenJohansenFitter
from scipy.special import logit
from sksurv.metrics import (
    brier_score,
    concordance_index_ipcw,
    cumulative_dynamic_auc,
    integrated_brier_score,
)
from sksurv.nonparametric import CensoringDistributionEstimator
from sksurv.util import Surv

HORIZONS = [6.0, 12.0, 24.0]
COUNT = 120

rng = np.random.default_rng(20)
burden = rng.normal(size=COUNT)
ends = np.stack([
    rng.uniform(2, 60, COUNT), rng.exponential(40 * np.exp(-burden)), rng.exponential(60, COUNT)
]).round(3)
seen = burden + rng.normal(0, 0.7, COUNT)
risks = {f"{h:g}": (1 - np.exp(-h * 0.02 * np.exp(0.8 * seen))).round(2).tolist() for h in HORIZONS}  # with ties


def ended(kinds: int) -> tuple[np.ndarray, np.ndarray]:
    """Months and status with censoring and the first of the others, or both."""
    status = ends[:kinds].argmin(axis=0)
    months = ends[:kinds].min(axis=0)
    assert len(np.unique(months)) == COUNT
    return months, status


months, status = ended(2)  # no competing event
outcome = Surv.from_arrays(status == 1, months)
survival = 1 - np.array([risks[f"{h:g}"] for h in HORIZONS]).T
longest = HORIZONS[-1]
censoring = CensoringDistributionEstimator().fit(outcome)


def weighted_line(horizon: float) -> dict[str, float]:
    """Calibration by an unpenalised weighted logistic regression."""
    case = (months <= horizon) & (status == 1)
    known = case | (months > horizon)
    weights = 1 / censoring.predict_proba(np.minimum(months, horizon)[known])
    x = logit(np.clip(np.array(risks[f"{horizon:g}"])[known], 1e-6, 1 - 1e-6))
    family = sm.families.Binomial()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        slope = sm.GLM(case[known], sm.add_constant(x), family=family, freq_weights=weights).fit(tol=1e-12)
        shift = sm.GLM(case[known], np.ones(len(x)), family=family, offset=x, freq_weights=weights).fit(tol=1e-12)
    return {"slope": slope.params[1], "intercept": shift.params[0]}


competing_months, competing_status = ended(3)
fitted = AalenJohansenFitter(calculate_variance=False).fit(competing_months, competing_status, event_of_interest=1)
incidence = fitted.cumulative_density_.iloc[:, 0]

reference = {
    "versions": {name: version(name) for name in ("scikit-survival", "lifelines", "statsmodels")},
    "horizons": HORIZONS,
    "risks": risks,
    "without_competing": {"months": months.tolist(), "status": status.tolist()},
    "with_competing": {"months": competing_months.tolist(), "status": competing_status.tolist()},
    "values": {
        "uncensored": censoring.predict_proba(np.array(HORIZONS)).tolist(),
        "auroc": [
            float(cumulative_dynamic_auc(outcome, outcome, np.array(risks[f"{h:g}"]), [h])[0][0]) for h in HORIZONS
        ],
        "brier": brier_score(outcome, outcome, survival, HORIZONS)[1].tolist(),
        "integrated_brier": float(integrated_brier_score(outcome, outcome, survival, HORIZONS)),
        "concordance_of_one_risk": {
            f"{h:g}": float(concordance_index_ipcw(outcome, outcome, np.array(risks[f"{h:g}"]), longest, 0)[0])
            for h in HORIZONS
        },
        "calibration": [weighted_line(h) for h in HORIZONS],
        "incidence": [float(incidence[incidence.index <= h].iloc[-1]) for h in HORIZONS],
    },
}
path = Path(__file__).with_name("horizon_reference.json")
path.write_text(json.dumps(reference, indent=1).replace("\n   ", " ") + "\n")
