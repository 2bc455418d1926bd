"""``hccnet explain-check``: whether the maps of a bundle can be believed."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from HCCNetLib.commands.arguments import whole_number
from HCCNetLib.commands.checking import DRAWS, HEAD_DRAWS, NOISE_DRAWS, Check, Subject
from HCCNetLib.commands.evaluate import DEMONSTRATION, preparation_of, require_cohort
from HCCNetLib.commands.outputs import CHECK_FILES, write_check, write_json
from HCCNetLib.commands.predict import add_reading_arguments, check_writable, reading_options
from HCCNetLib.commands.progress import Progress
from HCCNetLib.evaluation import faithfulness as figures
from HCCNetLib.evaluation.faithfulness import RESAMPLES, MapFigures
from HCCNetLib.evaluation.selection import LEFT_OUT, WITHOUT_LABEL, select
from HCCNetLib.explanation import METHODS, IntegratedGradients, Occlusion, make_explainer
from HCCNetLib.explanation.check import FORMAT_VERSION, beside
from HCCNetLib.explanation.faithfulness import STRONGEST, WITHIN_MM
from HCCNetLib.explanation.perturbation import FRACTIONS, NOISE_SD
from HCCNetLib.inference import NOTICE, Predictor, software_versions
from HCCNetLib.inference.cache import PreparedCache
from HCCNetLib.readers import name_as_given, read_input
from HCCNetLib.records import Cohort, Refusal
from HCCNetLib.reporting.tables import text_cell
from HCCNetLib.synthetic.truth import Truth, find_truth

HELP = "test whether the maps of a bundle can be believed: lesions found, randomised networks, deletion, noise"

_PATIENTS, _PERTURBED = 40, 10
# The others take hours.
_CHEAP = [key for key in METHODS if key not in (IntegratedGradients.key, Occlusion.key)]
_FEW = 10
_NOT_DRAWN = "not among the patients drawn (--patients)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.epilog = (
        "Explains each patient at the latest exam whose outcome is known, those with the diagnosis first; without "
        "outcomes at the latest exam. Whether maps point at lesions can be told on a phantom only, whose truth is known. "
        "Writes explain_check.json, explain_check.csv and explain_check.html. Integrated gradients and occlusion, which "
        "--methods can name, take minutes per patient. Use patients that the networks have not seen."
    )
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR", help="bundle whose maps are tested")
    parser.add_argument(
        "--cohort", type=Path, required=True, metavar="DIR", help="cohort in any form that hccnet inspect reads"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--methods", nargs="+", choices=list(METHODS), default=_CHEAP, help=f"default: {' '.join(_CHEAP)}"
    )
    parser.add_argument(
        "--patients", type=whole_number(1), default=_PATIENTS, metavar="N", help="at most (default: %(default)s)"
    )
    parser.add_argument(
        "--perturbed",
        type=whole_number(0),
        default=_PERTURBED,
        metavar="N",
        help="of them, for deletion, insertion and noise (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, metavar="S", help="of all that is drawn (default: %(default)s)"
    )
    parser.add_argument(
        "--beside-bundle",
        action="store_true",
        help="also write the check beside the bundle's folder, where reports look for it",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="folder that keeps prepared exams (default: a temporary one, some MB per exam)",
    )
    parser.add_argument(
        "--processes",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="that prepare exams; 0: one per core (default)",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: %(default)s")
    add_reading_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; 3 where patients were refused."""
    cohort = read_input(arguments.cohort, reading_options(arguments))
    require_cohort(cohort, "the check")
    predictor = Predictor(arguments.bundle, arguments.device)
    check_writable(arguments.out)
    if arguments.beside_bundle:
        check_writable(beside(predictor.bundle).parent)
    truth = find_truth(arguments.cohort)
    chosen = _choose(cohort, predictor.bundle.description.horizon_months, arguments)
    check = _measure(predictor, chosen, truth, arguments)
    refused = {**chosen.refused, **check.refused}
    if not check.subjects:
        first = f" The first reason: {next(iter(refused.values())).message}" if refused else ""
        raise Refusal("nobody_left", f"No patient is left whose exams can be explained.{first}")
    content = _content(check, chosen, truth, cohort, arguments)
    write_check(arguments.out, content, _table(check, content["notice"]))
    if arguments.beside_bundle:
        write_json(beside(predictor.bundle), content)
    _print(content, arguments, beside(predictor.bundle) if arguments.beside_bundle else None)
    return 3 if refused else 0


@dataclass(frozen=True)
class _Choice:
    """Who is explained, and what became of the others."""

    subjects: list[Subject]
    refused: Mapping[str, Refusal]
    left_out: list[dict[str, Any]]


def _choose(cohort: Cohort, horizon: float, arguments: argparse.Namespace) -> _Choice:
    """Draws patients, those with the diagnosis first; without outcomes everybody has the same chance."""
    left_out = []
    if cohort.outcomes:
        selection = select(cohort)
        latest = [one.latest_labelled(horizon) for one in selection.followed]
        found = [Subject(*one) for one in latest if one is not None]
        refused = selection.refused
        counts = {reason: len(ids) for reason, ids in selection.left_out.items()} | {
            "without_label": latest.count(None)
        }
        words = {**LEFT_OUT, "without_label": WITHOUT_LABEL}
        left_out = [
            {"code": reason, "patients": count, "why": words[reason]} for reason, count in counts.items() if count
        ]
    else:
        found, refused = [Subject(patient, None) for patient in cohort.patients], cohort.refused
    order = np.random.default_rng(arguments.seed).permutation(len(found)).tolist()
    drawn = sorted(order, key=lambda n: found[n].label is not True)[: arguments.patients]
    if len(drawn) < len(found):
        left_out.append({"code": "not_drawn", "patients": len(found) - len(drawn), "why": _NOT_DRAWN})
    return _Choice([found[n] for n in drawn], refused, left_out)


def _measure(predictor: Predictor, chosen: _Choice, truth: Truth | None, arguments: argparse.Namespace) -> Check:
    """All measurements, from exams that are prepared once."""
    methods = tuple(dict.fromkeys(arguments.methods))
    progress = Progress()
    with _folder(arguments.cache) as folder:
        cache = PreparedCache(folder, preparation_of(predictor))
        try:
            patients = [subject.patient.exams for subject in chosen.subjects]
            count = sum(map(len, patients))
            for done, _ in enumerate(cache.fill(patients, arguments.processes or os.cpu_count() or 1), start=1):
                progress("preparing exams", done, count)
            check = Check(predictor, cache, methods, truth, arguments.seed, progress)
            check.explain(chosen.subjects)
            check.randomise()
            check.perturb(arguments.perturbed)
            check.disturb(arguments.perturbed)
        finally:
            progress.close()
    return check


@contextmanager
def _folder(cache: Path | None) -> Iterator[Path]:
    """The folder of prepared exams: every exam is read some ten times."""
    if cache is not None:
        yield cache
        return
    with tempfile.TemporaryDirectory(prefix="hccnet-") as folder:
        yield Path(folder)


def _content(
    check: Check, chosen: _Choice, truth: Truth | None, cohort: Cohort, arguments: argparse.Namespace
) -> dict[str, Any]:
    """What ``explain_check.json`` says."""
    bundle = check.predictor.bundle
    description = bundle.description
    refused = {**chosen.refused, **check.refused}
    return {
        "format_version": FORMAT_VERSION,
        "bundle": {
            "name": description.name,
            "version": description.version,
            "sha256": bundle.sha256,
            "demonstration": description.demonstration,
            "members": len(description.members),
        },
        "cohort": _describe(check, chosen, truth, cohort, arguments),
        "methods": {key: _method(check, key) for key in check.methods},
        "attention": figures.attention_against_burden(check.burdens, check.attention_kinds, check.seed),
        "strongest_share": STRONGEST,
        "intervals": {"method": figures.METHOD, "resamples": RESAMPLES, "seed": check.seed},
        "warnings": _warnings(check, truth, cohort),
        "refused": [
            {"patient_id": patient_id, "code": refusal.code, "exam_id": refusal.exam_id, "message": refusal.message}
            for patient_id, refusal in refused.items()
        ],
        "notice": f"{NOTICE} {DEMONSTRATION}" if description.demonstration else NOTICE,
        "software": software_versions(),
    }


def _describe(
    check: Check, chosen: _Choice, truth: Truth | None, cohort: Cohort, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Which cohort, and what became of each of its patients, in numbers that add up."""
    converters = [subject for subject in check.subjects if subject.label]
    seen = sum(subject.place is not None for subject in converters)
    is_known = truth is not None and bool(cohort.outcomes)
    return {
        "name": name_as_given(arguments.cohort),
        "form": cohort.form,
        "patients": len(cohort.patients) + len(cohort.refused),
        "checked": len(check.subjects),
        "converters": len(converters) if cohort.outcomes else None,
        "converters_with_visible_lesion": seen if is_known else None,
        "converters_with_lesion_outside_field": len(converters) - seen if is_known else None,
        "left_out": chosen.left_out,
        "refused": len(chosen.refused) + len(check.refused),
        "phantom": all(subject.patient.is_phantom for subject in check.subjects),
        "truth": truth is not None,
        "seed": arguments.seed,
    }


def _method(check: Check, key: str) -> dict[str, Any]:
    explainer, description = make_explainer(key), check.predictor.bundle.description
    rows = [subject.rows[key] for subject in check.subjects]
    crop, spacing = description.preprocessing.crop_voxels, description.preprocessing.spacing_mm
    return {
        "title": explainer.title,
        "description": explainer.description,
        "per_channel": explainer.per_channel,
        "resolution_mm": explainer.resolution_voxels(crop) * spacing,
        "agreement": figures.mean_of([row.agreement for row in rows]),
        "localisation": figures.localisation(rows, WITHIN_MM, check.seed),
        "randomised": figures.randomised(rows, DRAWS, HEAD_DRAWS, check.seed),
        "perturbation": figures.perturbed(rows, check.curves[key], FRACTIONS, check.seed),
        "stability": figures.stability(rows, NOISE_DRAWS, NOISE_SD, check.seed),
        "cost": {
            "passes": explainer.passes(description.model),
            "measured": check.seconds[key] / check.encoding_seconds if check.encoding_seconds > 0 else None,
        },
    }


def _warnings(check: Check, truth: Truth | None, cohort: Cohort) -> list[dict[str, str]]:
    """What a reader must know before the figures."""
    found: dict[str, str] = {}
    located = sum(subject.place is not None for subject in check.subjects)
    if check.predictor.bundle.description.demonstration:
        found["demonstration"] = DEMONSTRATION
    if truth is None:
        found["no_truth"] = (
            "Nobody knows where the lesions of this cohort are (it has no truth folder, as phantoms have): whether the maps "
            "point at them, and attention against the lesions' size, could not be measured."
        )
    if not cohort.outcomes:
        found["no_outcomes"] = (
            "No outcomes were found: patients are explained at their latest exam, and whether maps point at the lesions of "
            "those with the diagnosis could not be measured."
        )
    if truth is not None and cohort.outcomes and located < _FEW:
        found["few_lesions"] = (
            f"Only {located} patient(s) with the diagnosis have their lesion in the field that was read: the share of hits "
            f"is hardly determined."
        )
    if check.refused:
        found["refused_patients"] = f"{len(check.refused)} patient(s) could not be explained."
    return [{"code": code, "message": message} for code, message in found.items()]


def _table(check: Check, notice: str) -> list[list[str]]:
    """The rows of explain_check.csv, its header first."""
    names = [field.name for field in fields(MapFigures)]
    rows = [[*names, "notice"]]
    for subject in check.subjects:
        rows += [[*(_cell(getattr(row, name)) for name in names), notice] for row in subject.rows.values()]
    return rows


def _cell(value: object) -> str:
    """Empty where it could not be measured; truth values as 1 and 0; several numbers with blanks between them."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, tuple):
        return " ".join(map(repr, value))
    return repr(value) if isinstance(value, float) else text_cell(value)


def _print(content: Mapping[str, Any], arguments: argparse.Namespace, beside_bundle: Path | None) -> None:
    bundle, cohort = content["bundle"], content["cohort"]
    print(
        f"{bundle['name']} {bundle['version']} on {cohort['name']}: maps of {cohort['checked']} patients"
        + (f", {cohort['converters']} of them with the diagnosis" if cohort["converters"] is not None else "")
    )
    for key, method in content["methods"].items():
        print(f"{key}: {'; '.join(_sentences(method))}")
    for name, kind in (content["attention"] or {"kinds": {}})["kinds"].items():
        chance = content["attention"]["chance"]
        print(
            f"attention ({name}): correlation with the lesion's size {_figure(kind['correlation'], '+')}; most attention to "
            f"the exam with the largest lesion {_figure(kind['most_is_largest'])}, chance {chance:.3f}"
        )
    for entry in cohort["left_out"]:
        print(f"left out: {entry['patients']} patient(s), {entry['why']}")
    if cohort["converters_with_lesion_outside_field"]:
        count = cohort["converters_with_lesion_outside_field"]
        print(f"left out where lesions are looked for: {count} patient(s), lesion outside the field that was read")
    for entry in content["refused"]:
        print(f"{entry['patient_id']}: refused. {entry['message']}")
    for warning in content["warnings"]:
        print(f"warning: {warning['message']}")
    for path in (*(arguments.out / name for name in CHECK_FILES), *([beside_bundle] if beside_bundle else [])):
        print(path)
    print(NOTICE, file=sys.stderr)


def _sentences(method: Mapping[str, Any]) -> Iterator[str]:
    """What was found of one method."""
    found, random = method["localisation"], method["randomised"]
    if found is not None:
        yield (
            f"peak within {found['within_mm']:g} mm of the lesion in {found['hits']} of {found['patients']} "
            f"{_range(found['hit_rate'])}, in it in {found['inside']}, a random point of the liver {found['random']:.3f}"
        )
        yield f"evidence in the lesion {_number(found['energy_over_volume']['value'], '.1f')} times its share of the field"
    yield (
        f"correlation with randomised networks {_number(random['like_randomised']['value'], '+.3f')}, of the evidence's size "
        f"{_number(random['magnitude_randomised']['value'], '+.3f')}, with theirs on another patient "
        f"{_number(random['magnitude_other_patient']['value'], '+.3f')}"
    )
    if method["perturbation"] is not None:
        differences = [method["perturbation"][name]["difference"]["value"] for name in ("deletion", "insertion")]
        words = " and ".join(_number(value, "+.2f") for value in differences)
        yield f"deletion and insertion against random order {words} logits"
    if method["stability"] is not None:
        stable = method["stability"]
        yield (
            f"with noise correlation {_number(stable['correlation']['value'], '+.3f')}, peak moves "
            f"{_number(stable['median_peak_shift_mm'], '.1f')} mm"
        )
    yield f"cost {_number(method['cost']['measured'], '.1f')} × encoding"


def _figure(interval: Mapping[str, float | None], sign: str = "") -> str:
    return f"{_number(interval['value'], f'{sign}.3f')} {_range(interval)}"


def _range(interval: Mapping[str, float | None]) -> str:
    return f"(95% interval {_number(interval['low'], '.3f')} to {_number(interval['high'], '.3f')})"


def _number(value: float | None, form: str) -> str:
    return "not determined" if value is None else format(value, form)
