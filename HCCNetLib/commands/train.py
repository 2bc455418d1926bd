"""``hccnet train``: a recipe from cohort to judged bundle, in one command that goes on where it was stopped."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from HCCNetLib.commands import evaluate as evaluation
from HCCNetLib.commands.finetune import finetune, make_phantom
from HCCNetLib.commands.pretraining import pretrain_backbone, pretrain_encoder
from HCCNetLib.commands.progress import Progress
from HCCNetLib.records import Refusal
from HCCNetLib.training.ensemble import read_data
from HCCNetLib.training.recipe import Recipe, TestCohort, read_recipe
from HCCNetLib.training.settings import BackboneConfig

HELP = "train, calibrate, bundle and judge by a recipe"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.epilog = (
        "Makes phantom cohorts where the recipe asks for them, runs its self-supervised stages, trains the members, writes "
        "the bundle into the run's folder, does the same for each arm, and judges all on the test cohort; later arms also "
        "against the first. The same command goes on where a run was stopped."
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="recipe, YAML")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_assignment,
        metavar="SECTION.NAME=VALUE",
        help="a setting that wins over the recipe's, e.g. finetune.steps=200; may be given several times",
    )


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text} is not SECTION.NAME=VALUE")
    return name, value


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    recipe = read_recipe(arguments.config, dict(arguments.set))
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise Refusal(
            "one_process",
            "A recipe runs in one process; use pretrain-backbone, pretrain-encoder and finetune under torchrun.",
        )
    if recipe.test is not None and not recipe.test.phantom_patients and not Path(recipe.test.cohort).exists():
        message = f"The test cohort {recipe.test.cohort} does not exist. Check the path, before hours of training."
        raise Refusal("missing_input", message)
    _pretrain(recipe)
    bundle = finetune(recipe.finetune)
    arms = [finetune(config) for config in recipe.arms.values()]
    trained = [arm for arm in arms if arm is not None]
    if recipe.test is None or bundle is None or len(trained) < len(arms):
        return 0
    _make_test_cohort(recipe, recipe.test)
    status = _judge(recipe, recipe.test, [bundle, *trained], "evaluation")
    if len(trained) > 1:  # an arm may have fewer members than the bundle: like is compared with like here
        status = max(status, _judge(recipe, recipe.test, trained, "evaluation-of-arms"))
    return status


def _pretrain(recipe: Recipe) -> None:
    """The self-supervised stages; patients set aside as test are known before, so that these do not read them."""
    if any(stage.leave_out for stage in recipe.stages):
        progress = Progress()
        try:
            make_phantom(recipe.finetune, progress)
            read_data(recipe.finetune, progress)
        finally:
            progress.close()
    for stage in recipe.stages:
        if isinstance(stage, BackboneConfig):
            pretrain_backbone(stage)
        else:
            pretrain_encoder(stage)


def _make_test_cohort(recipe: Recipe, test: TestCohort) -> None:
    """As the training's phantom is made, with another number of patients and another seed."""
    changes: dict[str, Any] = {
        "cohort": test.cohort,
        "phantom_patients": test.phantom_patients,
        "phantom_seed": test.phantom_seed,
    }
    progress = Progress("test cohort")
    try:
        make_phantom(replace(recipe.finetune, **changes), progress)
    finally:
        progress.close()


def _judge(recipe: Recipe, test: TestCohort, bundles: list[Path], name: str) -> int:
    """As ``hccnet evaluate`` does: the first bundle, compared with the others."""
    parser = argparse.ArgumentParser()
    evaluation.add_arguments(parser)
    config = recipe.finetune
    given = ["--bundle", str(bundles[0]), "--cohort", test.cohort, "--out", str(Path(config.out) / name)]
    given += ["--device", config.device, "--cache", str(config.cache_folder), "--processes", str(config.processes)]
    given += ["--channels", test.channel_table] if test.channel_table else []
    given += ["--compare", *map(str, bundles[1:])] if len(bundles) > 1 else []
    return evaluation.run(parser.parse_args(given))
