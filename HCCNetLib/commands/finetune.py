"""``hccnet finetune``: the supervised stage, from a cohort with outcomes to a calibrated bundle."""

from __future__ import annotations

import argparse
import os
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from HCCNetLib.commands.progress import Progress
from HCCNetLib.inference import NOTICE, choose_device
from HCCNetLib.records import Refusal
from HCCNetLib.synthetic.acquisition import AcquisitionModel
from HCCNetLib.synthetic.cohort import DISEASES, CohortPlan, synthesize
from HCCNetLib.synthetic.phantom import PhantomModel
from HCCNetLib.training.configuration import settings_of
from HCCNetLib.training.distributed import Workers, workers
from HCCNetLib.training.ensemble import LEFT_OUT_FILE, Run, assemble, missing_members, open_run, train_member
from HCCNetLib.training.examples import count_examples
from HCCNetLib.training.recipe import read_stage
from HCCNetLib.training.settings import FinetuneConfig, StageConfig

HELP = "train on a cohort with outcomes: members, calibration, bundle"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments: the configuration's file, and each of its settings."""
    parser.epilog = (
        "The same command goes on where a run was stopped. Several processes: torchrun --nproc-per-node 2 -m HCCNetLib "
        "finetune ... Several jobs: each with its own --member, then once without."
    )
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="settings, or a recipe of them, YAML"
    )
    parser.add_argument("--arm", metavar="NAME", help="the arm of a recipe (default: its section finetune)")
    parser.add_argument("--member", type=int, metavar="K", help="train this member only, from 0, and write no bundle")
    add_settings(parser, FinetuneConfig)


def add_settings(parser: argparse.ArgumentParser, kind: type[StageConfig]) -> None:
    """One argument per setting of a stage; what is given wins over the file."""
    group = parser.add_argument_group("settings, which win over those of the file")
    for setting, _ in settings_of(kind):
        default = kind.__dataclass_fields__[setting.name]
        shown = (
            ""
            if default.default in ("", None) or not isinstance(default.default, (str, int, float))
            else default.default
        )
        text = f"{setting.metadata['help']}{f' (default: {shown})' if shown != '' else ''}"
        group.add_argument(
            *dict.fromkeys((f"--{setting.name}", f"--{setting.name.replace('_', '-')}")),
            dest=f"set_{setting.name}",
            metavar="VALUE",
            help=text,
        )


def given_settings(arguments: argparse.Namespace) -> dict[str, str]:
    """The settings that the command line has."""
    given = {name: value for name, value in vars(arguments).items() if name.startswith("set_") and value is not None}
    return {name.removeprefix("set_"): value for name, value in given.items()}


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    config = read_stage(arguments.config, arguments.arm, given_settings(arguments))
    finetune(config, arguments.member)
    return 0


def finetune(config: FinetuneConfig, member: int | None = None) -> Path | None:
    """Makes the cohort where it is a phantom, trains the members, writes the bundle; returns the bundle's folder."""
    if member is not None and not 0 <= member < config.members:
        message = f"There is no member {member}: this ensemble's members are 0 to {config.members - 1}."
        raise Refusal("no_member", message)
    with join_workers(config) as crew:
        stage = _open(config, crew)
        chosen = range(config.members) if member is None else (member,)
        for number in chosen:
            _train(stage, number, crew)
        if not crew.is_first:
            return None
        missing = missing_members(stage)
        if member is not None or missing:
            print(
                f"{len(missing)} of {config.members} members are still to be trained; then the bundle can be written."
            )
            return None
        bundle = assemble(stage)
        told = bundle.description.training_data
        if told["calibration_problem"]:
            print(f"warning: the bundle is not calibrated. {told['calibration_problem']}")
        print(f"bundle: {bundle.path}, out-of-fold AUROC {told['out_of_fold_auroc']:.3f}\n{NOTICE}")
        return bundle.path


def join_workers(config: StageConfig) -> AbstractContextManager[Workers]:
    """This process among those of torchrun, on the device and with the threads that a stage asks for."""
    if config.threads:
        torch.set_num_threads(config.threads)
    return workers(choose_device(config.device))


def _open(config: FinetuneConfig, crew: Workers) -> Run:
    """The first process makes what is missing while the others wait; then each reads it."""
    progress = Progress()
    if crew.is_first:
        make_phantom(config, progress)
        stage = open_run(config, progress)
        progress.close()
        _tell(stage)
    crew.wait()
    return stage if crew.is_first else open_run(config, lambda *_: None, is_first=False)


def make_phantom(config: StageConfig, progress: Progress) -> None:
    """The phantom cohort that a configuration asks for, or what is missing of it."""
    if config.phantom_patients:
        model = PhantomModel(
            channels=config.channels,
            disease=DISEASES[config.phantom_disease](),
            acquisition=AcquisitionModel(spacing=config.phantom_spacing),
        )
        plan = CohortPlan(config.phantom_patients, config.phantom_seed, model)
        synthesize(Path(config.cohort), plan, processes=config.processes or os.cpu_count() or 1, progress=progress)


def _tell(stage: Run) -> None:
    counts = count_examples(stage.examples.all)
    print(
        f"{counts['patients']} patients ({counts['diagnosed patients']} diagnosed), {counts['exams']} "
        f"exams, {counts['positive landmarks']} positive and {counts['negative landmarks']} negative landmarks; "
        f"{len(stage.splits.test)} patients set aside as test"
    )
    for sentence in stage.start_summary():
        print(f"first weights: {sentence}")
    for reason, number in stage.examples.reasons().items():
        print(f"left out: {number} patient(s), {reason}; see {stage.folder / LEFT_OUT_FILE}")
    if stage.examples.phantom and not stage.config.demonstration:
        print(
            "The patients are generated (phantom): the bundle will be a demonstration, without meaning for a patient."
        )


def _train(stage: Run, member: int, crew: Workers) -> None:
    progress = Progress(f"member {member + 1} of {stage.config.members}")
    try:
        train_member(stage, member, crew, progress if crew.is_first else lambda *_: None)
    finally:
        progress.close()
