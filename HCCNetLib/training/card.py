"""The model card of a trained bundle."""

from __future__ import annotations

from typing import Any

from HCCNetLib.bundles import BundleDescription

_TEMPLATE = """# {name} {version}

{warning}Research software, not a medical device. Not for clinical use.

## What it does

Predicts whether hepatocellular carcinoma is diagnosed within {horizon:g} months after a patient's latest exam, from
the channels {channels} of all exams. After Nolte et al., arXiv 2501.10733. {members} networks ({variant}, block {block},
pooling {pooling}). {calibration}

## What it was trained on

{summary}. Counts: {counts}. Left out: {left_out}.

{pretraining}

{target}

AUROC of the development patients, each predicted by the members that had not seen them: {auroc:.3f}.

## What it must not be used for

{limits}
"""
_TARGET = (
    "Beside each patient's label the networks were told, for {exams_with_a_value} exams, a value `{column}` (weight "
    "{weight:g}, stages: {stages}). Prediction does not need it."
)
_PARTS = {"backbone": "the backbone", "encoder": "the transformer"}
_LIMITS_OF_PHANTOM = (
    "Any patient. It has seen nobody's images. A figure for a real exam has no meaning, however plausible it looks."
)
_LIMITS = "Decisions about a patient. It was validated by nobody but its makers, and on no other site's images."


def model_card(description: BundleDescription) -> str:
    """The text of MODEL_CARD.md for a bundle that was trained here."""
    data = description.training_data
    target = data["exam_level_target"]
    demonstration = description.demonstration
    return _TEMPLATE.format(
        name=description.name,
        version=description.version,
        warning=f"**{description.intended_use}** " if demonstration else "",
        horizon=description.horizon_months,
        channels=", ".join(description.channels),
        members=data["settings"]["folds"] * data["settings"]["seeds"]
        if data["settings"]["ensemble"] == "folds"
        else data["settings"]["seeds"],
        variant=description.model.name,
        block=description.model.version,
        pooling=description.model.pooling,
        calibration=_calibration(description),
        summary=data["summary"],
        counts=_listed(data["counts"]),
        left_out=_listed(data["left_out"]),
        pretraining=_pretraining(data["pretraining"]),
        target=_TARGET.format(**target) if target else "The networks were told nothing but each patient's label.",
        auroc=data["out_of_fold_auroc"],
        limits=_LIMITS_OF_PHANTOM if demonstration else _LIMITS,
    )


def _pretraining(parts: dict[str, Any] | None) -> str:
    if not parts:
        return "The networks began with random weights."
    taken = " and ".join(f"{_PARTS[name]} from {part['trained_on']['summary']}" for name, part in parts.items())
    return f"The networks began with weights of self-supervised runs: {taken}."


def _calibration(description: BundleDescription) -> str:
    fitted = description.calibration
    if fitted is None:
        return f"Not calibrated. {description.training_data['calibration_problem']}"
    return (
        f"Their mean probability is recalibrated by slope {fitted.slope:.3f} and intercept {fitted.intercept:.3f}; these and "
        f"the operating thresholds were fitted on {fitted.fitted_on}."
    )


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.items() if n) or "none"
