"""What the two self-supervised stages share: data without labels, the run's folder, and the file that is handed on.

A run's folder: ``config.yaml``, ``checkpoint.safetensors``, ``log.jsonl``, ``left_out.json`` and ``read.json`` (who was read; these
two name patients and stay there) and, at the end, ``weights.safetensors``, which says in its header what it is, and
``report.json``, the same for people and scripts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from HCCNetLib.bundles import Bundle
from HCCNetLib.bundles.bundle import DESCRIPTION_FILE
from HCCNetLib.inference import software_versions
from HCCNetLib.inference.cache import PreparedCache
from HCCNetLib.models import HCCNet, ModelConfig
from HCCNetLib.models.convnext3d import ConvNeXt3d
from HCCNetLib.preprocessing.pipeline import PIPELINE_VERSION
from HCCNetLib.records import Cohort, Refusal
from HCCNetLib.training.checkpoint import write_json, write_whole
from HCCNetLib.training.configuration import config_text, deciding
from HCCNetLib.training.digests import weights_digest
from HCCNetLib.training.examples import Examples, cohort_targets, gather_exams, read_cohort, training_cache
from HCCNetLib.training.loop import precision_of
from HCCNetLib.training.settings import BackboneConfig, EncoderConfig, PretrainConfig, StageConfig
from HCCNetLib.training.splits import Splits
from HCCNetLib.training.start import scale_weights, seeded

CONFIG_FILE, WEIGHTS_FILE, REPORT_FILE = "config.yaml", "weights.safetensors", "report.json"
LEFT_OUT_FILE, READ_FILE = "left_out.json", "read.json"
FORMAT_VERSION = 1
# Settings of a network on which the shapes or the meaning of its weights hang.
OF_BACKBONE = ("depths", "dims", "version", "pooling", "eps")
OF_ENCODER = (*OF_BACKBONE, "layers")
STEM = "stages.0.downsample.0.weight"
_PER_CHANNEL = ("channel_mean", "channel_sd")  # they follow from the channels, which differ in number
STAGES: Mapping[type[PretrainConfig], str] = {BackboneConfig: "backbone", EncoderConfig: "encoder"}

Progress = Callable[[str, int, int], None]
AnyConfig = TypeVar("AnyConfig", bound=PretrainConfig)


@dataclass(frozen=True)
class PretrainRun(Generic[AnyConfig]):
    """A self-supervised stage's data, ready for training.

    Args:
        config: the settings.
        examples: the cohort's patients, without labels.
        cache: of prepared exams.
        cohort: name of the cohort as given.
        device: on which it runs.
        identity: a digest of all that decides the weights.
    """

    config: AnyConfig
    examples: Examples
    cache: PreparedCache
    cohort: str
    device: torch.device
    identity: str

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.config.out)

    @property
    def precision(self) -> str:
        """Of the forward pass."""
        return precision_of(self.config.precision, self.device)

    @property
    def finished(self) -> Pretrained | None:
        """What this run has handed on already; raises Refusal where that is another run's."""
        if not (self.folder / WEIGHTS_FILE).is_file():
            return None
        found = read_pretrained(self.folder)
        if found.about["identity"] != self.identity:
            message = (
                f"{self.folder} holds a run with other settings, other patients or another version. Give the same, or choose "
                f"another folder with --out."
            )
            raise Refusal("other_run", message)
        return found


def open_pretraining(
    config: AnyConfig, device: torch.device, progress: Progress, is_first: bool = True, of_backbone: str = ""
) -> PretrainRun[AnyConfig]:
    """Reads the cohort and prepares its exams; the first of several processes writes the settings.

    Args:
        config: of the stage.
        device: on which it will run.
        progress: called with stage, done and total.
        is_first: of several processes.
        of_backbone: digest of the weights that the stage begins with, if they come from elsewhere.

    Raises:
        Refusal: something about the data or the folder; see the functions called.
    """
    cohort = read_cohort(config)
    without = _set_aside(config, cohort)
    cache = training_cache(config)
    targets = cohort_targets(config) if isinstance(config, BackboneConfig) and config.target_file else {}
    examples = gather_exams(cohort, config, cache, targets, without, progress)
    names = [e.patient_id for e in examples.all]
    settings = [deciding(config), precision_of(config.precision, device), of_backbone, PIPELINE_VERSION]
    data = examples.digest(names, with_targets=False)  # they are only probed for
    content = json.dumps([STAGES[type(config)], settings, data], sort_keys=True)
    identity = hashlib.sha256(content.encode()).hexdigest()
    run = PretrainRun(config, examples, cache, Path(config.cohort).resolve().name, device, identity)
    _ = run.finished  # before the settings on file, by which another was trained, are replaced
    if is_first:
        write_json(run.folder / LEFT_OUT_FILE, examples.left_out)
        write_json(run.folder / READ_FILE, names)
        write_whole(run.folder / CONFIG_FILE, config_text(config).encode())
    return run


def _set_aside(config: PretrainConfig, cohort: Cohort) -> tuple[str, ...]:
    """The patients whom no training may read."""
    if not config.leave_out:
        return ()
    path = Path(config.leave_out)
    if not path.is_file():
        message = (
            f"The split {path}, whose test patients are to be left out, does not exist. The supervised run draws it: hccnet train "
            f"does so first. Or leave leave_out empty."
        )
        raise Refusal("missing_split", message)
    test = Splits.read(path).test
    known = {*(patient.patient_id for patient in cohort.patients), *cohort.refused}
    if test and not known & set(test):
        message = f"None of the {len(test)} test patients of {path} is in this cohort: it is another cohort's split."
        raise Refusal("other_split", f"{message} Name the right one, or leave leave_out empty.")
    return test


def seeded_network(config: StageConfig, model: ModelConfig, *key: int) -> HCCNet:
    """A network before training, whose weights follow from the seed and the key."""
    with seeded(config.seed, *key):
        network = HCCNet(model)
        if config.start == "scaled":
            scale_weights(network.backbone)
    return network


def hand_on(run: PretrainRun[AnyConfig], weights: Mapping[str, Tensor], results: Mapping[str, Any]) -> Pretrained:
    """Writes what later stages take over, and what is known of it."""
    config, examples = run.config, run.examples
    kind = "generated patients (phantom)" if examples.phantom else "patients"
    seed = f", seed {config.phantom_seed}" if config.phantom_patients else ""
    exams = sum(len(e.exams) for e in examples.all)
    about = {
        "format_version": FORMAT_VERSION,
        "stage": STAGES[type(config)],
        "identity": run.identity,
        "model": config.model.to_dict(),
        "channels": list(config.channels),
        "preprocessing": config.preparation.to_dict(),
        "trained_on": {
            "summary": f"{len(examples.all)} {kind} ({exams} exams) of the cohort {run.cohort}{seed}; no labels",
            "phantom": examples.phantom,
            "patients": len(examples.all),
            "exams": exams,
            "left_out": examples.reasons(),
        },
        "steps": config.steps,
        "batch": config.batch,
        "seed": config.seed,
        "precision": run.precision,
        "time": config.time if isinstance(config, EncoderConfig) else None,
        "software": software_versions(),
        **results,
    }
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    # The report first: a run whose weights are there is finished.
    write_json(run.folder / REPORT_FILE, about)
    write_whole(run.folder / WEIGHTS_FILE, safetensors.torch.save(plain, {"about": json.dumps(about)}))
    return Pretrained(run.folder, about, plain)


@dataclass(frozen=True)
class Pretrained:
    """What a self-supervised run has handed on.

    Args:
        folder: of the run.
        about: what it is; see ``hand_on``.
        weights: ``backbone.…`` and, of stage 2, the transformer's; single precision.
    """

    folder: Path
    about: Mapping[str, Any]
    weights: Mapping[str, Tensor]

    @cached_property
    def digest(self) -> str:
        """Of the weights."""
        return weights_digest(self.weights)

    @property
    def read(self) -> frozenset[str] | None:
        """Ids of the patients whom the run read; None where the file that says so is gone."""
        try:
            return frozenset(json.loads((self.folder / READ_FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    @property
    def backbone(self) -> dict[str, Tensor]:
        """The backbone's weights by their names in it."""
        prefix = "backbone."
        return {k.removeprefix(prefix): v for k, v in self.weights.items() if k.startswith(prefix)}

    @property
    def input_channels(self) -> int:
        """Of the backbone: 1 after stage 1, those of an exam after stage 2."""
        return self.backbone[STEM].shape[1]


def read_pretrained(folder: Path) -> Pretrained:
    """Reads what a self-supervised run has handed on; of a bundle, the backbone of its first member.

    Raises:
        Refusal: it is not there, not finished, damaged, or something else.
    """
    path = folder / WEIGHTS_FILE
    if (folder / DESCRIPTION_FILE).is_file():
        return _of_bundle(Bundle.open(folder))
    if not path.is_file():
        message = (
            f"{folder} holds no finished self-supervised run ({WEIGHTS_FILE} is missing) and is no bundle. Finish "
            f"pretrain-backbone or pretrain-encoder there, or check the path."
        )
        raise Refusal("no_pretrained", message)
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["about"])
        weights = safetensors.torch.load_file(path)
        known = about["format_version"] == FORMAT_VERSION and about["stage"] in STAGES.values()
        about["model"], about["preprocessing"], about["channels"], about["trained_on"]["summary"], about["identity"]
        is_whole = f"backbone.{STEM}" in weights and all(bool(tensor.isfinite().all()) for tensor in weights.values())
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        message = f"{path} is no readable file of a self-supervised run. Check the path, or run that stage again."
        raise Refusal("bad_pretrained", message) from error
    if not is_whole:
        message = f"{path} lacks weights, or has some that are not a number. Run that stage again."
        raise Refusal("bad_pretrained", message)
    if not known:
        raise Refusal("bad_pretrained", f"{path} was written by another version of HCCNet. Run that stage again.")
    return Pretrained(folder, about, weights)


def _of_bundle(bundle: Bundle) -> Pretrained:
    description = bundle.description
    about = {
        "stage": "bundle",
        "knows_labels": True,
        "model": description.model.to_dict(),
        "channels": list(description.channels),
        "preprocessing": description.preprocessing.to_dict(),
        "trained_on": {"summary": f"the first network of the bundle {description.name}"},
    }
    weights = bundle.member(0).backbone.state_dict()
    return Pretrained(bundle.path, about, {f"backbone.{name}": tensor for name, tensor in weights.items()})


def repeat_stem(weight: Tensor, channels: int) -> Tensor:
    """A stem of one input channel (D, 1, 3, 3, 3) for C of them: repeated, and divided by C.

    C equal channels then give what one gave.
    """
    return (weight / channels).repeat(1, channels, 1, 1, 1)


def load_backbone(backbone: ConvNeXt3d, source: Pretrained) -> list[str]:
    """Takes over a backbone, strictly: every tensor, each of the right shape; the stem may be of one channel.

    Returns:
        Names of the tensors that had to be adapted.

    Raises:
        Refusal: a tensor is missing, superfluous or of another shape.
    """
    weights, own = source.backbone, backbone.state_dict()
    channels, adapted = own[STEM].shape[1], []
    if STEM in weights and weights[STEM].shape[1] == 1 < channels:
        weights[STEM], adapted = repeat_stem(weights[STEM], channels), [STEM]
    require_alike(weights, own, source.folder)
    backbone.load_state_dict(weights, strict=True)
    return adapted


def require_alike(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], folder: Path) -> None:
    """Refuses weights that are not, tensor by tensor, those of the network that is to have them."""
    missing, superfluous = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    other = sorted(n for n in own.keys() & weights.keys() if own[n].shape != weights[n].shape)
    for names, what in ((missing, "lacks"), (superfluous, "has, besides,"), (other, "has in another shape")):
        if names:
            message = (
                f"The weights in {folder} don't fit this network: it {what} {len(names)} tensor(s), e.g. {names[0]}. Use the "
                f"same variant, block, pooling and channels."
            )
            raise Refusal("weights_do_not_fit", message)


def differing_settings(
    config: StageConfig, model: Mapping[str, Any], preprocessing: Mapping[str, Any], names: tuple[str, ...]
) -> list[str]:
    """Settings of a network and of its images in which a run differs from a stage.

    Args:
        config: the stage's.
        model: the run's ``ModelConfig``, as plain data.
        preprocessing: the run's, as plain data; without its numbers per channel they are not compared.
        names: of the model's settings that must be alike.
    """
    own, images = config.model.to_dict(), config.preparation.to_dict()
    return [n for n in names if own[n] != model.get(n)] + [
        n for n in preprocessing if images.get(n) != preprocessing[n]
    ]


def without_channels(preprocessing: Mapping[str, Any]) -> dict[str, Any]:
    """Preprocessing without its numbers per channel, for comparisons across channels."""
    return {name: value for name, value in preprocessing.items() if name not in _PER_CHANNEL}


def require_same_network(config: StageConfig, part: Pretrained, names: tuple[str, ...]) -> None:
    """Refuses weights of another network, or of one that saw other images than this one will."""
    several = part.input_channels > 1 or part.about["stage"] == "encoder"
    images = part.about["preprocessing"] if several else without_channels(part.about["preprocessing"])
    differing = differing_settings(config, part.about["model"], images, names)
    if several and list(config.channels) != part.about["channels"]:
        differing.append("channels")
    if differing:
        message = (
            f"The weights in {part.folder} are of another network or of other images; these settings differ: "
            f"{', '.join(differing)}. Give the same, or run that stage again."
        )
        raise Refusal("weights_do_not_fit", message)
