"""A stage's settings as one dataclass: YAML in, overrides from the command line, the resolved ones stored with the run."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeVar

from HCCNetLib.models import VARIANTS, ModelConfig
from HCCNetLib.models.convnext3d import BlockVersion
from HCCNetLib.models.pooling import Pooling
from HCCNetLib.preprocessing import PreprocessingConfig
from HCCNetLib.records import Refusal

Loss = Literal["balanced", "focal", "plain"]
Ensemble = Literal["folds", "seeds"]
Precision = Literal["float32", "bfloat16"]
SequenceTime = Literal["months", "exams"]
History = Literal["all", "latest"]
# Of the weights: all, those of the second phase only, or none: where things lie, how often something is written.
Decides = Literal["all", "second phase", "nothing"]


def setting(default: Any, text: str, decides: Decides = "all") -> Any:
    """A field with the sentence that ``--help`` shows, and which of a member's weights hang on it."""
    metadata = {"help": text, "decides": decides}
    if isinstance(default, (dict, list)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class FinetuneConfig:
    """All settings of the supervised stage; the defaults are the published ones where there are any.

    Sizes are in patients and steps, lengths in voxels of the network's grid. What each field means stands in its help.
    """

    # What is trained on.
    name: str = setting("hccnet", "name of the bundle", decides="nothing")
    out: str = setting("runs/finetune", "folder of the run; a run in it is continued", decides="nothing")
    cohort: str = setting("cohort", "cohort folder or table, with outcomes", decides="nothing")
    phantom_patients: int = setting(
        0, "make the cohort first, a phantom of so many patients; 0: it is there", decides="nothing"
    )
    phantom_seed: int = setting(0, "seed of that phantom", decides="nothing")
    phantom_spacing: float = setting(3.0, "nominal voxel size of that phantom, mm", decides="nothing")
    cache: str = setting(
        "", "folder of prepared exams; may be shared by runs; empty: in the run's folder", decides="nothing"
    )
    processes: int = setting(0, "processes that prepare exams; 0: one per core", decides="nothing")
    channels: tuple[str, ...] = setting(("DWI_b0", "DWI_b150", "DWI_b400", "DWI_b800"), "of an exam, in order")
    horizon_months: float = setting(12.0, "within which the predicted diagnosis comes", decides="second phase")
    preprocessing: dict[str, Any] = setting({}, "what differs from the published pipeline")

    # The network.
    variant: str = setting("pico", f"one of {', '.join(VARIANTS)}")
    block: BlockVersion = setting("v1", "ConvNeXt block: v1 as published, v2 with response normalisation")
    start: Literal["published", "scaled"] = setting(
        "published", "first weights: all SD 0.02; or scaled to each layer's width, with biases in the stem"
    )
    pooling: Pooling = setting("mean", "of the last feature map; published: mean")
    dropout: float = setting(0.1, "in the transformer", decides="second phase")
    drop_path: float = setting(0.0, "stochastic depth in the backbone")
    time: SequenceTime = setting(
        "months", "an exam's time: months, or exams (its index) to see what dates are worth", decides="second phase"
    )
    history: History = setting(
        "all", "exams that are read: all, or the latest only to see what history is worth", decides="second phase"
    )

    # Examples and augmentation.
    landmarks: Literal["all", "latest"] = setting("all", "labelled exams of a patient that are landmarks in training")
    max_exams: int = setting(7, "of a sequence in training; earlier ones drop at random")
    exam_dropout: float = setting(
        0.0, "chance of each earlier exam to be left out of a sequence in training", decides="second phase"
    )
    subsequences: int = setting(
        1, "sequences drawn per landmark and step where exam_dropout is above 0", decides="second phase"
    )
    jitter: int = setting(4, "the crop moves by up to so many voxels along each axis, per exam")
    flip: float = setting(0.5, "chance of a flip along each axis, the same for all exams of a patient")
    rotate: float = setting(0.5, "chance of a rotation by 90, 180 or 270 degrees, likewise")
    intensity_scale: float = setting(0.1, "largest relative change of a channel's scale, per exam")
    intensity_shift: float = setting(0.1, "largest shift of a channel, in SD, per exam")

    # The loss.
    loss: Loss = setting("balanced", "cross-entropy with balanced classes, focal, or plain", decides="second phase")
    focal_gamma: float = setting(2.0, "of the focal loss", decides="second phase")
    target_file: str = setting("", "table of an exam-level target beside the label: patient_id, exam_id and the column")
    target_column: str = setting("", "its column, a number per exam, e.g. a lesion burden or a LI-RADS category")
    target_weight: float = setting(0.0, "weight of the target's squared error (of its z-score); 0: no target")
    target_stages: Literal["last", "all"] = setting(
        "last", "where the target is guessed: the embedding, or every stage too"
    )

    # The first phase: the backbone alone learns the exam-level target; no label is used.
    exam_steps: int = setting(0, "updates of the weights in the first phase; 0: there is none")
    exam_learning_rate: float = setting(4e-4, "of the first phase, for a batch of 128; it is scaled by batch / 128")
    exams_from: str = setting(
        "", "folder of a run whose first phase, of the same settings and patients, is taken over", decides="nothing"
    )

    # The optimiser.
    steps: int = setting(400, "updates of the weights", decides="second phase")
    batch: int = setting(32, "patients per step, all processes together")
    per_pass: int = setting(
        0, "patients per forward pass; fewer need less memory; 0: the whole batch", decides="nothing"
    )
    learning_rate: float = setting(4e-4, "for a batch of 128; it is scaled by batch / 128", decides="second phase")
    final_learning_rate: float = setting(1e-6, "at both ends of the schedule")
    warmup: int = setting(40, "steps of linear warm-up")
    weight_decay: float = setting(0.05, "at the start; parameters of one dimension have none")
    final_weight_decay: float = setting(0.5, "at the end")
    layer_decay: float = setting(
        1.0, "learning rate of each earlier stage relative to the next; 1: all alike", decides="second phase"
    )
    clip_norm: float = setting(3.0, "largest norm of the gradient; 0: no limit")
    average: float = setting(
        0.0, "decay of a moving average of the weights, which is then what is kept; 0: none", decides="second phase"
    )

    # The ensemble.
    ensemble: Ensemble = setting(
        "folds", "folds: each member leaves out one fold; seeds: all share one split", decides="nothing"
    )
    folds: int = setting(
        5, "of the development patients; with seeds, one of them is the validation part", decides="nothing"
    )
    seeds: int = setting(2, "members per fold; with seeds, all members", decides="nothing")
    test_fraction: float = setting(0.0, "part of the patients set aside and never read in training", decides="nothing")
    seed: int = setting(0, "of splits, weights, augmentation")

    # The run.
    device: str = setting("auto", "auto, cpu or cuda", decides="nothing")
    precision: Precision = setting("float32", "of the forward pass")
    threads: int = setting(0, "of torch on the CPU; 0: as it is", decides="nothing")
    checkpoint_every: int = setting(50, "steps between checkpoints", decides="nothing")
    validate_every: int = setting(
        100, "steps between looks at the held-out patients; they change nothing", decides="nothing"
    )
    demonstration: bool = setting(False, "the bundle's results have no meaning for a patient", decides="nothing")

    def __post_init__(self) -> None:
        _check_ranges(self)

    @property
    def members(self) -> int:
        """Networks of the ensemble."""
        return self.folds * self.seeds if self.ensemble == "folds" else self.seeds

    @property
    def cache_folder(self) -> Path:
        """Where prepared exams are kept."""
        return Path(self.cache) if self.cache else Path(self.out) / "prepared"

    @property
    def preparation(self) -> PreprocessingConfig:
        """The pipeline's numbers."""
        return PreprocessingConfig.from_dict(self.preprocessing)

    @property
    def model(self) -> ModelConfig:
        """What the networks are built from."""
        named = ModelConfig.variant(self.variant, len(self.channels), self.block)
        changed = {"dropout": self.dropout, "drop_path_rate": self.drop_path, "pooling": self.pooling}
        return ModelConfig(**{**vars(named), **changed})


_FRACTIONS = ("dropout", "drop_path", "exam_dropout", "flip", "rotate", "average", "test_fraction")
_AT_LEAST = {
    **dict.fromkeys(("steps", "batch", "max_exams", "subsequences", "seeds", "checkpoint_every", "validate_every"), 1),
    **dict.fromkeys(("phantom_patients", "phantom_seed", "processes", "jitter", "per_pass", "warmup", "threads"), 0),
    **dict.fromkeys(("exam_steps", "seed", "intensity_scale", "intensity_shift", "target_weight"), 0),
    **dict.fromkeys(("focal_gamma", "weight_decay", "final_weight_decay", "clip_norm", "final_learning_rate"), 0),
    "folds": 2,
}
_ABOVE_0 = ("horizon_months", "learning_rate", "exam_learning_rate", "phantom_spacing", "layer_decay")


def _check_ranges(config: FinetuneConfig) -> None:
    """Raises ValueError in words for what no run could be made with."""
    for name in _FRACTIONS:
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 0 and below 1; it is {getattr(config, name):g}")
    for name, least in _AT_LEAST.items():
        if getattr(config, name) < least:
            raise ValueError(f"{name} must be at least {least}; it is {getattr(config, name):g}")
    for name in _ABOVE_0:
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} must be above 0; it is {getattr(config, name):g}")
    if config.device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda; it is {config.device!r}")
    if config.warmup >= config.steps:
        raise ValueError(f"warmup ({config.warmup}) must be shorter than the run ({config.steps} steps)")
    if config.target_weight > 0 and not (config.target_file and config.target_column):
        raise ValueError("target_weight is above 0, but target_file or target_column is empty")
    if config.exam_steps > 0 and not config.target_weight > 0:
        raise ValueError("exam_steps is above 0, but there is no exam-level target (target_weight above 0)")
    if 0 < config.exam_steps <= config.warmup:
        raise ValueError(f"warmup ({config.warmup}) must be shorter than the first phase ({config.exam_steps} steps)")
    if len(set(config.channels)) < len(config.channels):
        raise ValueError("channels names one twice")
    _ = config.model  # it raises ValueError itself, as the next line does
    mean = config.preparation.channel_mean
    if mean is not None and len(mean) != len(config.channels):
        raise ValueError(f"channel_mean has {len(mean)} values for {len(config.channels)} channels")


Config = TypeVar("Config")


def read_config(kind: type[Config], path: Path, overrides: Mapping[str, str]) -> Config:
    """Reads settings from YAML; what the command line says wins.

    Args:
        kind: the dataclass.
        path: YAML, a mapping of names and values.
        overrides: name → text, read as YAML.

    Raises:
        Refusal: the file can't be read, a name is unknown, a value is of a wrong kind or out of range.
    """
    values, hints = read_yaml(path), {f.name: hint for f, hint in settings_of(kind)}
    for name, text in overrides.items():
        # Text is taken as it is: a folder may be called 2021, and a value no.
        values[name] = text if hints.get(name) is str else parse_yaml(text, f"--{name}")
    try:
        return build_config(kind, values)
    except (ValueError, TypeError) as error:
        raise Refusal("bad_config", f"{path}: {error}.") from error


def config_text(config: Any) -> str:
    """The resolved settings as YAML."""
    text: str = _yaml().safe_dump(_plain(asdict(config)), sort_keys=False)
    return text


def settings_of(kind: type[Any]) -> list[tuple[Field[Any], Any]]:
    """Each field of a configuration with its resolved type."""
    hints = typing.get_type_hints(kind)
    return [(f, hints[f.name]) for f in fields(kind)]


def _yaml() -> types.ModuleType:
    try:
        return import_module("yaml")
    except ImportError as error:
        message = "Training needs PyYAML. Install it with: pip install 'hccnet[training]'"
        raise Refusal("missing_package", message) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """A mapping from a YAML file; raises Refusal where it can't be read or is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal("missing_config", f"The configuration {path} can't be read. Check the path.") from error
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise Refusal("bad_config", f"{path} is no list of settings (name: value).")
    return content


def parse_yaml(text: str, where: str) -> Any:
    """Plain data from YAML; raises Refusal, naming the line, where it is not YAML."""
    yaml = _yaml()
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2021-13-45
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        place = "" if line is None else f", line {line + 1}"
        raise Refusal("bad_config", f"{where}{place}: this is not YAML.") from error


def build_config(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """A configuration from plain data; raises ValueError for an unknown name or a value of a wrong kind."""
    known = dict(settings_of(kind))
    hints = {f.name: hint for f, hint in known.items()}
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ValueError(f"unknown settings: {', '.join(unknown)}")
    required = [f.name for f in known if f.default is MISSING and f.default_factory is MISSING]
    missing = sorted(set(required) - set(values))
    if missing:
        raise ValueError(f"missing settings: {', '.join(missing)}")
    return kind(**{name: _as(hints[name], value, name) for name, value in values.items()})


def _as(hint: Any, value: Any, name: str) -> Any:
    """The value as the field's type; raises ValueError where it is of another kind."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in options:
            raise ValueError(f"{name} must be one of {', '.join(map(str, options))}; it is {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ValueError(f"{name} must be a list")
        return tuple(_as(options[0], item, name) for item in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{name} must be a mapping")
        return value
    if hint is float and isinstance(value, str):
        value = _number(value)  # YAML 1.1 reads 4e-4, which has no dot, as text
    if hint is float and type(value) is int:
        return float(value)
    if hint is float and type(value) is float and not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number; it is {value!r}")
    if hint is str and value is None:
        return ""
    if type(value) is not hint:
        words = {float: "a number", int: "a whole number", str: "text", bool: "true or false"}
        raise ValueError(f"{name} must be {words[hint]}; it is {value!r}")
    return value


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value
