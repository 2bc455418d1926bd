"""A bundle of seeded random weights: for tests of everything that does not depend on what was learned."""

from __future__ import annotations

from dataclasses import replace
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


def write_random_bundle(
    path: Path,
    model: ModelConfig | None = None,
    channels: tuple[str, ...] = CHANNELS,
    preprocessing: PreprocessingConfig | None = None,
    horizons: tuple[float, ...] = (12.0,),
) -> Bundle:
    """Writes a ten-member ensemble of seeded random weights, ``mini`` where nothing is said, into a new folder.

    The main horizon is 12 months.
    """
    model = replace(model or ModelConfig.variant("mini", len(channels), "v2"), outputs=len(horizons))
    description = BundleDescription(
        name="random-weights-demonstration",
        version="1",
        licence="Apache-2.0",
        intended_use="It shows that the software runs; the weights are random numbers and have learned nothing.",
        demonstration=True,
        channels=channels,
        model=model,
        preprocessing=preprocessing or PreprocessingConfig(),
        time_unit="months",
        horizon_months=12,
        horizons=horizons,
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
