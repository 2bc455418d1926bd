"""Seconds per stage of a prediction, of each way of explaining it, and of preparing exams step by step, in one run.

    python Testing/benchmarks/prediction.py [INPUT] [--variant pico] [--members 10] [--methods class-activation-1 ...]

INPUT is a patient folder (default: the package's sample patient). Weights are random: their values cost no time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "Testing" / "library"))

from random_bundle import write_random_bundle  # noqa: E402
from step_by_step import prepare_step_by_step  # noqa: E402

from HCCNetLib.bundles import Bundle, write_bundle  # noqa: E402
from HCCNetLib.explanation import DEFAULT_METHOD, METHODS, ChangeEvidence, EnsembleEvidence, exam_maps, make_explainer  # noqa: E402
from HCCNetLib.inference import Predictor  # noqa: E402
from HCCNetLib.models import HCCNet, ModelConfig  # noqa: E402
from HCCNetLib.preprocessing import prepare_exam  # noqa: E402
from HCCNetLib.readers import read_input  # noqa: E402
from HCCNetLib.records import Patient  # noqa: E402


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, nargs="?", default=ROOT / "HCCNetLib" / "samples" / "RA01")
    parser.add_argument("--variant", default="pico")
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), default=list(METHODS))
    arguments = parser.parse_args()
    patient = read_input(arguments.input).patients[0]
    with tempfile.TemporaryDirectory() as folder:
        bundle = random_bundle(Path(folder), arguments.variant, arguments.members)
        print(
            f"{len(patient.exams)} exams, {arguments.members} {arguments.variant} members, {torch.get_num_threads()} threads"
        )
        compare_preparation(patient, bundle)
        time_prediction(patient, bundle)
        time_methods(patient, bundle, arguments.methods)


def random_bundle(folder: Path, variant: str, members: int) -> Bundle:
    """An ensemble of random weights."""
    description = write_random_bundle(folder / "demonstration").description
    config = ModelConfig.variant(variant, len(description.channels))
    states = [(HCCNet(config).state_dict(), seed) for seed in range(members)]
    return write_bundle(folder / "bundle", replace(description, model=config), states, "random weights")


def compare_preparation(patient: Patient, bundle: Bundle) -> None:
    """Both orders on the same exams: seconds, their ratio, and how far apart the results are."""
    channels, config = bundle.description.channels, bundle.description.preprocessing
    print("\nexam        one interpolation  step by step  ratio   |difference| inside the body, SD: median 95% 99% max")
    for exam in patient.exams:
        fast, prepared = timed(lambda exam=exam: prepare_exam(exam, channels, config))
        slow, reference = timed(lambda exam=exam: prepare_step_by_step(exam, channels, config))
        difference = np.abs(prepared.data - reference.data)[:, reference.body > 0.5]
        figures = " ".join(f"{v:.6f}" for v in (*np.percentile(difference, (50, 95, 99)), difference.max()))
        print(f"{exam.exam_id}  {fast:15.2f} s  {slow:10.2f} s  {slow / fast:5.1f}   {figures}")


def timed(action: Callable[[], object]) -> tuple[float, object]:
    """Seconds of the faster of two runs, and the result."""
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        result = action()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def time_prediction(patient: Patient, bundle: Bundle) -> None:
    """Seconds per stage of one prediction with maps."""
    predictor = Predictor(bundle, "cpu")
    start = time.perf_counter()
    prepared = predictor.prepare(patient)
    stages = {"read and prepare": time.perf_counter() - start}
    evidence, change = EnsembleEvidence(make_explainer(DEFAULT_METHOD)), ChangeEvidence()
    stages.update(predictor.predict_prepared(patient, prepared, [evidence, change]).seconds)
    start = time.perf_counter()
    exam_maps(evidence.result(), prepared)
    change.maps(prepared)
    stages["map"] = time.perf_counter() - start
    print("\nstage              seconds")
    for stage, seconds in [*stages.items(), ("sum", sum(stages.values()))]:
        print(f"{stage:18s} {seconds:7.2f}")


def time_methods(patient: Patient, bundle: Bundle, methods: list[str]) -> None:
    """Each method's seconds as a multiple of encoding the same exams, beside what it says it costs."""
    predictor = Predictor(bundle, "cpu")
    prepared = predictor.prepare(patient)
    predictor.predict_prepared(patient, prepared)  # loads the members
    print("\nmethod                 explaining  encoding  measured ratio  forward passes by its own account")
    for key in methods:
        evidence = EnsembleEvidence(make_explainer(key))
        seconds = predictor.predict_prepared(patient, prepared, [evidence]).seconds
        ratio, passes = seconds["explain"] / seconds["encode"], evidence.explainer.passes(bundle.description.model)
        print(f"{key:21s} {seconds['explain']:9.2f} s {seconds['encode']:7.2f} s  {ratio:14.1f}  {passes:.1f}")


if __name__ == "__main__":
    main()
