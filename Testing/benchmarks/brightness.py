"""What brightness alone gives away of the outcome in a phantom cohort: a table, no pass or fail.

    python Testing/benchmarks/brightness.py [--patients N] [--seed N] [--spacing MM] [--disease surveillance|growth]

Minutes: about a third of a second per exam.
"""

from __future__ import annotations

import argparse
import json

from HCCNetLib.synthetic.acquisition import AcquisitionModel
from HCCNetLib.synthetic.brightness import ask_about_brightness, measure_brightness
from HCCNetLib.synthetic.cohort import DISEASES
from HCCNetLib.synthetic.phantom import PhantomModel


def main() -> None:
    """Measures a cohort in memory and prints the table as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--spacing", type=float, default=5.0)
    parser.add_argument("--disease", choices=DISEASES, default="surveillance")
    arguments = parser.parse_args()
    acquisition = AcquisitionModel(spacing=arguments.spacing)
    model = PhantomModel(disease=DISEASES[arguments.disease](), acquisition=acquisition)
    measured = measure_brightness(model, arguments.seed, range(arguments.patients))
    print(json.dumps(ask_about_brightness(measured, model.disease.horizon), indent=1))


if __name__ == "__main__":
    main()
