"""How often a solid nodule can be seen in a phantom of surveillance, by size: a table, no pass or fail.

    python Testing/benchmarks/visibility.py [--patients N] [--seed N] [--channels NAME ...]

First and last exam of each patient. Seen: a matched filter stands out by 3 SDs in one channel at least.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from HCCNetLib.synthetic.phantom import DEFAULT_CHANNELS, PhantomModel, draw_phantom
from HCCNetLib.synthetic.rendering import render_exam
from HCCNetLib.synthetic.tissues import CHANNELS

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "library"))

from nodule_visibility import VISIBLE, visibility

SIZES = (4, 5, 7, 10, 15, 20, 30, 50)


def measure(model: PhantomModel, seed: int, index: int) -> Iterator[tuple[float, str, float]]:
    """Diameter, kind and visibility in the best channel of each nodule of a patient."""
    phantom = draw_phantom(model, seed, index)
    for exam in sorted({0, len(phantom.acquisitions) - 1}):
        rendered = render_exam(model, phantom, exam)
        for number, nodule in enumerate(phantom.nodules, 1):
            if (rendered.lesion == number).any():
                seen = visibility(phantom, exam, rendered, number).values()
                yield nodule.diameters[exam], nodule.kind, max(seen, default=np.nan)


def main() -> None:
    """Prints a row per range of sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--channels", nargs="+", choices=CHANNELS, default=list(DEFAULT_CHANNELS))
    arguments = parser.parse_args()
    model = PhantomModel(channels=tuple(arguments.channels))
    rows = [row for index in range(arguments.patients) for row in measure(model, arguments.seed, index)]
    sizes, values = (np.array([row[column] for row in rows]) for column in (0, 2))
    is_tumour = np.array([row[1] == "tumour" for row in rows])
    print("mm          nodules  seen  of tumours  of benign  median SDs")
    for low, high in (*pairwise(SIZES), (10, 50)):
        among = (sizes >= low) & (sizes < high) & ~np.isnan(values)
        shares = [share(values[among & part] > VISIBLE) for part in (among, is_tumour, ~is_tumour)]
        print(f"{low:2d} to {high:2d}  {among.sum():9d}  {shares[0]}  {shares[1]:>10}  {shares[2]:>9}", end="  ")
        print(f"{np.median(values[among]) if among.any() else np.nan:10.1f}")


def share(seen: np.ndarray) -> str:
    """As text; a dash for none."""
    return f"{seen.mean():4.2f}" if len(seen) else "   -"


if __name__ == "__main__":
    main()
