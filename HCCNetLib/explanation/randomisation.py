"""Networks that have learned nothing, in place of a bundle's: what their maps share with the bundle's, learning did not make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from HCCNetLib.bundles import Bundle
from HCCNetLib.models import HCCNet, ModelConfig


@dataclass(frozen=True)
class RandomisedBundle(Bundle):
    """A bundle whose members' weights are drawn anew (Adebayo et al., arXiv 1810.03292).

    Args:
        draw: makes a network with first weights from torch's generator.
        seed: of all members together.
        keeps_backbone: only the transformer and the head are drawn; exams are encoded by the trained backbone.
    """

    draw: Callable[[ModelConfig], HCCNet]
    seed: tuple[int, ...]
    keeps_backbone: bool = False

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        draw: Callable[[ModelConfig], HCCNet],
        seed: tuple[int, ...],
        keeps_backbone: bool = False,
    ) -> RandomisedBundle:
        """The randomised one of a verified bundle."""
        return cls(bundle.path, bundle.description, bundle.sha256, draw, seed, keeps_backbone)

    def member(self, index: int) -> HCCNet:
        """One network with drawn weights, the same for one seed, in evaluation mode, on the CPU."""
        state = np.random.SeedSequence([*self.seed, index]).generate_state(1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(state[0]))
            model = self.draw(self.description.model)
        if self.keeps_backbone:
            model.backbone = super().member(index).backbone
        return model.eval().requires_grad_(False)
