"""A recipe: the stages of one bundle, the arms to compare it with, and the cohort that judges them, in one YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from HCCNetLib.records import Refusal
from HCCNetLib.training.configuration import FinetuneConfig, build_config, parse_yaml, read_config, read_yaml

_SECTIONS = ("finetune", "arms", "test")


@dataclass(frozen=True)
class TestCohort:
    """Patients whom no training has seen.

    Args:
        cohort: folder or table, with outcomes.
        phantom_patients: make it first, a phantom of so many patients; 0: it is there.
        phantom_seed: of that phantom.
    """

    cohort: str
    phantom_patients: int = 0
    phantom_seed: int = 0

    def __post_init__(self) -> None:
        if min(self.phantom_patients, self.phantom_seed) < 0:
            raise ValueError("phantom_patients and phantom_seed must be at least 0")


@dataclass(frozen=True)
class Recipe:
    """What ``hccnet train`` does.

    Args:
        finetune: the supervised stage of the bundle.
        arms: name → the same stage with something changed, in a folder of its own.
        test: judges all of them; None: nothing does.
    """

    finetune: FinetuneConfig
    arms: Mapping[str, FinetuneConfig]
    test: TestCohort | None


def read_recipe(path: Path, overrides: Mapping[str, str]) -> Recipe:
    """Reads a recipe; what the command line says (``section.name`` → text) wins.

    Raises:
        Refusal: the file can't be read, a section or a setting is unknown or of a wrong kind.
    """
    content = read_yaml(path)
    unknown = sorted(set(content) - set(_SECTIONS))
    if unknown or "finetune" not in content:
        wrong = f"unknown section(s) {', '.join(unknown)}" if unknown else "the section finetune is missing"
        raise Refusal("bad_config", f"{path}: {wrong}. A recipe has the sections {', '.join(_SECTIONS)}.")
    for name, text in overrides.items():
        section, _, setting = name.partition(".")
        if section not in ("finetune", "test") or not setting:
            raise Refusal("bad_config", f"--set {name}: write finetune.NAME=VALUE or test.NAME=VALUE.")
        content[section] = {
            **_mapping(content.get(section) or {}, f"{path}, {section}"),
            setting: parse_yaml(text, f"--set {name}"),
        }
    finetune = _built(FinetuneConfig, content["finetune"], f"{path}, finetune")
    arms = {
        str(name): _arm(finetune, str(name), _mapping(changes, f"{path}, arms.{name}"), f"{path}, arms.{name}")
        for name, changes in _mapping(content.get("arms") or {}, f"{path}, arms").items()
    }
    test = _built(TestCohort, content["test"], f"{path}, test") if content.get("test") else None
    if test is not None:
        for training in (finetune, *arms.values()):
            _require_apart(training, test, path)
    _require_comparable(finetune, arms, path)
    return Recipe(finetune, arms, test)


def _require_comparable(finetune: FinetuneConfig, arms: Mapping[str, FinetuneConfig], path: Path) -> None:
    """Refuses arms that would end in one folder or could not be compared, before hours of training."""
    folders = [Path(config.out).resolve() for config in (finetune, *arms.values())]
    if len(set(folders)) < len(folders):
        raise Refusal(
            "same_folder", f"{path}: two arms, or an arm and the bundle, have one folder. Give each its own out."
        )
    for name, arm in arms.items():
        if arm.horizon_months != finetune.horizon_months:
            raise Refusal("other_horizon", f"{path}, arms.{name}: another horizon can't be compared. Give the same.")


def _require_apart(training: FinetuneConfig, test: TestCohort, path: Path) -> None:
    """Refuses to judge on patients that are trained on, before hours of training rather than after them."""
    if Path(test.cohort).resolve() == Path(training.cohort).resolve():
        raise Refusal(
            "test_is_training", f"{path}: the test cohort is the cohort that is trained on. Name another one."
        )
    if test.phantom_patients and training.phantom_patients and test.phantom_seed == training.phantom_seed:
        message = (
            f"{path}: training and test phantom have one seed: they would be the same patients. Give another seed."
        )
        raise Refusal("test_is_training", message)


def read_stage(path: Path, arm: str | None, overrides: Mapping[str, str]) -> FinetuneConfig:
    """The supervised stage's settings, from a file of them or from a recipe; what the command line says wins.

    Args:
        path: YAML.
        arm: of a recipe; None: its section ``finetune``.
        overrides: name → text.

    Raises:
        Refusal: as ``read_recipe``, or there is no such arm.
    """
    if "finetune" not in read_yaml(path):
        if arm is not None:
            raise Refusal("no_arm", f"{path} is no recipe: it has no arms. Leave --arm out.")
        return read_config(FinetuneConfig, path, overrides)
    recipe = read_recipe(path, {})
    if arm is not None and arm not in recipe.arms:
        raise Refusal("no_arm", f"{path} has no arm {arm}; it has: {', '.join(recipe.arms) or 'none'}.")
    chosen = recipe.finetune if arm is None else recipe.arms[arm]
    changes = {name: parse_yaml(text, f"--{name}") for name, text in overrides.items()}
    config: FinetuneConfig = _built(FinetuneConfig, {**vars(chosen), **changes}, str(path))
    return config


def _arm(finetune: FinetuneConfig, name: str, changes: Mapping[str, Any], where: str) -> FinetuneConfig:
    shared = replace(
        finetune, name=f"{finetune.name}-{name}", out=f"{finetune.out}-{name}", cache=str(finetune.cache_folder)
    )
    return _built(FinetuneConfig, {**vars(shared), **changes}, where)


def _built(kind: type[Any], values: Any, where: str) -> Any:
    try:
        return build_config(kind, _mapping(values, where))
    except (ValueError, TypeError) as error:
        raise Refusal("bad_config", f"{where}: {error}.") from error


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise Refusal("bad_config", f"{where} is no list of settings (name: value).")
    return value
