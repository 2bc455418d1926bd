"""Exams per second of ``hccnet synthesize``: rows of figures of one run, no pass or fail.

    python Testing/benchmarks/synthesize_speed.py [--patients N] [--spacing MM] [--processes N ...] [--diseases NAME ...]

Other work on the machine counts; the processor seconds per exam depend on it less than the wall clock.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

from HCCNetLib.synthetic.acquisition import AcquisitionModel
from HCCNetLib.synthetic.cohort import DISEASES, CohortPlan, synthesize
from HCCNetLib.synthetic.phantom import PhantomModel


def processor_seconds() -> float:
    """User and system time of this process and the children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    """Writes one cohort per number of processes into a temporary folder and prints a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=60)
    parser.add_argument("--spacing", type=float, default=3.0)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--diseases", choices=DISEASES, nargs="+", default=list(DISEASES))
    arguments = parser.parse_args()
    print("disease       processes  exams  seconds  exams/s  processor seconds/exam  MB/exam")
    for disease in arguments.diseases:
        model = PhantomModel(disease=DISEASES[disease](), acquisition=AcquisitionModel(spacing=arguments.spacing))
        plan = CohortPlan(arguments.patients, 0, model)
        for processes in arguments.processes:
            print(f"{disease:12s}  {measure(plan, processes)}", flush=True)


def measure(plan: CohortPlan, processes: int) -> str:
    """A row of figures of one cohort."""
    with tempfile.TemporaryDirectory() as folder:
        start, used = time.perf_counter(), processor_seconds()
        exams = synthesize(Path(folder) / "cohort", plan, processes=processes)["counts"]["exams"]
        seconds, used = time.perf_counter() - start, processor_seconds() - used
        megabytes = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file()) / 1e6
    return (
        f"{processes:9d}  {exams:5d}  {seconds:7.1f}  {exams / seconds:7.2f}  {used / exams:22.3f}"
        f"  {megabytes / exams:7.2f}"
    )


if __name__ == "__main__":
    main()
