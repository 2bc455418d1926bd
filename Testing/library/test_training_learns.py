"""That fine-tuning learns what is there to be learned, and nothing where there is nothing; the demonstration bundle."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_helpers import CHANNELS, tiny_config

from HCCNetLib.bundles import DEMONSTRATION_BUNDLE, Bundle
from HCCNetLib.evaluation.discrimination import auroc
from HCCNetLib.evaluation.follow_up import CENSORED, COMPETING, DIAGNOSED
from HCCNetLib.inference import Predictor
from HCCNetLib.inference.cache import Preparation
from HCCNetLib.readers import read_input
from HCCNetLib.synthetic.cohort import CohortPlan, synthesize
from HCCNetLib.synthetic.growth import GrowthModel
from HCCNetLib.synthetic.phantom import PhantomModel
from HCCNetLib.training.distributed import Workers
from HCCNetLib.training.ensemble import first_model
from HCCNetLib.training.examples import Example
from HCCNetLib.training.finetune import FinetuneTask, predict
from HCCNetLib.training.loop import Loop, LoopSettings, parameter_groups
from HCCNetLib.training.visits import VisitPlan

LARGEST_BUNDLE = 15e6
GROWTH = PhantomModel(disease=GrowthModel())  # what the demonstration learned from
DEMO_SEED = 18  # the Makefile's; neither training nor test


class PlantedImages:
    """In place of a cache: noise, and somewhat more of one channel in exams called ``bright`` (the second) or ``late``."""

    def __init__(self) -> None:
        config = tiny_config()
        self.preparation = Preparation(CHANNELS, config.preparation, margin=config.jitter, half=True)

    def data(self, key: str) -> np.ndarray:
        edge = self.preparation.config.crop_voxels + 2 * self.preparation.margin
        image = np.random.default_rng(sum(key.encode()) + 1000 * int(key.split()[1])).normal(size=(2, edge, edge, edge))
        image[1] += 0.5 * key.startswith("bright")
        image[0] += 0.5 * key.startswith("late")
        return image.astype(np.float16)


# What is seen in a patient's one exam → months until the end of follow-up and how it ends.
COURSES = {"bright": (3.0, DIAGNOSED), "late": (9.0, DIAGNOSED), "plain": (24.0, CENSORED)}


def planted(number: int, kinds: Sequence[str] = ("bright", "plain")) -> Example:
    kind = kinds[number % len(kinds)]
    followed, status = COURSES[kind]
    exams = (f"{kind} {number}",)
    return Example(f"P{number}", number, exams, (0.0,), (kind != "plain",), (None,), ("1",), followed, status)


def held_out_risks(
    training: list[Example],
    held_out: list[Example],
    folder: Path,
    horizons: Sequence[float] = (12,),
    steps: int = 60,
    learning_rate: float = 3e-3,
) -> np.ndarray:
    """Risks (N, horizons) of patients who were not trained on."""
    settings = {"steps": steps, "batch": 12, "warmup": 5, "learning_rate": 3e-2, "loss": "plain", "dropout": 0.1}
    config = tiny_config(**settings, horizons_months=list(horizons), drop_path=0.0)
    model = first_model(config, 0)
    task = FinetuneTask(config, VisitPlan(config, 0, training), (), PlantedImages(), model)  # type: ignore[arg-type]
    of_loop = LoopSettings(
        folder, "planted", config.steps, (learning_rate, 1e-6), (0.05, 0.05), warmup=5, clip_norm=3.0
    )
    groups = parameter_groups(dict(model.named_parameters()), lambda _: 1.0)
    Loop(task, groups, of_loop, Workers(0, 1, torch.device("cpu"))).run(lambda *_: None)
    return np.concatenate(predict(model, held_out, task))


def held_out_auroc(training: list[Example], held_out: list[Example], folder: Path) -> float:
    return auroc(np.array([e.label for e in held_out]), held_out_risks(training, held_out, folder)[:, 0])


def test_what_is_planted_is_learned_and_shuffled_labels_give_chance(tmp_path: Path) -> None:
    training, held_out = [planted(n) for n in range(60)], [planted(n) for n in range(60, 140)]
    assert held_out_auroc(training, held_out, tmp_path / "true") > 0.95
    outcomes = [(e.labels, e.followed, e.status) for e in training]
    random.Random(0).shuffle(outcomes)
    shuffled = [
        replace(e, labels=labels, followed=followed, status=status)
        for e, (labels, followed, status) in zip(training, outcomes, strict=True)
    ]
    agreement = np.mean([a.label == b.label for a, b in zip(training, shuffled, strict=True)])
    assert 0.4 < agreement < 0.6, "the shuffled labels still say something"
    # Of 40 and 40 patients an AUROC of no skill has an SD of 0.065.
    assert 0.3 < held_out_auroc(shuffled, held_out, tmp_path / "shuffled") < 0.7


def test_each_horizon_learns_which_patients_are_diagnosed_by_then(tmp_path: Path) -> None:
    """One sign goes with a diagnosis at 3 months, another with one at 9; deaths and censored patients are among both."""
    kinds = ("bright", "late", "plain")
    training, held_out = [planted(n, kinds) for n in range(90)], [planted(n, kinds) for n in range(90, 180)]
    training = [  # every fifth patient without a diagnosis leaves within the second interval, by death or otherwise
        replace(e, followed=8.0, status=(COMPETING, CENSORED)[n % 2], labels=(None,)) if n % 15 == 2 else e
        for n, e in enumerate(training)
    ]
    # At three times the rate the network collapses to one output for everybody with some seeds.
    risks = held_out_risks(training, held_out, tmp_path / "two", (6, 12), steps=120, learning_rate=1e-3)
    kind = np.array([e.exams[0].split()[0] for e in held_out])
    assert auroc(kind == "bright", risks[:, 0]) > 0.95
    assert auroc(kind != "plain", risks[:, 1]) > 0.95
    late = kind == "late"
    assert np.median(risks[late, 1]) > 0.5 > np.median(risks[late, 0])
    assert (risks[:, 1] >= risks[:, 0]).all()


@pytest.fixture(scope="module")
def demonstration_bundle() -> Bundle:
    return Bundle.open(DEMONSTRATION_BUNDLE)


def test_the_demonstration_bundle_is_ten_small_networks_that_say_what_they_are(demonstration_bundle: Bundle) -> None:
    description = demonstration_bundle.description
    assert len(description.members) == 10
    assert description.model.name == "mini"
    assert description.demonstration
    assert "phantom" in description.intended_use
    assert len(description.calibration) == len(description.horizons)
    assert description.training_data["exam_level_target"]["column"] == "lesion_log_ml"
    assert "seed 1" in description.training_data["summary"]
    assert sum(f.stat().st_size for f in DEMONSTRATION_BUNDLE.rglob("*") if f.is_file()) <= LARGEST_BUNDLE
    card = (DEMONSTRATION_BUNDLE / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "phantom" in card
    assert "lesion_log_ml" in card


def test_the_demonstration_tells_a_phantom_converter_from_one_who_stays_well(
    demonstration_bundle: Bundle, tmp_path: Path
) -> None:
    synthesize(tmp_path / "phantom", CohortPlan(2, DEMO_SEED, GROWTH))
    converter, stays_well = read_input(tmp_path / "phantom").patients
    predictor = Predictor(demonstration_bundle, "cpu")
    high, low = predictor.predict(converter), predictor.predict(stays_well)
    assert high.risk > 0.6 > 0.4 > low.risk
    assert high.phantom
    assert not high.has_no_meaning
    warning = next(w.message for w in high.warnings if w.code == "demonstration")
    assert "a generated patient (phantom), who does not exist" in warning


def test_a_patient_of_whom_one_image_is_not_generated_is_no_phantom(tmp_path: Path, samples: Path) -> None:
    synthesize(tmp_path / "phantom", CohortPlan(1, DEMO_SEED, GROWTH))
    patient = read_input(tmp_path / "phantom").patients[0]
    real = read_input(samples).patients[0]
    assert patient.is_phantom
    assert not real.is_phantom
    images = {**patient.exams[0].images, "DWI_b0": real.exams[0].images["DWI_b0"]}
    mixed = replace(patient, exams=(replace(patient.exams[0], images=images), *patient.exams[1:]))
    assert not mixed.is_phantom
