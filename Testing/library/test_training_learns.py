"""That fine-tuning learns what is there to be learned, and nothing where there is nothing; the demonstration bundle."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_helpers import CHANNELS, tiny_config

from HCCNetLib.bundles import DEMONSTRATION_BUNDLE, Bundle
from HCCNetLib.evaluation.discrimination import auroc
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
    """In place of a cache: noise, and in the second channel of exams called ``bright`` somewhat more of it."""

    def __init__(self) -> None:
        config = tiny_config()
        self.preparation = Preparation(CHANNELS, config.preparation, margin=config.jitter, half=True)

    def data(self, key: str) -> np.ndarray:
        edge = self.preparation.config.crop_voxels + 2 * self.preparation.margin
        image = np.random.default_rng(sum(key.encode()) + 1000 * int(key.split()[1])).normal(size=(2, edge, edge, edge))
        image[1] += 0.5 * key.startswith("bright")
        return image.astype(np.float16)


def planted(number: int) -> Example:
    bright = number % 2 == 0
    return Example(f"P{number}", number, (f"{'bright' if bright else 'plain'} {number}",), (0.0,), (bright,), (None,))


def held_out_auroc(training: list[Example], held_out: list[Example], folder: Path) -> float:
    config = tiny_config(steps=60, batch=12, warmup=5, learning_rate=3e-2, loss="plain", dropout=0.1, drop_path=0.0)
    model = first_model(config, 0)
    task = FinetuneTask(config, VisitPlan(config, 0, training), (), PlantedImages(), model)  # type: ignore[arg-type]
    settings = LoopSettings(folder, "planted", config.steps, (3e-3, 1e-6), (0.05, 0.05), warmup=5, clip_norm=3.0)
    groups = parameter_groups(dict(model.named_parameters()), lambda _: 1.0)
    Loop(task, groups, settings, Workers(0, 1, torch.device("cpu"))).run(lambda *_: None)
    return auroc(np.array([e.label for e in held_out]), predict(model, held_out, task))


def test_what_is_planted_is_learned_and_shuffled_labels_give_chance(tmp_path: Path) -> None:
    training, held_out = [planted(n) for n in range(60)], [planted(n) for n in range(60, 140)]
    assert held_out_auroc(training, held_out, tmp_path / "true") > 0.95
    labels = [e.labels for e in training]
    random.Random(0).shuffle(labels)
    shuffled = [replace(e, labels=label) for e, label in zip(training, labels, strict=True)]
    agreement = np.mean([a.label == b.label for a, b in zip(training, shuffled, strict=True)])
    assert 0.4 < agreement < 0.6, "the shuffled labels still say something"
    # Of 40 and 40 patients an AUROC of no skill has an SD of 0.065.
    assert 0.3 < held_out_auroc(shuffled, held_out, tmp_path / "shuffled") < 0.7


@pytest.fixture(scope="module")
def demonstration_bundle() -> Bundle:
    return Bundle.open(DEMONSTRATION_BUNDLE)


def test_the_demonstration_bundle_is_ten_small_networks_that_say_what_they_are(demonstration_bundle: Bundle) -> None:
    description = demonstration_bundle.description
    assert len(description.members) == 10
    assert description.model.name == "mini"
    assert description.demonstration
    assert "phantom" in description.intended_use
    assert description.calibration is not None
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
