"""From a configuration to a bundle: data, members, calibration on patients whom a member has not seen.

The run's folder: ``config.yaml``, ``splits.json``, ``members/00/`` with checkpoint, logs, ``weights.safetensors`` and
``held_out.json``, ``development.json`` (calibration and thresholds, with the predictions that they rest on), ``bundle/``.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from HCCNetLib.bundles import Bundle, BundleDescription, Calibration, write_bundle
from HCCNetLib.bundles.bundle import PLACEHOLDER_MEMBER
from HCCNetLib.evaluation.calibration import fit_recalibration, recalibrate
from HCCNetLib.evaluation.discrimination import auroc
from HCCNetLib.evaluation.thresholds import choose_thresholds
from HCCNetLib.inference import choose_device, software_versions
from HCCNetLib.inference.cache import PreparedCache
from HCCNetLib.preprocessing.pipeline import PIPELINE_VERSION
from HCCNetLib.records import Refusal
from HCCNetLib.training.card import model_card
from HCCNetLib.training.checkpoint import identity_of, write_json, write_whole
from HCCNetLib.training.configuration import config_text, deciding
from HCCNetLib.training.distributed import Workers
from HCCNetLib.training.examples import (
    Example,
    Examples,
    cohort_targets,
    count_examples,
    gather_examples,
    read_cohort,
    training_cache,
)
from HCCNetLib.training.finetune import FinetuneModel, FinetuneTask, predict
from HCCNetLib.training.loop import CHECKPOINT_FILE, Loop, LoopSettings, loop_settings, parameter_groups, precision_of
from HCCNetLib.training.settings import FinetuneConfig
from HCCNetLib.training.splits import Splits, find_splits
from HCCNetLib.training.start import scale_weights, seeded
from HCCNetLib.training.starting_point import Origin, StartingPoint, find_starting_point, summarise
from HCCNetLib.training.visits import VisitPlan

CONFIG_FILE, WEIGHTS_FILE, HELD_OUT_FILE, DEVELOPMENT_FILE = (
    "config.yaml",
    "weights.safetensors",
    "held_out.json",
    "development.json",
)
LEFT_OUT_FILE, START_FILE = "left_out.json", "start.json"
FIRST_PHASE = "exams"
# What a bundle that is kept must say as this run would.
_SAID = {
    *("name", "demonstration", "channels", "history", "model", "preprocessing", "time", "horizon_months"),
    *("calibration", "operating_thresholds"),
}

# Settings that name places on the machine, which are nobody else's business.
_PLACES = {"out", "cohort", "cache", "exams_from", "target_file", "backbone_from", "encoder_from"}

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Run:
    """A stage's data, ready for its members.

    Args:
        config: the settings.
        examples: the cohort's patients.
        splits: their parts.
        cache: of prepared exams.
        cohort: name of the cohort as given.
        start: what the members begin with.
    """

    config: FinetuneConfig
    examples: Examples
    splits: Splits
    cache: PreparedCache
    cohort: str
    start: StartingPoint = field(default_factory=StartingPoint)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.config.out)

    def member_folder(self, member: int) -> Path:
        """A member's folder."""
        return self.folder / "members" / f"{member:02d}"

    def fold(self, member: int) -> int:
        """The fold that a member leaves out."""
        return member % self.config.folds if self.config.ensemble == "folds" else 0

    def parts(self, member: int) -> tuple[list[Example], list[Example]]:
        """A member's training patients and those held out."""
        by_name = {e.patient_id: e for e in self.examples.all}
        fold = self.fold(member)
        training = [by_name[name] for name in sorted(self.splits.training(fold))]
        return training, [by_name[name] for name in self.splits.folds[fold]]

    def start_summary(self) -> list[str]:
        """Where a member's first weights come from, a sentence per source; see ``start.json`` for each tensor."""
        return summarise(_start(self, 0)[1])

    def is_trained(self, member: int) -> bool:
        """Whether a member's weights and held-out predictions are there; the latter are written last."""
        folder = self.member_folder(member)
        return (folder / WEIGHTS_FILE).is_file() and (folder / HELD_OUT_FILE).is_file()


def read_data(config: FinetuneConfig, progress: Progress) -> Run:
    """Reads the cohort, prepares its exams, draws or reads the split.

    Raises:
        Refusal: something about the data or the folder; see the functions called.
    """
    folder = Path(config.out)
    cohort = read_cohort(config)
    targets = cohort_targets(config) if config.target_weight > 0 else {}
    cache = training_cache(config)
    examples = gather_examples(cohort, config, cache, targets, progress)
    _require_targets(config, examples)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refusal("cannot_write", f"{folder} can't be written: {error.strerror}. Choose another --out.") from error
    labels = {e.patient_id: e.label for e in examples.all}
    splits = find_splits(folder, labels, (config.folds, config.test_fraction), config.seed)
    return Run(config, examples, splits, cache, Path(config.cohort).resolve().name)


def open_run(config: FinetuneConfig, progress: Progress, is_first: bool = True) -> Run:
    """The data, and what the members begin with; the first of several processes writes the settings.

    Raises:
        Refusal: something about data, folder or self-supervised runs; see the functions called.
    """
    start = find_starting_point(config)  # before exams are prepared for nothing
    run = replace(read_data(config, progress), start=start)
    start.require_unseen(run.splits.test, folder=run.folder)
    for member in range(config.members):
        _require_same(run, member)  # before the settings on file, by which the others were trained, are replaced
    if is_first:
        write_json(run.folder / LEFT_OUT_FILE, run.examples.left_out)
        write_whole(run.folder / CONFIG_FILE, config_text(config).encode())
    return run


def _require_targets(config: FinetuneConfig, examples: Examples) -> None:
    if config.target_weight > 0 and not any(t is not None for e in examples.all for t in e.targets):
        message = (
            f"No exam of the cohort has a value in {config.target_column} of {config.target_file}. Check patient_id and exam_id "
            f"there, or say --target_weight 0."
        )
        raise Refusal("no_targets", message)


def train_member(run: Run, member: int, workers: Workers, progress: Progress) -> None:
    """Trains one member from its checkpoint or from the start; writes its weights and held-out predictions."""
    config, folder = run.config, run.member_folder(member)
    if workers.decided(run.is_trained(member)):
        return
    training, held_out = run.parts(member)
    model, origins = _start(run, member)
    if workers.is_first:
        write_json(folder / START_FILE, [origin.to_dict() for origin in origins])
    if config.exam_steps:
        model.load_state_dict(_first_phase(run, member, workers, progress))
    task = FinetuneTask(config, VisitPlan(config, member, training), held_out, run.cache, model)
    loop = Loop(task, _groups(model, config), _settings(run, member, config.steps, config.learning_rate), workers)
    weights = loop.run(progress)
    if workers.is_first:
        model.load_state_dict(weights)
        probability = predict(model, held_out, task)
        kept = {k.removeprefix("network."): v.contiguous() for k, v in weights.items() if k.startswith("network.")}
        write_whole(folder / WEIGHTS_FILE, safetensors.torch.save(kept))
        write_json(folder / HELD_OUT_FILE, _held_out_content(run, member, held_out, probability.tolist()))
    workers.wait()


def _first_phase(run: Run, member: int, workers: Workers, progress: Progress) -> dict[str, Tensor]:
    """The whole model's weights after the first phase: from its file, from another run's, or trained now."""
    config, folder = run.config, run.member_folder(member) / FIRST_PHASE
    path, identity = folder / WEIGHTS_FILE, _identity(run, member, first_phase=True)
    if config.exams_from:
        path = Path(config.exams_from) / "members" / f"{member:02d}" / FIRST_PHASE / WEIGHTS_FILE
    if config.exams_from or workers.decided(path.is_file()):
        return _read_first_phase(path, identity)
    training, _ = run.parts(member)
    model, _ = _start(run, member)
    task = FinetuneTask(config, VisitPlan(config, member, training), (), run.cache, model, exams_only=True)
    trained = {name: p for name, p in model.named_parameters() if _is_of_first_phase(name)}
    settings = replace(
        _settings(run, member, config.exam_steps, config.exam_learning_rate),
        folder=folder,
        identity=identity,
        average=0.0,
    )
    loop = Loop(task, parameter_groups(trained, lambda _: 1.0), settings, workers)
    weights = loop.run(lambda _, done, total: progress("first phase", done, total))
    if workers.is_first:
        plain = {name: weight.contiguous() for name, weight in weights.items()}
        write_whole(path, safetensors.torch.save(plain, {"identity": identity}))
    workers.wait()
    return weights


def _is_of_first_phase(name: str) -> bool:
    return name.startswith(("network.backbone.", "target_head.", "stage_heads."))


def _read_first_phase(path: Path, identity: str) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            found = (file.metadata() or {}).get("identity")
        weights = safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise Refusal(
            "no_first_phase", f"The first phase {path} is not there or can't be read. Train it first."
        ) from error
    if found != identity:
        message = f"{path} is the first phase of other settings or patients. Give the same, or leave exams_from empty."
        raise Refusal("other_run", message)
    return weights


def first_model(config: FinetuneConfig, member: int) -> FinetuneModel:
    """A member's network before training; its weights follow from the seed and the member's number."""
    with seeded(config.seed, member):
        model = FinetuneModel(config.model, config.target_stages == "all")
        if config.start == "scaled":
            scale_weights(model.network.backbone)
    return model


def _start(run: Run, member: int) -> tuple[FinetuneModel, list[Origin]]:
    """A member's network with what it takes over, and where each tensor came from."""
    model = first_model(run.config, member)
    return model, run.start.apply(model.network)


def _groups(model: FinetuneModel, config: FinetuneConfig) -> list[dict[str, Any]]:
    def scale(name: str) -> float:
        """The backbone's stages learn the more slowly the earlier they come."""
        parts = name.split(".")
        if parts[:3] != ["network", "backbone", "stages"]:
            return 1.0
        return config.layer_decay ** (len(config.model.dims) - int(parts[3]))

    return parameter_groups(dict(model.named_parameters()), scale)


def _settings(run: Run, member: int, steps: int, learning_rate: float) -> LoopSettings:
    config = replace(run.config, steps=steps, learning_rate=learning_rate)
    return replace(loop_settings(config, run.member_folder(member), _identity(run, member)), average=config.average)


def _identity(run: Run, member: int, first_phase: bool = False) -> str:
    """A digest of all that decides a member's weights, or its first phase's."""
    training, _ = run.parts(member)
    settings = deciding(run.config, ("all",) if first_phase else ("all", "second phase"))
    begun = [*run.start.digests, precision_of(run.config.precision, choose_device(run.config.device))]
    content = [settings, begun, member, PIPELINE_VERSION, run.examples.digest([e.patient_id for e in training])]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _held_out_content(run: Run, member: int, held_out: list[Example], probability: list[float]) -> dict[str, Any]:
    return {
        "member": member,
        "seed": run.config.seed,
        "fold": run.fold(member),
        "identity": _identity(run, member),
        "held_out": _held_out_digest(run, member),
        "auroc": auroc(np.array([e.label for e in held_out]), np.array(probability)),
        "patients": [
            {"patient_id": e.patient_id, "label": e.label, "probability": p}
            for e, p in zip(held_out, probability, strict=True)
        ],
    }


def _held_out_digest(run: Run, member: int) -> str:
    """Of the held-out patients' exams and labels, on which calibration and thresholds rest."""
    return run.examples.digest([e.patient_id for e in run.parts(member)[1]])


def _read_held_out(run: Run, member: int) -> dict[str, Any]:
    path = run.member_folder(member) / HELD_OUT_FILE
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        content["identity"], content["held_out"], content["patients"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refusal("bad_member", f"{path} can't be read. Remove {path.parent} to train it again.") from error
    return content


def _require_same(run: Run, member: int) -> None:
    """A member that was trained, or begun, with other settings is not taken for one of this run."""
    checkpoint = run.member_folder(member) / CHECKPOINT_FILE
    same = True
    if run.is_trained(member):
        content = _read_held_out(run, member)
        same = content["identity"] == _identity(run, member) and content["held_out"] == _held_out_digest(run, member)
    elif checkpoint.is_file():
        same = identity_of(checkpoint) in (
            None,
            _identity(run, member),
        )  # what can't be read is refused when it is loaded
    if not same:
        message = (
            f"{run.member_folder(member)} was trained with other settings, other patients or another version. Give the same, "
            f"or choose another folder with --out."
        )
        raise Refusal("other_run", message)


def missing_members(run: Run) -> list[int]:
    """Members that are not trained yet."""
    return [m for m in range(run.config.members) if not run.is_trained(m)]


def assemble(run: Run) -> Bundle:
    """Calibration and thresholds from held-out predictions, then the bundle; an earlier one of the same run is kept.

    Raises:
        Refusal: a member is missing, or its outputs say nothing about the held-out patients.
    """
    for member in range(run.config.members):
        _require_same(run, member)
    development = _development(run)
    write_json(run.folder / DEVELOPMENT_FILE, development)
    path, description = run.folder / "bundle", _describe(run, development)
    members: list[tuple[Mapping[str, Tensor], int | None]] = [
        (_read_weights(run, m), m) for m in range(run.config.members)
    ]
    if path.exists():
        return _kept_bundle(path, description, [weights for weights, _ in members])
    return write_bundle(path, description, members, model_card(description))


def _kept_bundle(path: Path, description: BundleDescription, members: list[Mapping[str, Tensor]]) -> Bundle:
    """The bundle that is there, if it holds these members and says the same of them."""
    bundle = Bundle.open(path)
    says, wanted = ({k: v for k, v in d.to_dict().items() if k in _SAID} for d in (bundle.description, description))
    same = json.dumps(says) == json.dumps(wanted) and len(bundle.description.members) == len(members)
    if not same or any(not _holds(bundle, i, weights) for i, weights in enumerate(members)):
        message = f"{path} holds other members, or says other things, than this run's. Move it away, then give the same command."
        raise Refusal("other_bundle", message)
    return bundle


def _holds(bundle: Bundle, index: int, weights: Mapping[str, Tensor]) -> bool:
    kept = bundle.member(index).state_dict()
    return kept.keys() == weights.keys() and all(torch.equal(kept[k], w.half().float()) for k, w in weights.items())


def _read_weights(run: Run, member: int) -> dict[str, Tensor]:
    path = run.member_folder(member) / WEIGHTS_FILE
    try:
        return safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise Refusal("bad_member", f"{path} can't be read. Remove {path.parent} to train it again.") from error


def _development(run: Run) -> dict[str, Any]:
    """What is fitted after training: each patient's probability is the mean of the members that did not see them."""
    probabilities: dict[str, list[float]] = defaultdict(list)
    labels: dict[str, bool] = {}
    for member in range(run.config.members):
        for row in _read_held_out(run, member)["patients"]:
            probabilities[row["patient_id"]].append(row["probability"])
            labels[row["patient_id"]] = row["label"]
    names = sorted(probabilities)
    members = np.array([probabilities[name] for name in names])
    mean, truth = members.mean(axis=1), np.array([labels[name] for name in names])
    calibration, problem = _calibrate(mean, truth)
    risks = mean if calibration is None else recalibrate(mean, calibration["slope"], calibration["intercept"])
    return {
        "patients": len(names),
        "positive": int(truth.sum()),
        "members_per_patient": members.shape[1],
        "auroc": auroc(truth, mean),
        "calibration_of_held_out": calibration,
        "calibration": None if calibration is None else carry_over(calibration, members, truth, run.config.members),
        "calibration_problem": problem,
        "thresholds": choose_thresholds(risks, truth),
        "predictions": [
            {"patient_id": name, "label": bool(label), "probability": float(p), "risk": float(r)}
            for name, label, p, r in zip(names, truth, mean, risks, strict=True)
        ],
    }


def _calibrate(
    probability: NDArray[np.float64], labels: NDArray[np.bool_]
) -> tuple[dict[str, float] | None, str | None]:
    """Slope and intercept, or why there are none; such a bundle says in every output that it is not calibrated."""
    try:
        slope, intercept = fit_recalibration(probability, labels)
    except Refusal as refusal:
        return None, refusal.message
    return {"slope": slope, "intercept": intercept}, None


def carry_over(
    calibration: dict[str, float], members: NDArray[np.float64], labels: NDArray[np.bool_], count: int
) -> dict[str, float]:
    """The calibration of ``count`` members' mean, from that of the few that have not seen a patient.

    The members' disagreement acts as an error of measurement, which dilutes the slope (regression dilution, Frost and
    Thompson, doi 10.1111/1467-985X.00164): 1 / slope is linear in 1 / members. It is known for one member and for all
    that have not seen a patient; the output that means a risk of one half stays where it is.

    Args:
        calibration: of the mean of the members that have not seen a patient.
        members: (patients, members that have not seen them).
        labels: (patients,).
        count: of the ensemble.
    """
    seen = members.shape[1]
    if seen in (1, count):
        return calibration
    single = [_calibrate(members[:, i], labels)[0] for i in range(seen)]
    slopes = [one["slope"] for one in single if one is not None]
    if len(slopes) < seen:
        return calibration
    of_one, of_seen = 1 / float(np.mean(slopes)), 1 / calibration["slope"]
    diluted = of_seen + (of_seen - of_one) * (1 / seen - 1 / count) / (1 - 1 / seen)
    if not 0 < diluted <= of_seen:  # no dilution to be seen
        return calibration
    slope = 1 / diluted
    return {"slope": slope, "intercept": calibration["intercept"] * slope / calibration["slope"]}


def _describe(run: Run, development: Mapping[str, Any]) -> BundleDescription:
    config, calibration = run.config, development["calibration"]
    fitted = (
        f"{development['patients']} development patients ({development['positive']} positive), each predicted by the "
        f"{development['members_per_patient']} member(s) that had not seen them, and carried over to the mean of all members"
    )
    return BundleDescription(
        name=config.name,
        version="1",
        licence="Apache-2.0" if run.examples.phantom else "unknown",
        intended_use=_intended_use(run),
        demonstration=_is_demonstration(run),
        channels=config.channels,
        model=config.model,
        preprocessing=config.preparation,
        time_unit=config.time,
        horizon_months=config.horizon_months,
        members=(PLACEHOLDER_MEMBER,),
        model_card_sha256="0" * 64,
        history=config.history,
        calibration=None if calibration is None else Calibration(**calibration, fitted_on=fitted),
        operating_thresholds=tuple(development["thresholds"]),
        training_data=_training_data(run, development),
    )


def _is_demonstration(run: Run) -> bool:
    """Whoever learned from a phantom says nothing about a patient, whatever the settings say."""
    return run.config.demonstration or run.examples.phantom


def _intended_use(run: Run) -> str:
    if run.examples.phantom:
        return "Its weights were learned from generated phantom images; they show that the software works and nothing else."
    if run.config.demonstration:
        return "A demonstration: it shows that the software works and nothing else."
    return "Research. Not for clinical use."


def _training_data(run: Run, development: Mapping[str, Any]) -> dict[str, Any]:
    """What the bundle says of its training: development patients only, those set aside apart."""
    config = run.config
    names = {name for fold in run.splits.folds for name in fold}
    examples = [e for e in run.examples.all if e.patient_id in names]
    target = None
    if config.target_weight > 0:
        target = {
            "column": config.target_column,
            "weight": config.target_weight,
            "stages": config.target_stages,
            "exams_with_a_value": sum(t is not None for e in examples for t in e.targets),
            "note": "training was told this about its exams beside the labels; prediction does not need it",
        }
    kind = "generated patients (phantom)" if run.examples.phantom else "patients"
    seed = f", seed {config.phantom_seed}" if config.phantom_patients else ""
    return {
        "summary": f"{len(examples)} {kind} of the cohort {run.cohort}{seed}",
        "counts": {**count_examples(examples), **run.examples.counts},
        "set_aside_as_test": len(run.splits.test),
        "left_out": run.examples.reasons(),
        "exam_level_target": target,
        "pretraining": run.start.describe(),
        "out_of_fold_auroc": round(development["auroc"], 4),
        "calibration_problem": development["calibration_problem"],
        "settings": {k: v for k, v in asdict(config).items() if k not in _PLACES},
        "software": software_versions(),
    }
