"""``hccnet pretrain-backbone``: stage 1, self-supervision of the backbone."""

from __future__ import annotations

import argparse

from HCCNetLib.commands import pretraining
from HCCNetLib.training.settings import BackboneConfig

HELP = "pre-train the backbone on exams without labels (DINO)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    pretraining.add_arguments(parser, BackboneConfig, "pretrain-backbone")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    pretraining.pretrain_backbone(pretraining.read_arguments(arguments, BackboneConfig))
    return 0
