"""``hccnet pretrain-encoder``: stage 2, sequence order on a frozen backbone's embeddings."""

from __future__ import annotations

import argparse

from HCCNetLib.commands import pretraining
from HCCNetLib.training.settings import EncoderConfig

HELP = "pre-train the transformer to tell ordered from shuffled exams"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    pretraining.add_arguments(parser, EncoderConfig, "pretrain-encoder")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    pretraining.pretrain_encoder(pretraining.read_arguments(arguments, EncoderConfig))
    return 0
