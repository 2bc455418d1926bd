"""Patient + bundle → Prediction: each exam is prepared once and encoded once per member."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import nibabel
import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from torch import Tensor

from HCCNetLib.bundles import Bundle, BundleDescription, Calibration
from HCCNetLib.inference.attention import attention_rollout
from HCCNetLib.inference.prediction import ExamResult, Prediction
from HCCNetLib.models import STAGES, HCCNet, risk_logits
from HCCNetLib.preprocessing import PreparedExam, prepare_patient
from HCCNetLib.readers import check_images, require_channels
from HCCNetLib.records import Patient, Problem, Refusal, months_between
from HCCNetLib.version import __version__

# Ensembles up to this size stay in memory between patients.
_KEEP_PARAMETERS = 250_000_000
_WORDS_OF_A_FULL_GPU = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Reading:
    """What the transformer reads when it is asked about one landmark.

    Args:
        exams: indices into the patient's exams; the last one is the landmark.
        times: (len(exams),) in the bundle's unit, 0 for the landmark.
        main: index of the main horizon, which is explained.
    """

    exams: tuple[int, ...]
    times: Tensor
    main: int = 0

    def logit(self, model: HCCNet, embeddings: Tensor) -> Tensor:
        """The risk's logit for embeddings (B, S, D) of all exams, of which these are read: (B,)."""
        count = len(embeddings)
        lengths = torch.tensor([len(self.exams)] * count, device=embeddings.device)
        hazards = model.classify(embeddings[:, list(self.exams)], self.times.expand(count, -1), lengths)[0]
        return self.logit_of(hazards)

    def logit_of(self, hazards: Tensor) -> Tensor:
        """The risk's logit (B,) from those of the hazards (B, K)."""
        return risk_logits(hazards)[:, self.main]


@dataclass(frozen=True)
class EncodedSequence:
    """One member's reading of a patient.

    Args:
        images: (S, C, X, Y, Z) as prepared.
        field: (S, X, Y, Z), True where an exam was read; the rest is padding.
        stage_maps: the feature map after each of the four stages, (S, C', x, y, z).
        embeddings: (S, D).
        as_of: per exam, what is read with it as landmark; the last one is the prediction's.
        voxel_mm: edge of a voxel of ``images``.
    """

    images: Tensor
    field: Tensor
    stage_maps: tuple[Tensor, ...]
    embeddings: Tensor
    as_of: tuple[Reading, ...]
    voxel_mm: float

    @property
    def reading(self) -> Reading:
        """What the prediction rests on: all exams, unless the bundle was trained to read fewer."""
        return self.as_of[-1]


class MemberObserver(Protocol):
    """Something that wants to see each member at work, an explanation for example."""

    def observe(self, model: HCCNet, sequence: EncodedSequence) -> None:
        """Called once per member, after it has encoded the patient."""
        ...


@dataclass
class Stopwatch:
    """Seconds per stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Adds the time of the block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class _Questions:
    """All that a member is asked about one patient, as sequences over the same embeddings.

    Row 0 is the whole series; then the series without each exam but the landmark; then, for each exam but the
    landmark, the series as known on its day.

    Args:
        members: per sequence, indices of its exams.
        times: per sequence, the times of its exams in the bundle's unit.
        main: index of the main horizon.
    """

    members: tuple[tuple[int, ...], ...]
    times: tuple[tuple[float, ...], ...]
    main: int

    @classmethod
    def about(cls, patient: Patient, bundle: Bundle) -> _Questions:
        description, dates = bundle.description, [exam.date for exam in patient.exams]
        n = len(dates)
        whole = tuple(range(n))
        without = [tuple(i for i in whole if i != left_out) for left_out in range(n - 1)]
        prefixes = [tuple(range(last + 1)) for last in range(n - 1)]
        known = [[dates[i] for i in row] for row in (whole, *without, *prefixes)]
        members = tuple(
            tuple(row[i] for i in description.read_of(days))
            for row, days in zip((whole, *without, *prefixes), known, strict=True)
        )
        times = tuple(description.times_of([dates[i] for i in row]) for row in members)
        return cls(members, times, description.main)

    @property
    def landmark_rows(self) -> list[int]:
        """The rows with each exam as landmark, oldest first."""
        count = (len(self.members) + 1) // 2  # 1 + (n - 1) + (n - 1) rows
        return [*range(count, len(self.members)), 0]

    def as_of(self, device: torch.device) -> tuple[Reading, ...]:
        """What is read with each exam as landmark, oldest first."""
        rows = self.landmark_rows
        return tuple(
            Reading(self.members[row], torch.tensor(self.times[row], device=device), self.main) for row in rows
        )

    def batch(self, embeddings: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Padded embeddings (B, S, D), times (B, S), lengths (B,)."""
        longest = max(len(row) for row in self.members)
        index = torch.tensor([[*row, *[0] * (longest - len(row))] for row in self.members], device=embeddings.device)
        times = torch.tensor([[*row, *[0.0] * (longest - len(row))] for row in self.times], device=embeddings.device)
        lengths = torch.tensor([len(row) for row in self.members], device=embeddings.device)
        return embeddings[index], times, lengths


def full_gpu(error: BaseException) -> Refusal | None:
    """What to say of an error if it is that of a full GPU, else None."""
    # Only torch's own allocator has a class for it; CUDA's context and cuBLAS fail with words.
    told = isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS_OF_A_FULL_GPU)
    if not told and not isinstance(error, torch.cuda.OutOfMemoryError):
        return None
    message = "The GPU's memory does not suffice. Close other programs that use it, or say --device cpu."
    return Refusal("out_of_memory", message)


@contextmanager
def refusing_a_full_gpu() -> Iterator[None]:
    """Whatever part of the block finds the GPU's memory full, a Refusal says so."""
    try:
        yield
    except RuntimeError as error:
        refusal = full_gpu(error)
        if refusal is None:
            raise
        raise refusal from error


class Predictor:
    """Predicts patients with one bundle.

    Args:
        bundle: a verified bundle, or the path of one.
        device: ``auto`` (a CUDA GPU where there is one), ``cpu`` or ``cuda``.

    Raises:
        Refusal: the bundle can't be used, or there is no such device.
    """

    def __init__(self, bundle: Bundle | str | Path, device: str = "auto") -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        self.device = choose_device(device)
        self._kept: dict[int, HCCNet] = {}

    def predict(
        self, patient: Patient, observers: Sequence[MemberObserver] = (), progress: Progress | None = None
    ) -> Prediction:
        """The risk at the patient's latest exam.

        Args:
            patient: all exams with the bundle's channels.
            observers: see each member at work.
            progress: called with stage, done and total.

        Raises:
            Refusal: a channel is missing, an image can't be used, or the GPU's memory does not suffice.
        """
        return self.predict_prepared(patient, self.prepare(patient, progress), observers, progress)

    def prepare(self, patient: Patient, progress: Progress | None = None) -> tuple[PreparedExam, ...]:
        """Prepares a patient's exams for the networks."""
        description = self.bundle.description
        if not description.missing_channels:
            require_channels(patient, description.channels)  # before the work rather than in the midst of it
        settings = description.channels, description.preprocessing, description.missing_channels
        prepared: list[PreparedExam] = []
        _tell(progress, "reading exams", 0, len(patient.exams))
        for one in prepare_patient(patient.exams, *settings):
            prepared.append(one)
            _tell(progress, "reading exams", len(prepared), len(patient.exams))
        return tuple(prepared)

    def risks_at_every_exam(self, patient: Patient, prepared: Sequence[PreparedExam]) -> NDArray[np.float64]:
        """Each member's raw risks with each exam as landmark, oldest first: (members, exams, horizons).

        Raises:
            Refusal: the GPU's memory does not suffice, or a network's output is not a number.
        """
        questions = _Questions.about(patient, self.bundle)
        return self._ask(questions, prepared, (), None, Stopwatch())[0][:, questions.landmark_rows]

    def predict_prepared(
        self,
        patient: Patient,
        prepared: Sequence[PreparedExam],
        observers: Sequence[MemberObserver] = (),
        progress: Progress | None = None,
    ) -> Prediction:
        """The prediction from exams that were prepared before.

        Raises:
            Refusal: the GPU's memory does not suffice, or a network's output is not a number.
        """
        watch = Stopwatch()
        questions = _Questions.about(patient, self.bundle)
        return self._assemble(patient, prepared, *self._ask(questions, prepared, observers, progress, watch), watch)

    @refusing_a_full_gpu()
    @torch.no_grad()
    def _ask(
        self,
        questions: _Questions,
        prepared: Sequence[PreparedExam],
        observers: Sequence[MemberObserver],
        progress: Progress | None,
        watch: Stopwatch,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Every member's answers: risks (members, questions, horizons), and the mean attention (S,) of the whole series."""
        images = torch.from_numpy(np.stack([p.data for p in prepared])).to(self.device)
        field = torch.from_numpy(np.stack([p.window.read_mask for p in prepared])).to(self.device)
        voxel_mm = self.bundle.description.preprocessing.spacing_mm
        count = len(self.bundle.description.members)
        probabilities, attentions = [], []
        for index in range(count):
            _tell(progress, "predicting", index, count)
            with watch.measure("load"):
                model = self._member(index)
            with watch.measure("encode"):
                sequence = _encode(model, images, field, questions, voxel_mm)
            with watch.measure("classify"):
                hazards, attention = model.classify(*questions.batch(sequence.embeddings))
                probabilities.append(risk_logits(hazards.double()).sigmoid().cpu().numpy())
                attentions.append(_over_all_exams(attention[0], sequence))
            with watch.measure("explain"):
                for observer in observers:
                    observer.observe(model, sequence)
        if not np.isfinite(probabilities).all():
            raise Refusal("not_finite", "A network's output is not a number: the bundle's weights can't be used.")
        _tell(progress, "predicting", count, count)
        return np.stack(probabilities), np.mean(attentions, axis=0)

    def _member(self, index: int) -> HCCNet:
        if index in self._kept:
            return self._kept[index]
        model = self.bundle.member(index).to(self.device)
        size = sum(p.numel() for p in model.parameters())
        if size * len(self.bundle.description.members) <= _KEEP_PARAMETERS:
            self._kept[index] = model
        return model

    def _assemble(
        self,
        patient: Patient,
        prepared: Sequence[PreparedExam],
        probabilities: NDArray[np.float64],
        attention: NDArray[np.float64],
        watch: Stopwatch,
    ) -> Prediction:
        """Risks (members, questions, horizons) and attention (S,) → the prediction."""
        description = self.bundle.description
        exams, n, main = patient.exams, len(patient.exams), description.main
        mean = probabilities.mean(axis=0)
        risks = calibrate(mean, description.calibration)
        risks_of_members = calibrate(probabilities[:, 0], description.calibration)
        risk, members = risks[:, main], risks_of_members[:, main]
        without = [float(r) for r in risk[1:n]] + [None]
        earlier = [float(r) for r in risk[n:]]
        results = tuple(
            ExamResult(
                exam_id=exam.exam_id,
                date=exam.date.isoformat(),
                months_before_landmark=months_between(exam.date, patient.landmark.date),
                attention=float(attention[i]),
                risk_without=without[i],
                saliency=None,
                field=prepared[i].field(),
            )
            for i, exam in enumerate(exams)
        )
        trajectory = tuple(
            {"as_of": exam.date.isoformat(), "risk": r}
            for exam, r in zip(exams, [*earlier, float(risk[0])], strict=True)
        )
        return Prediction(
            patient_id=patient.patient_id,
            bundle={
                "name": description.name,
                "version": description.version,
                "sha256": self.bundle.sha256,
                "demonstration": description.demonstration,
                "calibrated": bool(description.calibration),
            },
            landmark=patient.landmark.date.isoformat(),
            horizon_months=description.horizon_months,
            risk=float(risk[0]),
            risk_uncalibrated=float(mean[0, main]),
            risk_by_horizon=_by_horizon(description, risks[0], mean[0], risks_of_members),
            members=tuple(float(r) for r in members),
            spread={"sd": float(members.std()), "low": float(members.min()), "high": float(members.max())},
            exams=results,
            trajectory=trajectory,
            warnings=tuple(self._warnings(patient, prepared)),
            software=software_versions(),
            seconds=watch.seconds,
            phantom=patient.is_phantom,
        )

    def _warnings(self, patient: Patient, prepared: Sequence[PreparedExam]) -> list[Problem]:
        warnings = []
        description = self.bundle.description
        if description.demonstration:
            about = (
                "a generated patient (phantom), who does not exist: it shows that the method works on such images"
                if patient.is_phantom
                else "this result has no meaning for this patient"
            )
            message = f"Demonstration weights ({description.name}): {about}. {description.intended_use}"
            warnings.append(Problem("demonstration", message))
        elif not description.calibration:
            message = (
                "The bundle is not calibrated: the risk is the mean of the networks' raw outputs, which may be far too high "
                "or too low. Compare it between patients; don't read it as a probability."
            )
            warnings.append(Problem("not_calibrated", message))
        warnings += patient.problems
        for exam, ready in zip(patient.exams, prepared, strict=True):
            warnings += [*exam.problems, *check_images(exam, description.channels), *ready.problems]
            absent = [channel for channel in description.channels if channel not in exam.images]
            if absent:
                message = f"{', '.join(absent)} missing; the networks were trained for that and read zeros instead."
                warnings.append(Problem("missing_channel", message, exam.exam_id))
        warnings += _same_images(prepared, description.channels)
        if description.history == "latest" and len(patient.exams) > 1:
            message = "The bundle's networks read the latest exam alone; the earlier ones play no part."
            warnings.append(Problem("earlier_exams_unused", message))
        if len(patient.exams) == 1:
            message = "There is only one exam: the risk rests on no change over time."
            warnings.append(Problem("single_exam", message))
        return warnings


def _same_images(prepared: Sequence[PreparedExam], channels: Sequence[str]) -> list[Problem]:
    """One image at two places is most often a file copied to the wrong exam or channel."""
    seen: dict[str, str] = {}
    problems = []
    for exam in prepared:
        for channel, data in zip(channels, exam.data, strict=True):
            here = f"{channel} of exam {exam.exam_id}"
            digest = hashlib.sha256(data.tobytes()).hexdigest()
            if data.any() and digest in seen:
                message = f"{here} is the same image as {seen[digest]}. Check that the right files were given."
                problems.append(Problem("same_image_twice", message, exam.exam_id))
            seen.setdefault(digest, here)
    return problems


def _encode(model: HCCNet, images: Tensor, field: Tensor, questions: _Questions, voxel_mm: float) -> EncodedSequence:
    """Encodes exams (S, C, X, Y, Z) one by one; what grows with the series is the feature maps that are kept."""
    maps: list[list[Tensor]] = [[] for _ in range(STAGES)]
    for image in images:
        features = image[None]
        for stage in range(STAGES):
            features = model.backbone.forward_stages(features, stage, stage + 1)
            maps[stage].append(features)
    stage_maps = tuple(torch.cat(of_stage) for of_stage in maps)
    embeddings = model.backbone.pool(stage_maps[-1])
    return EncodedSequence(images, field, stage_maps, embeddings, questions.as_of(images.device), voxel_mm)


def _over_all_exams(attention: Tensor, sequence: EncodedSequence) -> NDArray[np.float64]:
    """The attention (layers, heads, tokens, tokens) of row 0 as a share per exam (S,), 0 for one that is not read."""
    shares = np.zeros(len(sequence.embeddings))
    read = sequence.reading.exams
    tokens = 1 + len(read)  # another question's sequence may be longer
    shares[list(read)] = attention_rollout(attention[..., :tokens, :tokens]).double().cpu().numpy()
    return shares


def _by_horizon(
    description: BundleDescription,
    risk: NDArray[np.float64],
    raw: NDArray[np.float64],
    members: NDArray[np.float64],
) -> tuple[Mapping[str, Any], ...]:
    """Risk and raw risk (horizons,) and members (members, horizons) as ``prediction.json`` has them."""
    average = description.average_risk or (None,) * len(description.horizons)
    return tuple(
        {
            "months": months,
            "risk": float(risk[k]),
            "risk_uncalibrated": float(raw[k]),
            "low": float(members[:, k].min()),
            "high": float(members[:, k].max()),
            "average": average[k],
        }
        for k, months in enumerate(description.horizons)
    )


def calibrate(risks: NDArray[np.float64], calibration: Sequence[Calibration]) -> NDArray[np.float64]:
    """sigmoid(slope · logit(p) + intercept) at each horizon; p as it is where there is no calibration.

    A risk that comes out lower than that of a shorter horizon is raised to it.

    Args:
        risks: (..., horizons) 0–1.
        calibration: one per horizon, or none.
    """
    if not calibration:
        return risks
    slope, intercept = (np.array([getattr(one, name) for one in calibration]) for name in ("slope", "intercept"))
    p = np.clip(risks, 1e-6, 1 - 1e-6)  # as where the calibration is fitted
    calibrated = 1 / (1 + np.exp(-(slope * np.log(p / (1 - p)) + intercept)))
    return np.maximum.accumulate(calibrated, axis=-1)


def choose_device(name: str) -> torch.device:
    """``auto`` takes a CUDA GPU where there is one.

    Raises:
        Refusal: ``cuda`` was asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise Refusal(
            "no_gpu", "There is no CUDA GPU that this torch can use. Say --device cpu, or see `hccnet doctor`."
        )
    return torch.device(name)


def software_versions() -> dict[str, str]:
    """The packages that shape a result, and their versions."""
    return {
        "hccnet": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "nibabel": nibabel.__version__,
    }


def _tell(progress: Progress | None, stage: str, done: int, total: int) -> None:
    if progress is not None:
        progress(stage, done, total)
