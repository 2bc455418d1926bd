"""The page of an evaluation: figures by horizon and by set of exams, curves, alarms, and who was left out. Names no patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any

from HCCNetLib.evaluation.selection import LEFT_OUT
from HCCNetLib.reporting.curves import (
    calibration_chart,
    class_chart,
    net_benefit_chart,
    pr_chart,
    roc_chart,
    whisker_chart,
)
from HCCNetLib.reporting.figures import bold, interval_range, plain, signed, table
from HCCNetLib.reporting.numbers import percent
from HCCNetLib.reporting.page import STYLE
from HCCNetLib.reporting.report import RESEARCH_ONLY
from HCCNetLib.reporting.tripod import tripod_rows

_STYLE = """
.panels { display: grid; grid-template-columns: 1fr 1fr; gap: 14px 34px } .panels figure { margin: 0; min-width: 0 }
.panels h3 { margin: 4px 0 } .whisker { stroke: var(--blue); stroke-width: 1.6; fill: none }
.ceiling { fill: #fff; stroke: var(--orange); stroke-width: 1.6 }
rect.both { fill: #6c8fb3 } rect.positive { fill: var(--orange) } rect.negative { fill: var(--blue) }
td small, td b, .range { white-space: nowrap } td small { color: var(--soft) }
.wide th[scope=row] { min-width: 13ch } .sets th, .sets td { padding-right: 8px }
.provenance th { padding-right: 20px } tr.kind th { padding-top: 12px; font-weight: 600 } .whisker-row { display: block }
@media screen and (max-width: 760px) { .panels { grid-template-columns: 1fr } }
@media print { .panels { gap: 8px 20px } .chart { font-size: 14px } section { break-inside: auto } }
"""

_AXIS = 0.3, 1.0  # of the AUROCs in the table of sets
_LEAD = (
    ("alarmed", "Diagnosed patients with an alarm", percent),
    ("3", "… at least 3 months before the diagnosis", percent),
    ("6", "… at least 6 months before", percent),
    ("12", "… at least 12 months before", percent),
    ("median", "Months from the first alarm to the diagnosis, median", lambda months: f"{months:.1f}"),
    ("mean", "… mean", lambda months: f"{months:.1f}"),
    ("mean_of_all", "… mean, 0 for patients without an alarm", lambda months: f"{months:.1f}"),
)
# Which sets have a row for all horizons, and what stands before their names.
_BY_HORIZON = {"headline": "", "landmark number": "exam", "tumour at the landmark": "tumour"}
_COMPARED = (
    ("AUROC", ("ipcw", "auroc")),
    ("AUPRC", ("ipcw", "auprc")),
    ("Brier score (lower is better)", ("brier",)),
)


def render_evaluation(content: Mapping[str, Any]) -> str:
    """The page's HTML from the content of ``evaluation.json``."""
    bundle, cohort = content["bundle"], content["cohort"]
    part = f", part {escape(cohort['part'])}" if cohort["part"] else ""
    title = f"Evaluation: {escape(bundle['name'])} {escape(bundle['version'])} on {escape(cohort['name'])}"
    sections = (
        _warnings(content["warnings"]),
        _by_horizon(content["metrics"]),
        _by_set(content["metrics"], content["true_risk"]),
        _by_set_and_horizon(content["metrics"], content["true_risk"]),
        _curves(content["metrics"]),
        _lead_time(content["metrics"]),
        _thresholds(content["metrics"]["thresholds"]),
        _members(content["metrics"]["members"]),
        _baseline(content["clinical_baseline"]),
        _comparisons(content["comparisons"], content["horizon_months"]),
        _who(content),
        _tripod(content),
        _provenance(content),
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}{_STYLE}</style>\n</head>\n<body>\n"
        f'<div class="research" role="note">{RESEARCH_ONLY}</div>\n<main>\n'
        f"<header><h1>{title}{part}</h1><p>{_summary(content)}</p></header>\n"
        f"{chr(10).join(filter(None, sections))}\n</main>\n</body>\n</html>\n"
    )


def _summary(content: Mapping[str, Any]) -> str:
    headline, cohort = content["metrics"]["sets"][0], content["cohort"]
    observed = headline["horizons"][f"{content['horizon_months']:g}"]["observed"]["value"]
    return (
        f"{headline['landmarks']} exams of {headline['patients']} patients; {cohort['diagnosed']} patients were diagnosed with "
        f"hepatocellular carcinoma. Within {content['horizon_months']:g} months after an exam the observed risk is "
        f"{percent(observed)}."
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


def _by_horizon(metrics: Mapping[str, Any]) -> str:
    headline = metrics["sets"][0]
    head = ("Months", "Diagnosed", "Observed risk", "Mean predicted risk", "AUROC", "AUPRC", "Brier score",
            "Calibration slope", "Calibration intercept")  # fmt: skip
    rows, excluded = [], []
    for key, at in headline["horizons"].items():
        scaled = at["scaled_brier"]
        rows.append(
            (
                key,
                str(at["diagnosed"]),
                f"{percent(at['observed']['value'])}<br><small>{_percents(at['observed'])}</small>",
                percent(at["mean_risk"]),
                _cell(at["ipcw"]["auroc"]),
                _cell(at["ipcw"]["auprc"]) + f"<br><small>chance {_decimal(at['ipcw']['prevalence'])}</small>",
                _cell(at["brier"])
                + (f"<br><small>{_decimal(at['brier_of_incidence'])} without a model</small>" if scaled else "")
                + (f"<br><small>scaled {plain(scaled)}</small>" if scaled else ""),
                _cell(at["calibration_slope"]),
                _cell(at["calibration_intercept"]),
            )
        )
        left = at["excluded"]
        shares = (_cell(left["auroc"]), _cell(left["auprc"]), _decimal(left["prevalence"]))
        excluded.append((key, str(at["censored"]), str(left["landmarks"]), str(left["positive"]), *shares))
    brier = headline["integrated_brier"]
    words = f"Concordance over time, up to {metrics['horizons'][-1]:g} months: {plain(headline['concordance'])}."
    if brier:
        words += f" Integrated Brier score: {plain(brier)}; {_decimal(headline['integrated_brier_of_incidence'])} without a model."
    notes = [
        "Each exam before a diagnosis or a competing event is a landmark and counts once; intervals leave out patients with all "
        "their exams. Exams of patients who leave the follow-up are represented by exams that are followed longer (inverse "
        "probability of censoring weighting). Observed risk: Aalen and Johansen's cumulative incidence, with death and transplant "
        "as competing events.",
        f"Intervals: {escape(metrics['intervals']['method'])}.",
    ]
    missing = [f"{months:g}" for months in metrics["horizons"] if months not in metrics["calibrated_horizons"]]
    if missing:
        notes.append(
            f"The bundle gives no risk within {', '.join(missing)} months: its risk only ranks exams there, and calibration and "
            f"Brier score can't be judged."
        )
    head_excluded = (
        "Months",
        "Censored before",
        "Exams left",
        "Diagnosed",
        "AUROC",
        "AUPRC",
        "Prevalence, chance of AUPRC",
    )
    return (
        f'<section><h2>By horizon</h2><div class="wide">{table(head, rows)}</div><p>{words}</p>'
        + "".join(f'<p class="note">{note}</p>' for note in notes)
        + f'<h3>Discrimination by exclusion</h3><div class="wide">{table(head_excluded, excluded)}</div>'
        + '<p class="note">Exams that are censored before the horizon are left out. Early diagnoses are then overrepresented: '
        "the prevalence is too high.</p></section>"
    )


def _by_set(metrics: Mapping[str, Any], ceiling: Mapping[str, Any] | None) -> str:
    """One row per set of exams at the main horizon."""
    key = f"{metrics['main_horizon']:g}"
    ceilings = {} if ceiling is None else _by_name(ceiling["sets"])
    head = ["Set", "Patients", "Exams", "Diagnosed", "Observed", "Predicted", f"AUROC at {key} months", ""]
    head += ["Ceiling"] if ceilings else []
    head += ["AUPRC", "Calibration slope", "Calibration intercept"]
    parts, notes = [], []
    for kind, members in groupby(metrics["sets"], key=lambda one: one["kind"]):
        parts.append(
            f'<tr class="kind"><th colspan="{len(head)}" scope="colgroup">{escape(kind.capitalize())}</th></tr>'
        )
        for one in members:
            if one["note"]:
                notes.append(f"<b>{escape(one['name'].capitalize())}.</b> {escape(one['note'])}")
            best = ceilings[kind, one["name"]]["horizons"][key]["ipcw"]["auroc"]["value"] if ceilings else None
            parts.append(_set_row(one, key, best, bool(ceilings)))
    columns = "".join(f'<th scope="col">{name}</th>' for name in head)
    words = "Dashed: chance."
    if ceiling is not None:
        words += f" Hollow: {escape(ceiling['words'])}."
    told = "".join(f"<li>{note}</li>" for note in notes)
    return (
        f'<section><h2>By exam, at {key} months</h2><div class="wide"><table class="sets"><thead><tr>{columns}</tr></thead>'
        f'<tbody>{"".join(parts)}</tbody></table></div><p class="note">{words} AUROC, AUPRC and observed risk are weighted for '
        f'censoring.</p><ul class="note">{told}</ul></section>'
    )


def _set_row(one: Mapping[str, Any], key: str, ceiling: float | None, has_ceilings: bool) -> str:
    at = one["horizons"][key]
    auroc = at["ipcw"]["auroc"]
    cells = [
        str(one["patients"]),
        str(one["landmarks"]),
        str(at["diagnosed"]),
        percent(at["observed"] and at["observed"]["value"]),
        percent(at["mean_risk"]),
        whisker_chart(auroc, *_AXIS, ceiling=ceiling),
        _cell(auroc),
        *([_decimal(ceiling)] if has_ceilings else []),
        _cell(at["ipcw"]["auprc"]),
        _cell(at["calibration_slope"]),
        _cell(at["calibration_intercept"]),
    ]
    return f'<tr><th scope="row">{escape(one["name"])}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _by_set_and_horizon(metrics: Mapping[str, Any], ceiling: Mapping[str, Any] | None) -> str:
    """AUROC of the sets that differ with the horizon: landmark numbers, and visible against future tumours."""
    ceilings = {} if ceiling is None else _by_name(ceiling["sets"])
    keys = [f"{months:g}" for months in metrics["horizons"]]
    rows = []
    for one in metrics["sets"]:
        if one["kind"] not in _BY_HORIZON:
            continue
        cells = []
        for key in keys:
            at = one["horizons"][key]
            best = ceilings[one["kind"], one["name"]]["horizons"][key]["ipcw"]["auroc"]["value"] if ceilings else None
            words = f"{at['diagnosed']} diagnosed" + ("" if best is None else f"; ceiling {best:.3f}")
            cells.append(f"{_cell(at['ipcw']['auroc'])}<br><small>{words}</small>")
        name = one["name"] if one["kind"] == "headline" else f"{_BY_HORIZON[one['kind']]} {one['name']}"
        rows.append((escape(name.strip()), *cells))
    head = ("AUROC", *(f"{key} months" for key in keys))
    return f'<section><h2>By exam and horizon</h2><div class="wide">{table(head, rows)}</div></section>'


def _by_name(sets: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], Mapping[str, Any]]:
    return {(one["kind"], one["name"]): one for one in sets}


def _curves(metrics: Mapping[str, Any]) -> str:
    curves, key = metrics["curves"], f"{metrics['main_horizon']:g}"
    at = metrics["sets"][0]["horizons"][key]
    calibration, histogram, benefit = curves["calibration"], curves["histogram"], curves["net_benefit"]
    figures = []
    if curves["roc"]:
        figures += [
            (
                "ROC",
                roc_chart(curves["roc"], at["ipcw"]["auroc"]["value"]),
                f"Area {plain(at['ipcw']['auroc'])}. Dashed: chance.",
            ),
            (
                "Precision and recall",
                pr_chart(curves["pr"], at["ipcw"]["prevalence"], at["ipcw"]["auprc"]["value"]),
                f"Area {plain(at['ipcw']['auprc'])}. Dashed: chance, the prevalence.",
            ),
        ]
    if calibration:
        figures.append(
            (
                "Calibration",
                calibration_chart(calibration, histogram),
                "Line and band: smoothed (local logistic regression), with 95% intervals. Points: groups of similar risk. "
                "Dashed: perfect calibration. Both axes end where the data do.",
            )
        )
    figures.append(
        (
            "Risks by class",
            class_chart(histogram),
            f"Upward, orange: exams with a diagnosis within {key} months. Downward, blue: exams without. Each as a share of its "
            "class.",
        )
    )
    if benefit:
        figures.append(
            (
                "Net benefit",
                net_benefit_chart(benefit),
                "Line: acting on risks above the threshold. Dashed: acting on all patients. 0: acting on none.",
            )
        )
    panels = "".join(
        f"<figure><h3>{name}</h3>{drawing}<figcaption>{words}</figcaption></figure>" for name, drawing, words in figures
    )
    return f'<section><h2>Curves, at {key} months</h2><div class="panels">{panels}</div></section>'


def _lead_time(metrics: Mapping[str, Any]) -> str:
    found = metrics["lead_time"]
    judged = [(f"90% specificity here (risk of {_decimal(found['threshold'])})", found)]
    judged += [(f"{escape(t['name'])} (risk of {t['threshold']:.3f})", t["lead_time"]) for t in metrics["thresholds"]]
    rows = []
    for key, words, write in _LEAD:
        cells = []
        for _, lead in judged:
            figure = lead["ahead"][key] if key in lead["ahead"] else lead[key]
            if figure["value"] is None:
                cells.append("–")
                continue
            ends = "" if figure["low"] is None else f"{write(figure['low'])} to {write(figure['high'])}"
            cells.append(f"<b>{write(figure['value'])}</b><br><small>{ends}</small>")
        rows.append((words, *cells))
    rows.append(("Specificity", *(percent(lead["specificity"]) for _, lead in judged)))
    note = (
        f"Of {found['diagnosed']} diagnosed patients, each counted once. An alarm is the first exam with at least that risk; "
        f"specificity is that of exams without a diagnosis within {metrics['main_horizon']:g} months. The first threshold is "
        "found on these exams, the others come with the bundle. Lead times are limited by how long patients were examined before."
    )
    head = ("Alarms", *(name for name, _ in judged))
    return f'<section><h2>Lead time</h2><div class="wide">{table(head, rows)}</div><p class="note">{note}</p></section>'


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
            f"{percent(t[key]['value'])}<br><small>{_percents(t[key])}</small>"
            for key in ("sensitivity", "specificity", "ppv", "npv")
        ]
        counts = [str(t[f"{truth}_{call}"]) for call in ("positives", "negatives") for truth in ("true", "false")]
        rows.append((name, f"{t['threshold']:.3f}", *shares, *counts))
    note = (
        "From this risk on an exam is called positive. The thresholds come with the bundle and were chosen on other data. "
        "Shares are weighted for censoring; counts are of exams with a known outcome. Predictive values hold for this cohort's "
        "prevalence only."
    )
    return (
        f'<section><h2>Thresholds</h2><div class="wide">{table(head, rows)}</div><p class="note">{note}</p></section>'
    )


def _members(members: Mapping[str, Any] | None) -> str:
    if not members:
        return ""
    values = [m["value"] for m in members["auroc"] if m["value"] is not None]
    spread = f"{len(members['auroc'])} members, {min(values):.3f} to {max(values):.3f}" if values else ""
    above = members["ensemble_above_mean"]
    rows = [
        ("AUROC of a single member, mean", bold(members["mean_auroc"]), interval_range(members["mean_auroc"]), spread),
        ("AUROC of the ensemble above that", bold(above, "+"), interval_range(above, "+"), "what averaging gains"),
    ]
    return f"<section><h2>Members</h2>{table(('Measure', 'Value', '95% interval', ''), rows)}</section>"


def _baseline(baseline: Mapping[str, Any] | None) -> str:
    if not baseline:
        return ""
    rows = []
    for key, score in baseline["score"]["horizons"].items():
        bundle, difference = (baseline[name]["horizons"][key]["ipcw"]["auroc"] for name in ("bundle", "difference"))
        gained = f"{bold(difference, '+')}<br><small>{interval_range(difference, '+')}</small>"
        rows.append((key, _cell(score["ipcw"]["auroc"]), _cell(bundle), gained))
    landmarks = baseline["score"]["landmarks"]
    note = (
        f"aMAP (age, sex, albumin, bilirubin, platelets; Fan et al., J Hepatol 2020;73:1368) at the {landmarks} exams where the "
        "clinical table has all five, and the bundle at the same exams."
    )
    return (
        f"<section><h2>Clinical baseline</h2>{table(('Months', 'AUROC of aMAP', 'AUROC of the bundle', 'Difference'), rows)}"
        f'<p class="note">{note}</p></section>'
    )


def _comparisons(comparisons: Sequence[Mapping[str, Any]], horizon: float) -> str:
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
        for words, place in _COMPARED:
            this, other, difference = (
                _at(comparison[which]["horizons"][f"{horizon:g}"], place) for which in ("this", "other", "difference")
            )
            values = (_decimal(this["value"]), _decimal(other["value"]))
            ends = bold(difference, "+"), interval_range(difference, "+")
            rows.append((name, str(comparison["patients"]), words, *values, *ends))
    head = ("Other bundle", "Patients", "Measure", "This bundle", "Other", "Difference", "95% interval")
    told = "".join(f"<p>{note}</p>" for note in notes)
    words = "This bundle minus the other on the same exams; intervals leave out the same patients of both."
    return f'<section><h2>Comparison</h2>{told}{table(head, rows) if rows else ""}<p class="note">{words}</p></section>'


def _at(figures: Mapping[str, Any], place: Sequence[str]) -> Mapping[str, Any]:
    for name in place:
        figures = figures[name]
    return figures


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
        ("… diagnosed", str(cohort["diagnosed"]), ""),
        ("… with a competing event before a diagnosis", str(cohort["competing"]), ""),
        ("Exams evaluated", str(cohort["exams"]["used"]), ""),
        ("Exams on or after a diagnosis or competing event, dropped", str(cohort["exams"]["from_event_on"]), ""),
    ]
    notes = "".join(f"<li>{escape(problem['message'])}</li>" for problem in content["problems"])
    return (
        f"<section><h2>Who was evaluated</h2>{table(('What', 'Number', 'Reasons'), rows)}"
        f"{f'<ul class=note>{notes}</ul>' if notes else ''}"
        '<p class="note">The file <code>evaluation.json</code> lists who was refused and why.</p></section>'
    )


def _tripod(content: Mapping[str, Any]) -> str:
    rows = tripod_rows(content)
    note = (
        "What the software knows is filled in; the rest is for the authors. Short wording of our own: see Collins et al., "
        "BMJ 2024;385:e078378 for the checklist."
    )
    return (
        "<section><h2>TRIPOD+AI</h2><details><summary>Items of the reporting guideline</summary>"
        f'{table(("Item", "What", "Known here"), rows)}</details><p class="note">{note}</p></section>'
    )


def _provenance(content: Mapping[str, Any]) -> str:
    bundle = content["bundle"]
    members = f"{bundle['members']} member{'s' * (bundle['members'] > 1)}"
    state = "calibrated" if bundle["calibrated"] else "not calibrated"
    rows = (
        ("Bundle", f"{escape(bundle['name'])} {escape(bundle['version'])}, {members}, {state}"),
        ("SHA-256 of the bundle", f"<code>{escape(bundle['sha256'])}</code>"),
        ("Seed of the intervals", str(content["metrics"]["intervals"]["seed"])),
        ("Software", ", ".join(f"{escape(n)} {escape(v)}" for n, v in content["software"].items())),
    )
    body = "".join(f'<tr><th scope="row">{name}</th><td>{value}</td></tr>' for name, value in rows)
    return (
        f'<section class="provenance"><h2>Provenance</h2><table>{body}</table><p><b>{RESEARCH_ONLY}</b></p></section>'
    )


def _cell(figure: Mapping[str, float | None] | None) -> str:
    """A value with its interval below."""
    if figure is None or figure["value"] is None:
        return "–"
    ends = "" if figure["low"] is None and figure["high"] is None else interval_range(figure)
    return f"<b>{signed(figure['value'])}</b><br><small>{ends}</small>"


def _decimal(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _percents(interval: Mapping[str, float | None]) -> str:
    return "" if interval["low"] is None else f"{percent(interval['low'])} to {percent(interval['high'])}"
