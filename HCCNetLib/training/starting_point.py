"""What the supervised stage takes over from the self-supervised ones: strictly, and told tensor by tensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from HCCNetLib.models import HCCNet, ModelConfig
from HCCNetLib.records import Refusal
from HCCNetLib.training.pretraining import (
    OF_BACKBONE,
    OF_ENCODER,
    Pretrained,
    load_backbone,
    read_pretrained,
    require_alike,
    require_same_network,
)
from HCCNetLib.training.settings import FinetuneConfig
from HCCNetLib.training.splits import SPLITS_FILE

# Of stage 2. Its last norm and linear layer decide whether a sequence is shuffled, which is no use for a risk.
TAKEN_OVER = ("cls_token", "encoder.", "pooler.")


@dataclass(frozen=True)
class Origin:
    """Where a tensor of the first weights came from.

    Args:
        tensor: its name.
        source: folder of the run, or empty.
        how: ``drawn``, ``taken over``, or what was done to it.
    """

    tensor: str
    source: str
    how: str

    def to_dict(self) -> dict[str, str]:
        """As plain data."""
        return dict(vars(self))


@dataclass(frozen=True)
class StartingPoint:
    """The runs that a network begins with; either may be None.

    Args:
        backbone: whose backbone is taken over.
        encoder: whose transformer is taken over.
    """

    backbone: Pretrained | None = None
    encoder: Pretrained | None = None

    @property
    def digests(self) -> list[str]:
        """Of the weights that are taken over, for a run's identity; empty where there are none."""
        return [f"{name} {part.digest}" for name, part in self._parts()]

    def describe(self) -> dict[str, Any] | None:
        """For the bundle: what was taken over, naming no place; None where nothing was."""
        kept = ("stage", "trained_on", "steps", "batch", "seed", "collapsed", "probe", "order_auroc")
        parts = {name: {k: part.about[k] for k in kept if k in part.about} for name, part in self._parts()}
        return parts or None

    def require_unseen(self, test: Sequence[str], folder: Path) -> None:
        """Refuses where a self-supervised run read patients who are set aside as test.

        Args:
            test: their ids.
            folder: of the supervised run, which holds the split.
        """
        for _, part in self._parts():
            seen = set(test) & (part.read or frozenset())
            if seen:
                message = (
                    f"The run {part.folder} read {len(seen)} of the {len(test)} patients who are set aside as test. Run it again "
                    f"with leave_out {folder / SPLITS_FILE}, or in another folder."
                )
                raise Refusal("test_was_read", message)

    def apply(self, network: HCCNet) -> list[Origin]:
        """Puts the weights into a network; every tensor of it is told of, in its order."""
        told: dict[str, Origin] = {}
        if self.backbone is not None:
            adapted, channels = load_backbone(network.backbone, self.backbone), network.config.channels
            for name in network.backbone.state_dict():
                how = f"repeated over {channels} channels, divided by {channels}" if name in adapted else "taken over"
                told[f"backbone.{name}"] = Origin(f"backbone.{name}", str(self.backbone.folder), how)
        if self.encoder is not None:
            _load_encoder(network, self.encoder)
            names = [name for name in network.state_dict() if name.startswith(TAKEN_OVER)]
            told |= {name: Origin(name, str(self.encoder.folder), "taken over") for name in names}
        return [told.get(name, Origin(name, "", "drawn")) for name in network.state_dict()]

    def _parts(self) -> list[tuple[str, Pretrained]]:
        parts = (("backbone", self.backbone), ("encoder", self.encoder))
        return [(name, part) for name, part in parts if part is not None]


def find_starting_point(config: FinetuneConfig) -> StartingPoint:
    """Reads the runs that a configuration names, and refuses what does not fit it.

    Raises:
        Refusal: a run is missing or unfinished, another network, other preprocessing, or the transformer learned on
            another backbone's embeddings.
    """
    backbone = read_pretrained(Path(config.backbone_from)) if config.backbone_from else None
    encoder = read_pretrained(Path(config.encoder_from)) if config.encoder_from else None
    if backbone is not None:
        require_same_network(config, backbone, OF_BACKBONE)
        _require_no_labels(backbone)
    if encoder is not None:
        _require_encoder(config, encoder, backbone)
    return StartingPoint(backbone, encoder)


def _require_no_labels(part: Pretrained) -> None:
    """A patient's probability is only out of fold if nothing that it comes from knew the label."""
    if part.about.get("knows_labels"):
        message = (
            f"The backbone in {part.folder} was trained with labels. Where it knows these patients, calibration and thresholds "
            f"would rest on labels that it has seen. Take a self-supervised run."
        )
        raise Refusal("knows_labels", message)


def _require_encoder(config: FinetuneConfig, encoder: Pretrained, backbone: Pretrained | None) -> None:
    if encoder.about["stage"] != "encoder":
        message = f"{encoder.folder} is a run of pretrain-backbone: it has no transformer. Name it in backbone_from."
        raise Refusal("no_encoder", message)
    require_same_network(config, encoder, OF_ENCODER)
    if encoder.about["time"] != config.time:
        message = (
            f"The transformer in {encoder.folder} learned with time in {encoder.about['time']}, not {config.time}."
        )
        raise Refusal("other_time", f"{message} Give the same time.")
    if backbone is None or not _reads_embeddings_of(encoder, backbone):
        message = (
            f"The transformer in {encoder.folder} learned on the embeddings of another backbone than the one that is taken "
            f"over. Name in backbone_from the run whose backbone it read; for one that was not trained, the same folder."
        )
        raise Refusal("other_backbone", message)


def _reads_embeddings_of(encoder: Pretrained, backbone: Pretrained) -> bool:
    frozen = HCCNet(ModelConfig.from_dict(encoder.about["model"])).backbone
    load_backbone(frozen, backbone)
    own, other = encoder.backbone, frozen.state_dict()
    return own.keys() == other.keys() and all(torch.equal(own[name], other[name]) for name in own)


def _load_encoder(network: HCCNet, source: Pretrained) -> None:
    own = {name: tensor for name, tensor in network.state_dict().items() if name.startswith(TAKEN_OVER)}
    weights = {name: tensor for name, tensor in source.weights.items() if name.startswith(TAKEN_OVER)}
    require_alike(weights, own, source.folder)
    network.load_state_dict({**network.state_dict(), **weights}, strict=True)


def summarise(origins: list[Origin]) -> list[str]:
    """A sentence per source and treatment."""
    counted = Counter((_part_of(o.tensor), o.source, o.how) for o in origins)
    return [
        f"{part}: {count} tensor(s) {how}{f', from {source}' if source else ''}"
        for (part, source, how), count in counted.items()
    ]


def _part_of(tensor: str) -> str:
    return tensor.split(".")[0]
