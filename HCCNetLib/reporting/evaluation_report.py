"""The page of an evaluation: warnings, key figures, curves, thresholds, comparisons, and who was left out. Names no patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from HCCNetLib.evaluation.selection import LEFT_OUT
from HCCNetLib.reporting.curves import calibration_chart, class_chart, pr_chart, roc_chart
from HCCNetLib.reporting.figures import bold, interval_range, plain, table
from HCCNetLib.reporting.numbers import percent
from HCCNetLib.reporting.page import STYLE
from HCCNetLib.reporting.report import RESEARCH_ONLY

_STYLE = """
.panels { display: grid; grid-template-columns: 1fr 1fr; gap: 14px 34px } .panels figure { margin: 0; min-width: 0 }
.panels h3 { margin: 4px 0 } .whisker { stroke: var(--blue); stroke-width: 1.6; fill: none }
rect.both { fill: #6c8fb3 } rect.positive { fill: var(--orange) } rect.negative { fill: var(--blue) }
td small, td b, .range { white-space: nowrap } td small { color: var(--soft) }
.provenance th { padding-right: 20px }
@media screen and (max-width: 760px) { .panels { grid-template-columns: 1fr } }
@media print { .panels { gap: 8px 20px } .chart { font-size: 14px } section { break-inside: auto } }
"""

_MEASURES = (
    (
        "auroc",
        "AUROC",
        "chance that a patient with the diagnosis is given a higher risk than one without; 0.5 is chance",
    ),
    ("auprc", "AUPRC", "average precision; chance is the prevalence, {prevalence:.3f}"),
    (
        "brier",
        "Brier score",
        "mean squared error, lower is better; {brier_of_prevalence:.3f} if everybody had the prevalence as risk",
    ),
    ("calibration_slope", "Calibration slope", "1 is ideal; below 1 the risks are too extreme"),
    ("calibration_intercept", "Calibration intercept", "0 is ideal; below 0 the risks are too high on the whole"),
)
_COMPARED = {"auroc": "AUROC", "auprc": "AUPRC", "brier": "Brier score (lower is better)"}


def render_evaluation(content: Mapping[str, Any]) -> str:
    """The page's HTML from the content of ``evaluation.json``."""
    bundle, cohort = content["bundle"], content["cohort"]
    part = f", part {escape(cohort['part'])}" if cohort["part"] else ""
    title = f"Evaluation: {escape(bundle['name'])} {escape(bundle['version'])} on {escape(cohort['name'])}"
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}{_STYLE}</style>\n</head>\n<body>\n"
        f'<div class="research" role="note">{RESEARCH_ONLY}</div>\n<main>\n'
        f"<header><h1>{title}{part}</h1><p>{_summary(content)}</p></header>\n"
        f"{_warnings(content['warnings'])}\n{_key_figures(content['metrics'])}\n{_curves(content['metrics'])}\n"
        f"{_thresholds(content['metrics']['thresholds'])}\n{_comparisons(content['comparisons'])}\n{_who(content)}\n"
        f"{_provenance(content)}\n</main>\n</body>\n</html>\n"
    )


def _summary(content: Mapping[str, Any]) -> str:
    metrics = content["metrics"]
    return (
        f"{metrics['patients']} patients, {metrics['positive']} of them ({percent(metrics['prevalence'])}) diagnosed with "
        f"hepatocellular carcinoma within {content['horizon_months']:g} months after their latest labelled exam"
    )


def _warnings(warnings: Sequence[Mapping[str, str]]) -> str:
    boxes = "".join(
        f'<div class="demonstration"><b>Demonstration only.</b> {escape(w["message"])}</div>'
        for w in warnings
        if w["code"] == "demonstration"
    )
    items = "".join(
        f"<li>{escape(w['message'])} <code>{escape(w['code'])}</code></li>"
        for w in warnings
        if w["code"] != "demonstration"
    )
    return f'<section class="warnings">{boxes}{f"<ul class=warning>{items}</ul>" if items else ""}</section>'


def _key_figures(metrics: Mapping[str, Any]) -> str:
    rows = [
        (name, bold(metrics[key]), interval_range(metrics[key]), words.format(**metrics))
        for key, name, words in _MEASURES
    ]
    members = metrics["members"]
    if members:
        values = [m["value"] for m in members["auroc"]]
        words = f"{len(values)} members, {min(values):.3f} to {max(values):.3f}"
        rows.append(
            (
                "AUROC of a single member, mean",
                bold(members["mean_auroc"]),
                interval_range(members["mean_auroc"]),
                words,
            )
        )
        above = members["ensemble_above_mean"]
        words = "what averaging the members gains"
        rows.append(("AUROC of the ensemble above that", bold(above, "+"), interval_range(above, "+"), words))
    note = f"Intervals: {escape(metrics['intervals']['method'])}; {metrics['intervals']['resamples']} resamples."
    return (
        "<section><h2>Key figures</h2>"
        + table(("Measure", "Value", "95% interval", "How to read it"), rows)
        + f'<p class="note">{note}</p></section>'
    )


def _curves(metrics: Mapping[str, Any]) -> str:
    curves = metrics["curves"]
    bins, histogram = curves["calibration"], curves["histogram"]
    figures = (
        (
            "ROC",
            roc_chart(curves["roc"], metrics["auroc"]["value"]),
            f"Area {plain(metrics['auroc'])}. Dashed: chance.",
        ),
        (
            "Precision and recall",
            pr_chart(curves["pr"], metrics["prevalence"], metrics["auprc"]["value"]),
            f"Area {plain(metrics['auprc'])}. Dashed: chance, the prevalence.",
        ),
        (
            "Calibration",
            calibration_chart(bins, histogram),
            f"{len(bins)} group(s) of about equally many patients with their observed share and its 95% interval (Wilson). "
            "Dashed: risks that are what they say. Both axes end where the data do.",
        ),
        (
            "Risks by class",
            class_chart(bins, histogram),
            "Upward, orange: patients with the diagnosis. Downward, blue: patients without. Each as a share of its class.",
        ),
    )
    panels = "".join(
        f"<figure><h3>{name}</h3>{drawing}<figcaption>{words}</figcaption></figure>" for name, drawing, words in figures
    )
    return f'<section><h2>Curves</h2><div class="panels">{panels}</div></section>'


def _thresholds(thresholds: Sequence[Mapping[str, Any]]) -> str:
    if not thresholds:
        return (
            "<section><h2>Thresholds</h2><p>The bundle names no operating thresholds, and none is chosen here: a "
            "threshold chosen on the data that it is judged on looks better than it is.</p></section>"
        )
    head = (
        *("Threshold", "Risk", "Sensitivity", "Specificity", "Positive predictive value", "Negative predictive value"),
        *("True positive", "False positive", "True negative", "False negative"),
    )
    rows = []
    for t in thresholds:
        name = escape(t["name"]) + (
            f"<br><small>chosen for {escape(t['chosen_for'])}</small>" if t["chosen_for"] else ""
        )
        shares = [
            f"{_percent(t[key])}<br><small>{_percents(t[key])}</small>"
            for key in ("sensitivity", "specificity", "ppv", "npv")
        ]
        counts = [str(t[f"{truth}_{call}"]) for call in ("positives", "negatives") for truth in ("true", "false")]
        rows.append((name, f"{t['threshold']:.3f}", *shares, *counts))
    note = (
        "From this risk on a patient is called positive. The thresholds come with the bundle and were chosen on other data. "
        "Predictive values hold for this cohort's prevalence only. Wilson's 95% intervals."
    )
    return (
        f'<section><h2>Thresholds</h2><div class="wide">{table(head, rows)}</div><p class="note">{note}</p></section>'
    )


def _comparisons(comparisons: Sequence[Mapping[str, Any]]) -> str:
    if not comparisons:
        return ""
    rows: list[tuple[str, ...]] = []
    notes = []
    for comparison in comparisons:
        bundle = comparison["bundle"]
        name = f"{escape(bundle['name'])} {escape(bundle['version'])} <code>{escape(bundle['sha256'][:12])}</code>"
        if comparison["refused"]:
            notes.append(f"{name} could not predict {comparison['refused']} patient(s): compared on the others.")
        if comparison["problem"]:
            notes.append(f"Not compared with {name}: {escape(comparison['problem'])}")
            continue
        rows += [
            (name, str(comparison["patients"]), _COMPARED[key], f"{d['this']:.3f}", f"{d['other']:.3f}",
             bold(d["difference"], "+"), interval_range(d["difference"], "+"))
            for key, d in comparison["differences"].items()
        ]  # fmt: skip
    head = ("Other bundle", "Patients", "Measure", "This bundle", "Other", "Difference", "95% interval")
    told = "".join(f"<p>{note}</p>" for note in notes)
    words = "This bundle minus the other on the same patients, both in every resample."
    return f'<section><h2>Comparison</h2>{told}{table(head, rows) if rows else ""}<p class="note">{words}</p></section>'


def _who(content: Mapping[str, Any]) -> str:
    """What became of every patient of the cohort, in numbers that add up."""
    cohort = content["cohort"]
    reasons = Counter(entry["code"] for entry in content["refused"])
    refused = ", ".join(f"{escape(code)} {count}" for code, count in reasons.items())
    rows = [
        ("Patients in the cohort", str(cohort["patients"]), ""),
        *((f"Left out: {words}", str(cohort["left_out"][reason]), "") for reason, words in LEFT_OUT.items()),
        ("Refused: files or dates can't be used", str(cohort["refused"]), refused),
        ("<b>Evaluated</b>", f"<b>{cohort['evaluated']}</b>", ""),
        ("Exams read, up to the landmark", str(cohort["exams"]["used"]), ""),
        ("Exams after the landmark, not read", str(cohort["exams"]["after_landmark"]), ""),
        ("Exams on or after the diagnosis, dropped", str(cohort["exams"]["from_diagnosis_on"]), ""),
    ]
    notes = "".join(f"<li>{escape(problem['message'])}</li>" for problem in content["problems"])
    return (
        f"<section><h2>Who was evaluated</h2>{table(('What', 'Number', 'Reasons'), rows)}"
        f"{f'<ul class=note>{notes}</ul>' if notes else ''}"
        '<p class="note">Each patient is judged once, at the latest exam before a diagnosis whose outcome within the horizon '
        "is known. The file <code>evaluation.json</code> lists who was refused and why.</p></section>"
    )


def _provenance(content: Mapping[str, Any]) -> str:
    bundle = content["bundle"]
    members = f"{bundle['members']} member{'s' * (bundle['members'] > 1)}"
    state = "calibrated" if bundle["calibrated"] else "not calibrated"
    rows = (
        ("Bundle", f"{escape(bundle['name'])} {escape(bundle['version'])}, {members}, {state}"),
        ("SHA-256 of the bundle", f"<code>{escape(bundle['sha256'])}</code>"),
        ("Seed of the bootstrap", str(content["metrics"]["intervals"]["seed"])),
        ("Software", ", ".join(f"{escape(n)} {escape(v)}" for n, v in content["software"].items())),
    )
    body = "".join(f'<tr><th scope="row">{name}</th><td>{value}</td></tr>' for name, value in rows)
    return (
        f'<section class="provenance"><h2>Provenance</h2><table>{body}</table><p><b>{RESEARCH_ONLY}</b></p></section>'
    )


def _percent(interval: Mapping[str, float | None]) -> str:
    return percent(interval["value"])


def _percents(interval: Mapping[str, float | None]) -> str:
    return "" if interval["low"] is None else f"{percent(interval['low'])} to {percent(interval['high'])}"
