"""The page of a check of maps: what was found, method by method, against chance, and what it can't tell. Names no patient."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from HCCNetLib.reporting.check_charts import Bar, bar_chart, mark, perturbation_chart
from HCCNetLib.reporting.elements import rows, wide_table
from HCCNetLib.reporting.figures import bold, interval_range, signed, table
from HCCNetLib.reporting.numbers import percent
from HCCNetLib.reporting.page import STYLE
from HCCNetLib.reporting.report import RESEARCH_ONLY

_STYLE = """
.panels { display: grid; grid-template-columns: 1fr 1fr; gap: 14px 34px } .panels figure { margin: 0; min-width: 0 }
.panels h3 { margin: 4px 0 } .whisker { stroke: var(--blue); stroke-width: 1.6; fill: none }
rect.both { fill: #b9cbdd } .chance { stroke: var(--orange); stroke-width: 1.6; fill: none } .chance.open { fill: #fff }
.curve { fill: none; stroke-width: 2 } .curve.random { stroke-dasharray: 5 4; stroke-width: 1.4 }
.curve.deletion { stroke: var(--blue) } .curve.insertion { stroke: var(--orange) }
.fill.deletion { fill: var(--blue) } .fill.insertion { fill: var(--orange) }
td small, td b, .range { white-space: nowrap } td small { color: var(--soft) } .provenance th { padding-right: 20px }
@media screen and (max-width: 760px) { .panels { grid-template-columns: 1fr } }
@media print { .panels { gap: 8px 20px } .chart { font-size: 14px } section { break-inside: auto } }
"""
_NONE: Mapping[str, float | None] = {"value": None, "low": None, "high": None}


def render_check(content: Mapping[str, Any]) -> str:
    """The page's HTML from the content of ``explain_check.json``."""
    bundle, cohort = content["bundle"], content["cohort"]
    title = f"Check of maps: {escape(bundle['name'])} {escape(bundle['version'])} on {escape(cohort['name'])}"
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}{_STYLE}</style>\n</head>\n<body>\n"
        f'<div class="research" role="note">{RESEARCH_ONLY}</div>\n<main>\n'
        f"<header><h1>{title}</h1><p>{_summary(cohort)}</p></header>\n"
        f"{_warnings(content['warnings'])}\n{_methods(content['methods'])}\n{_lesions(content)}\n{_randomised(content)}\n"
        f"{_perturbation(content['methods'])}\n{_stability(content['methods'])}\n{_attention(content['attention'])}\n"
        f"{_limits(cohort)}\n{_who(content)}\n{_provenance(content)}\n</main>\n</body>\n</html>\n"
    )


def _summary(cohort: Mapping[str, Any]) -> str:
    kind = "generated patients (phantom)" if cohort["phantom"] else "patients"
    if cohort["converters"] is None:
        return f"{cohort['checked']} {kind}, each at the latest exam"
    return (
        f"{cohort['checked']} {kind}, each at the latest exam with a known outcome, {cohort['converters']} of them with the "
        "diagnosis within the horizon"
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


def _methods(methods: Mapping[str, Any]) -> str:
    head = (
        *("Method", "Smallest part", "Peak at the lesion", "Peak in it", "Evidence in it ÷ its volume"),
        *("Like randomised networks", "Members agree", "Cost"),
    )
    lines = []
    for key, method in methods.items():
        found = method["localisation"]
        hits = inside = energy = "not measured"
        if found is not None:
            hits = f"<b>{found['hits']} of {found['patients']}</b><br><small>{_percents(found['hit_rate'])}</small>"
            inside = f"{found['inside']} of {found['patients']}<br><small>{_percents(found['inside_rate'])}</small>"
            energy = _places(found["energy_over_volume"]["value"], 1)
        cost = method["cost"]
        lines.append(
            (f"{escape(method['title'])}<br><code>{escape(key)}</code>", f"{method['resolution_mm']:g} mm", hits, inside,
             energy, bold(method["randomised"]["magnitude_randomised"], "+"), _places(method["agreement"], 2),
             f"{_places(cost['measured'], 1)} ×<br><small>{cost['passes']:.3g} passes</small>")
        )  # fmt: skip
    told = "".join(f"<li><b>{escape(m['title'])}</b>: {escape(m['description'])}</li>" for m in methods.values())
    note = (
        "Peak at the lesion: in how many patients, of those whose lesion is known. Like randomised networks: rank correlation "
        "of the evidence's size with that of networks with random weights; near 0 is what to hope for. Members agree: mean "
        "correlation between the evidence of two members of the ensemble. Cost: measured time of explaining, divided by that "
        "of encoding the exams; "
        "below, the passes of the backbone that it should take."
    )
    return (
        f'<section><h2>Methods</h2>{wide_table("methods", head, lines)}<p class="note">{note}</p>'
        f'<ul class="note">{told}</ul></section>'
    )


def _lesions(content: Mapping[str, Any]) -> str:
    """Where the peak lies, for those methods and patients of whom that is known."""
    found = {m["title"]: m["localisation"] for m in content["methods"].values() if m["localisation"] is not None}
    if not found:
        return "<section><h2>Does the map point at the lesion?</h2><p>It could not be measured on this cohort.</p></section>"
    first = next(iter(found.values()))
    bars = [Bar(name, one["hit_rate"], {**_NONE, "value": one["random"]}) for name, one in found.items()]
    title = f"Share of patients whose map's peak lies within {first['within_mm']:g} mm of the lesion"
    lines = [
        (escape(name), _places(one["median_distance_mm"], 1), _tenths(one["distance_mm"]), _share(one["energy"]),
         percent(one["lesion_share_of_field"]), _tenths(one["energy_over_volume"]))
        for name, one in found.items()
    ]  # fmt: skip
    head = (
        "Method",
        "Median distance, mm",
        "Mean distance, mm",
        "Evidence in the lesion",
        "Its share of the field",
        "Ratio",
    )
    words = (
        f"{first['patients']} patients with the diagnosis whose lesion lies in the field that was read. Dot and line: share and "
        f"95% interval (Wilson). Diamond: a random point of the liver ({percent(first['random'])}); a random point of the field "
        f"would hit in {percent(first['random_in_field'])}."
    )
    without = {name: one["without_peak"] for name, one in found.items() if one["without_peak"]}
    empty = "".join(
        f" {escape(name)}: no peak in {count} patient(s), counted as missed." for name, count in without.items()
    )
    return (
        f"<section><h2>Does the map point at the lesion?</h2><figure>{bar_chart(title, title, bars, 0, 1)}"
        f"<figcaption>{words}{empty}</figcaption></figure>{wide_table('lesions', head, lines)}"
        '<p class="note">Distance: from the peak of the positive map to the nearest voxel of the lesion, 0 inside. Evidence in '
        "the lesion: share of all positive evidence of the exam.</p></section>"
    )


def _randomised(content: Mapping[str, Any]) -> str:
    methods = content["methods"].values()
    found = [(m["title"], m["randomised"]) for m in methods]
    bars = [Bar(name, one["magnitude_randomised"], one["magnitude_other_patient"]) for name, one in found]
    axis = "Rank correlation of the evidence's size with that of networks with random weights"
    lines = [
        (escape(name), _both(one["magnitude_randomised"], "+"), _both(one["magnitude_other_patient"], "+"),
         _both(one["like_randomised"], "+"), _both(one["overlap_randomised"]), _both(one["overlap_other_patient"]),
         _percent(one["hit_randomised"]), _both(one["magnitude_random_head"], "+"))
        for name, one in found
    ]  # fmt: skip
    strongest = f"{100 * content['strongest_share']:g}%"
    head = (
        *("Method", "Size, same patient", "Size, another patient", "With its sign", f"Strongest {strongest} in common"),
        *("Another patient", "Their peak at the lesion", "Size, backbone kept"),
    )
    low = min([-0.2, *(value for _, one in found for value in _lows(one))])
    draws = found[0][1]["draws"]
    return (
        f"<section><h2>Does the map show what was learned?</h2><figure>{bar_chart(axis, axis, bars, math.floor(low * 5) / 5, 1)}"
        f"<figcaption>A map that looks alike when all weights are drawn anew shows the image, not what was learned (Adebayo et "
        f"al., arXiv 1810.03292). Dot and line: same patient, mean over patients and {draws} draws with 95% interval. Diamond: "
        "the random networks' map of another patient, which is what chance and the common shape of the field give.</figcaption>"
        f"</figure>{wide_table('randomised', head, lines)}"
        '<p class="note">Size: of the evidence\'s absolute value, since a random head may turn the sign of a pattern that is the '
        f"same. Backbone kept: only the transformer and the head have random weights, mean over {found[0][1]['head_draws']} "
        "draws. Intervals come from drawing patients again; the draws of weights, the same for all patients, are not drawn "
        "again, so they are somewhat too narrow.</p></section>"
    )


def _lows(one: Mapping[str, Any]) -> Iterable[float]:
    intervals = (one["magnitude_randomised"], one["magnitude_other_patient"])
    return (value for interval in intervals for value in (interval["low"], interval["value"]) if value is not None)


def _perturbation(methods: Mapping[str, Any]) -> str:
    found = {m["title"]: m["perturbation"] for m in methods.values() if m["perturbation"] is not None}
    if not found:
        return ""
    values = [
        v
        for one in found.values()
        for kind in ("deletion", "insertion")
        for v in (*one[kind]["curve"], *one[kind]["random"])
    ]
    low, high = min(values), max(values)
    margin = max(0.05 * (high - low), 1e-3)
    panels = "".join(
        f"<figure><h3>{escape(name)}</h3>{perturbation_chart(name, one, low - margin, high + margin)}</figure>"
        for name, one in found.items()
    )
    lines = [
        (escape(name), *(_both(one[kind][key], "+") for kind in ("deletion", "insertion") for key in ("difference", "moved")))
        for name, one in found.items()
    ]  # fmt: skip
    head = ("Method", "Deletion: output", "Deletion: moved", "Insertion: output", "Insertion: moved")
    first = next(iter(found.values()))
    legend = "".join(
        f"<span>{_key(kind)}{words}</span>"
        for kind, words in (
            ("deletion", "deletion: detail is taken away"),
            ("insertion", "insertion: detail is given back"),
        )
    )
    return (
        f"<section><h2>Does the output follow the evidence?</h2><p>The landmark exam of {first['patients']} patients loses its "
        "detail (is blurred) where the positive evidence is strongest first, or gets it back in that order. Patients with the "
        "diagnosis come first among them.</p>"
        f'<p class="legend">{legend}<span>dashed: in random order</span></p><div class="panels">{panels}</div>'
        f'{wide_table("perturbed", head, lines)}<p class="note">Area under the curve as drawn, all steps equally '
        "wide, minus that in random order, in units of the logit, mean over patients with 95% interval. Output: below 0 for "
        "deletion and above 0 for insertion where the order is right and detail raises the output. That it does is not given: "
        "the exam as it is has a higher output than the "
        f"same exam without detail in {first['raised_by_detail']} of {first['patients']} patients. Moved: how far the output has "
        "gone from where it began, in either direction; above 0 where the order finds what the output depends on."
        "</p></section>"
    )


def _key(kind: str) -> str:
    return (
        f'<svg class="key" viewBox="0 0 30 14" aria-hidden="true"><path class="curve {kind}" d="M0 7H30"/>'
        f"{mark(kind, 15, 7)}</svg>"
    )


def _stability(methods: Mapping[str, Any]) -> str:
    found = {m["title"]: m["stability"] for m in methods.values() if m["stability"] is not None}
    if not found:
        return ""
    lines = [
        (escape(name), _both(one["correlation"], "+"), _places(one["median_peak_shift_mm"], 1))
        for name, one in found.items()
    ]
    first = next(iter(found.values()))
    return (
        "<section><h2>Does the map stand a little noise?</h2>"
        f"{table(('Method', 'Rank correlation', 'The peak moves by (median), mm'), lines)}"
        f'<p class="note">Noise of {first["noise_sd"]:g} SD of the body on all exams of {first["patients"]} patients, '
        f"{first['draws']} draws; the evidence with noise against that without.</p></section>"
    )


def _attention(attention: Mapping[str, Any] | None) -> str:
    head = "<section><h2>Does attention follow the lesion's size?</h2>"
    if attention is None:
        return f"{head}<p>It could not be measured on this cohort.</p></section>"
    chance, zero = {**_NONE, "value": attention["chance"]}, {**_NONE, "value": 0.0}
    bars = [
        Bar(f"{name}: {words}", kind[key], by_chance)
        for name, kind in attention["kinds"].items()
        for words, key, by_chance in (
            ("correlation", "correlation", zero),
            ("most to the largest", "most_is_largest", chance),
        )
    ]
    latest = ", ".join(
        f"{escape(name)} {_percent(kind['most_is_latest'])}" for name, kind in attention["kinds"].items()
    )
    title = "Attention over exams against the lesion's volume: rank correlation, and share of patients"
    return (
        f"{head}<figure>{bar_chart(title, title, bars, -1, 1)}<figcaption>{attention['patients']} patients with at least three "
        "exams. Correlation: between attention and the lesion's volume over a patient's exams, mean with 95% interval. Most to the "
        "largest: share of patients in whom the exam with most attention is the one with the largest lesion; diamond: one "
        f"exam drawn at random.</figcaption></figure><p class=note>The largest lesion is the latest in "
        f"{_percent(attention['largest_is_latest'])} of these patients. The latest exam has most attention in: {latest}. "
        "Attention that follows the age of an exam alone would show in these figures as well.</p></section>"
    )


def _limits(cohort: Mapping[str, Any]) -> str:
    limits = [
        "The peak is one point. A map whose peak is in the lesion may mark other places nearly as strongly, and one lesion is all "
        "that is looked for.",
        "Deletion and insertion ask the networks about exams that are blurred in part. They were not trained on such exams, and "
        "may take the blur for a finding of its own.",
        "Evidence is about each exam's picture, the others being what they are. Growth between exams, on which a risk may rest, "
        "is in no single exam's map.",
        "That maps change with the weights and stand noise is needed to believe them; it is not enough.",
        "Intervals tell how the figures vary between patients, not between trainings.",
    ]
    if cohort["phantom"]:
        limits.insert(
            0,
            "The phantom is simpler than a patient: round lesions, simple organs, no motion within an exam. Maps that "
            "find the lesion here may fail on patients.",
        )
    return (
        f"<section><h2>What this does not tell</h2><ul>{''.join(f'<li>{text}</li>' for text in limits)}</ul></section>"
    )


def _who(content: Mapping[str, Any]) -> str:
    """What became of every patient of the cohort, in numbers that add up."""
    cohort = content["cohort"]
    reasons = ", ".join(
        f"{escape(code)} {count}" for code, count in Counter(e["code"] for e in content["refused"]).items()
    )
    lines = [
        ("Patients in the cohort", str(cohort["patients"]), ""),
        *((f"Left out: {escape(one['why'])}", str(one["patients"]), "") for one in cohort["left_out"]),
        ("Refused: files, dates or the truth can't be used", str(cohort["refused"]), reasons),
        ("<b>Explained</b>", f"<b>{cohort['checked']}</b>", ""),
    ]
    if cohort["converters_with_visible_lesion"] is not None:
        lines += [
            (
                "Of them with the diagnosis and the lesion in the field",
                str(cohort["converters_with_visible_lesion"]),
                "",
            ),
            ("With the diagnosis, lesion outside the field", str(cohort["converters_with_lesion_outside_field"]), ""),
        ]
    return f"<section><h2>Who was explained</h2>{table(('What', 'Number', 'Reasons'), lines)}</section>"


def _provenance(content: Mapping[str, Any]) -> str:
    bundle, intervals = content["bundle"], content["intervals"]
    members = f"{bundle['members']} member{'s' * (bundle['members'] > 1)}"
    body = rows(
        ("Bundle", f"{escape(bundle['name'])} {escape(bundle['version'])}, {members}"),
        ("SHA-256 of the bundle", f"<code>{escape(bundle['sha256'])}</code>"),
        ("Intervals", f"{escape(intervals['method'])}; {intervals['resamples']} resamples"),
        ("Seed", str(intervals["seed"])),
        ("Software", ", ".join(f"{escape(n)} {escape(v)}" for n, v in content["software"].items())),
    )
    return f'<section class="provenance"><h2>Provenance</h2>{body}<p><b>{RESEARCH_ONLY}</b></p></section>'


def _both(interval: Mapping[str, float | None], sign: str = "") -> str:
    if interval["value"] is None:
        return bold(interval)
    return f"{signed(interval['value'], sign)}<br><small>{interval_range(interval, sign)}</small>"


def _percent(interval: Mapping[str, float | None]) -> str:
    return percent(interval["value"])


def _share(interval: Mapping[str, float | None]) -> str:
    return f"{_percent(interval)}<br><small>{_percents(interval)}</small>"


def _percents(interval: Mapping[str, float | None]) -> str:
    return "" if interval["low"] is None else f"{percent(interval['low'])} to {percent(interval['high'])}"


def _tenths(interval: Mapping[str, float | None]) -> str:
    value, low, high = (_places(interval[key], 1) for key in ("value", "low", "high"))
    return f"{value}<br><small>{low} to {high}</small>"


def _places(value: float | None, places: int) -> str:
    return "not determined" if value is None else f"{value:.{places}f}".replace("-", "−")
