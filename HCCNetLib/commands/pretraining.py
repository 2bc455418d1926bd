"""What the commands of both self-supervised stages share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from HCCNetLib.commands.finetune import add_settings, given_settings, join_workers, make_phantom
from HCCNetLib.commands.progress import Progress
from HCCNetLib.inference import NOTICE
from HCCNetLib.training.distributed import Workers
from HCCNetLib.training.pretraining import LEFT_OUT_FILE, AnyConfig, Pretrained, PretrainRun
from HCCNetLib.training.recipe import read_pretraining
from HCCNetLib.training.settings import BackboneConfig, EncoderConfig, StageConfig
from HCCNetLib.training.stages import open_backbone, open_encoder, train_backbone, train_encoder

Show = Callable[[str, int, int], None]


def add_arguments(parser: argparse.ArgumentParser, kind: type[AnyConfig], command: str) -> None:
    """Declares a command's arguments: the configuration's file, and each of its settings."""
    parser.epilog = (
        f"The same command goes on where a run was stopped. Several processes: torchrun --nproc-per-node 2 -m HCCNetLib "
        f"{command} ..."
    )
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="settings, or a recipe with a section of them, YAML"
    )
    add_settings(parser, kind)


def read_arguments(arguments: argparse.Namespace, kind: type[AnyConfig]) -> AnyConfig:
    """The stage's settings from file and command line."""
    return read_pretraining(kind, arguments.config, given_settings(arguments))


def pretrain_backbone(config: BackboneConfig) -> Pretrained:
    """Stage 1, from its last checkpoint or from the start."""
    progress = Progress("backbone")

    def say(sentence: str) -> None:
        progress.close()
        print(f"backbone: {sentence}", flush=True)

    with join_workers(config) as crew:
        run = _open(crew, config, lambda show: open_backbone(config, crew.device, show, crew.is_first))
        try:
            handed = train_backbone(run, crew, progress if crew.is_first else _silent, say)
        finally:
            progress.close()
        if crew.is_first:
            _tell_backbone(handed)
    return handed


def pretrain_encoder(config: EncoderConfig) -> Pretrained:
    """Stage 2, from its last checkpoint or from the start."""
    progress = Progress("encoder")
    with join_workers(config) as crew:
        run = _open(crew, config, lambda show: open_encoder(config, crew.device, show, crew.is_first))
        try:
            handed = train_encoder(run, crew, progress if crew.is_first else _silent)
        finally:
            progress.close()
        if crew.is_first:
            _tell_encoder(handed)
    return handed


def _silent(stage: str, done: int, total: int) -> None:
    """Of several processes one shows progress."""


def _open(
    crew: Workers, config: StageConfig, opened: Callable[[Show], PretrainRun[AnyConfig]]
) -> PretrainRun[AnyConfig]:
    """The first process makes what is missing while the others wait; then each reads it."""
    run = None
    if crew.is_first:
        progress = Progress()
        try:
            make_phantom(config, progress)
            run = opened(progress)
        finally:
            progress.close()
        _tell_data(run)
    crew.wait()
    return run or opened(_silent)


def _tell_data(run: PretrainRun[AnyConfig]) -> None:
    exams = sum(len(e.exams) for e in run.examples.all)
    print(f"{len(run.examples.all)} patients, {exams} exams, no labels; {run.precision} on {run.device.type}")
    for reason, number in run.examples.reasons().items():
        print(f"left out: {number} patient(s), {reason}; see {run.folder / LEFT_OUT_FILE}")


def _tell_backbone(handed: Pretrained) -> None:
    about = handed.about
    for when in ("before", "after") if "probe" in about else ():
        probe, r2 = about["probe"], about["probe"][when]["r2"]
        print(
            f"linear probe of {probe['target']} {when}: R² {r2['value']:.3f} ({r2['low']:.3f}–{r2['high']:.3f}), "
            f"{probe[when]['exams']} exams"
        )
    if about["collapsed"]:
        print(f"warning: {about['collapsed']}")
    print(f"backbone: {handed.folder}, {about['steps']} steps\n{NOTICE}")


def _tell_encoder(handed: Pretrained) -> None:
    about = handed.about
    auroc, sequences = about["order_auroc"], about["sequences"]
    shown = "no patient was held out"
    if auroc["value"] is not None:
        shown = f"{auroc['value']:.3f} ({auroc['low']:.3f}–{auroc['high']:.3f}) on {sequences['held out']} held-out patients"
    alone = sequences["patients with one exam, which has no order"]
    if alone:
        print(f"{alone} patient(s) have one exam, which has no order; they are not read")
    print(f"encoder: {handed.folder}, {about['steps']} steps, AUROC of shuffled against ordered: {shown}\n{NOTICE}")
