"""The published code's state-dict names → ours. Facts of the names only; see paper-facts in the architecture notes."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from HCCNetLib.models.hccnet import ModelConfig
from HCCNetLib.records import Refusal

# Wrappers that training may have left in front of every name.
_PREFIXES = ("module.", "_orig_mod.")

_RULES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"backbone\.downsample_layers\.(\d)\.(\d)\.(\w+)", r"backbone.stages.\1.downsample.\2.\3"),
        (r"backbone\.stages\.(\d)\.(\d+)\.dwconv\.(\w+)", r"backbone.stages.\1.blocks.\2.conv_dw.\3"),
        (r"backbone\.stages\.(\d)\.(\d+)\.norm\.(\w+)", r"backbone.stages.\1.blocks.\2.norm.\3"),
        (r"backbone\.stages\.(\d)\.(\d+)\.pwconv([12])\.(\w+)", r"backbone.stages.\1.blocks.\2.fc\3.\4"),
        (r"backbone\.stages\.(\d)\.(\d+)\.grn\.(\w+)", r"backbone.stages.\1.blocks.\2.grn.\3"),
        (r"backbone\.stages\.(\d)\.(\d+)\.gamma", r"backbone.stages.\1.blocks.\2.gamma"),
        (r"backbone\.norm\.(\w+)", r"backbone.norm.\1"),
        (r"cls_token", r"cls_token"),
        (r"transformer_encoder\.layers\.(\d+)\.self_attn\.in_proj_(\w+)", r"encoder.layers.\1.qkv.\2"),
        (r"transformer_encoder\.layers\.(\d+)\.self_attn\.out_proj\.(\w+)", r"encoder.layers.\1.proj.\2"),
        (r"transformer_encoder\.layers\.(\d+)\.linear([12])\.(\w+)", r"encoder.layers.\1.fc\2.\3"),
        (r"transformer_encoder\.layers\.(\d+)\.norm([12])\.(\w+)", r"encoder.layers.\1.norm\2.\3"),
        (r"pooler\.linear\.(\w+)", r"pooler.\1"),
        (r"head\.norm\.(\w+)", r"head_norm.\1"),
        (r"head\.head\.(\w+)", r"head.\1"),
    )
)
# A table that can be computed again, not a weight.
_DROPPED = re.compile(r"positional_encoding\.pe")


def convert_state_dict(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames a published state dict to ours.

    Raises:
        Refusal: a name that the published classifier does not have.
    """
    converted: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in published.items():
        bare = _strip(name)
        new_name = next((p.sub(r, bare) for p, r in _RULES if p.fullmatch(bare)), None)
        if new_name is not None and new_name in converted:
            raise Refusal("foreign_checkpoint", f"The checkpoint holds {bare} twice. Save its state dict alone.")
        if new_name is not None:
            flat = new_name == "cls_token" or ".grn." in new_name
            converted[new_name] = tensor.flatten() if flat else tensor
        elif not _DROPPED.fullmatch(bare):
            unknown.append(name)
    if unknown or not converted:
        named = ", ".join(sorted(unknown)[:5]) or "no weights at all"
        message = f"The checkpoint is not one of the published classifier's: it holds {named}."
        raise Refusal("foreign_checkpoint", message)
    return converted


def _strip(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def infer_config(converted: Mapping[str, Tensor], eps: float) -> ModelConfig:
    """Reads depths, widths, layers, channels and block version off a converted state dict.

    Raises:
        Refusal: parts of the network are missing.
    """
    try:
        stems = [converted[f"backbone.stages.{i}.downsample.{0 if i == 0 else 1}.weight"] for i in range(4)]
        depths = [_count(converted, rf"backbone\.stages\.{i}\.blocks\.(\d+)\.") for i in range(4)]
        return ModelConfig(
            channels=int(stems[0].shape[1]),
            depths=(depths[0], depths[1], depths[2], depths[3]),
            dims=(len(stems[0]), len(stems[1]), len(stems[2]), len(stems[3])),
            layers=_count(converted, r"encoder\.layers\.(\d+)\."),
            version="v2" if "backbone.stages.0.blocks.0.grn.gamma" in converted else "v1",
            eps=eps,
        )
    except (KeyError, ValueError, IndexError) as error:
        message = "The checkpoint lacks parts of the published network (backbone, transformer or head)."
        raise Refusal("incomplete_checkpoint", message) from error


def _count(names: Mapping[str, Tensor], pattern: str) -> int:
    return 1 + max((int(m.group(1)) for name in names if (m := re.match(pattern, name))), default=-1)


def all_finite(tensors: Mapping[str, Tensor]) -> bool:
    """Whether no weight is NaN or infinite."""
    return all(bool(torch.isfinite(t).all()) for t in tensors.values())
