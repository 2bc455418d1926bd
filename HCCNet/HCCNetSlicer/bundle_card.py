"""What a bundle says of itself, read without its networks; the worker verifies the rest before it uses any."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import HCCNetLib
from HCCNetLib.records import Refusal

DEMONSTRATION = Path(HCCNetLib.__file__).parent / "demonstration"


@dataclass(frozen=True)
class BundleCard:
    """What the window needs to know of a bundle before it is used.

    Args:
        path: its folder.
        sha256: of ``bundle.json``, the bundle's identity.
        name: of the bundle.
        version: of the bundle.
        intended_use: in words.
        channels: that it reads, in its order.
        missing_channels: whether it was trained with channels missing.
        horizon_months: the main horizon, within which the predicted diagnosis comes.
        horizons_months: all horizons, ascending.
        demonstration: whether results have no meaning for a patient.
        members: how many networks.
    """

    path: Path
    sha256: str
    name: str
    version: str
    intended_use: str
    channels: tuple[str, ...]
    missing_channels: bool
    horizon_months: float
    horizons_months: tuple[float, ...]
    demonstration: bool
    members: int


def read_card(path: Path | None = None) -> BundleCard:
    """Reads ``bundle.json`` of a bundle, or of the demonstration bundle.

    Raises:
        Refusal: there is none, or it is not one.
    """
    folder = DEMONSTRATION if path is None else Path(path)
    try:
        text = (folder / "bundle.json").read_bytes()
    except OSError as error:
        message = f"{folder.name} is no bundle: it holds no bundle.json that can be read. Choose a bundle's folder."
        raise Refusal("no_bundle", message) from error
    try:
        return _card_of(folder, text)
    except (ValueError, KeyError, TypeError) as error:
        message = f"{folder.name}/bundle.json is damaged or of another release. Get the bundle again."
        raise Refusal("bad_bundle", message) from error


def _card_of(folder: Path, text: bytes) -> BundleCard:
    content: dict[str, Any] = json.loads(text)
    channels = tuple(str(channel) for channel in content["channels"])
    main = float(content["horizon_months"])
    horizons = content.get("horizons_months", [main])  # format version 1 has one
    return BundleCard(
        path=folder,
        sha256=hashlib.sha256(text).hexdigest(),
        name=str(content["name"]),
        version=str(content["version"]),
        intended_use=str(content["intended_use"]),
        channels=channels,
        missing_channels=bool(content["missing_channels"]),
        horizon_months=main,
        horizons_months=tuple(float(horizon) for horizon in horizons),
        demonstration=bool(content["demonstration"]),
        members=len(content["members"]),
    )
