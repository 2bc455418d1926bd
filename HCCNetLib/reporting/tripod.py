"""The items of TRIPOD+AI (Collins et al., BMJ 2024;385:e078378), filled in where the software knows; the others are blank.

The wording of the items is our own and short; the checklist itself is the authority.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

Fill = Callable[[Mapping[str, Any]], str]


def _objective(content: Mapping[str, Any]) -> str:
    return "Evaluation of an existing model, without updating it."


def _data(content: Mapping[str, Any]) -> str:
    cohort = content["cohort"]
    part = f", part {escape(cohort['part'])} of a split" if cohort["part"] else ""
    return f"{escape(cohort['name'])} ({escape(cohort['form'])}{part})."


def _dates(content: Mapping[str, Any]) -> str:
    cohort = content["cohort"]
    return f"Exams {cohort['first_exam']} to {cohort['last_exam']}; followed until {cohort['followed_until']}."


def _eligibility(content: Mapping[str, Any]) -> str:
    return "Patients with a known outcome and an exam before a diagnosis or competing event. Clinical criteria: not known here."


def _outcome(content: Mapping[str, Any]) -> str:
    months = ", ".join(f"{horizon:g}" for horizon in content["metrics"]["horizons"])
    return f"Diagnosis of hepatocellular carcinoma within {months} months; death and transplant are competing events."


def _predictors(content: Mapping[str, Any]) -> str:
    return f"MRI channels {', '.join(map(escape, content['bundle']['channels']))} of all exams up to the landmark, and their dates."


def _size(content: Mapping[str, Any]) -> str:
    headline = content["metrics"]["sets"][0]
    return f"{headline['patients']} patients, {headline['landmarks']} landmarks."


def _missing(content: Mapping[str, Any]) -> str:
    refused = content["cohort"]["refused"]
    return f"{refused} patients were refused because files or dates could not be used; outcomes are not imputed."


def _model(content: Mapping[str, Any]) -> str:
    bundle = content["bundle"]
    then = ", then recalibration" if bundle["calibrated"] else ", without recalibration"
    return f"3D ConvNeXt for each exam, transformer over the exams; mean of {bundle['members']} network(s){then}."


def _measures(content: Mapping[str, Any]) -> str:
    return (
        "AUROC, AUPRC, concordance, Brier score, calibration intercept, slope and curve, net benefit, lead time; by inverse "
        "probability of censoring weighting, and discrimination also by exclusion."
    )


def _participants(content: Mapping[str, Any]) -> str:
    cohort = content["cohort"]
    return (
        f"{cohort['patients']} in the cohort, {cohort['evaluated']} evaluated, {cohort['diagnosed']} diagnosed, "
        f"{cohort['competing']} with a competing event. See “Who was evaluated”."
    )


def _subgroups(content: Mapping[str, Any]) -> str:
    kinds = dict.fromkeys(one["kind"] for one in content["metrics"]["sets"])
    return f"By {', '.join(escape(kind) for kind in kinds if kind not in ('headline', 'which landmarks'))}."


def _performance(content: Mapping[str, Any]) -> str:
    return "In the tables above, with 95% intervals."


def _code(content: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{escape(name)} {escape(version)}" for name, version in content["software"].items())
    return f"Bundle {escape(content['bundle']['sha256'])}; {versions}."


def _intended(content: Mapping[str, Any]) -> str:
    return escape(content["bundle"]["intended_use"] or "")


ITEMS: tuple[tuple[str, str, Fill | None], ...] = (
    ("1", "Title: model, population, outcome", None),
    ("2", "Abstract", None),
    ("3a", "Context and rationale", None),
    ("3b", "Target population, purpose, users", _intended),
    ("3c", "Known health inequalities", None),
    ("4", "Objectives: development or evaluation", _objective),
    ("5a", "Sources of data", _data),
    ("5b", "Dates of participants and follow-up", _dates),
    ("6a", "Setting and centres", None),
    ("6b", "Eligibility", _eligibility),
    ("6c", "Treatments", None),
    ("7", "Data preparation", None),
    ("8a", "Outcome and horizon", _outcome),
    ("8b", "Assessors of the outcome", None),
    ("8c", "Blinding of the outcome", None),
    ("9a", "Choice of predictors", None),
    ("9b", "Definition of predictors", _predictors),
    ("9c", "Assessors of predictors", None),
    ("10", "Sample size", _size),
    ("11", "Missing data", _missing),
    ("12a", "Use of the data, partitions", None),
    ("12b", "Handling of predictors", None),
    ("12c", "Type of model and how it was built", _model),
    ("12d", "Heterogeneity between clusters", _subgroups),
    ("12e", "Measures of performance", _measures),
    ("12f", "Model updating", _objective),
    ("12g", "How predictions were calculated", _code),
    ("13", "Class imbalance", None),
    ("14", "Fairness", None),
    ("15", "Output of the model and thresholds", None),
    ("16", "Differences between training and evaluation", None),
    ("17", "Ethical approval", None),
    ("18a", "Funding", None),
    ("18b", "Conflicts of interest", None),
    ("18c", "Protocol", None),
    ("18d", "Registration", None),
    ("18e", "Data sharing", None),
    ("18f", "Code sharing", _code),
    ("19", "Patient and public involvement", None),
    ("20a", "Flow of participants", _participants),
    ("20b", "Characteristics of participants", None),
    ("20c", "Comparison with the development data", None),
    ("21", "Numbers in each analysis", _size),
    ("22", "Full model", None),
    ("23a", "Performance with intervals", _performance),
    ("23b", "Heterogeneity of performance", _subgroups),
    ("24", "Results of updating", _objective),
    ("25", "Interpretation", None),
    ("26", "Limitations", None),
    ("27a", "Poor or missing input", _missing),
    ("27b", "What users need", None),
    ("27c", "Next steps", None),
)


def tripod_rows(content: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Number, item and what is known of it, as HTML; blank where the authors must fill it in."""
    return [(number, item, "" if fill is None else fill(content)) for number, item, fill in ITEMS]
