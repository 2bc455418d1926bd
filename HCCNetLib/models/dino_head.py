"""The projection head of DINO (Caron et al., arXiv 2104.14294, section 3.1 and appendix)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from HCCNetLib.models.convnext3d import init_weights


class DinoHead(nn.Module):
    """Three linear layers, L2 normalisation, and a last layer whose rows have length 1.

    Args:
        dim: features D of the backbone.
        outputs: K.
        hidden: width of the two hidden layers; None: 4D, as published.
        bottleneck: width in front of the last layer; None: D/2, as published.
    """

    def __init__(self, dim: int, outputs: int, hidden: int | None = None, bottleneck: int | None = None) -> None:
        super().__init__()
        hidden, bottleneck = hidden or 4 * dim, bottleneck or dim // 2
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        self.apply(init_weights)
        self.last_layer = weight_norm(nn.Linear(bottleneck, outputs, bias=False))
        length = self.last_layer.parametrizations.weight.original0
        nn.init.ones_(length)
        length.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) → (N, K)."""
        result: Tensor = self.last_layer(functional.normalize(self.mlp(x), dim=-1))
        return result
