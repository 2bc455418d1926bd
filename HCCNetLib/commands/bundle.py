"""``hccnet bundle verify | show | convert``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from HCCNetLib.bundles import Bundle
from HCCNetLib.bundles.convert import PUBLISHED_PREPROCESSING, ConversionOptions, convert_checkpoints
from HCCNetLib.bundles.description import DAYS_PER_UNIT
from HCCNetLib.preprocessing import PreprocessingConfig
from HCCNetLib.readers.channels import CHANNELS, PUBLISHED_ALIASES, suggest_channel
from HCCNetLib.records import Refusal

HELP = "verify or show a bundle, or make one of the published code's checkpoints"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    verify = actions.add_parser("verify", help="check every file's hash, the description, and that the weights load")
    show = actions.add_parser("show", help="print what the bundle says of itself")
    for action in (verify, show):
        action.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's folder")
    convert = actions.add_parser("convert", help="checkpoints of the published code → a new bundle (tensors only)")
    convert.add_argument("checkpoints", type=Path, nargs="+", metavar="CHECKPOINT", help=".pth, .pt or .safetensors")
    convert.add_argument("--out", type=Path, required=True, metavar="DIR", help="the new bundle's folder")
    convert.add_argument(
        "--channels", nargs="+", required=True, metavar="CHANNEL", help="in the order in which the network was trained"
    )
    convert.add_argument(
        "--time-unit",
        choices=tuple(DAYS_PER_UNIT),
        required=True,
        help="of the exam times in training; the published code does not say it, and a wrong one changes every risk",
    )
    convert.add_argument("--horizon-months", type=float, default=12.0, help="months (default: %(default)s)")
    convert.add_argument("--name", default="converted", help="of the bundle (default: %(default)s)")
    convert.add_argument("--licence", default="unknown", help="of the weights (default: %(default)s)")
    convert.add_argument("--eps", type=float, default=1e-6, help="of the LayerNorms (default: %(default)s)")
    convert.add_argument(
        "--preprocessing", type=Path, metavar="JSON", help="settings that differ from the published pipeline's"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the action."""
    return {"verify": _verify, "show": _show, "convert": _convert}[arguments.action](arguments)


def _verify(arguments: argparse.Namespace) -> int:
    bundle = Bundle.open(arguments.bundle)
    count = len(bundle.description.members)
    for index in range(count):
        bundle.member(index)
    print(f"{bundle.description.name} {bundle.description.version}: {count} members, every file as described")
    print(f"sha256 {bundle.sha256}")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    bundle = Bundle.open(arguments.bundle)
    print(json.dumps({"sha256": bundle.sha256, **bundle.description.to_dict()}, indent=2))
    return 0


def _convert(arguments: argparse.Namespace) -> int:
    options = ConversionOptions(
        name=arguments.name,
        channels=tuple(_channel(name) for name in arguments.channels),
        time_unit=arguments.time_unit,
        horizon_months=arguments.horizon_months,
        licence=arguments.licence,
        eps=arguments.eps,
        preprocessing=_read_preprocessing(arguments.preprocessing),
    )
    try:
        bundle = convert_checkpoints(arguments.checkpoints, arguments.out, options)
    except ValueError as error:
        raise Refusal("bad_conversion", f"No bundle was made: {error}.") from error
    model = bundle.description.model
    print(f"{arguments.out}: {len(bundle.description.members)} member(s), {model.name} {model.version}")
    print("Not calibrated; exam times in", bundle.description.time_unit, "as you said.")
    print(f"sha256 {bundle.sha256}")
    return 0


def _channel(name: str) -> str:
    canonical = PUBLISHED_ALIASES.get(name, name)
    if canonical not in CHANNELS:
        close = suggest_channel(name)
        hint = f" Did you mean {close}?" if close else ""
        raise Refusal("wrong_channel", f"{name} is no channel.{hint} The channels are {', '.join(CHANNELS)}.")
    return canonical


def _read_preprocessing(path: Path | None) -> PreprocessingConfig:
    if path is None:
        return PUBLISHED_PREPROCESSING
    try:
        changes = json.loads(path.read_text(encoding="utf-8"))
        return PreprocessingConfig.from_dict({**PUBLISHED_PREPROCESSING.to_dict(), **changes})
    except (OSError, ValueError, TypeError) as error:
        message = f"The preprocessing settings in {path.name} can't be used: {error}."
        raise Refusal("bad_preprocessing", message) from error
