"""From a configuration to a bundle: data, members, calibration on patients whom a member has not seen.

The run's folder: ``config.yaml``, ``splits.json``, ``members/00/`` with checkpoint, logs, ``weights.safetensors`` and
``held_out.json``, ``development.json`` (calibration and thresholds, with the predictions that they rest on), ``bundle/``.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from scipy.optimize import brentq
from scipy.special import expit, logit
from torch import Tensor

from HCCNetLib.bundles import Bundle, BundleDescription, Calibration, write_bundle
from HCCNetLib.bundles.bundle import PLACEHOLDER_MEMBER
from HCCNetLib.evaluation.calibration import CLIP, fit_recalibration
from HCCNetLib.evaluation.discrimination import auroc
from HCCNetLib.evaluation.follow_up import Censoring, FollowUp, cumulative_incidence, weights_at
from HCCNetLib.evaluation.horizons import judge
from HCCNetLib.evaluation.landmark_sets import by_number
from HCCNetLib.evaluation.risks import Risks
from HCCNetLib.evaluation.thresholds import choose_thresholds
from HCCNetLib.inference import choose_device, software_versions
from HCCNetLib.inference.cache import PreparedCache
from HCCNetLib.inference.predictor import calibrate
from HCCNetLib.preprocessing.pipeline import PIPELINE_VERSION
from HCCNetLib.records import Refusal
from HCCNetLib.training.card import model_card
from HCCNetLib.training.checkpoint import identity_of, write_json, write_whole
from HCCNetLib.training.configuration import config_text, deciding
from HCCNetLib.training.distributed import Workers
from HCCNetLib.training.embeddings import EMBEDDINGS_FOLDER, Embeddings, fill_together
from HCCNetLib.training.examples import (
    Example,
    Examples,
    cohort_targets,
    count_examples,
    gather_examples,
    read_cohort,
    training_cache,
)
from HCCNetLib.training.finetune import FinetuneModel, FinetuneTask, at_main_horizon, predict, trained_intervals
from HCCNetLib.training.lesions import keep_masks
from HCCNetLib.training.loop import CHECKPOINT_FILE, Loop, LoopSettings, loop_settings, parameter_groups, precision_of
from HCCNetLib.training.settings import FinetuneConfig
from HCCNetLib.training.splits import Splits, find_splits
from HCCNetLib.training.start import scale_weights, seeded
from HCCNetLib.training.starting_point import Origin, StartingPoint, find_starting_point, summarise
from HCCNetLib.training.visits import VisitPlan, judged_landmarks, trained_landmarks

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
    *("name", "demonstration", "channels", "missing_channels", "history", "model", "preprocessing", "time"),
    *("horizon_months", "horizons_months", "calibration", "average_risk", "operating_thresholds"),
}

# Settings that name places on the machine; a bundle does not pass them on.
_PLACES = {"out", "cohort", "cache", "exams_from", "target_file", "target_masks", "backbone_from", "encoder_from"}

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
        training = [example for example in training if trained_landmarks(example, self.config)]
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
    has_target = config.target_weight > 0
    targets = cohort_targets(config) if has_target and config.target_file else {}
    cache = training_cache(config)
    examples = gather_examples(cohort, config, cache, targets, progress)
    if has_target and config.target_masks:
        examples = keep_masks(examples, config, cache, progress)
    _require_targets(config, examples)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refusal("cannot_write", f"{folder} can't be written: {error.strerror}. Choose another --out.") from error
    labels = {e.patient_id: e.label for e in examples.all}
    splits = find_splits(folder, labels, (config.folds, config.test_fraction), config.seed)
    run = Run(config, examples, splits, cache, Path(config.cohort).resolve().name)
    development = [e for e in examples.all if e.patient_id in splits.development]
    judged = [e for member in range(config.members) for e in run.parts(member)[1]]
    trained_intervals(development, config).require_events(
        np.concatenate([e.follow_up(judged_landmarks(e, config)).months for e in judged]), config.horizons_months
    )
    return run


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
    if not examples.all:
        *_, last = examples.left_out.values()
        raise Refusal("no_examples", f"No patient of the cohort can be used. The last one {last}")
    if config.target_weight > 0 and not any(t is not None for e in examples.all for t in (*e.targets, *e.masks)):
        message = (
            f"No exam of the cohort has a lesion mask at {config.target_masks}. Check the path, or say --target_weight 0."
            if config.target_masks
            else f"No exam of the cohort has a value in {config.target_column} of {config.target_file}. Check patient_id and "
            f"exam_id there, or say --target_weight 0."
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
        model.load_state_dict({**model.state_dict(), **_first_phase(run, member, workers, progress)})
    plan = VisitPlan(config, member, training)
    embeddings = _embed(run, member, training, model, workers, progress) if config.frozen else None
    task = FinetuneTask(config, plan, held_out, run.cache, model, embeddings=embeddings)
    loop = Loop(task, _groups(model, config), _settings(run, member, config.steps, config.learning_rate), workers)
    weights = loop.run(progress)
    if workers.is_first:
        model.load_state_dict(weights)
        risks = predict(model, held_out, task)
        kept = {k.removeprefix("network."): v.contiguous() for k, v in weights.items() if k.startswith("network.")}
        write_whole(folder / WEIGHTS_FILE, safetensors.torch.save(kept))
        write_json(folder / HELD_OUT_FILE, _held_out_content(run, member, held_out, risks))
    workers.wait()


def _embed(
    run: Run, member: int, training: list[Example], model: FinetuneModel, workers: Workers, progress: Progress
) -> Embeddings:
    """Freezes a member's backbone and encodes the training exams with it."""
    backbone = model.network.backbone.to(workers.device)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not _is_of_first_phase(name))
    precision = precision_of(run.config.precision, workers.device)
    kept = Embeddings(run.member_folder(member) / EMBEDDINGS_FOLDER, run.config, backbone, run.cache, precision)
    fill_together(kept, training, workers, progress)
    return kept


def _first_phase(run: Run, member: int, workers: Workers, progress: Progress) -> dict[str, Tensor]:
    """The weights that the first phase trains: from its file, from another run's, or trained now."""
    run = _without_loss(run)
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
    weights = {
        name: weight.contiguous()
        for name, weight in loop.run(lambda _, done, total: progress("first phase", done, total)).items()
        if _is_of_first_phase(name)
    }
    if workers.is_first:
        write_whole(path, safetensors.torch.save(weights, {"identity": identity}))
    workers.wait()
    return weights


def _without_loss(run: Run) -> Run:
    """The run of the first phase, which does not choose patients and exams by what the second phase's loss can use."""
    config = run.config
    return replace(run, config=replace(config, loss="plain", frozen=False, batch=config.exam_batch or config.batch))


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
        model = FinetuneModel(
            config.model, config.target_stages == "all", bool(config.target_masks and config.target_weight)
        )
        if config.start == "scaled":
            scale_weights(model.network.backbone)
    return model


def _start(run: Run, member: int) -> tuple[FinetuneModel, list[Origin]]:
    """A member's network with what it takes over, and where each tensor came from.

    With scaled weights the head's biases begin at the observed hazards (Lin et al., arXiv 1708.02002, for a rare class).
    """
    model = first_model(run.config, member)
    if run.config.start == "scaled" and run.config.loss == "plain":
        places = model.network.backbone.places(run.config.preparation.crop_voxels)
        hazards = trained_intervals(run.parts(member)[0], run.config).hazards / places
        model.network.head.bias.data = torch.from_numpy(logit(np.clip(hazards, 1e-4, 1 - 1e-4))).float()
    return model, run.start.apply(model.network)


def _groups(model: FinetuneModel, config: FinetuneConfig) -> list[dict[str, Any]]:
    def scale(name: str) -> float:
        """The backbone's stages learn the more slowly the earlier they come."""
        parts = name.split(".")
        if parts[:3] != ["network", "backbone", "stages"]:
            return 1.0
        return config.layer_decay ** (len(config.model.dims) - int(parts[3]))

    return parameter_groups({n: p for n, p in model.named_parameters() if p.requires_grad}, scale)


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


def _held_out_content(
    run: Run, member: int, held_out: list[Example], risks: list[NDArray[np.float64]]
) -> dict[str, Any]:
    at_main, labels = at_main_horizon(held_out, risks, run.config)
    has_both = labels.any() and not labels.all()
    return {
        "member": member,
        "seed": run.config.seed,
        "fold": run.fold(member),
        "identity": _identity(run, member),
        "held_out": _held_out_digest(run, member),
        "auroc": auroc(labels, at_main) if has_both else None,
        "patients": [
            {"patient_id": e.patient_id, "risks": rows.tolist()} for e, rows in zip(held_out, risks, strict=True)
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
    """What is fitted after training, on each patient's landmarks by the mean of the members that did not see the patient."""
    follow_up, members, names = _out_of_fold(run)
    horizons, main = run.config.horizons_months, run.config.main
    mean = members.mean(axis=1)
    weights, labels = at_horizons(follow_up, horizons)
    fitted, problem = _calibrate(mean, labels, weights, horizons)
    risks = calibrate(mean, fitted)
    known = weights[main] > 0
    carried = [
        carry_over(one, members[:, :, k], labels[k], weights[k], run.config.members) for k, one in enumerate(fitted)
    ]
    development = [e for e in run.examples.all if e.patient_id in run.splits.development]
    everyone = FollowUp.joined([e.follow_up(patient=n) for n, e in enumerate(development)])
    return {
        "patients": len(set(names)),
        "landmarks": len(follow_up),
        "positive": int(labels[main][known].sum()),
        "members_per_patient": members.shape[1],
        "auroc": auroc(labels[main][known], mean[known, main]),
        "average_risk": cumulative_incidence(everyone, np.array(horizons), np.ones((1, len(everyone))))[0].tolist(),
        "calibration_of_held_out": [vars(one) for one in fitted],
        "calibration": [vars(one) for one in carried],
        "calibration_problem": problem,
        "by_landmark_number": _by_number(follow_up, risks, horizons),
        "thresholds": choose_thresholds(risks[known, main], labels[main][known], weights[main][known]),
        "predictions": [
            {"patient_id": name, "number": int(number), "raw": raw, "risk": risk}
            for name, number, raw, risk in zip(names, follow_up.numbers, mean.tolist(), risks.tolist(), strict=True)
        ],
    }


def _out_of_fold(run: Run) -> tuple[FollowUp, NDArray[np.float64], list[str]]:
    """All judged landmarks: follow-up, raw risks (N, members that did not see the patient, K), and patient ids."""
    risks: dict[str, list[list[list[float]]]] = defaultdict(list)
    for member in range(run.config.members):
        for row in _read_held_out(run, member)["patients"]:
            risks[row["patient_id"]].append(row["risks"])
    by_name, names = {e.patient_id: e for e in run.examples.all}, sorted(risks)
    parts, rows = [], []
    for n, name in enumerate(names):
        landmarks = judged_landmarks(by_name[name], run.config)
        parts.append(by_name[name].follow_up(landmarks, patient=n))
        rows += [name] * len(landmarks)
    members = np.concatenate([np.array(risks[name]).swapaxes(0, 1) for name in names])
    return FollowUp.joined(parts), members, rows


def at_horizons(follow_up: FollowUp, horizons: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """IPCW weights, 0 where the outcome is not known, and labels of N landmarks at K horizons: (K, N) each."""
    once = np.ones((1, len(follow_up)))
    censoring = Censoring(follow_up, once)
    weights = [weights_at(follow_up, horizon, once, censoring)[0] for horizon in horizons]
    for horizon, found in zip(horizons, weights, strict=True):
        if np.isnan(found).any():
            message = (
                f"No exam on which the calibration rests is followed for {horizon:g} months. Leave {horizon:g} out of "
                f"horizons_months."
            )
            raise Refusal("beyond_follow_up", message)
    return np.stack(weights), np.stack([follow_up.cases(horizon) for horizon in horizons])


def _calibrate(
    risks: NDArray[np.float64],
    labels: NDArray[np.bool_],
    weights: NDArray[np.float64],
    horizons: Sequence[float],
) -> tuple[list[Calibration], str | None]:
    """A calibration per horizon; or none, and why: such a bundle says in every output that it is not calibrated.

    Args:
        risks: (N, K).
        labels: (K, N).
        weights: (K, N).
        horizons: (K,) months.
    """
    fitted = []
    for k, horizon in enumerate(horizons):
        known = weights[k] > 0
        try:
            fitted.append(Calibration(*fit_recalibration(risks[known, k], labels[k][known], weights[k][known])))
        except Refusal as refusal:
            return [], f"At {horizon:g} months: {refusal.message}"
    return fitted, None


def carry_over(
    calibration: Calibration,
    members: NDArray[np.float64],
    labels: NDArray[np.bool_],
    weights: NDArray[np.float64],
    count: int,
) -> Calibration:
    """The calibration of ``count`` members' mean, from that of the few that have not seen a patient.

    The members' disagreement acts as an error of measurement, which dilutes the slope (regression dilution, Frost and
    Thompson, doi 10.1111/1467-985X.00164): 1 / slope is linear in 1 / members. It is known for one member and for all
    that have not seen a patient. The intercept follows from the observed risk, which the mean risk keeps.

    Args:
        calibration: of the mean of the members that have not seen a patient.
        members: (N, members that have not seen the patient) raw risks of landmarks, at one horizon.
        labels: (N,).
        weights: (N,) as in ``at_horizons``.
        count: of the ensemble.
    """
    seen, known = members.shape[1], weights > 0
    if seen in (1, count):
        return calibration
    try:
        slopes = [fit_recalibration(one[known], labels[known], weights[known])[0] for one in members.T]
    except Refusal:
        return calibration
    of_one, of_seen = 1 / float(np.mean(slopes)), 1 / calibration.slope
    diluted = of_seen + (of_seen - of_one) * (1 / seen - 1 / count) / (1 - 1 / seen)
    if not 0 < diluted <= of_seen:  # no dilution to be seen
        return calibration
    slope = 1 / diluted
    outputs, counted = logit(np.clip(members.mean(axis=1)[known], CLIP, 1 - CLIP)), weights[known]
    observed = np.average(labels[known], weights=counted)
    reach = slope * np.abs(outputs).max() + 40
    intercept = brentq(lambda b: np.average(expit(slope * outputs + b), weights=counted) - observed, -reach, reach)
    return Calibration(slope, float(intercept))


def _by_number(
    follow_up: FollowUp, risks: NDArray[np.float64], horizons: Sequence[float]
) -> dict[str, dict[str, dict[str, Any]]]:
    """How the calibrated risks do at first, second, third and later landmarks: number → months → figures."""
    by_horizon = Risks(dict(zip(horizons, risks.T, strict=True)))
    wanted = ("observed", "mean_risk", "calibration_intercept", "calibration_slope")
    found = {}
    for name, rows in by_number(follow_up.numbers).items():
        if rows.any():
            at = judge(follow_up, by_horizon, horizons, rows)["horizons"]
            found[name] = {months: {key: figures[key] for key in wanted} for months, figures in at.items()}
    return found


def _describe(run: Run, development: Mapping[str, Any]) -> BundleDescription:
    config, calibration = run.config, development["calibration"]
    carried = development["calibration"] != development["calibration_of_held_out"]
    fitted = (
        f"{development['landmarks']} exams of {development['patients']} development patients, each predicted by the "
        f"{development['members_per_patient']} member(s) that had not seen the patient"
        f"{', and carried over to the mean of all members' * carried}"
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
        horizons=config.horizons_months,
        missing_channels=config.missing_channels,
        members=(PLACEHOLDER_MEMBER,),
        model_card_sha256="0" * 64,
        history=config.history,
        calibration=tuple(Calibration(one["slope"], one["intercept"], fitted) for one in calibration),
        average_risk=tuple(development["average_risk"]),
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
    examples = [e for e in run.examples.all if e.patient_id in run.splits.development]
    target = None
    if config.target_weight > 0:
        target = {
            "column": "lesion masks" if config.target_masks else config.target_column,
            "weight": config.target_weight,
            "stages": "all" if config.target_masks else config.target_stages,
            "exams_with_a_value": sum(t is not None for e in examples for t in (*e.targets, *e.masks)),
            "note": "training used this beside the outcomes; prediction does not need it",
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
        "by_landmark_number": development["by_landmark_number"],
        "calibration_problem": development["calibration_problem"],
        "settings": {k: v for k, v in asdict(config).items() if k not in _PLACES},
        "software": software_versions(),
    }
