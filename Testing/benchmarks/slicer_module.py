"""Seconds of the Slicer module without its window, in one run: helpers' import, request to result, cold and warm.

    python Testing/benchmarks/slicer_module.py [FOLDER] [--bundle DIR] [--runs 3]

FOLDER is a patient folder (default: the package's sample patient). A real scene (slicer-core), a real worker.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import slicer

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "HCCNet"))

from HCCNetSlicer.exam_table import ExamTable  # noqa: E402
from HCCNetSlicer.folders import load_folder  # noqa: E402
from HCCNetSlicer.prediction import Predictions, Settings  # noqa: E402
from HCCNetSlicer.worker_client import WorkerClient, default_command  # noqa: E402


def main() -> None:
    """Prints the seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "HCCNetLib" / "samples" / "RA01")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    print(f"import of all helpers, beyond slicer, vtk and numpy: {import_seconds():.2f} s")
    scene = slicer.vtkMRMLScene()
    logics = [slicer.vtkSlicerApplicationLogic(), slicer.vtkSlicerSegmentationsModuleLogic()]
    logics += [slicer.vtkSlicerMarkupsLogic(), slicer.vtkSlicerColorLogic()]
    for logic in logics:
        logic.SetMRMLScene(scene)
    slicer.mrmlScene = scene
    start = time.perf_counter()
    table = ExamTable(scene)
    table.fill_from_patient(load_folder(scene, arguments.folder).item)
    print(f"{len(table.rows)} exams into the scene: {time.perf_counter() - start:.2f} s; {os.cpu_count()} processors")
    predictions = Predictions(scene, WorkerClient(*default_command(ROOT)))
    for run in range(arguments.runs + 1):
        start = time.perf_counter()
        predictions.begin(table.exams(), Settings(bundle=arguments.bundle))
        sent = time.perf_counter() - start
        result = predictions.wait()
        whole = time.perf_counter() - start
        stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in result.prediction["seconds"].items())
        print(
            f"{'warm' if run else 'cold'}: {whole:.2f} s, of which out of the scene {sent:.2f}; in the worker: {stages}"
        )
    predictions.close()


def import_seconds() -> float:
    """Of a fresh process."""
    helpers = [f"HCCNetSlicer.{path.stem}" for path in (ROOT / "HCCNet" / "HCCNetSlicer").glob("[a-z]*.py")]
    code = (
        "import slicer, slicer.util, vtk, numpy, time; from vtk.util import numpy_support; start = time.perf_counter()\n"
        f"import {', '.join(helpers)}\nprint(time.perf_counter() - start)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "HCCNet", ROOT)))}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return float(run.stdout)


if __name__ == "__main__":
    main()
