"""A bundle of seeded random weights: for tests of everything that does not depend on what was learned."""

from __future__ import annotations

from pathlib import Path

import torch

from HCCNetLib.bundles import Bundle, BundleDescription, write_bundle
from HCCNetLib.bundles.bundle import PLACEHOLDER_MEMBER
from HCCNetLib.models import HCCNet, ModelConfig
from HCCNetLib.preprocessing import PreprocessingConfig

CHANNELS = ("DWI_b0", "DWI_b150", "DWI_b400", "DWI_b800")
SEEDS = tuple(range(10))

_CARD = """# Random-weights demonstration ensemble

Ten `mini` networks whose weights are seeded random numbers. They have learned nothing from anybody's images.
They show that the software runs; their numbers have no meaning for any patient.

Research software, not a medical device.
"""


def write_random_bundle(path: Path) -> Bundle:
    """Writes the ten-member ``mini`` ensemble of seeded random weights into a new folder."""
    model = ModelConfig.variant("mini", len(CHANNELS), "v2")
    description = BundleDescription(
        name="random-weights-demonstration",
        version="1",
        licence="Apache-2.0",
        intended_use="It shows that the software runs; the weights are random numbers and have learned nothing.",
        demonstration=True,
        channels=CHANNELS,
        model=model,
        preprocessing=PreprocessingConfig(),
        time_unit="months",
        horizon_months=12,
        members=(PLACEHOLDER_MEMBER,),
        model_card_sha256="0" * 64,
        training_data={"summary": "none: random weights"},
    )
    members = [(_random_network(model, seed).state_dict(), seed) for seed in SEEDS]
    return write_bundle(path, description, members, _CARD)


def _random_network(model: ModelConfig, seed: int) -> HCCNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return HCCNet(model)
