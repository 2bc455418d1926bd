"""Files per second and memory of reading a folder of many small DICOM files, beside a bare loop that reads their headers.

    python Testing/benchmarks/dicom_reading.py [--files N] [--repeats K]

The bare loop (pydicom's dcmread up to the pixels) is the floor: nobody who looks into every file is faster. Each is measured
in a process of its own, in turn, and the fastest of the repeats counts. POSIX only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "Testing" / "library")]

from dicom_files import PatientWriting, Writing, write_patient  # noqa: E402
from helpers import centred_affine, make_exam  # noqa: E402
from reading_trial import peak_bytes  # noqa: E402

from HCCNetLib.records import Patient  # noqa: E402

SHAPE = (24, 20, 25)
CHANNELS = (
    *("DWI_b0", "DWI_b150", "DWI_b400", "DWI_b800"),
    *("T1_native", "T1_arterial", "T1_venous", "T1_delayed", "T1_in", "T1_out", "T2_short", "T2_long"),
)
_REFUSED = "refused"
FILES_PER_EXAM = SHAPE[2] * (len(CHANNELS) + 1)  # and an ADC map


def main() -> None:
    """Prints a row for each way of reading, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000, help="about as many are written (default: 10000)")
    parser.add_argument("--repeats", type=int, default=3, help="of each measurement (default: 3)")
    parser.add_argument("--measure", choices=list(_READERS), help=argparse.SUPPRESS)
    parser.add_argument("folder", type=Path, nargs="?", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(_READERS[arguments.measure], arguments.folder)))
        return
    with tempfile.TemporaryDirectory() as name:
        count = write_files(Path(name), arguments.files)
        print(f"{count} files in {len(list(Path(name).rglob('SE*')))} series")
        # In turn: whatever else the machine does falls on both.
        runs = [(reader, run(reader, Path(name))) for _ in range(arguments.repeats) for reader in _READERS]
    print("\nreader       seconds  files/s  peak MB  found")
    fastest = {}
    for reader in _READERS:
        best = fastest[reader] = min(
            (result for r, result in runs if r == reader), key=lambda result: result["seconds"]
        )
        rate, memory = count / best["seconds"], best["peak"] / 1e6
        print(f"{reader:11s} {best['seconds']:8.2f} {rate:8.0f} {memory:8.0f}  {best['found']}")
    if fastest["read_input"]["found"].startswith(_REFUSED):
        sys.exit("read_input did not read the folder: there is nothing to compare")
    ratio = fastest["read_input"]["seconds"] / fastest["headers"]["seconds"]
    print(f"\nread_input takes {ratio:.2f} times as long as the bare loop")


def write_files(folder: Path, files: int) -> int:
    """Writes patients of two exams each until there are about as many files; returns their number."""
    exams = max(round(files / FILES_PER_EXAM), 1)
    affine = centred_affine(SHAPE, (15.0, 14.0, 10.0), np.diag([-1.0, -1.0, 1.0]))
    baseline, later = (make_exam(date, SHAPE, affine, CHANNELS) for date in ("2020-01-05", "2021-03-14"))
    how = PatientWriting(Writing(dialect="Siemens", shuffled=True), has_clutter=False)
    for number in range((exams + 1) // 2):
        visits = (baseline, later) if 2 * number + 1 < exams else (baseline,)
        write_patient(folder / f"PA{number:06d}", Patient(f"P{number}", visits), how)
    return sum(path.is_file() for path in folder.rglob("*"))


def run(reader: str, folder: Path) -> dict[str, Any]:
    """One measurement in a process of its own."""
    command = [sys.executable, __file__, "--measure", reader, str(folder)]
    result: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result


def measure(read: Callable[[Path], str], folder: Path) -> dict[str, Any]:
    """Seconds, peak memory in bytes, and what was found."""
    start = time.perf_counter()
    found = read(folder)
    return {"seconds": time.perf_counter() - start, "peak": peak_bytes(), "found": found}


def read_headers(folder: Path) -> str:
    """The bare loop."""
    from pydicom import dcmread

    series = {dcmread(p, stop_before_pixels=True).SeriesInstanceUID for p in folder.rglob("*") if p.is_file()}
    return f"{len(series)} series"


def read_all(folder: Path) -> str:
    """The library."""
    from HCCNetLib.readers import read_input
    from HCCNetLib.records import Refusal

    try:
        cohort = read_input(folder)
    except Refusal as refusal:
        return f"{_REFUSED}: {refusal.message}"
    exams = [exam for patient in cohort.patients for exam in patient.exams]
    images = sum(len(exam.images) for exam in exams)
    return f"{cohort.form}: {len(exams)} exams, {images} images, {len(cohort.refused)} patients refused"


_READERS = {"headers": read_headers, "read_input": read_all}


if __name__ == "__main__":
    main()
