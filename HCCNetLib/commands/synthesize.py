"""``hccnet synthesize``: writes the phantom cohort."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from HCCNetLib.commands.arguments import whole_number
from HCCNetLib.commands.progress import Progress
from HCCNetLib.synthetic.acquisition import AcquisitionModel
from HCCNetLib.synthetic.cohort import CohortPlan, synthesize
from HCCNetLib.synthetic.disease import DiseaseModel
from HCCNetLib.synthetic.phantom import DEFAULT_CHANNELS, PhantomModel
from HCCNetLib.synthetic.tissues import CHANNELS

HELP = "write a phantom cohort: generated patients in whom growth per time decides"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    spacing, fraction = AcquisitionModel().spacing, DiseaseModel().malignant_fraction
    parser.epilog = (
        "Writes a cohort folder with outcomes.csv, the truth beside the patients (truth/) and a card (cohort.json). "
        "At 3 mm and with four channels a patient takes about 11 MB. An interrupted run goes on with the same command; "
        "more patients may be asked for later."
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder to write, new or to be continued"
    )
    parser.add_argument("--patients", type=whole_number(1), required=True, metavar="N", help="number of patients")
    parser.add_argument("--seed", type=whole_number(0), default=0, metavar="S", help="0 or more (default: 0)")
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
        default=fraction,
        metavar="P",
        help=f"chance of a patient to have a malignant lesion, 0 to 1 (default: {fraction:g})",
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
        help="put into the card how well a standard classifier does with true and with measured sizes and dates, on at "
        "least 2000 patients of this seed (needs scikit-learn)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Writes the cohort and prints what is in it."""
    model = PhantomModel(
        channels=tuple(arguments.channels),
        disease=DiseaseModel(malignant_fraction=arguments.malignant_fraction),
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
    for result in card.get("oracle", {}).get("results", []):
        aurocs = ", ".join(
            f"{view} {a['value']:.3f} ({a['low']:.3f}–{a['high']:.3f})" for view, a in result["auroc"].items()
        )
        print(f"Oracle, AUROC (95% interval), size error {result['size_error_doublings']:g} doublings: {aurocs}")
    return 0
