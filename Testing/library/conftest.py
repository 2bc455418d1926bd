"""Fixtures of the library's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from random_bundle import write_random_bundle
from training_helpers import CHANNELS, SETTINGS, examples_of, tiny_config, write_yaml

from HCCNetLib.bundles import Bundle
from HCCNetLib.readers import read_input
from HCCNetLib.records import Patient
from HCCNetLib.synthetic.acquisition import AcquisitionModel
from HCCNetLib.synthetic.cohort import CohortPlan, synthesize
from HCCNetLib.synthetic.growth import GrowthModel
from HCCNetLib.synthetic.phantom import PhantomModel
from HCCNetLib.training import ensemble

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def samples() -> Path:
    """The package's sample cohort: real anatomy, four exams."""
    return ROOT / "HCCNetLib" / "samples"


@pytest.fixture(scope="session")
def sample_patient(samples: Path) -> Patient:
    return read_input(samples).patients[0]


@pytest.fixture(scope="session")
def test_data() -> Path:
    return ROOT / "Testing" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images that are not part of the repository."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the folder shared/data with more real images does not stand beside this checkout")
    return folder


@pytest.fixture(scope="session")
def demonstration(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The ten-member demonstration bundle."""
    return write_random_bundle(tmp_path_factory.mktemp("bundles") / "demonstration")


@pytest.fixture(scope="session")
def tiny_phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten coarse phantom patients of two channels, one of which dies; tests must not change them."""
    folder = tmp_path_factory.mktemp("tiny") / "cohort"
    model = PhantomModel(disease=GrowthModel(), channels=CHANNELS, acquisition=AcquisitionModel(spacing=6.0))
    synthesize(folder, CohortPlan(10, 20, model))
    outcomes = folder / "outcomes.csv"
    rows = outcomes.read_text(encoding="utf-8")
    # Seven months after the last exam.
    survives, dies = "PH00005,,2020-10-14,,\n", "PH00005,,2020-04-12,death,2020-04-12\n"
    assert survives in rows
    outcomes.write_text(rows.replace(survives, dies), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_cache(tiny_phantom: Path) -> Path:
    """A folder in which the phantom's exams are prepared as ``training_helpers.tiny_config`` asks."""
    folder = tiny_phantom.parent / "prepared"
    examples_of(tiny_phantom, folder, tiny_config())
    return folder


@pytest.fixture(scope="module")
def calibration() -> Iterator[None]:
    """Four steps on eight patients teach nothing, so that by chance there may be nothing to calibrate with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ensemble, "fit_recalibration", lambda *_: (1.0, 0.25))
        yield


@pytest.fixture
def settings(tiny_phantom: Path, tiny_cache: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Writes a configuration of the supervised stage with changes; returns the words of the command."""

    def write(name: str = "run", **changes: Any) -> list[str]:
        where = {"cohort": str(tiny_phantom), "cache": str(tiny_cache), "out": str(tmp_path / name)}
        file = write_yaml(tmp_path / f"{name}.yaml", {**SETTINGS, **where, **changes})
        return ["finetune", "--config", str(file)]

    return write
