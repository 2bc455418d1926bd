"""The published code's checkpoints → a bundle. Tensors only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from HCCNetLib.bundles.bundle import PLACEHOLDER_MEMBER, Bundle, write_bundle
from HCCNetLib.bundles.description import BundleDescription, TimeUnit
from HCCNetLib.models import HCCNet
from HCCNetLib.models.published import all_finite, convert_state_dict, infer_config
from HCCNetLib.preprocessing import PreprocessingConfig
from HCCNetLib.records import Refusal

# Before 2.6, torch.load could be made to execute code even with weights_only=True (CVE-2025-32434).
_SAFE_TORCH = (2, 6)

# The published code takes the statistics over the whole box around the body.
PUBLISHED_PREPROCESSING = PreprocessingConfig(statistics="body_box")


@dataclass(frozen=True)
class ConversionOptions:
    """What a checkpoint does not say and the user must.

    Args:
        name: of the bundle.
        channels: in the order in which the network was trained.
        time_unit: of the exam times that the network was trained with.
        horizon_months: of the predicted diagnosis.
        licence: of the weights.
        eps: of the LayerNorms.
        preprocessing: how the network's exams were prepared.
    """

    name: str
    channels: tuple[str, ...]
    time_unit: TimeUnit
    horizon_months: float = 12.0
    licence: str = "unknown"
    eps: float = 1e-6
    preprocessing: PreprocessingConfig = PUBLISHED_PREPROCESSING


def convert_checkpoints(checkpoints: Sequence[Path], out: Path, options: ConversionOptions) -> Bundle:
    """Makes a bundle of one or more published checkpoints (.pth, .pt or .safetensors), one member each.

    Weights are stored in single precision, calibration is none.

    Raises:
        Refusal: a checkpoint that is not the published classifier's, checkpoints that differ in shape, ``out`` exists.
    """
    converted = [_convert_one(path) for path in checkpoints]
    _refuse_copies(checkpoints, converted)
    configs = [infer_config(tensors, options.eps) for tensors in converted]
    if any(config != configs[0] for config in configs):
        raise Refusal("mixed_checkpoints", "The checkpoints are not of one network: depths, widths or channels differ.")
    for path, tensors in zip(checkpoints, converted, strict=True):
        _refuse_misfit(path, tensors, HCCNet(configs[0]))
    if configs[0].channels != len(options.channels):
        message = (
            f"The network reads {configs[0].channels} channels; {len(options.channels)} are named with --channels."
        )
        raise Refusal("wrong_channels", message)
    description = BundleDescription(
        name=options.name,
        version="1",
        licence=options.licence,
        intended_use="Research with the published network. Not for clinical use.",
        demonstration=False,
        channels=options.channels,
        model=configs[0],
        preprocessing=options.preprocessing,
        time_unit=options.time_unit,
        horizon_months=options.horizon_months,
        members=(PLACEHOLDER_MEMBER,),
        model_card_sha256="0" * 64,
        training_data={"summary": "unknown: converted from checkpoints of the published code"},
    )
    members: list[tuple[dict[str, Tensor], int | None]] = [(tensors, None) for tensors in converted]
    return write_bundle(out, description, members, _card(options), precision=torch.float32)


def _convert_one(path: Path) -> dict[str, Tensor]:
    tensors = convert_state_dict(_read_tensors(path))
    if not all_finite(tensors):
        raise Refusal("bad_checkpoint", f"{path.name} holds weights that are not finite.")
    return tensors


def _refuse_copies(paths: Sequence[Path], converted: Sequence[dict[str, Tensor]]) -> None:
    """One network twice is no ensemble of two, and its spread would be too small."""
    for i, one in enumerate(converted):
        for j, other in enumerate(converted[:i]):
            if one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one):
                message = f"{paths[i].name} and {paths[j].name} hold the same weights. Name each checkpoint once."
                raise Refusal("same_checkpoint", message)


def _refuse_misfit(path: Path, tensors: dict[str, Tensor], model: HCCNet) -> None:
    try:
        model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=True)
    except RuntimeError as error:
        message = f"{path.name} does not hold all weights of the published classifier, or they have other shapes."
        raise Refusal("incomplete_checkpoint", message) from error


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise Refusal("missing_file", f"The checkpoint {path} does not exist.")
    if path.suffix == ".safetensors":
        try:
            return _tensors_of(safetensors.torch.load_file(path), path)
        except (SafetensorError, OSError) as error:
            raise Refusal("bad_checkpoint", f"{path.name} is not a readable safetensors file.") from error
    return _tensors_of(_load_weights_only(path), path)


def _load_weights_only(path: Path) -> Any:
    if tuple(int(n) for n in torch.__version__.split(".")[:2]) < _SAFE_TORCH:
        message = f"Reading {path.name} safely needs torch 2.6 or newer; this is {torch.__version__}."
        raise Refusal("old_torch", message)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        message = (
            f"{path.name} can't be read as plain tensors. It may be damaged, or hold objects, which are never loaded; save "
            f"its state dict alone."
        )
        raise Refusal("bad_checkpoint", message) from error


def _tensors_of(loaded: Any, path: Path) -> dict[str, Tensor]:
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not loaded:
        raise Refusal("bad_checkpoint", f"{path.name} holds no state dict of tensors.")
    for name, tensor in loaded.items():
        dense = isinstance(name, str) and isinstance(tensor, Tensor) and tensor.layout == torch.strided
        if not dense or not tensor.is_floating_point() or tensor.is_meta:
            message = (
                f"{path.name} holds {name!s}, which is no dense tensor of real numbers. Save its state dict alone."
            )
            raise Refusal("bad_checkpoint", message)
    return loaded


def _card(options: ConversionOptions) -> str:
    return (
        f"# {options.name}\n\nConverted from checkpoints of the published code (arXiv 2501.10733). Channels: "
        f"{', '.join(options.channels)}; exam times in {options.time_unit} before the landmark; not calibrated.\n\n"
        "Research software, not a medical device.\n"
    )
