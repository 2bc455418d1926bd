"""The model card of a trained bundle."""

from __future__ import annotations

from typing import Any

from HCCNetLib.bundles import BundleDescription

_TEMPLATE = """# {name} {version}

{warning}Research software, not a medical device. Not for clinical use.

## What it does

Predicts the risk that hepatocellular carcinoma is diagnosed within {horizons} months after a patient's latest exam, from
the channels {channels} of all exams. The main horizon is {horizon:g} months. After Nolte et al., arXiv 2501.10733.
{members} networks ({variant}, block {block}, pooling {pooling}). {channels_missing}

{calibration}

## What it was trained on

{summary}. Counts: {counts}. Left out: {left_out}.

{learned}

{pretraining}

{target}

## How it did on the development patients

Each was predicted by the members that had not seen the patient. AUROC at {horizon:g} months, over all {landmarks}exams whose
outcome is known: {auroc:.3f}. At {horizon:g} months by the number of the exam, {calibrated}, with 95% intervals:

{by_number}

## What it must not be used for

{limits}
"""
_HAZARDS = (
    "The networks learn the hazard of a diagnosis in each interval up to the next horizon by maximum likelihood, from {which}; "
    "patients who leave the follow-up count as long as they are followed. A competing event (death, transplant) ends the "
    "follow-up: the hazards are cause-specific. Calibration makes of them the risk of a diagnosis when patients may also die or "
    "be transplanted first."
)
_ONE_HORIZON = (
    "The networks learn whether the diagnosis comes within the horizon (loss: {loss}), from {which}; "
    "a competing event (death, transplant) ends the follow-up in training and counts as no diagnosis in the calibration."
)
_TARGET = (
    "Beside the outcomes the networks learned, for {exams_with_a_value} exams, a value `{column}` (weight {weight:g}, stages: "
    "{stages}). Prediction does not need it."
)
_MASKS = (
    "Beside the outcomes the networks learned, from the lesion masks of {exams_with_a_value} exams, how much lesion each part of "
    "the image holds (weight {weight:g}). Prediction does not need masks."
)
_WHICH = {"all": "every exam before an event", "latest": "each patient's latest exam whose outcome is known"}
_CALIBRATED = {
    True: "with the calibration that was fitted on these patients, before it is carried over to more members",
    False: "not calibrated",
}
_CHANNELS_MISSING = {
    False: "Every exam must have all channels.",
    True: "They were trained with channels left out at random, and read exams that lack some.",
}
_PARTS = {"backbone": "the backbone", "encoder": "the transformer"}
_LIMITS_OF_PHANTOM = (
    "Any patient. It has seen no patient's images. A figure for a real exam has no meaning, however plausible it looks."
)
_LIMITS = "Decisions about a patient. It has not been validated on another site's images."


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
        horizons=_horizons(description),
        channels_missing=_CHANNELS_MISSING[description.missing_channels],
        learned=(_HAZARDS if len(description.horizons) > 1 else _ONE_HORIZON).format(
            loss=data["settings"]["loss"], which=_WHICH[data["settings"]["landmarks"]]
        ),
        landmarks="latest " * (data["settings"]["landmarks"] == "latest"),
        calibrated=_CALIBRATED[bool(description.calibration)],
        by_number=_by_number(data["by_landmark_number"], f"{description.horizon_months:g}"),
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
        target=_target(target),
        auroc=data["out_of_fold_auroc"],
        limits=_LIMITS_OF_PHANTOM if demonstration else _LIMITS,
    )


def _target(target: dict[str, Any] | None) -> str:
    if target is None:
        return "The networks learned from the outcomes alone."
    return (_MASKS if target["column"] == "lesion masks" else _TARGET).format(**target)


def _pretraining(parts: dict[str, Any] | None) -> str:
    if not parts:
        return "The networks began with random weights."
    taken = " and ".join(f"{_PARTS[name]} from {part['trained_on']['summary']}" for name, part in parts.items())
    return f"The networks began with weights of self-supervised runs: {taken}."


def _calibration(description: BundleDescription) -> str:
    fitted = description.calibration
    if not fitted:
        return f"Not calibrated. {description.training_data['calibration_problem']}"
    each = "; ".join(
        f"{months:g} months {one.slope:.3f} and {one.intercept:.3f}"
        for months, one in zip(description.horizons, fitted, strict=True)
    )
    return (
        f"Their mean risk is recalibrated by slope and intercept ({each}); these and the operating thresholds were fitted on "
        f"{fitted[0].fitted_on}."
    )


def _horizons(description: BundleDescription) -> str:
    *others, last = (f"{months:g}" for months in description.horizons)
    return f"{', '.join(others)} and {last}" if others else last


def _by_number(found: dict[str, dict[str, Any]], months: str) -> str:
    """A table of observed and predicted risk and of the calibration slope."""
    lines = ["| exam | observed risk | mean predicted risk | calibration slope |", "|---|---|---|---|"]
    for number, at in found.items():
        figures = at[months]
        mean = figures["mean_risk"]
        predicted = "not known" if mean is None else f"{mean:.1%}"
        lines.append(
            f"| {number} | {_interval(figures['observed'], '.1%')} | {predicted} | "
            f"{_interval(figures['calibration_slope'], '.2f')} |"
        )
    return "\n".join(lines)


def _interval(figure: dict[str, float | None] | None, form: str) -> str:
    values = [] if figure is None else [figure[key] for key in ("value", "low", "high")]
    if not values or any(value is None for value in values):
        return "not known"
    value, low, high = (format(number, form) for number in values)
    return f"{value} ({low} to {high})"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.items() if n) or "none"
