"""Fixtures of the library's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from random_bundle import write_random_bundle

from HCCNetLib.bundles import Bundle
from HCCNetLib.readers import read_input
from HCCNetLib.records import Patient

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
