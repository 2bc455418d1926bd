"""A recipe: the stages of one bundle, the arms to compare it with, and the cohort that judges them, in one YAML file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from HCCNetLib.records import Refusal
from HCCNetLib.training.configuration import build_config, parse_overrides, parse_yaml, read_config, read_yaml
from HCCNetLib.training.pretraining import OF_BACKBONE, OF_ENCODER, differing_settings, without_channels
from HCCNetLib.training.settings import BackboneConfig, EncoderConfig, FinetuneConfig, PretrainConfig, StageConfig
from HCCNetLib.training.splits import SPLITS_FILE

_SHARED, _BACKBONE, _ENCODER, _FINETUNE, _TEST = "shared", "backbone", "encoder", "finetune", "test"
_SECTIONS = (_SHARED, _BACKBONE, _ENCODER, _FINETUNE, "arms", _TEST)
# What a supervised stage may begin with, and the self-supervised runs that it takes: backbone's and transformer's. The
# transformer alone needs a run of its own, on the embeddings of a backbone that was not trained.
_UNTRAINED = "encoder on an untrained backbone"
_BEGINNINGS = {
    "none": (None, None),
    "backbone": (_BACKBONE, None),
    "order": (_UNTRAINED, _UNTRAINED),
    "both": (_BACKBONE, _ENCODER),
}

# Of the supervised stage, which has them from the shared section where it says nothing itself.
_INHERITED = (
    *("cohort", "channel_table", "phantom_patients", "phantom_seed", "phantom_disease", "phantom_spacing"),
    *("channels", "preprocessing", "variant", "block", "start", "pooling"),
)

Pretraining = BackboneConfig | EncoderConfig
Runs = Mapping[str, Pretraining]
AnyPretraining = TypeVar("AnyPretraining", bound=PretrainConfig)


@dataclass(frozen=True)
class TestCohort:
    """Patients whom no training has seen.

    Args:
        cohort: in any form that ``hccnet inspect`` reads, with outcomes.
        channel_table: table that says which image is which channel; empty: none.
        phantom_patients: make it first, a phantom of so many patients; 0: it is there.
        phantom_seed: of that phantom.
    """

    cohort: str
    channel_table: str = ""
    phantom_patients: int = 0
    phantom_seed: int = 0

    def __post_init__(self) -> None:
        if min(self.phantom_patients, self.phantom_seed) < 0:
            raise ValueError("phantom_patients and phantom_seed must be at least 0")


@dataclass(frozen=True)
class Recipe:
    """What ``hccnet train`` does.

    Args:
        stages: self-supervised ones, in the order in which they are run.
        finetune: the supervised stage of the bundle.
        arms: name → the same stage with something changed, in a folder of its own.
        test: judges all of them; None: nothing does.
    """

    stages: tuple[Pretraining, ...]
    finetune: FinetuneConfig
    arms: Mapping[str, FinetuneConfig]
    test: TestCohort | None


def read_recipe(path: Path, overrides: Mapping[str, str]) -> Recipe:
    """Reads a recipe; what the command line says (``section.name`` → text) wins.

    Raises:
        Refusal: the file can't be read, a section or a setting is unknown or of a wrong kind.
    """
    content = _overridden(_sections(path), overrides, path)
    given, begins = _split_beginning(content, content[_FINETUNE], f"{path}, finetune")
    plain = _built(FinetuneConfig, {**content.get(_SHARED, {}), **given}, f"{path}, finetune")
    runs = _runs(content, plain, path)
    finetune, used, arms = _begun(plain, begins, runs), [begins], {}
    _require_fitting(finetune, begins, runs, f"{path}, finetune")
    for name, changes in _mapping(content.get("arms") or {}, f"{path}, arms").items():
        where = f"{path}, arms.{name}"
        changes, begins = _split_beginning(content, changes, where, default=used[0])
        arms[str(name)] = _arm(_begun(plain, begins, runs), str(name), changes, where)
        _require_fitting(arms[str(name)], begins, runs, where)
        used.append(begins)
    test = _built(TestCohort, content[_TEST], f"{path}, test") if content.get(_TEST) else None
    stages = tuple(runs[name] for name in _needed(used))
    if test is not None:
        for training in (finetune, *arms.values(), *stages):
            _require_apart(training, test, path)
    _require_comparable(finetune, arms, stages, path)
    return Recipe(stages, finetune, arms, test)


def is_recipe(path: Path) -> bool:
    """Whether a file is a recipe rather than the settings of one stage."""
    return _FINETUNE in read_yaml(path)


def _sections(path: Path) -> dict[str, Any]:
    content = read_yaml(path)
    unknown = sorted(set(content) - set(_SECTIONS))
    if unknown or _FINETUNE not in content:
        wrong = f"unknown section(s) {', '.join(unknown)}" if unknown else "the section finetune is missing"
        raise Refusal("bad_config", f"{path}: {wrong}. A recipe has the sections {', '.join(_SECTIONS)}.")
    return {name: {} if value is None else value for name, value in content.items()}


def _overridden(content: dict[str, Any], overrides: Mapping[str, str], path: Path) -> dict[str, Any]:
    changeable = [name for name in _SECTIONS if name != "arms"]
    for name, text in overrides.items():
        section, _, setting = name.partition(".")
        if section not in changeable or not setting:
            raise Refusal(
                "bad_config", f"--set {name}: write SECTION.NAME=VALUE, SECTION one of {', '.join(changeable)}."
            )
        content[section] = {
            **_mapping(content.get(section) or {}, f"{path}, {section}"),
            setting: parse_yaml(text, f"--set {name}"),
        }
    shared = _mapping(content.get(_SHARED) or {}, f"{path}, shared")
    foreign = sorted(set(shared) - {f.name for f in fields(StageConfig)} | set(shared) & {"out"})
    if foreign:
        message = (
            f"{path}, shared: {', '.join(foreign)} can't be shared by all stages. Put it into the stage's own section."
        )
        raise Refusal("bad_config", message)
    return content


def _split_beginning(
    content: Mapping[str, Any], value: Any, where: str, default: str | None = None
) -> tuple[dict[str, Any], str]:
    """A section without its word ``pretraining``, and what that says the networks begin with."""
    given = dict(_mapping(value, where))
    own = sorted(name for name in ("backbone_from", "encoder_from") if given.get(name))
    if own and (_BACKBONE in content or _ENCODER in content or "pretraining" in given):
        message = (
            f"{where}: {own[0]} is given beside a self-supervised stage or the word pretraining. Keep one of them."
        )
        raise Refusal("bad_config", message)
    if default is None:
        default = {(0, 0): "none", (1, 0): "backbone", (0, 1): "order", (1, 1): "both"}[
            int(_BACKBONE in content), int(_ENCODER in content)
        ]
    begins = str(given.pop("pretraining", default))
    if begins not in _BEGINNINGS:
        raise Refusal("bad_config", f"{where}: pretraining must be one of {', '.join(_BEGINNINGS)}; it is {begins!r}.")
    sections = {_ENCODER if run == _UNTRAINED else run for run in _BEGINNINGS[begins] if run is not None}
    missing = sorted(sections - set(content))
    if missing:
        raise Refusal("bad_config", f"{where}: pretraining is {begins}, but the section {missing[0]} is missing.")
    return given, begins


def _runs(content: Mapping[str, Any], finetune: FinetuneConfig, path: Path) -> dict[str, Pretraining]:
    """The self-supervised runs that the sections describe; data and network are the supervised stage's where they say none."""
    runs: dict[str, Pretraining] = {}
    common: dict[str, Any] = {name: getattr(finetune, name) for name in _INHERITED}
    common["cache"] = str(finetune.cache_folder)
    shared = {name: value for name, value in content.get(_SHARED, {}).items() if name not in common}
    if finetune.test_fraction:
        common["leave_out"] = str(Path(finetune.out) / SPLITS_FILE)
    kinds: tuple[tuple[str, type[Any]], ...] = ((_BACKBONE, BackboneConfig), (_ENCODER, EncoderConfig))
    for name, kind in kinds:
        if name not in content:
            continue
        where = f"{path}, {name}"
        own = {**common, "out": f"{finetune.out}-pretrained-{name}"}
        if name == _ENCODER and _BACKBONE in runs:
            own["backbone_from"] = runs[_BACKBONE].out
        runs[name] = _built(kind, {**own, **shared, **_mapping(content[name], where)}, where)
    encoder = runs.get(_ENCODER)
    if isinstance(encoder, EncoderConfig):
        runs[_UNTRAINED] = replace(encoder, out=f"{encoder.out}-untrained", backbone_from="")
    return runs


def _begun(config: FinetuneConfig, begins: str, runs: Runs) -> FinetuneConfig:
    """The supervised stage with the runs that it takes over, where it does not name others itself."""
    backbone, encoder = ("" if run is None else runs[run].out for run in _BEGINNINGS[begins])
    return replace(config, backbone_from=config.backbone_from or backbone, encoder_from=config.encoder_from or encoder)


def _require_fitting(config: FinetuneConfig, begins: str, runs: Runs, where: str) -> None:
    """Refuses stages that would turn out not to fit each other, before hours of training."""
    backbone, encoder = (None if run is None else runs[run] for run in _BEGINNINGS[begins])
    differing: list[str] = []
    for stage, names in ((backbone, OF_BACKBONE), (encoder, OF_ENCODER)):
        if stage is None:
            continue
        images = stage.preparation.to_dict()
        images = images if isinstance(stage, EncoderConfig) else without_channels(images)
        differing += differing_settings(config, stage.model.to_dict(), images, names)
        if isinstance(stage, EncoderConfig) and stage.channels != config.channels:
            differing.append("channels")
    if isinstance(encoder, EncoderConfig) and encoder.time != config.time:
        differing.append("time")
    if differing:
        message = (
            f"{where}: it does not fit the self-supervised stage that it begins with; these settings differ: "
            f"{', '.join(dict.fromkeys(differing))}. Give both the same."
        )
        raise Refusal("bad_config", message)


def _needed(used: Sequence[str]) -> list[str]:
    """The runs that some stage takes over, in the order in which they are run."""
    needed = {run for begins in used for run in _BEGINNINGS[begins]}
    return [run for run in (_BACKBONE, _ENCODER, _UNTRAINED) if run in needed]


def _require_comparable(
    finetune: FinetuneConfig, arms: Mapping[str, FinetuneConfig], stages: Sequence[Pretraining], path: Path
) -> None:
    """Refuses arms that would end in one folder or could not be compared, before hours of training."""
    folders = [config.out for config in (finetune, *arms.values(), *stages)]
    twice = [name for name, count in Counter(str(Path(f).resolve()) for f in folders).items() if count > 1]
    if twice:
        shared = next(f for f in folders if str(Path(f).resolve()) == twice[0])
        raise Refusal("same_folder", f"{path}: two stages or arms have one folder, {shared}. Give each its own out.")
    for name, arm in arms.items():
        if stages and (arm.test_fraction, arm.seed, arm.cohort) != (
            finetune.test_fraction,
            finetune.seed,
            finetune.cohort,
        ):
            message = (
                f"{path}, arms.{name}: another cohort, seed or test_fraction sets other patients aside, whom the self-supervised "
                f"stages may have read. Give the same."
            )
            raise Refusal("other_split", message)
        if arm.horizon_months != finetune.horizon_months:
            raise Refusal("other_horizon", f"{path}, arms.{name}: another horizon can't be compared. Give the same.")


def _require_apart(training: StageConfig, test: TestCohort, path: Path) -> None:
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
    if not is_recipe(path):
        if arm is not None:
            raise Refusal("no_arm", f"{path} is no recipe: it has no arms. Leave --arm out.")
        return read_config(FinetuneConfig, path, overrides)
    recipe = read_recipe(path, {})
    if arm is not None and arm not in recipe.arms:
        raise Refusal("no_arm", f"{path} has no arm {arm}; it has: {', '.join(recipe.arms) or 'none'}.")
    return _changed(recipe.finetune if arm is None else recipe.arms[arm], overrides, path)


def read_pretraining(kind: type[AnyPretraining], path: Path, overrides: Mapping[str, str]) -> AnyPretraining:
    """A self-supervised stage's settings, from a file of them or from a recipe; what the command line says wins.

    Raises:
        Refusal: as ``read_recipe``, or the recipe has no such stage.
    """
    if not is_recipe(path):
        return read_config(kind, path, overrides)
    stage = next((s for s in read_recipe(path, {}).stages if isinstance(s, kind)), None)
    if stage is None:
        section = _BACKBONE if issubclass(kind, BackboneConfig) else _ENCODER
        raise Refusal("no_stage", f"{path} has no stage of this kind that is used. Add a section {section}.")
    return _changed(stage, overrides, path)


_Config = TypeVar("_Config", bound=StageConfig)


def _changed(config: _Config, overrides: Mapping[str, str], path: Path) -> _Config:
    changed: _Config = _built(type(config), {**vars(config), **parse_overrides(type(config), overrides)}, str(path))
    return changed


def _arm(finetune: FinetuneConfig, name: str, changes: Mapping[str, Any], where: str) -> FinetuneConfig:
    shared = replace(
        finetune, name=f"{finetune.name}-{name}", out=f"{finetune.out}-{name}", cache=str(finetune.cache_folder)
    )
    arm: FinetuneConfig = _built(FinetuneConfig, {**vars(shared), **changes}, where)
    return arm


def _built(kind: type[Any], values: Any, where: str) -> Any:
    try:
        return build_config(kind, _mapping(values, where))
    except (ValueError, TypeError) as error:
        raise Refusal("bad_config", f"{where}: {error}.") from error


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise Refusal("bad_config", f"{where} is no list of settings (name: value).")
    return value
