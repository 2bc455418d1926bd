"""A linear probe: how much of a number per exam a straight line through the embeddings tells.

It trains nothing but the line, so it judges the embeddings (Alain and Bengio, arXiv 1610.01644).
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from HCCNetLib.evaluation.intervals import Interval, percentile_interval
from HCCNetLib.records import Refusal

_FOLDS = 5
_PENALTIES = tuple(10.0**k for k in range(-2, 6))
_RESAMPLES = 1000


def linear_probe(
    embeddings: NDArray[np.float64], targets: NDArray[np.float64], patients: NDArray[np.int64]
) -> Interval:
    """R² of ridge regression on exams of patients whom the line has not seen.

    The penalty is chosen within the training part of each of five folds. The interval comes from drawing patients again,
    the predictions being fixed.

    Args:
        embeddings: (N, D) of the exams.
        targets: (N,).
        patients: (N,) whose exam it is.

    Raises:
        Refusal: as ``require_targets``.
    """
    require_targets(targets, patients)
    names = np.unique(patients)
    predicted = _out_of_fold(embeddings, targets, patients)
    error = np.square(targets - predicted)
    place = np.searchsorted(names, patients)
    sums = [np.bincount(place, values, len(names)) for values in (error, np.ones(len(error)), targets, targets**2)]
    rng = np.random.default_rng(0)
    drawn = np.vstack(
        [np.ones(len(names)), rng.multinomial(len(names), np.full(len(names), 1 / len(names)), _RESAMPLES)]
    )
    errors, count, total, squares = (drawn @ column for column in sums)
    return percentile_interval(1 - errors / (squares - total**2 / count))


def require_targets(targets: NDArray[np.float64], patients: NDArray[np.int64]) -> None:
    """Refuses what can't be probed for.

    Raises:
        Refusal: scikit-learn is missing, there are fewer than 25 patients with a target, or all targets are the same.
    """
    _scikit_learn("linear_model")
    count = len(np.unique(patients))
    if count < _FOLDS * _FOLDS:
        message = (
            f"A linear probe needs at least {_FOLDS**2} patients with a target; there are {count}. Give more of them, or no "
            f"target."
        )
        raise Refusal("too_few_patients", message)
    if targets.min() == targets.max():
        raise Refusal(
            "constant_target", "All exams have the same target: there is nothing to probe for. Take another one."
        )


def _scikit_learn(module: str) -> ModuleType:
    try:
        return import_module(f"sklearn.{module}")
    except ImportError as error:
        message = "A linear probe needs scikit-learn. Install it with: pip install 'hccnet[training]'."
        raise Refusal("missing_package", message) from error


def _out_of_fold(
    embeddings: NDArray[np.float64], targets: NDArray[np.float64], patients: NDArray[np.int64]
) -> NDArray[np.float64]:
    linear, selection = _scikit_learn("linear_model"), _scikit_learn("model_selection")
    pipeline, scaling = _scikit_learn("pipeline"), _scikit_learn("preprocessing")
    line = pipeline.make_pipeline(scaling.StandardScaler(), linear.RidgeCV(_PENALTIES))
    folds = selection.GroupKFold(_FOLDS)
    predicted = selection.cross_val_predict(line, embeddings, targets, groups=patients, cv=folds)
    return np.asarray(predicted, dtype=np.float64)
