"""The networks' first weights."""

from __future__ import annotations

import math

from torch import nn

from HCCNetLib.models.convnext3d import Block, ConvNeXt3d

_GAIN = 0.5
_STEM_BIAS = 0.5
_LAYER_SCALE = 0.3


def scale_weights(backbone: ConvNeXt3d) -> None:
    """Draws a backbone's weights with SD 0.5/√(inputs), biases of the stem with SD 0.5, and sets layer scales to 0.3.

    With the published start (SD 0.02, no bias, layer scale 1e-6) the norm behind the stem leaves nothing of how bright a
    cell is, only of its colour over the channels, and a few hundred steps do not suffice to get it back. With a bias in
    the stem brightness survives the norm.
    """
    for module in backbone.modules():
        if isinstance(module, (nn.Conv3d, nn.Linear)):
            nn.init.trunc_normal_(module.weight, std=_GAIN / math.sqrt(module.weight[0].numel()))
        if isinstance(module, Block) and module.gamma is not None:
            nn.init.constant_(module.gamma, _LAYER_SCALE)
    stem = backbone.stem
    assert stem.bias is not None
    nn.init.trunc_normal_(stem.bias, std=_STEM_BIAS)
