"""``hccnet synthesize``: writes the phantom cohort."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

from HCCNetLib.commands.arguments import whole_number
from HCCNetLib.commands.progress import Progress
from HCCNetLib.synthetic.acquisition import AcquisitionModel
from HCCNetLib.synthetic.cohort import DISEASES, CohortPlan, synthesize
from HCCNetLib.synthetic.growth import GrowthModel
from HCCNetLib.synthetic.phantom import DEFAULT_CHANNELS, PhantomModel
from HCCNetLib.synthetic.surveillance import SurveillanceModel
from HCCNetLib.synthetic.tissues import CHANNELS

HELP = "write a phantom cohort: generated patients with known lesions, outcomes and true risk"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    spacing, fraction = AcquisitionModel().spacing, GrowthModel().malignant_fraction
    parser.epilog = (
        "Writes a cohort folder with outcomes.csv, the truth beside the patients (truth/) and a card (cohort.json). "
        "At 3 mm and with four channels an exam takes about 4 MB. An interrupted run goes on with the same command; more "
        "patients may be asked for later."
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder to write, new or to be continued"
    )
    parser.add_argument("--patients", type=whole_number(1), required=True, metavar="N", help="number of patients")
    parser.add_argument("--seed", type=whole_number(0), default=0, metavar="S", help="0 or more (default: 0)")
    parser.add_argument(
        "--disease",
        choices=DISEASES,
        default="surveillance",
        help="surveillance: tumours begin at a constant rate among benign nodules, exams are irregular, patients leave the "
        "follow-up or die; growth: one lesion each, and growth before the last exam decides (default: surveillance)",
    )
    parser.add_argument(
        "--spacing", type=float, default=spacing, metavar="MM", help=f"nominal voxel size, mm (default: {spacing:g})"
    )
    parser.add_argument(
        "--channels",
        nargs="+",
        choices=CHANNELS,
        default=list(DEFAULT_CHANNELS),
        metavar="CHANNEL",
        help=f"any of {', '.join(CHANNELS)} (default: {' '.join(DEFAULT_CHANNELS)})",
    )
    parser.add_argument(
        "--malignant-fraction",
        type=float,
        metavar="P",
        help=f"of growth: chance of a patient to have a malignant lesion, 0 to 1 (default: {fraction:g})",
    )
    parser.add_argument(
        "--processes",
        type=whole_number(1),
        default=os.cpu_count() or 1,
        metavar="N",
        help="patients in work at once; the files do not depend on it (default: one per core)",
    )
    parser.add_argument(
        "--oracle",
        action="store_true",
        help="put into the card how well standard methods do with sizes and dates, on at least 5000 (growth: 2000) patients "
        "of this seed, and, of surveillance, with brightness alone on 400 (needs scikit-learn; a quarter of an hour)",
    )
    parser.set_defaults(wrong_usage=parser.error)


def run(arguments: argparse.Namespace) -> int:
    """Writes the cohort and prints what is in it."""
    disease: GrowthModel | SurveillanceModel = DISEASES[arguments.disease]()
    if arguments.malignant_fraction is not None:
        if not isinstance(disease, GrowthModel):
            arguments.wrong_usage("--malignant-fraction goes with --disease growth")
        disease = GrowthModel(malignant_fraction=arguments.malignant_fraction)
    model = PhantomModel(
        channels=tuple(arguments.channels),
        disease=disease,
        acquisition=AcquisitionModel(spacing=arguments.spacing),
    )
    plan = CohortPlan(arguments.patients, arguments.seed, model)
    progress = Progress()
    try:
        card = synthesize(arguments.out, plan, arguments.oracle, arguments.processes, progress)
    finally:
        progress.close()
    counts = card["counts"]
    latest = counts["latest_landmarks"]
    print(
        f"{arguments.out}: {counts['patients']} patients, {counts['exams']} exams; latest exam as landmark: "
        f"{latest['positive']} positive, {latest['negative']} negative, {latest['unlabelled']} without label (censored)."
    )
    oracle = card.get("oracle", {})
    for result in [*oracle.get("results", []), *oracle.get("brightness", {}).get("results", [])]:
        aurocs = ", ".join(f"{name} {_interval(auroc)}" for name, auroc in result["auroc"].items())
        what = (
            f"{result['method']}, {result['view']}, {result['horizon']:g} months; landmark"
            if "method" in result
            else f"size error {result['size_error_doublings']:g} doublings;"
        )
        print(f"Oracle, AUROC (95% interval), {what} {aurocs}")
    return 0


def _interval(auroc: Mapping[str, float | None]) -> str:
    value, low, high = ("–" if auroc[name] is None else f"{auroc[name]:.3f}" for name in ("value", "low", "high"))
    return f"{value} ({low}–{high})"
