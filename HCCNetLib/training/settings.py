"""The settings of the three stages. The defaults are the published ones, except where the help says what is published.

Sizes are in patients, exams and steps, lengths in voxels of the network's grid. What each field means stands in its help.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from HCCNetLib.bundles.description import check_horizons
from HCCNetLib.models import VARIANTS, ModelConfig
from HCCNetLib.models.convnext3d import BlockVersion
from HCCNetLib.models.hccnet import HeadForm
from HCCNetLib.models.pooling import Pooling
from HCCNetLib.preprocessing import PreprocessingConfig
from HCCNetLib.training.configuration import setting

Loss = Literal["balanced", "focal", "plain"]
LandmarkWeight = Literal["number", "equal"]
Ensemble = Literal["folds", "seeds"]
Precision = Literal["auto", "float32", "bfloat16"]
SequenceTime = Literal["months", "exams"]
History = Literal["all", "latest"]
Start = Literal["published", "scaled"]
Disease = Literal["surveillance", "growth"]


@dataclass(frozen=True)
class StageConfig:
    """What all stages have: data, network, augmentation, optimiser, run."""

    # What is trained on.
    out: str = setting("", "folder of the run; a run in it is continued", decides="nothing")
    cohort: str = setting("cohort", "cohort in any form that `hccnet inspect` reads", decides="nothing")
    channel_table: str = setting(
        "", "table that says which image is which channel (hccnet inspect --write-channels)", decides="nothing"
    )
    phantom_patients: int = setting(
        0, "make the cohort first, a phantom of so many patients; 0: it is there", decides="nothing"
    )
    phantom_seed: int = setting(0, "seed of that phantom", decides="nothing")
    phantom_disease: Disease = setting("surveillance", "its disease model: surveillance or growth", decides="nothing")
    phantom_spacing: float = setting(3.0, "nominal voxel size of that phantom, mm", decides="nothing")
    cache: str = setting(
        "", "folder of prepared exams; may be shared by runs; empty: in the run's folder", decides="nothing"
    )
    processes: int = setting(0, "processes that prepare exams; 0: one per core", decides="nothing")
    channels: tuple[str, ...] = setting(("DWI_b0", "DWI_b150", "DWI_b400", "DWI_b800"), "of an exam, in order")
    preprocessing: dict[str, Any] = setting({}, "what differs from the published pipeline")

    # The network.
    variant: str = setting("pico", f"one of {', '.join(VARIANTS)}")
    block: BlockVersion = setting("v1", "ConvNeXt block: v1 as published, v2 with response normalisation")
    start: Start = setting(
        "published", "first weights: all SD 0.02; or scaled to each layer's width, with biases in the stem"
    )
    pooling: Pooling = setting(
        "mean",
        "of the last feature map; published: mean; cells: none, each cell is read as a series of its own",
    )
    drop_path: float = setting(0.0, "stochastic depth in the backbone")

    # Augmentation.
    jitter: int = setting(4, "the crop moves by up to so many voxels along each axis, per exam")
    flip: float = setting(0.5, "chance of a flip along each axis, the same for all exams of a patient")
    rotate: float = setting(0.5, "chance of a rotation by 90, 180 or 270 degrees, the same for all exams of a patient")
    intensity_scale: float = setting(0.1, "largest relative change of a channel's scale, per exam")
    intensity_shift: float = setting(0.1, "largest shift of a channel, in SD, per exam")

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
    clip_norm: float = setting(3.0, "largest norm of the gradient; 0: no limit")

    # The run.
    seed: int = setting(0, "of splits, weights, augmentation")
    device: str = setting("auto", "auto, cpu or cuda", decides="nothing")
    precision: Precision = setting(
        "float32", "of the forward pass; auto: bfloat16 where the GPU computes in it, else float32", decides="nothing"
    )  # what it comes to decides, and is part of a run's identity
    threads: int = setting(0, "of torch on the CPU; 0: as it is", decides="nothing")
    checkpoint_every: int = setting(50, "steps between checkpoints", decides="nothing")
    validate_every: int = setting(100, "steps between looks at held-out data; they change nothing", decides="nothing")

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Raises ValueError in words for what no run could be made with."""
        _require_fractions(self, ("drop_path", "flip", "rotate"))
        _require_at_least(self, 1, ("steps", "batch", "checkpoint_every", "validate_every"))
        _require_at_least(self, 0, ("phantom_patients", "phantom_seed", "processes", "jitter", "per_pass", "warmup"))
        _require_at_least(self, 0, ("threads", "seed", "intensity_scale", "intensity_shift", "weight_decay"))
        _require_at_least(self, 0, ("final_weight_decay", "clip_norm", "final_learning_rate"))
        _require_above_0(self, ("learning_rate", "phantom_spacing"))
        if not self.out:
            raise ValueError("out is empty; name the run's folder")
        if self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"device must be auto, cpu or cuda; it is {self.device!r}")
        if self.warmup >= self.steps:
            raise ValueError(f"warmup ({self.warmup}) must be shorter than the run ({self.steps} steps)")
        if len(set(self.channels)) < len(self.channels):
            raise ValueError("channels names one twice")
        _ = self.model  # it raises ValueError itself, as the next line does
        mean = self.preparation.channel_mean
        if mean is not None and len(mean) != len(self.channels):
            raise ValueError(f"channel_mean has {len(mean)} values for {len(self.channels)} channels")

    @property
    def missing_channels(self) -> bool:
        """Whether exams may lack channels."""
        return False

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
        return ModelConfig(**{**vars(named), "drop_path_rate": self.drop_path, "pooling": self.pooling})


def _require_fractions(config: StageConfig, names: tuple[str, ...]) -> None:
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 0 and below 1; it is {getattr(config, name):g}")


def _require_at_least(config: StageConfig, least: int, names: tuple[str, ...]) -> None:
    for name in names:
        if getattr(config, name) < least:
            raise ValueError(f"{name} must be at least {least}; it is {getattr(config, name):g}")


def _require_above_0(config: StageConfig, names: tuple[str, ...]) -> None:
    for name in names:
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} must be above 0; it is {getattr(config, name):g}")


@dataclass(frozen=True)
class PretrainConfig(StageConfig):
    """What both self-supervised stages have besides. They need no outcomes."""

    leave_out: str = setting(
        "", "splits.json of a supervised run: the patients set aside there as test are not read", decides="nothing"
    )
    precision: Precision = setting(
        "auto", "of the forward pass; auto: bfloat16 where the GPU computes in it, else float32", decides="nothing"
    )

    def check(self) -> None:
        """Raises ValueError in words for what no run could be made with."""
        if self.pooling == "cells":
            raise ValueError(
                "pooling cells is for fine-tuning without self-supervision: that needs one embedding per exam"
            )
        super().check()


@dataclass(frozen=True)
class BackboneConfig(PretrainConfig):
    """Stage 1: the backbone learns from single-channel crops by DINO (Caron et al., arXiv 2104.14294)."""

    out: str = setting("runs/backbone", "folder of the run; a run in it is continued", decides="nothing")
    steps: int = setting(16000, "updates of the weights")
    learning_rate: float = setting(4e-4, "for a batch of 128; it is scaled by batch / 128")
    warmup: int = setting(1600, "steps of linear warm-up")
    batch: int = setting(32, "exams per step, all processes together")
    per_pass: int = setting(0, "exams per forward pass; fewer need less memory; 0: the whole batch", decides="nothing")

    # The views. Each draws its own channel, place, flips, rotation and intensities.
    jitter: int = setting(12, "crops are drawn from the network's cube and so many voxels around it")
    flip: float = setting(0.5, "chance of a flip along each axis, per view")
    rotate: float = setting(0.5, "chance of a rotation by 90, 180 or 270 degrees, per view")
    intensity_scale: float = setting(0.1, "largest relative change of the scale, per view")
    intensity_shift: float = setting(0.1, "largest shift, in SD, per view")
    global_views: int = setting(2, "crops as large as the network's cube, read by student and teacher")
    local_views: int = setting(2, "smaller crops, read by the student")
    local_voxels: int = setting(48, "edge of a smaller crop")

    # Head and loss.
    outputs: int = setting(4096, "outputs of the head")
    student_temperature: float = setting(0.1, "of the student's softmax")
    teacher_temperature: float = setting(0.04, "of the teacher's softmax, after its warm-up")
    first_teacher_temperature: float = setting(0.04, "at the first step")
    teacher_warmup: int = setting(0, "steps over which the teacher's temperature rises to its value")
    centre_momentum: float = setting(0.9, "of the teacher's running centre")
    teacher_momentum: float = setting(0.9995, "of the teacher's weights; it rises to 1 by half a cosine")
    freeze_last: float = setting(0.1, "part of the warm-up during which the head's last layer stays as it is")

    # The probe, which trains nothing.
    target_file: str = setting(
        "", "table of an exam-level target for a linear probe before and after", decides="nothing"
    )
    target_column: str = setting("", "its column, a number per exam", decides="nothing")

    def check(self) -> None:
        """Raises ValueError in words for what no run could be made with."""
        _require_fractions(self, ("centre_momentum", "teacher_momentum"))
        _require_at_least(self, 1, ("global_views",))
        _require_at_least(self, 0, ("local_views", "teacher_warmup"))
        _require_at_least(self, 2, ("outputs",))
        _require_above_0(self, ("student_temperature", "teacher_temperature", "first_teacher_temperature"))
        if self.global_views + self.local_views < 2:
            raise ValueError("one view alone has no other to agree with; give global_views and local_views 2 in all")
        if not 0 <= self.freeze_last <= 1:
            raise ValueError(f"freeze_last must lie between 0 and 1; it is {self.freeze_last:g}")
        edge = self.preparation.crop_voxels
        if self.local_views and not 24 <= self.local_voxels <= edge:
            raise ValueError(
                f"local_voxels must lie between 24 (the network divides each axis by 24) and {edge}, the edge of a global "
                f"crop; it is {self.local_voxels}"
            )
        if bool(self.target_file) != bool(self.target_column):
            raise ValueError("target_file and target_column go together")
        super().check()


@dataclass(frozen=True)
class EncoderConfig(PretrainConfig):
    """Stage 2: the transformer learns to tell ordered from shuffled sequences of embeddings; the backbone is frozen."""

    out: str = setting("runs/encoder", "folder of the run; a run in it is continued", decides="nothing")
    backbone_from: str = setting(
        "", "folder of the run, or bundle, whose backbone is frozen here; empty: an untrained one", decides="nothing"
    )
    steps: int = setting(1000, "updates of the weights")
    learning_rate: float = setting(4e-4, "for a batch of 128; it is scaled by batch / 128")
    warmup: int = setting(100, "steps of linear warm-up")
    batch: int = setting(32, "sequences per step, all processes together")
    per_pass: int = setting(0, "sequences per forward pass; 0: the whole batch", decides="nothing")
    dropout: float = setting(0.1, "in the transformer")
    time: SequenceTime = setting("months", "an exam's time: months, or exams (its index)")
    max_exams: int = setting(7, "of a sequence in training; others drop at random")
    exam_dropout: float = setting(0.0, "chance of each exam to be left out of a sequence in training; two always stay")
    draws: int = setting(4, "augmentation draws per exam, encoded once and kept, besides the exam as it is")
    shuffled: float = setting(0.5, "chance of a sequence to be shuffled")
    validation_fraction: float = setting(0.2, "part of the patients on which the AUROC is reported")

    def check(self) -> None:
        """Raises ValueError in words for what no run could be made with."""
        _require_fractions(self, ("dropout", "exam_dropout", "validation_fraction"))
        _require_at_least(self, 2, ("max_exams",))
        _require_at_least(self, 0, ("draws",))
        if not 0 < self.shuffled < 1:
            raise ValueError(f"shuffled must lie between 0 and 1; it is {self.shuffled:g}")
        super().check()

    @property
    def model(self) -> ModelConfig:
        """What the network is built from."""
        return ModelConfig(**{**vars(super().model), "dropout": self.dropout})


@dataclass(frozen=True)
class FinetuneConfig(StageConfig):
    """Stage 3, the supervised one: the whole model learns the hazards of a diagnosis."""

    name: str = setting("hccnet", "name of the bundle", decides="nothing")
    out: str = setting("runs/finetune", "folder of the run; a run in it is continued", decides="nothing")
    cohort: str = setting("cohort", "cohort in any form that `hccnet inspect` reads, with outcomes", decides="nothing")
    horizons_months: tuple[float, ...] = setting(
        (6.0, 12.0, 18.0, 24.0, 36.0),
        "ends of the intervals whose hazards are learned, months; published: [12]",
        decides="second phase",
    )
    horizon_months: float = setting(
        12.0, "the main one of these, of thresholds, AUROC and explanations", decides="second phase"
    )

    # What it starts from. What these runs hold decides the result, not where they lie.
    backbone_from: str = setting(
        "", "folder of a self-supervised run whose backbone is taken over; empty: none", decides="nothing"
    )
    encoder_from: str = setting(
        "", "folder of a sequence-order run whose transformer is taken over; empty: none", decides="nothing"
    )

    # The network.
    dropout: float = setting(0.1, "in the transformer", decides="second phase")
    head: HeadForm = setting(
        "tanh",
        "published: tanh, then a norm; gelu: a norm first, which learns rare events faster",
        decides="second phase",
    )
    change: bool = setting(
        False,
        "whether the transformer also gets the change to the landmark and the slope over time; not published",
        decides="second phase",
    )
    time: SequenceTime = setting(
        "months", "an exam's time: months, or exams (its index) to see what dates are worth", decides="second phase"
    )
    history: History = setting(
        "all", "exams that are read: all, or the latest only to see what history is worth", decides="second phase"
    )

    # Examples.
    landmarks: Literal["all", "latest"] = setting(
        "all", "exams that are landmarks: all, or the latest whose outcome at the main horizon is known"
    )
    landmark_weight: LandmarkWeight = setting(
        "number",
        "with all landmarks, of a patient's n-th exam: 1/n, so that a patient with many does not dominate; published: equal",
        decides="second phase",
    )
    max_exams: int = setting(7, "of a sequence in training; earlier ones drop at random")
    exam_dropout: float = setting(
        0.0, "chance of each earlier exam to be left out of a sequence in training", decides="second phase"
    )
    subsequences: int = setting(
        1, "sequences drawn per landmark and step where exam_dropout is above 0", decides="second phase"
    )

    # The loss.
    loss: Loss = setting(
        "plain",
        "plain: likelihood of the follow-up; published, with one horizon: balanced (classes) or focal",
        decides="second phase",
    )
    focal_gamma: float = setting(2.0, "of the focal loss", decides="second phase")
    channel_dropout: float = setting(
        0.0, "chance of each channel to be left out of an exam in training; above 0 the bundle reads exams without some"
    )
    target_file: str = setting("", "table of an exam-level target beside the label: patient_id, exam_id and the column")
    target_column: str = setting("", "its column, a number per exam, e.g. a lesion burden or a LI-RADS category")
    target_masks: str = setting(
        "",
        "instead of the table, each exam's lesion mask, a path in the cohort with {patient_id} and {exam_id}: each cell of every "
        "stage learns how much lesion it holds",
    )
    target_weight: float = setting(0.0, "weight of the target's squared error (of its z-score); 0: no target")
    target_stages: Literal["last", "all"] = setting(
        "last", "where the target is guessed: the embedding, or every stage too"
    )

    # The first phase: the backbone alone learns the exam-level target; no label is used.
    exam_steps: int = setting(0, "updates of the weights in the first phase; 0: there is none")
    exam_batch: int = setting(0, "patients per step of the first phase; 0: as in the second")
    exam_learning_rate: float = setting(4e-4, "of the first phase, for a batch of 128; it is scaled by batch / 128")
    exams_from: str = setting(
        "", "folder of a run whose first phase, of the same settings and patients, is taken over", decides="nothing"
    )

    # The second phase.
    frozen: bool = setting(
        False,
        "whether the backbone stays as it is in the second phase; transformer and head then learn from kept embeddings",
        decides="second phase",
    )
    draws: int = setting(
        4,
        "with frozen, augmentation draws per exam, encoded once and kept, besides the exam as it is",
        decides="second phase",
    )
    layer_decay: float = setting(
        1.0, "learning rate of each earlier stage relative to the next; 1: all alike", decides="second phase"
    )
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
    demonstration: bool = setting(False, "the bundle's results have no meaning for a patient", decides="nothing")

    def check(self) -> None:
        """Raises ValueError in words for what no run could be made with."""
        _require_fractions(self, ("dropout", "exam_dropout", "channel_dropout", "average", "test_fraction"))
        _require_at_least(self, 1, ("max_exams", "subsequences", "seeds"))
        _require_at_least(self, 0, ("exam_steps", "exam_batch", "target_weight", "focal_gamma"))
        _require_at_least(self, 1, ("draws",))
        _require_at_least(self, 2, ("folds",))
        _require_above_0(self, ("exam_learning_rate", "layer_decay"))
        count = len(self.channels)
        if self.channel_dropout and count < 2:
            raise ValueError("channel_dropout is above 0, but there is one channel: none can be left out")
        if self.channel_dropout >= 1 - 1 / count and count > 1:
            raise ValueError(
                f"channel_dropout must be below {1 - 1 / count:.2g}: one of the {count} channels always stays"
            )
        if self.change and self.time != "months":
            raise ValueError("change needs time in months: it divides by the time between exams")
        check_horizons(self.horizons_months, self.horizon_months)
        if self.loss != "plain" and len(self.horizons_months) > 1:
            raise ValueError(
                f"loss {self.loss} is for one horizon: give horizons_months [{self.horizon_months:g}], or loss plain"
            )
        if self.target_masks and self.target_file:
            raise ValueError("target_file and target_masks are two targets; give one of them")
        if self.target_masks and sorted(re.findall(r"[{][^{}]*[}]?|[}]", self.target_masks)) != [
            "{exam_id}",
            "{patient_id}",
        ]:
            raise ValueError("target_masks must hold {patient_id} and {exam_id} once each, and no other braces")
        if self.frozen and self.target_weight > 0 and not self.exam_steps:
            raise ValueError(
                "a frozen backbone learns a target in the first phase only; give exam_steps, or target_weight 0"
            )
        if self.target_weight > 0 and not (self.target_masks or (self.target_file and self.target_column)):
            raise ValueError("target_weight is above 0: give target_masks, or target_file and target_column")
        if self.exam_steps > 0 and not self.target_weight > 0:
            raise ValueError("exam_steps is above 0, but there is no exam-level target (target_weight above 0)")
        if 0 < self.exam_steps <= self.warmup:
            raise ValueError(f"warmup ({self.warmup}) must be shorter than the first phase ({self.exam_steps} steps)")
        super().check()

    @property
    def missing_channels(self) -> bool:
        """Whether exams may lack channels: the networks are trained for it."""
        return self.channel_dropout > 0

    @property
    def main(self) -> int:
        """Index of the main horizon."""
        return self.horizons_months.index(self.horizon_months)

    @property
    def members(self) -> int:
        """Networks of the ensemble."""
        return self.folds * self.seeds if self.ensemble == "folds" else self.seeds

    @property
    def model(self) -> ModelConfig:
        """What the networks are built from."""
        own = {"dropout": self.dropout, "outputs": len(self.horizons_months), "head": self.head, "change": self.change}
        return ModelConfig(**{**vars(super().model), **own})
